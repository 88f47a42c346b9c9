"""CPU time and wall clock from the start of a process to its first work.

    python tests/performance/benchmark_start.py [--repeats 5]

The command line is started as a user starts it. A worker is a spawned process, as `processes.py` makes them:
the time is that until it has imported what its first job needs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from importlib import import_module
from multiprocessing import get_context

HELP = [sys.executable, "-m", "nnunet_softlabel.cli", "--help"]
WORKERS = {  # what a worker does: the module of its job
    "worker of convert": "nnunet_softlabel.conversion.one_case.write",
    "worker of inspect": "nnunet_softlabel.inspection.run",
    "worker of evaluate": "nnunet_softlabel.evaluation.run",
    "worker of tune-threshold": "nnunet_softlabel.evaluation.tuning",
    "worker of calibrate": "nnunet_softlabel.evaluation.calibrate",
    "worker of maps": "nnunet_softlabel.evaluation.maps",
    "worker of average": "nnunet_softlabel.evaluation.average",
    "worker of refine": "nnunet_softlabel.refinement.run",
    "worker of preprocess": "nnunet_softlabel.preprocessing.run",
    "watcher of a training": "nnunet_softlabel.training.supervisor",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="starts of each; the median counts")
    args = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    print("| what starts | CPU s | wall clock s |\n|---|---|---|")
    for name in ("nnunet_softlabel --help", *WORKERS):
        found = [_start(name) for _ in range(args.repeats)]
        cpu, wall = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {cpu:.2f} | {wall:.2f} |", flush=True)


def _start(name: str) -> tuple[float, float]:
    """CPU seconds and seconds of one start."""
    before, start = _cpu_of_children(), time.perf_counter()
    if name in WORKERS:
        process = get_context("spawn").Process(target=_import, args=(WORKERS[name],))
        process.start()
        process.join()
        assert process.exitcode == 0, name
    else:
        subprocess.run(HELP, check=True, stdout=subprocess.DEVNULL)
    return _cpu_of_children() - before, time.perf_counter() - start


def _import(module: str) -> None:
    import_module("nnunet_softlabel.cli")  # a worker of the command line imports its main module, too
    import_module(module)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()

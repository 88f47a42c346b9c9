"""Would the tests notice? Mutants of the modules that compute what is published; run by hand.

    pip install -e '.[test,mutation]'
    python -m tests.mutation fusion --sample 60               # 60 of the mutants, drawn by lot with seed 0
    python -m tests.mutation all --sample 60 --results FILE   # goes on where a run with FILE was interrupted

A mutant is the code with one operator, comparison, constant or branch changed. It is killed when a fast test
of its group fails. cosmic-ray's operators make mutants, in a copy of the tree. Mutants of annotations
and signatures are left out: no value depends on them. What survived is printed with its difference;
docs/reliability.md keeps the result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutants import Mutant, drawn, mutants_of, tree_of
from tests.mutation.trial import PACKAGE, NotThere, baseline_of, preload, try_out

ROOT = Path(__file__).parents[2]
THERE, FOLDER = "MUTANTS_TREE", "tree"


@dataclass(frozen=True)
class Group:
    """Modules, below the package, and the tests that must notice.

    Attributes:
        modules: what is changed.
        tests: files or folders.
        without: libraries that are not there in these runs, for their import costs more than the tests;
            tests that compare with them are skipped.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ("torch", "torchmetrics", "monai", "panoptica")


GROUPS = {
    "fusion": Group(
        tuple(
            f"fusion/{m}.py"
            for m in ("voting", "staple", "rater_rates", "rater_votes", "shape", "smoothing")
        ),
        tuple(
            f"tests/fusion/test_{t}.py"
            for t in ("fusion_laws", "voting", "staple", "rater_votes", "shape", "smoothing")
        ),
    ),
    "lesions": Group(
        tuple(
            f"fusion/{m}.py"
            for m in (
                "candidate", "detection", "detection_fit", "detection_likelihood", "detection_model",
                "lesion_candidates", "lesions", "mask_components",
            )
        ),
        tuple(
            f"tests/fusion/test_{t}.py"
            for t in ("detection", "detection_likelihood", "lesion_candidates", "lesions", "mask_components")
        ),
    ),
    "priors": Group(("priors",), ("tests/priors",)),
    "losses": Group(("losses",), ("tests/losses",), without=()),
    "metrics": Group(("metrics",), ("tests/metrics", "tests/evaluation/test_case_scores.py")),
    "thresholds": Group(
        ("evaluation/thresholds.py", "evaluation/tuning.py"),
        ("tests/evaluation/test_thresholds.py", "tests/evaluation/test_tuning.py"),
    ),
    "calibration": Group(
        tuple(
            f"evaluation/{m}.py"
            for m in ("map_fitting", "maps", "recalibration", "calibration_scores", "voxel_sample")
        ),
        tuple(f"tests/evaluation/test_{t}.py" for t in ("map_fitting", "maps", "recalibration", "calibrate")),
    ),
    "significance": Group(
        ("report/significance.py", "report/comparison.py"),
        ("tests/report/test_comparison.py", "tests/report/test_verdict.py"),
    ),
}  # fmt: skip


class Results:
    """How each mutant ended, on disk as soon as known; '' is a survivor."""

    def __init__(self, path: Path | None, again: bool) -> None:
        self.path, self.known = path, dict[str, str]()
        if path is not None and path.exists():
            lines = map(json.loads, path.read_text().splitlines())
            self.known = {line["key"]: line["end"] for line in lines}
        if again:
            self.known = {key: end for key, end in self.known.items() if end}

    def add(self, key: str, mutant: Mutant, end: str) -> None:
        self.known[key] = end
        if self.path is not None:
            with self.path.open("a") as file:
                line = f"{mutant.module}:{mutant.start[0]} {mutant.operator}"
                file.write(json.dumps({"key": key, "mutant": line, "end": end}) + "\n")


def run(name: str, sample: int, seed: int, results: Results) -> None:
    """Print how many mutants of the group were killed, and those that were not."""
    group = GROUPS[name]
    sources = tree_of(Path.cwd(), [f"{PACKAGE}/{module}" for module in group.modules])
    everything = [mutant for module, source in sources.items() for mutant in mutants_of(module, source)]
    chosen = drawn(everything, sample, seed)
    open_ = [mutant for mutant in chosen if mutant.key(sources[mutant.module]) not in results.known]
    if open_:
        sys.meta_path.insert(0, NotThere(group.without))
        baseline = baseline_of(group.tests, Path.cwd().parent)
        preload(baseline.imports)
        print(f"{name}: {len(baseline.seconds)} tests pass on the unchanged code", flush=True)
    for mutant in open_:
        source = sources[mutant.module]
        end = try_out(mutant, source, group.tests, baseline)
        results.add(mutant.key(source), mutant, end)
        _tell(mutant, source, end)
    if not open_:
        for mutant in chosen:
            _tell(mutant, sources[mutant.module], results.known[mutant.key(sources[mutant.module])])
    killed = sum(bool(results.known[mutant.key(sources[mutant.module])]) for mutant in chosen)
    print(f"{name}: {killed} of {len(chosen)} killed ({len(everything)} mutants in all)", flush=True)


def _tell(mutant: Mutant, source: str, end: str) -> None:
    if not end:
        print(f"--- {mutant.module}:{mutant.start[0]} survived\n{mutant.difference(source)}", flush=True)


def start_in_copy(arguments: Sequence[str]) -> int:
    """The same command in a copy of the tree, so that no mutant is ever in the tree itself."""
    with tempfile.TemporaryDirectory(prefix="mutants_") as temporary:
        folder = Path(temporary) / FOLDER
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info"))
        environment = os.environ | {"PYTHONPATH": str(folder), THERE: str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.mutation", *arguments]
        with subprocess.Popen(command, cwd=folder, env=environment) as process:
            try:
                return process.wait()
            finally:
                process.terminate()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("group", choices=[*GROUPS, "all"])
    parser.add_argument("--sample", type=int, default=60, help="Mutants per group (default 60).")
    parser.add_argument("--seed", type=int, default=0, help="Of the draw (default 0).")
    parser.add_argument("--results", type=Path, help="Keeps each result; a second run goes on from it.")
    parser.add_argument("--again", action="store_true", help="Try the survivors in --results once more.")
    args = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing stays behind
    if THERE not in os.environ:
        results = ["--results", str(args.results.absolute())] if args.results else []  # the last counts
        sys.exit(start_in_copy([*(sys.argv[1:] if arguments is None else arguments), *results]))
    for name in GROUPS if args.group == "all" else [args.group]:
        run(name, args.sample, args.seed, Results(args.results, args.again))


if __name__ == "__main__":
    main()

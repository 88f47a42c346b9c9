"""The pool: order, errors of jobs, killed workers, killed parents."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunet_softlabel.errors import DatasetError, WorkerError
from nnunet_softlabel.processes import THREAD_VARIABLES, fewer_for_few, run_jobs
from tests.process_tree import is_alive, wait_until

NAMES = [f"Case {index}" for index in range(6)]


def square(number: int) -> int:
    time.sleep(0.2 if number == 0 else 0.0)
    return number * number


def fails_at(number: int, bad: int) -> int:
    if number == bad:
        raise DatasetError(f"Case {number}: is broken.")
    return number


def killed_at(number: int, bad: int, folder: Path) -> int:
    if number == bad:
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while not (folder / "killed").exists():  # so that the other worker is busy at the kill
        time.sleep(0.01)
    return number


def says_its_process(number: int, folder: Path) -> int:
    (folder / f"{os.getpid()}").touch()
    time.sleep(60)
    return number


@pytest.mark.parametrize("num_processes", [1, 2])
def test_results_come_in_order_if_asked(num_processes: int) -> None:
    jobs = [(number,) for number in range(6)]
    found = list(run_jobs(square, jobs, num_processes, names=NAMES, in_order=True))
    assert found == [0, 1, 4, 9, 16, 25]


def test_results_come_as_they_are_ready_and_none_is_lost() -> None:
    found = list(run_jobs(square, [(number,) for number in range(6)], 2, names=NAMES))
    assert sorted(found) == [0, 1, 4, 9, 16, 25]


def test_nothing_to_do_starts_no_process() -> None:
    assert list(run_jobs(square, [], 4, names=[])) == []


def test_an_error_of_a_job_is_the_error_of_the_call() -> None:
    with pytest.raises(DatasetError, match="Case 3: is broken"):
        list(run_jobs(fails_at, [(number, 3) for number in range(6)], 2, names=NAMES, in_order=True))


def test_a_killed_worker_is_named_by_its_case_and_the_remedy(tmp_path: Path) -> None:
    jobs = [(number, 1, tmp_path) for number in range(6)]
    with pytest.raises(WorkerError) as error:
        list(run_jobs(killed_at, jobs, 2, names=NAMES))
    assert str(error.value) == (
        "Case 1: a worker process was killed, perhaps for lack of memory; "
        "run the same command again with a smaller -np."
    )


def test_a_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from nnunet_softlabel.processes import run_jobs; "
        "from tests.project.test_processes import says_its_process as job; "
        f"list(run_jobs(job, [(i, Path({str(tmp_path)!r})) for i in range(4)], 2, names=list('abcd')))"
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONPATH": root})
    assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, seconds=60)
    parent.kill()
    parent.wait()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert wait_until(lambda: not any(map(is_alive, workers)), seconds=10)


@pytest.mark.parametrize(("num_jobs", "expected"), [(3, 1), (7, 1), (8, 2), (100, 2)])
def test_few_short_jobs_start_no_workers(num_jobs: int, expected: int) -> None:
    assert fewer_for_few(2, num_jobs) == expected


UNGUARDED = """
from pathlib import Path
import SimpleITK as sitk
import nnunet_softlabel as ns

files = [Path(f"{name}.nii.gz") for name in "abcd"]
for path in files:
    if not path.exists():
        sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkUInt8), str(path))
cases = [ns.Case(path.name[0], path, raters={"anna": path, "bob": path}) for path in files]
ns.convert(cases, "Dataset901_T", labels={"x": 1}, channel_names="CT", running=ns.Running(2))
"""


def test_a_script_without_guard_is_told_so_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    call = [sys.executable, str(script)]
    found = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("nnunet_softlabel.errors.UsageError: this script starts itself again")
    assert "put its calls below `if __name__ == '__main__':`" in last
    assert found.stderr.count("Traceback") == 1
    assert list((tmp_path / "raw").iterdir()) == []
    lines = UNGUARDED.splitlines()
    guarded = [*lines[:4], "if __name__ == '__main__':", *[f"    {line}" for line in lines[4:]]]
    script.write_text("\n".join(guarded))
    subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "raw" / "Dataset901_T" / "dataset.json").is_file()


def threads_of_blas(_: int) -> list[int]:
    import numpy as np
    from threadpoolctl import threadpool_info

    assert np.ones(2) @ np.ones(2) == 2
    return [int(library["num_threads"]) for library in threadpool_info()]


def test_workers_use_one_numerical_thread_each(monkeypatch):
    for variable in THREAD_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    found = list(run_jobs(threads_of_blas, [(0,), (1,)], 2, names=["a", "b"]))
    assert [set(threads) for threads in found] == [{1}, {1}]


def test_a_number_of_threads_that_the_user_set_stays(monkeypatch):
    for variable in THREAD_VARIABLES:
        monkeypatch.setenv(variable, "2")
    (found, _) = run_jobs(threads_of_blas, [(0,), (1,)], 2, names=["a", "b"])
    assert max(found) == min(2, os.cpu_count() or 1)

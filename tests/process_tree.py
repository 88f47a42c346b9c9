"""Processes of this machine, as ``ps`` knows them; workers whose first job waits until it may go on."""

from __future__ import annotations

import functools
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_softlabel import processes

GATE = "TEST_GATE"  # a folder: workers write their process ids there, and go on when it holds OPEN
OPEN = "open"
# for `python -c`: the command line of nnunet_softlabel, whose workers wait at the gate
AT_GATE = "from tests.process_tree import keep_workers_at_gate; keep_workers_at_gate(); "


def keep_workers_at_gate() -> None:
    """From now on every job of a pool that this process starts waits until the gate is open."""
    setattr(processes, "_run_job", run_job_at_gate)  # noqa: B010


def run_job_at_gate(function: Callable[..., Any], index: int, job: tuple[Any, ...], name: str) -> Any:
    """In a worker, where nothing is replaced: the job, once the gate is open."""
    return processes._run_job(functools.partial(_at_gate, function), index, job, name)


def _at_gate(function: Callable[..., Any], *job: Any) -> Any:
    gate = Path(os.environ[GATE])
    (gate / str(os.getpid())).touch()
    assert wait_until((gate / OPEN).exists, seconds=300)
    return function(*job)


def workers_at_gate(gate: Path) -> list[int]:
    """Process ids of the workers that have begun with a job."""
    return [int(path.name) for path in gate.iterdir() if path.name != OPEN]


def is_alive(pid: int) -> bool:
    """False for a process that is gone, or that only waits to be collected."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether the condition comes true in this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True

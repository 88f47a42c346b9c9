"""Processes of this machine, as ``ps`` knows them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def is_alive(pid: int) -> bool:
    """False for a process that is gone, or that only waits to be collected."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def workers_of(pid: int) -> list[int]:
    """The pool's workers among the children of a process."""
    # -ww: else lines end after 80 columns, which the path of the interpreter may fill
    found = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    lines = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
    return [int(number) for number, arguments in lines if "spawn_main" in arguments]


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Whether the condition comes true in this time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True

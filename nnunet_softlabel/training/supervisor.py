"""``python -m nnunet_softlabel.training.supervisor LOCK COMMAND...``: a training that ends with its parent.

The parent holds the other end of this process's standard input. When the parent ends, in whatever way,
SIGKILL included, that end closes, and the training with all its worker processes is killed. The lock is held
here as long as the training runs: no other benchmark starts the same one, even if the first is gone.
A guard, one more process, does the same for the training if this process is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import NoReturn

from filelock import Timeout

from nnunet_softlabel.formats.locks import held_lock

BUSY = 75  # exit code if another process trains this (EX_TEMPFAIL of sysexits.h)
GOOD_END = "end"  # what a supervisor says to its guard
PATIENCE_SECONDS = 20  # the training of a parent that was killed just now needs a moment to end


def main(arguments: Sequence[str]) -> int:
    """Run the command under the lock; returns its exit code, or `BUSY`."""
    lock, *command = arguments
    try:
        with held_lock(Path(lock), patience_seconds=PATIENCE_SECONDS):
            return run_watched(command, sys.stdin.fileno())
    except Timeout:
        return BUSY


def run_watched(command: Sequence[str], parent: int) -> int:
    """Run a command until it ends, or until the parent does: then ``parent``, a pipe, is closed."""
    with _guard() as protect:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}")
            return 127
        protect(process.pid)
        return _wait(process, parent)


def _wait(process: subprocess.Popen[bytes], parent: int) -> int:
    def end(signal_number: int, frame: FrameType | None) -> None:
        _end_all(process)

    signal.signal(signal.SIGTERM, end)

    def watch() -> None:
        while os.read(parent, 1024):  # empty when the parent has closed its end
            pass
        _end_all(process)

    Thread(target=watch, daemon=True).start()
    return process.wait()


def _end_all(process: subprocess.Popen[bytes]) -> None:
    """Kill the training, its workers and this process: all that is in this process's own group."""
    if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    process.kill()
    os._exit(1)


@contextmanager
def _guard() -> Iterator[Callable[[int], None]]:
    """A process that kills the training, and its workers, if this process ends before the block does.

    Yields:
        What to call with the process id of the training.
    """
    if not hasattr(os, "fork"):  # Windows
        yield lambda pid: None
        return
    supervisor, (reading, writing) = os.getpid(), os.pipe()
    guard = os.fork()
    if guard == 0:
        os.close(writing)
        _stand_guard(reading, supervisor)
    os.close(reading)

    def say(text: str) -> None:
        with suppress(BrokenPipeError):  # somebody killed the guard
            os.write(writing, text.encode())

    try:
        yield lambda pid: say(f"{pid}\n")
    finally:
        say(f"{GOOD_END}\n")
        os.close(writing)
        os.waitpid(guard, 0)


def _stand_guard(supervisor_says: int, supervisor: int) -> NoReturn:
    """In the guard: wait for the end of the supervisor, with its good end or without."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the others of this group
        signal.signal(number, signal.SIG_IGN)
    text = b""
    while said := os.read(supervisor_says, 1024):
        text += said
    lines = text.decode().split()
    if GOOD_END not in lines:
        if os.getpgid(0) == supervisor:
            os.killpg(0, signal.SIGKILL)
        for pid in lines:
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

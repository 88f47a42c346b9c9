"""Locks between processes; a file system that has none is no reason to stop."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EDQUOT, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EROFS
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_softlabel.processes import end_if_run_again

# a lock's file that cannot be made for these reasons is an error like that of any other file
OF_ANY_FILE = (EACCES, EDQUOT, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR, EROFS)


@contextmanager
def held_lock(path: Path, *, patience_seconds: float = 0) -> Iterator[bool]:
    """Hold a lock; False where the file system knows no locks, and then everybody enters.

    Args:
        path: the lock's file; its folder exists.
        patience_seconds: how long to wait; below 0, for ever.

    Raises:
        Timeout: if another process holds it.
        OSError: if its file cannot be made.
    """
    end_if_run_again()
    lock = FileLock(path)
    is_held = True
    try:
        lock.acquire(timeout=patience_seconds)
    except Timeout:
        raise
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno in OF_ANY_FILE:
            raise
        is_held = False
        warnings.warn(
            f"{path.parent}: this file system has no locks ({error}); do not start the same command twice.",
            RuntimeWarning,
            stacklevel=3,
        )
    try:
        yield is_held
    finally:
        if is_held:
            lock.release()

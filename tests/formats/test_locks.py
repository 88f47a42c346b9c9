"""A file system without locks is no reason to stop; a lock's file that cannot be made is."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from nnunet_softlabel.formats import locks
from nnunet_softlabel.formats.locks import held_lock


@pytest.mark.parametrize(
    "error", [NotImplementedError("no locks"), OSError(errno.ENOLCK, "No locks available")], ids=str
)
def test_without_locks_everybody_enters_with_a_warning(tmp_path: Path, monkeypatch, error: Exception) -> None:
    def acquire(self: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    with pytest.warns(RuntimeWarning, match="this file system has no locks"):
        with held_lock(tmp_path / "lock") as is_held:
            assert not is_held


def test_a_file_that_cannot_be_made_is_its_own_error(tmp_path: Path, monkeypatch) -> None:
    def acquire(self: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "lock")

    monkeypatch.setattr(locks.FileLock, "acquire", acquire)
    with pytest.raises(OSError, match="No space left"), held_lock(tmp_path / "lock"):
        raise AssertionError

"""Files that belong together come together, whatever happens."""

import errno
import os
import shutil

import pytest
from filelock import FileLock

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats import staging
from nnunet_softlabel.formats.staging import staged

NAMES = ("a", "b", "c")


class Killed(BaseException):
    """Stands for SIGKILL."""


def content(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def write(folder, text, *, overwrite=False):
    with staged(folder, NAMES, overwrite=overwrite) as new:
        for name in NAMES:
            (new / name).write_text(text)


def test_nothing_is_there_before_the_end_and_nothing_but_the_files_after_it(tmp_path):
    out = tmp_path / "x" / "out"
    with staged(out, NAMES, overwrite=False) as new:
        (new / "a").write_text("1")
        assert content(out) == {}
    assert content(out) == {"a": "1"}
    assert [path.name for path in out.iterdir()] == ["a"]


def test_an_error_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no"), staged(out, NAMES, overwrite=False):
        raise ValueError("no")
    assert not out.exists()
    write(out, "old")
    with pytest.raises(FileNotFoundError), staged(out, NAMES, overwrite=True) as new:
        (new / "no folder" / "a").write_text("new")
    assert content(out) == dict.fromkeys(NAMES, "old")


@pytest.mark.parametrize("journal", ["{}", '{"names": 3}', "[]", "{"])
def test_a_journal_of_another_shape_is_one_line(tmp_path, journal):
    (tmp_path / ".unfinished" / "replaced").mkdir(parents=True)
    (tmp_path / ".unfinished" / "moving.json").write_text(journal)
    with pytest.raises(DatasetError, match=r"moving.json: "):
        write(tmp_path, "new")


def test_what_is_there_is_refused_before_the_work(tmp_path):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(UsageError, match=r"b: is already there; choose another -o"):
        write(tmp_path, "new")
    assert content(tmp_path) == {"b": "mine"}
    assert len(list(tmp_path.iterdir())) == 1


def test_an_output_that_is_a_file_or_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: is a file; name a folder"):
        write(tmp_path / "file", "new")
    with pytest.raises(UsageError, match="cannot be made"):
        write(tmp_path / "file" / "below", "new")


def test_another_process_at_work_is_left_alone(tmp_path):
    work = tmp_path / staging.UNFINISHED
    (work / "new").mkdir(parents=True)
    (work / "new" / "a").write_text("theirs")
    with FileLock(work / "lock"), pytest.raises(UsageError, match="another process is writing there"):
        write(tmp_path, "mine")
    assert (work / "new" / "a").read_text() == "theirs"


@pytest.mark.parametrize("step", range(1, 7))
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_while_files_change_places_mixes_nothing(tmp_path, monkeypatch, step, overwrite):
    out, copy = tmp_path / "out", tmp_path / "after_the_kill"
    if overwrite:
        write(out, "old")
    rename, count = os.rename, 0

    def rename_until_killed(source, target):
        nonlocal count
        count += 1
        if count == step:
            shutil.copytree(out, copy)  # as a kill would leave it: nothing is tidied
            raise Killed
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(staging.os, "rename", rename_until_killed)
        try:
            write(out, "new", overwrite=overwrite)
        except Killed:
            pass
    if not copy.exists():
        assert count < step
        return
    assert len(set(content(copy).values())) <= 1
    (copy / staging.UNFINISHED / "lock").unlink(missing_ok=True)
    write(copy, "new", overwrite=overwrite)
    assert content(copy) == dict.fromkeys(NAMES, "new")
    assert len(list(copy.iterdir())) == len(NAMES)


def test_what_was_finished_by_another_run_is_not_replaced_after_a_kill(tmp_path):
    write(tmp_path, "first")
    work = tmp_path / staging.UNFINISHED
    (work / "new").mkdir(parents=True)  # killed while it wrote
    with pytest.raises(UsageError, match="already there"):
        write(tmp_path, "second")
    assert content(tmp_path) == dict.fromkeys(NAMES, "first")


def test_without_locks_it_works_and_warns(tmp_path, monkeypatch):
    def no_locks(self, *args, **kwargs):
        raise NotImplementedError("flock")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    with pytest.warns(RuntimeWarning, match="has no locks"):
        write(tmp_path / "out", "1")
    assert content(tmp_path / "out") == dict.fromkeys(NAMES, "1")


def test_a_full_disk_names_the_folder_and_other_errors_stay(tmp_path):
    def writing(error):
        with staged(tmp_path / "out", ["a"], overwrite=False):
            raise error

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'out'}'"):
        writing(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="'of_another'"):
        writing(OSError(errno.ENOSPC, "No space left on device", "of_another"))
    with pytest.raises(OSError, match=r"^device is gone$"):
        writing(OSError("device is gone"))
    assert not (tmp_path / "out").exists()

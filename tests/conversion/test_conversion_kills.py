from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_softlabel.conversion import run as conversion
from nnunet_softlabel.conversion.work_folder import claimed_id
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.exchange_state import NEW_JSON, WORK
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_mask, write_image
from tests.conversion.conversion_helpers import run, tree
from tests.conversion.killing import Killed, kill_at
from tests.process_tree import AT_GATE, GATE, OPEN, wait_until, workers_at_gate

START = "import sys; from nnunet_softlabel import cli; sys.exit(cli.main(sys.argv[1:]))"
Folders = SimpleNamespace


def kill_everywhere(arguments: list[str], prepare: Callable[[], None], check: Callable[[], None]) -> int:
    """Kill the command at each of its operations in turn; resume; returns the number of operations."""
    step = 0
    while True:
        step += 1
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            state = kill_at(step, patch)
            try:
                assert run(*arguments) == 0
            except Killed:
                pass
        if state.count < step:
            return state.count
        check()
        assert run(*arguments, "--resume") == 0, f"killed at step {step}"
        check()


@pytest.fixture
def small_folder(tmp_path: Path, rater_folder_factory):
    return rater_folder_factory(tmp_path / "small", num_cases=2, num_raters=2, shape=(3, 5, 6))


def test_kill_leaves_nothing_or_what_resume_completes(small_folder, nnunet_folders: Folders, capsys) -> None:
    groups = ["--groups", str(small_folder.root / "cases.csv"), "--group-column", "case"]
    arguments = [*small_folder.arguments(), *groups]
    assert run(*arguments) == 0
    complete = tree(nnunet_folders.raw, nnunet_folders.preprocessed)

    def empty() -> None:
        for folder in (nnunet_folders.raw, nnunet_folders.preprocessed):
            shutil.rmtree(folder)
            folder.mkdir()

    def check() -> None:
        final = nnunet_folders.raw / "Dataset901_Tiny"
        expected = {name: content for name, content in complete.items() if name.startswith(str(final))}
        assert tree(final) in ({}, expected)

    assert kill_everywhere(arguments, empty, check) > 20
    assert tree(nnunet_folders.raw, nnunet_folders.preprocessed) == complete


def test_kill_while_overwriting_leaves_the_old_or_the_new(
    small_folder, nnunet_folders: Folders, capsys
) -> None:
    arguments = small_folder.arguments()
    final = nnunet_folders.raw / "Dataset901_Tiny"
    assert run(*arguments, "--fusion", "majority") == 0
    old = tree(nnunet_folders.raw)
    assert run(*arguments, "--overwrite") == 0
    new = tree(nnunet_folders.raw)

    def prepare() -> None:
        shutil.rmtree(nnunet_folders.raw)
        for name, content in old.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)

    def check() -> None:
        assert tree(final) in ({}, old, new)

    assert kill_everywhere([*arguments, "--overwrite"], prepare, check) > 20
    assert tree(nnunet_folders.raw) == new


def test_kill_while_adding_leaves_no_mixture(plain_dataset: Path, rater_folder, capsys) -> None:
    plain = tree(plain_dataset)
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1"]
    assert run(*into) == 0
    complete = tree(plain_dataset)

    def prepare() -> None:
        shutil.rmtree(plain_dataset)
        for name, content in plain.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)

    def check() -> None:
        if "soft_labels" in read_json(plain_dataset / "dataset.json"):
            found = {
                name: content for name, content in tree(plain_dataset).items() if ".unfinished_" not in name
            }
            assert found == complete

    assert kill_everywhere(into, prepare, check) > 20
    assert tree(plain_dataset) == complete


@pytest.mark.parametrize("cases_done", [0, 3, 7])
def test_real_kill_is_resumed_to_the_same_bytes(
    tmp_path: Path, nnunet_folders: Folders, rater_folder_factory, cases_done: int
) -> None:
    folder = rater_folder_factory(tmp_path / "s", num_cases=10, shape=(12, 40, 40))
    arguments = [*folder.arguments(), "-np", "2"]
    assert run(*folder.arguments()) == 0
    complete = tree(nnunet_folders.raw)
    shutil.rmtree(nnunet_folders.raw / "Dataset901_Tiny")
    process = subprocess.Popen(
        [sys.executable, "-m", "nnunet_softlabel.cli", *arguments], stderr=subprocess.DEVNULL
    )
    records = nnunet_folders.raw / ".unfinished_Dataset901_Tiny" / "cases"
    while process.poll() is None and len(list(records.glob("*.json"))) <= cases_done:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (nnunet_folders.raw / "Dataset901_Tiny").exists()
    time.sleep(0.3)  # workers end with their parent
    assert run(*folder.arguments(), "--resume") == 0
    assert tree(nnunet_folders.raw) == complete


def test_interrupted_conversion_must_be_resumed_or_overwritten(
    small_folder, nnunet_folders: Folders, monkeypatch, capsys
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(12, patch)
        with pytest.raises(Killed):
            run(*small_folder.arguments())
    assert run(*small_folder.arguments()) == 2
    assert "was interrupted; add --resume to complete it, or --overwrite" in capsys.readouterr().err
    assert run(*small_folder.arguments(), "--resume", "--fusion", "majority") == 2
    assert "was started with other options or files; add --overwrite" in capsys.readouterr().err
    mask, grid = read_mask(small_folder.rater("case_00", "1"))
    write_image(small_folder.rater("case_00", "1"), mask * 0, grid)
    assert run(*small_folder.arguments(), "--resume") == 2
    assert "was started with other options or files" in capsys.readouterr().err
    assert run(*small_folder.arguments(), "--overwrite") == 0


LOST = [
    *product(("labelsTr", "imagesTr", "raterLabelsTr"), ("emptied", "gone")),
    *(("softLabelsTr", damage) for damage in ("emptied", "gone", "changed")),
    *(("cases", damage) for damage in ("gone", "changed")),
]


@pytest.mark.parametrize(("folder", "damage"), LOST)
def test_finished_cases_whose_files_were_lost_are_made_again(
    small_folder, nnunet_folders: Folders, folder: str, damage: str
) -> None:
    """A machine that goes down loses what the disk had not got yet; a kill does not."""
    arguments = small_folder.arguments()
    assert run(*arguments) == 0
    complete = tree(nnunet_folders.raw)
    shutil.rmtree(nnunet_folders.raw / "Dataset901_Tiny")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversion, "conversion_record", interrupt)
        assert run(*arguments) == 130
    work = nnunet_folders.raw / ".unfinished_Dataset901_Tiny"
    root = work / "cases" if folder == "cases" else work / "dataset" / folder
    path = next(path for path in sorted(root.rglob("case_01*")) if path.is_file())
    if damage == "gone":
        path.unlink()
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        path.write_bytes(b'{"case": "case_09"}' if folder == "cases" else path.read_bytes()[::-1])
    assert run(*arguments, "--resume") == 0
    assert tree(nnunet_folders.raw) == complete


def test_journals_of_another_shape_are_one_line(plain_dataset: Path, rater_folder, capsys) -> None:
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1"]
    work = plain_dataset / WORK
    work.mkdir()
    (work / NEW_JSON).write_text("{}")
    for content in ("{}", '{"names": 3}', '{"names": ["a"]}'):
        (work / "moving.json").write_text(content)
        assert run(*into) == 2
        assert "moving.json: is not of the expected shape" in capsys.readouterr().err


def test_resume_of_a_complete_data_set_does_nothing(small_folder, nnunet_folders: Folders, capsys) -> None:
    assert run(*small_folder.arguments(), "--resume") == 0  # nothing there yet: an ordinary conversion
    before = tree(nnunet_folders.raw)
    assert run(*small_folder.arguments(), "--resume") == 0
    assert tree(nnunet_folders.raw) == before
    assert run(*small_folder.arguments(), "--resume", "--fusion", "majority") == 2
    assert "is already there; add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["rater", "image"])
def test_resume_of_a_data_set_from_files_that_changed_is_no_silent_success(
    small_folder, nnunet_folders: Folders, capsys, kind: str
) -> None:
    assert run(*small_folder.arguments()) == 0
    before = tree(nnunet_folders.raw)
    path = small_folder.rater("case_00", "1") if kind == "rater" else small_folder.image("case_00")
    array, grid = read_mask(path)
    write_image(path, array * 0, grid)
    assert run(*small_folder.arguments(), "--resume") == 2
    assert "is already there; add --overwrite" in capsys.readouterr().err
    assert tree(nnunet_folders.raw) == before
    assert run(*small_folder.arguments(), "--resume", "--overwrite") == 0
    new = tree(nnunet_folders.raw)
    assert new != before
    assert run(*small_folder.arguments(), "--overwrite") == 0
    assert tree(nnunet_folders.raw) == new


def test_resume_with_overwrite_starts_again_where_resuming_cannot(
    small_folder, nnunet_folders: Folders, capsys
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_at(12, patch)
        with pytest.raises(Killed):
            run(*small_folder.arguments())
    assert run(*small_folder.arguments(), "--resume", "--overwrite", "--fusion", "majority") == 0


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_own_raters_fused_again_survive_a_kill_anywhere(
    plain_dataset: Path, rater_folder, capsys, flag: str
) -> None:
    assert run("convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1") == 0
    before = tree(plain_dataset)
    own = str(plain_dataset / "raterLabelsTr/{rater}/{case}.nii.gz")
    arguments = ["convert", "--into", "901", "--raters", own, "--fusion", "majority", "-np", "1"]
    assert run(*arguments, "--overwrite") == 0
    complete = tree(plain_dataset)
    rename = os.rename
    for step in range(1, 20):
        shutil.rmtree(plain_dataset)
        for name, content in before.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content)
        renames = SimpleNamespace(count=0)
        with pytest.MonkeyPatch.context() as patch:

            def killing(source: Path, target: Path, renames: Any = renames, step: int = step) -> None:
                renames.count += 1
                if renames.count == step:
                    raise Killed
                rename(source, target)

            patch.setattr(os, "rename", killing)
            try:
                run(*arguments, "--overwrite")
            except Killed:
                pass
        if renames.count < step:
            break
        assert run(*arguments, flag) == 0, f"killed before rename {step}"
        assert tree(plain_dataset) == complete
    assert step > 4


def test_two_data_sets_of_one_id_do_not_come_about(small_folder, nnunet_folders: Folders, capsys) -> None:
    (nnunet_folders.raw / ".unfinished_Dataset901_Other").mkdir()
    assert run(*small_folder.arguments()) == 2
    assert "the id is taken by" in capsys.readouterr().err
    assert not (nnunet_folders.raw / "Dataset901_Tiny").exists()


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", f"{AT_GATE if GATE in environment else ''}{START}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Tiny", "Other"])
def test_a_conversion_into_an_id_in_which_another_works_is_one_line(
    small_folder, nnunet_folders: Folders, tmp_path: Path, capsys, name: str
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    first = start([*small_folder.arguments(), "-np", "2"], **{GATE: str(gate)})
    assert wait_until(lambda: bool(workers_at_gate(gate)) or first.poll() is not None, seconds=120)
    assert first.poll() is None
    for flags in ([], ["--overwrite"], ["--resume"]):
        assert run(*small_folder.arguments(name=name), *flags) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1
        assert "another process is" in error or "the id is taken by" in error
    (gate / OPEN).touch()
    assert first.communicate(timeout=120)[1] == ""
    assert first.returncode == 0
    assert [path.name for path in nnunet_folders.raw.iterdir()] == ["Dataset901_Tiny"]


@pytest.mark.slow
def test_of_two_conversions_into_one_id_at_once_one_succeeds(small_folder, nnunet_folders: Folders) -> None:
    names = ("Tiny", "Other")
    both = [start(small_folder.arguments(name=name)) for name in names]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    (winner,) = [name for name, process in zip(names, both, strict=True) if process.returncode == 0]
    assert [path.name for path in nnunet_folders.raw.iterdir()] == [f"Dataset901_{winner}"]
    (error,) = [error for error in errors if error]
    assert len(error.splitlines()) == 1


def test_an_id_that_is_claimed_is_refused(nnunet_folders: Folders) -> None:
    with claimed_id(nnunet_folders.raw / "Dataset901_Tiny"):
        with pytest.raises(UsageError, match="-d 901: another process is making a data set of this id"):
            with claimed_id(nnunet_folders.raw / "Dataset901_Other"):
                pass
        with claimed_id(nnunet_folders.raw / "Dataset902_Other"):
            pass
    assert list(nnunet_folders.raw.iterdir()) == []


def test_lock_that_a_kill_left_goes_with_the_next_conversion(small_folder, nnunet_folders: Folders) -> None:
    assert run(*small_folder.arguments()) == 0
    before = tree(nnunet_folders.raw)
    for flag in ("--resume", "--overwrite"):
        (nnunet_folders.raw / ".Dataset901.lock").touch()
        assert run(*small_folder.arguments(), flag) == 0
        assert tree(nnunet_folders.raw) == before


def test_file_system_without_locks_is_a_warning(small_folder, nnunet_folders: Folders, monkeypatch) -> None:
    from nnunet_softlabel.formats import locks

    def broken(self: object, **options: object) -> None:
        raise NotImplementedError("no locks")

    monkeypatch.setattr(locks.FileLock, "acquire", broken)
    with pytest.warns(RuntimeWarning, match="this file system has no locks"):
        assert run(*small_folder.arguments()) == 0


def test_new_splits_come_after_the_data_set(small_folder, nnunet_folders: Folders, capsys) -> None:
    groups = ["--groups", str(small_folder.root / "cases.csv"), "--group-column"]
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    assert run(*small_folder.arguments(), *groups, "case") == 0
    old, old_data = splits.read_bytes(), tree(nnunet_folders.raw)

    def killed(*args: object) -> None:
        raise Killed

    (small_folder.root / "cases.csv").write_text("case,other\ncase_00,b\ncase_01,a\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(Killed):
            run(*small_folder.arguments(), *groups, "other", "--overwrite")
    found = {name: content for name, content in tree(nnunet_folders.raw).items() if "unfinished" not in name}
    assert (splits.read_bytes(), found) == (old, old_data)
    assert run(*small_folder.arguments(), *groups, "other", "--resume") == 0
    assert splits.read_bytes() != old


def test_two_conversions_at_once_do_not_mix(small_folder, nnunet_folders: Folders, capsys) -> None:
    from filelock import FileLock

    work = nnunet_folders.raw / ".unfinished_Dataset901_Tiny"
    work.mkdir()
    with FileLock(work / "lock"):
        assert run(*small_folder.arguments(), "--overwrite") == 2
    assert "another process is converting into it; wait" in capsys.readouterr().err


def test_killed_worker_can_be_resumed(rater_folder, nnunet_folders: Folders, monkeypatch, capsys) -> None:
    from nnunet_softlabel.conversion import work_folder as unfinished
    from nnunet_softlabel.errors import WorkerError

    def run_jobs(*args: Any, **options: Any) -> None:
        raise WorkerError("a worker process was killed")

    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "run_jobs", run_jobs)
        assert run(*rater_folder.arguments()) == 2
    assert "a worker process was killed" in capsys.readouterr().err
    assert run(*rater_folder.arguments(), "--resume") == 0

"""Files are written whole or not at all, under temporary names that no other process takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import refuse_existing, temporary_beside, write_csv, write_text


def test_a_table_has_nine_digits_and_empty_cells_for_what_a_row_lacks(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", ["name", "value"], [{"name": "a", "value": 1 / 3}, {"name": "b, c"}])
    assert (tmp_path / "t.csv").read_bytes() == b'name,value\na,0.333333333\n"b, c",\n'
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_file_that_cannot_be_written_leaves_nothing_and_the_old_one(tmp_path: Path, monkeypatch) -> None:
    write_text(tmp_path / "t.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "t.txt", "\ud800")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "t.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]
    assert (tmp_path / "t.txt").read_text() == "old"


def test_a_column_that_is_not_asked_for_is_an_error_or_left_out(tmp_path: Path) -> None:
    row = {"name": "a", "other": 1}
    with pytest.raises(ValueError, match="other"):
        write_csv(tmp_path / "t.csv", ["name"], [row])
    assert not list(tmp_path.iterdir())
    write_csv(tmp_path / "t.csv", ["name"], [row], leaves_out_others=True)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "name\na\n"


def test_temporary_names_differ_each_time_and_stay_in_the_folder(tmp_path: Path) -> None:
    names = {temporary_beside(tmp_path / "a.json") for _ in range(5)}
    assert len(names) == 5
    assert {path.parent for path in names} == {tmp_path}


def test_what_is_there_is_named_and_replaced_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    paths = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UsageError, match=r"b: is already there; choose another -o, or pass --overwrite\."):
        refuse_existing(paths, overwrite=False)
    refuse_existing(paths, overwrite=True)
    refuse_existing(paths[:1], overwrite=False)

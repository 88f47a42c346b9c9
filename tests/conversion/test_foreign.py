"""A data set with files of others is not replaced."""

from __future__ import annotations

import pytest

from nnunet_softlabel.conversion.foreign import check_holds_own_files_only
from nnunet_softlabel.errors import UsageError
from tests.conversion.conversion_helpers import run, tree


@pytest.mark.parametrize(
    "stranger", ["imagesTs/new_0000.nii.gz", "notes.txt", "labelsTr/other.nii.gz", "p/a.png"]
)
def test_overwrite_deletes_no_file_of_others(rater_folder, nnunet_folders, capsys, stranger: str) -> None:
    convert = [*rater_folder.arguments(), "--test-cases", "case_03", "-np", "1"]
    assert run(*convert) == 0
    dataset = nnunet_folders.raw / "Dataset901_Tiny"
    (dataset / "refinement").mkdir()
    for name in ("refinement/candidates.csv", ".DS_Store"):
        (dataset / name).touch()
    check_holds_own_files_only(dataset)
    (dataset / stranger).parent.mkdir(exist_ok=True)
    (dataset / stranger).touch()
    before = tree(dataset)
    for more in ([], ["--dry-run"]):
        assert run(*convert, *more, "--overwrite") == 2
        assert f"--overwrite would delete files that `convert` did not write, {stranger}; move" in (
            capsys.readouterr().err
        )
    assert tree(dataset) == before
    (dataset / stranger).unlink()
    assert run(*convert, "--overwrite") == 0


def test_overwrite_deletes_no_data_set_of_others(plain_dataset, rater_folder, capsys) -> None:
    before = tree(plain_dataset)
    assert run(*rater_folder.arguments(), "--overwrite") == 2
    assert (
        "--overwrite would delete images and labels that `convert` did not write" in capsys.readouterr().err
    )
    assert tree(plain_dataset) == before


def test_an_empty_folder_may_be_replaced(tmp_path) -> None:
    check_holds_own_files_only(tmp_path)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match="would delete images and labels"):
        check_holds_own_files_only(tmp_path)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.splits import read_splits
from nnunet_softlabel.conversion.run import add_soft_labels
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.images import read_mask
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.conversion.conversion_helpers import converted, in_memory_cases, run, tree

Folders = SimpleNamespace


def test_soft_labels_are_added_and_nothing_else_changes(plain_dataset: Path, rater_folder) -> None:
    before = tree(plain_dataset / "imagesTr", plain_dataset / "labelsTr")
    assert run("convert", "--into", "901", "--raters", rater_folder.rater_pattern, "-np", "1") == 0
    assert tree(plain_dataset / "imagesTr", plain_dataset / "labelsTr") == before
    dataset = SoftDataset(plain_dataset)
    masks = [read_mask(rater_folder.rater("case_00", rater))[0] for rater in rater_folder.raters]
    np.testing.assert_allclose(dataset.read_soft("case_00")[0], np.mean(masks, axis=0), atol=1e-6)
    assert dataset.about["made_hard_labels"] is False
    assert {path.name for path in plain_dataset.iterdir()} == {
        "dataset.json", "imagesTr", "labelsTr", "softLabelsTr", "raterLabelsTr"
    }  # fmt: skip


def test_added_soft_labels_are_replaced_only_when_asked(plain_dataset: Path, rater_folder, capsys) -> None:
    into = ["convert", "--into", "Dataset901_Tiny", "--raters", rater_folder.rater_pattern, "-np", "1"]
    assert run(*into) == 0
    assert run(*into) == 2
    assert "has soft labels already; add --overwrite" in capsys.readouterr().err
    assert run(*into, "--fusion", "majority", "--overwrite") == 0
    assert set(np.unique(SoftDataset(plain_dataset).read_soft("case_00"))) == {0, 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "other=1"], "--labels: names other, but Dataset901_Tiny has lesion"),
        (["--labels", "lesion=1,2"], "--labels: regions"),
        (["--labels", "lesion=1", "ignore=2"], "--labels: names lesion"),
        (["-n", "X"], "--into takes images and cases from the data set; leave out -n"),
        (["--groups", "x.csv"], "leave out --groups"),
        (["--few-raters", "drop"], "--into cannot drop cases"),
        (["--ignore", "x/{case}.nii.gz"], "--ignore: Dataset901_Tiny has no ignore label"),
    ],
)
def test_into_refuses(plain_dataset: Path, rater_folder, capsys, arguments: list[str], message: str) -> None:
    before = tree(plain_dataset)
    assert run("convert", "--into", "901", "--raters", rater_folder.rater_pattern, *arguments) == 2
    assert message in capsys.readouterr().err
    assert tree(plain_dataset) == before


def test_into_needs_every_training_case(plain_dataset: Path, rater_folder) -> None:
    cases = find_cases(
        [f"{plain_dataset}/imagesTr/{{case}}_0000.nii.gz"], raters=[rater_folder.rater_pattern]
    )
    with pytest.raises(
        DatasetError, match="Case case_00: is a training case of Dataset901_Tiny but has no rater"
    ):
        add_soft_labels(cases[1:], plain_dataset)
    stranger = Case("new", cases[0].images, cases[0].raters)
    with pytest.raises(DatasetError, match="Case new: is no training case of Dataset901_Tiny; remove it"):
        add_soft_labels([*cases, stranger], plain_dataset)


def test_into_maps_the_raters_values_by_name(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 2, 0]), ["a=1", "b=2"])
    cases = in_memory_cases([20, 10, 0])
    add_soft_labels(cases, dataset.folder, labels=["a=20", "b=10"], running=Running(overwrite=True))
    soft = SoftDataset(dataset.folder).read_soft("c0").reshape(2, -1)[:, :3]
    np.testing.assert_array_equal(soft, [[1, 0, 0], [0, 1, 0]])


def test_into_refuses_unanswered_voxels_that_have_a_label(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 2, 0]), ["a=1", "ignore=2"])
    with pytest.raises(
        DatasetError, match=r"c0.nii.gz: 1 voxels that no rater answered have a label; give them"
    ):
        add_soft_labels(in_memory_cases([1, 2, 2]), dataset.folder, running=Running(overwrite=True))


def test_into_refuses_test_cases(plain_dataset: Path, rater_folder) -> None:
    found = find_cases(
        [f"{plain_dataset}/imagesTr/{{case}}_0000.nii.gz"], raters=[rater_folder.rater_pattern]
    )
    with pytest.raises(DatasetError, match="Case case_00: is a test case, but Dataset901_Tiny gets soft"):
        add_soft_labels([replace(found[0], is_test=True), *found[1:]], plain_dataset)


def table_with_groups(folder: Path, rater_folder, groups: dict[str, str]) -> Path:
    table = folder / "groups.csv"
    rows = [
        f"{case},{rater},{rater_folder.rater(case, rater)},{group}"
        for case, group in groups.items()
        for rater in rater_folder.raters
    ]
    table.write_text("\n".join(["case,rater,mask,group", *rows]))
    return table


def test_groups_of_a_table_are_recorded_and_kept_together(
    plain_dataset: Path, rater_folder, nnunet_folders: Folders, tmp_path: Path, capsys
) -> None:
    groups = {"case_00": "p0", "case_01": "p0", "case_02": "p1"}
    table = table_with_groups(tmp_path, rater_folder, groups)
    flags = ["convert", "--into", "901", "-np", "1"]
    assert run(*flags, "--cases-csv", str(table), "--missing-raters", "drop") == 0
    assert "Folds that keep groups (patients) together: " in capsys.readouterr().out
    splits = nnunet_folders.preprocessed / "Dataset901_Tiny" / "splits_final.json"
    pairs = [{"train": ["case_00", "case_01"], "val": ["case_02"]}]
    pairs.append({"train": pairs[0]["val"], "val": pairs[0]["train"]})
    assert sorted(read_splits(splits), key=str) == sorted(pairs, key=str)
    # another call knows them still, with other raters and no folds
    splits.unlink()
    for rater in rater_folder.raters:
        rater_folder.rater("case_03", rater).unlink()
    more = ["--raters", rater_folder.rater_pattern, "--missing-raters", "drop", "--overwrite"]
    assert run(*flags, *more) == 0
    assert SoftDataset(plain_dataset).about["groups"] == groups
    assert sorted(read_splits(splits), key=str) == sorted(pairs, key=str)


def test_a_case_whose_group_is_not_recorded_is_refused(
    plain_dataset: Path, rater_folder, tmp_path: Path, capsys
) -> None:
    groups = {"case_00": "p0", "case_01": "p0", "case_02": "p1"}
    table = table_with_groups(tmp_path, rater_folder, groups)
    flags = ["convert", "--into", "901", "-np", "1"]
    assert run(*flags, "--cases-csv", str(table), "--missing-raters", "drop") == 0
    assert run(*flags, "--raters", rater_folder.rater_pattern, "--overwrite") == 2
    assert "Case case_03: " in (error := capsys.readouterr().err)
    assert "records groups (patients), but none of this case; give all groups" in error


def test_test_cases_keep_their_soft_labels_and_groups(
    rater_folder, nnunet_folders: Folders, tmp_path, capsys
):
    (tmp_path / "g.csv").write_text("case,group\ncase_00,a\ncase_01,b\ncase_02,c\ncase_03,d\n")
    more = ["--test-cases", "case_03", "--groups", str(tmp_path / "g.csv")]
    assert run(*rater_folder.arguments(), *more, "-np", "1") == 0
    before = SoftDataset.find(901)
    soft = before.read_soft("case_03", "Ts")
    for rater in rater_folder.raters:
        rater_folder.rater("case_03", rater).unlink()
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern, "--overwrite", "-np", "1"]
    for fusion in ("majority", "staple"):
        assert run(*into, "--fusion", fusion) == 0
        assert "1 test cases keep the soft labels that they have." in capsys.readouterr().out
    after = SoftDataset.find(901)
    np.testing.assert_array_equal(after.read_soft("case_03", "Ts"), soft)
    assert after.about["groups"] == before.about["groups"]
    assert after.about["raters_of_case"]["case_03"] == before.about["raters_of_case"]["case_03"]
    assert after.about["digest"] != before.about["digest"]
    assert after.about["fusion"] == {"method": "staple", "scope": "case"}
    assert after.about["test_labels"]["cases"] == ["case_03"]
    assert after.about["test_labels"]["fusion"] == {"method": "mean"}
    # a training case may not come into the group of a test case
    table = table_with_groups(tmp_path, rater_folder, {"case_00": "d", "case_01": "b", "case_02": "c"})
    assert run("convert", "--into", "901", "--cases-csv", str(table), "--overwrite", "-np", "1") == 2
    assert "group d has case case_00 in training and others in the test set" in capsys.readouterr().err


def test_into_takes_colour_images_of_one_file(nnunet_folders: Folders, tmp_path: Path) -> None:
    for folder in ("i", "a", "b"):
        (tmp_path / folder).mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:5] = 1
    for case in ("k1", "k2"):
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(tmp_path / f"i/{case}.png")
        for rater in "ab":
            Image.fromarray(mask).save(tmp_path / f"{rater}/{case}.png")
    flags = ["--raters", f"{tmp_path}/{{rater:a,b}}/{{case}}.png", "-np", "1"]
    new = ["-d", "901", "-n", "T", "--images", f"{tmp_path}/i/{{case}}.png", "--labels", "c=1"]
    assert run("convert", *new, "--channel-names", "R", "G", "B", *flags) == 0
    assert run("convert", "--into", "901", *flags, "--overwrite", "--fusion", "majority") == 0
    assert SoftDataset.find(901).about["fusion"] == {"method": "majority"}

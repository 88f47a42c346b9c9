from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.splits import NUM_FOLDS
from nnunet_softlabel.conversion.settings import Fusion
from nnunet_softlabel.conversion.summary import (
    contents_in_words,
    summary_of_cases,
    too_few_for_folds,
    without_few_raters,
)
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_mask, write_image
from tests.conversion.conversion_helpers import converted, in_memory_cases, run, tree

IMAGE = np.zeros((2, 2))


def case(name: str, *raters: str, is_test: bool = False) -> Case:
    return Case(name, [IMAGE], {rater: IMAGE for rater in raters}, is_test=is_test)


def test_cases_and_raters_are_counted_and_who_lacks_whom_is_said() -> None:
    lines, warnings = summary_of_cases([case("a", "r1", "r2"), case("b", "r1"), case("c", "r1", "r2")])
    assert lines == [
        "3 cases: 3 for training, 0 for testing.",
        "Rater r1: 3 cases.",
        "Rater r2: 2 cases, not b.",
    ]
    assert warnings == []


def test_raters_who_share_no_voxel_may_be_no_raters() -> None:
    summary = {"disputed_share": 1.0, "labels_in_no_file": [], "identical_raters": []}
    lines, warnings = contents_in_words(summary)
    assert lines == ["Raters dispute 100.0 % of what any of them marked, all cases together."]
    assert warnings == ["No voxel is marked by all raters of its case; does {rater} stand for persons?"]
    assert contents_in_words({**summary, "disputed_share": 0.99})[1] == []


def test_rater_with_test_cases_only_few_cases_or_alone_is_a_warning() -> None:
    found = [case("t", "r1", "predicted", is_test=True), *(case(f"c{i}", "r1") for i in range(6))]
    assert summary_of_cases(found)[1] == [
        "Rater predicted has test cases only; is it a folder of predictions?"
    ]
    found = [case("a", "r1", "r2"), *(case(f"c{i}", "r1") for i in range(6))]
    assert summary_of_cases(found)[1] == ["Rater r2 has 1 of 7 cases only."]
    assert summary_of_cases([case("a", "r1")])[1] == ["No case has two raters: all labels will be hard."]


@pytest.mark.parametrize(
    ("number", "group", "warned"), [(4, None, True), (5, None, False), (4, "patient", False)]
)
def test_fewer_cases_than_nnunet_has_folds_are_a_warning(number, group, warned) -> None:
    found = [replace(case(str(i), "r1", "r2"), group=group) for i in range(number)]
    warnings = too_few_for_folds([*found, case("t", "r1", "r2", is_test=True)])
    assert [text.partition(":")[0] for text in warnings] == (
        ["4 training cases are too few for nnU-Net's 5 folds"] if warned else []
    )


def test_cases_that_are_dropped_for_few_raters_are_named_and_do_not_fill_folds() -> None:
    found = [case("a", "r1", "r2"), *(case(f"c{i}", "r1") for i in range(7))]
    soft = Case("s", [IMAGE], soft={"lesion": IMAGE})
    kept, sentences = without_few_raters([*found, soft], Fusion(min_raters=2, few_raters="drop"))
    assert [case.name for case in kept] == ["a", "s"]
    assert sentences == [
        "Left out, for fewer than 2 raters: 7 cases (c0, c1, c2, c3, c4 and 2 more); dataset.json lists them."
    ]
    assert too_few_for_folds(found) == []
    assert too_few_for_folds(kept)
    assert without_few_raters(found, Fusion(min_raters=2)) == (found, [])
    assert without_few_raters(found, Fusion(few_raters="drop")) == (found, [])


def test_convert_warns_of_too_few_cases_before_the_next_step(rater_folder, nnunet_folders, capsys) -> None:
    arguments = rater_folder.arguments()
    assert "--groups" not in arguments
    assert run(*arguments) == 0
    *_, warning, following = capsys.readouterr().out.splitlines()
    assert warning.startswith("WARNING: 4 training cases are too few for nnU-Net's 5 folds")
    assert following.startswith("Next: nnUNetv2_plan_and_preprocess -d 901 ")


def test_nnunets_own_split_refuses_so_few_cases() -> None:
    with pytest.raises(ValueError, match="n_splits=5 greater than the number of samples"):
        generate_crossval_split(list("abcd"), n_splits=NUM_FOLDS)


def test_a_file_of_two_cases_is_a_warning() -> None:
    found = [Case(name, ["i.png"], {"r": f"{name}.png", "s": "e.png"}) for name in "ab"]
    assert summary_of_cases(found)[1] == [
        "Cases a and b have the same image, i.png.",
        "Cases a and b have the same rater's file, e.png.",
    ]


def test_dry_run_prints_that_and_writes_nothing(rater_folder, nnunet_folders, capsys) -> None:
    assert run(*rater_folder.arguments(), "--dry-run") == 0
    assert "4 cases: 4 for training, 0 for testing." in (printed := capsys.readouterr().out)
    assert "Data set written" not in printed
    assert list(nnunet_folders.raw.iterdir()) == []
    assert run(*rater_folder.arguments()) == 0
    of_convert = capsys.readouterr().out.split("Data set written")[0]
    assert printed == f"{of_convert}Nothing was written: --dry-run.\n"
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern]
    before = tree(nnunet_folders.raw)
    assert run(*into, "--dry-run") == 0
    assert "has soft labels already: `convert` will ask for --overwrite" in capsys.readouterr().out
    assert run(*into, "--dry-run", "--overwrite") == 0
    assert capsys.readouterr().out == printed
    assert tree(nnunet_folders.raw) == before


def test_dry_run_counts_as_convert_does_where_voxels_are_ignored(
    rater_folder, nnunet_folders, capsys
) -> None:
    (rater_folder.root / "ignore").mkdir()
    for name in rater_folder.cases:
        mask, grid = read_mask(rater_folder.rater(name, "1"))
        write_image(rater_folder.root / "ignore" / f"{name}.nii.gz", mask, grid)
    ignoring = ["--ignore", str(rater_folder.root / "ignore" / "{case}.nii.gz")]
    assert run(*rater_folder.arguments(), *ignoring, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert run(*rater_folder.arguments(), *ignoring) == 0
    of_convert = capsys.readouterr().out.split("Data set written")[0]
    assert printed == f"{of_convert}Nothing was written: --dry-run.\n"


def test_dry_run_finds_damaged_files(rater_folder, nnunet_folders, capsys) -> None:
    path = rater_folder.rater("case_02", "3")
    path.write_bytes(path.read_bytes()[:60])
    assert run(*rater_folder.arguments(), "--dry-run") == 2
    assert f"{path}: cannot be read as an image" in capsys.readouterr().err
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-d", "1000"], "-d 1000: data set ids are 1 to 999"),
        (["-n", "two words"], "-n two words: a data set name is made of letters"),
        (["--fusion", "STAPLE"], "--fusion STAPLE: unknown; choose one of"),
        (["--weights", "1=1"], "--weights belongs to --fusion weighted"),
        (["--staple-scope", "dataset"], "--staple-scope dataset: belongs to --fusion staple"),
    ],
)
def test_dry_run_refuses_what_convert_refuses(
    rater_folder, nnunet_folders, capsys, flags: list[str], message: str
) -> None:
    assert run(*rater_folder.arguments(), *flags, "--dry-run") == 2
    assert message in capsys.readouterr().err


def spoil_roi(folder: Any) -> list[str]:
    """The ROI mask of one case is cut off."""
    (folder.root / "roi").mkdir()
    for name in folder.cases:
        shutil.copy(folder.rater(name, "1"), folder.root / "roi" / f"{name}.nii.gz")
    (folder.root / "roi" / "case_02.nii.gz").write_bytes(b"")
    return ["--roi", f"bone={folder.root}/roi/{{case}}.nii.gz"]


def one_group(folder: Any) -> list[str]:
    (folder.root / "g.csv").write_text("case,group\n" + "".join(f"{name},p\n" for name in folder.cases))
    return ["--groups", str(folder.root / "g.csv")]


LATE = {
    "ROI": (spoil_roi, "case_02.nii.gz: "),
    "weights": (lambda f: ["--fusion", "weighted", "--weights", "1=1"], "weights lack 2, 3"),
    "few raters": (lambda f: ["--min-raters", "4", "--few-raters", "drop"], "leaves no case to train on"),
    "one group": (one_group, "all training cases are in group p"),
}


@pytest.mark.parametrize("kind", LATE)
def test_dry_run_refuses_what_convert_finds_late(rater_folder, nnunet_folders, capsys, kind: str) -> None:
    flags, message = LATE[kind][0](rater_folder), LATE[kind][1]
    assert run(*rater_folder.arguments(), *flags, "--dry-run", "-np", "1") == 2
    of_dry_run = capsys.readouterr().err.splitlines()[-1]
    assert message in of_dry_run
    assert run(*rater_folder.arguments(), *flags, "-np", "1") == 2
    assert capsys.readouterr().err.splitlines()[-1] == of_dry_run


def test_dry_run_refuses_what_into_refuses(plain_dataset, rater_folder, capsys) -> None:
    for rater in rater_folder.raters:
        rater_folder.rater("case_03", rater).unlink()
    into = ["convert", "--into", "901", "--raters", rater_folder.rater_pattern]
    assert run(*into, "--dry-run") == 2
    assert "Case case_03: " in capsys.readouterr().err
    assert run(*into, "--dry-run", "--missing-raters", "drop") == 0


def test_dry_run_says_that_the_data_set_is_there(rater_folder, nnunet_folders, capsys) -> None:
    assert run(*rater_folder.arguments()) == 0
    capsys.readouterr()
    warning = "is already there: `convert` will ask for --overwrite"
    assert run(*rater_folder.arguments(), "--dry-run") == 0
    assert warning in capsys.readouterr().out
    assert run(*rater_folder.arguments(), "--dry-run", "--overwrite") == 0
    assert warning not in capsys.readouterr().out


def test_copies_of_a_rater_and_labels_in_no_file_are_warnings(rater_folder, nnunet_folders, capsys) -> None:
    for name in rater_folder.cases:
        shutil.copy(rater_folder.rater(name, "1"), rater_folder.rater(name, "2"))
    arguments = rater_folder.arguments()
    arguments += ["absent=7"]
    assert run(*arguments, "--dry-run") == 0
    before = capsys.readouterr().out
    assert "WARNING: Label absent occurs in no file." in before
    assert "WARNING: Raters 1 and 2 drew the same in all their cases" in before
    assert run(*arguments) == 0
    printed = capsys.readouterr().out
    assert "Raters dispute " in printed
    assert "WARNING: Label absent occurs in no file." in printed
    assert "WARNING: Raters 1 and 2 drew the same in all their cases" in printed
    about = read_json(nnunet_folders.raw / "Dataset901_Tiny" / "dataset.json")["soft_labels"]
    assert about["summary"]["identical_raters"] == [["1", "2"]]
    assert about["summary"]["labels_in_no_file"] == ["absent"]
    array, grid = read_mask(rater_folder.rater("case_00", "2"))
    write_image(rater_folder.rater("case_00", "2"), array * 0, grid)
    assert run(*arguments, "--overwrite") == 0
    assert "drew the same" not in capsys.readouterr().out


def test_a_label_that_fusion_leaves_nothing_of_is_in_files(rater_folder, nnunet_folders, capsys) -> None:
    mask, grid = read_mask(rater_folder.rater("case_00", "1"))
    mask.flat[0] = 2  # of one rater in three
    write_image(rater_folder.rater("case_00", "1"), mask, grid)
    assert run(*rater_folder.arguments(), "bone=2", "--fusion", "majority") == 0
    printed = capsys.readouterr().out
    assert "occurs in no file" not in printed
    assert "WARNING: Label bone was drawn, and fusion and priors left nothing of it." in printed


def test_lesions_of_one_label_may_be_numbered_in_any_way(nnunet_folders) -> None:
    dataset = converted(in_memory_cases([1, 2, 0, 3], [2, 1, 0, 3]), ["lesion=1,2", "bone=3"])
    assert dataset.about["summary"]["disputed_share"] == 0
    dataset = converted(in_memory_cases([1, 2, 0, 3], [2, 3, 0, 3]), ["lesion=1,2", "bone=3"], overwrite=True)
    assert dataset.about["disputed_share"]["c0"] == pytest.approx(1 / 3)


def test_empty_file_of_test_cases_is_refused(rater_folder, nnunet_folders, tmp_path, capsys) -> None:
    (tmp_path / "t.txt").write_text("\n")
    assert run(*rater_folder.arguments(), "--test-cases", str(tmp_path / "t.txt")) == 2
    assert "t.txt: names no case" in capsys.readouterr().err

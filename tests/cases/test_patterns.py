from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnunet_softlabel.cases.files import SoftFiles
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.patterns import Pattern
from nnunet_softlabel.errors import DatasetError, UsageError
from tests.conversion.conversion_helpers import run


@pytest.fixture
def make_files(tmp_path: Path):
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


BIDS = (
    "bids/sub-1/ses-1/anat/sub-1_ses-1_T2w.png",
    "bids/sub-2/ses-1/anat/sub-2_ses-1_T2w.png",
    "bids/derivatives/anna/sub-1/ses-1/anat/sub-1_ses-1_dseg.png",
    "bids/derivatives/anna/sub-2/ses-1/anat/sub-2_ses-1_dseg.png",
    "bids/derivatives/bob/sub-1/ses-1/anat/sub-1_ses-1_dseg.png",
)


@pytest.mark.parametrize(
    ("images", "raters"),
    [
        ("bids/*/ses-*/anat/{case}_T2w.png", "bids/derivatives/{rater}/*/ses-*/anat/{case}_dseg.png"),
        ("bids/**/{case}_T2w.png", "bids/derivatives/{rater}/**/{case}_dseg.png"),
        ("bids/**/anat/{case}_T2w.png", "**/{rater}/sub-*/**/{case}_dseg.png"),
    ],
)
def test_bids_sessions_are_found_by_wildcards(make_files, images: str, raters: str) -> None:
    root = make_files(*BIDS)
    first, second = find_cases([f"{root}/{images}"], raters=[f"{root}/{raters}"])
    assert (first.name, set(first.raters)) == ("sub-1_ses-1", {"anna", "bob"})
    assert (second.name, set(second.raters)) == ("sub-2_ses-1", {"anna"})


def test_two_files_for_one_case_are_both_named(make_files) -> None:
    root = make_files("s/1/a.png", "s/2/a.png", "r/a_1.png")
    with pytest.raises(DatasetError, match=r"Case a: images .* fits two files, .*s/1/a.png and .*s/2/a.png"):
        find_cases([f"{root}/s/*/{{case}}.png"], raters=[f"{root}/r/{{case}}_{{rater}}.png"])


def test_two_files_of_one_rater_are_both_named(make_files) -> None:
    root = make_files("i/a.png", "r/x/a_1.png", "r/y/a_1.png")
    with pytest.raises(DatasetError, match=r"rater 1 has two files, .*r/x/a_1.png and .*r/y/a_1.png"):
        find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/r/*/{{case}}_{{rater}}.png"])


def test_two_maps_of_one_label_are_both_named(make_files) -> None:
    root = make_files("i/a.png", "p/x/a_l.png", "p/y/a_l.png")
    maps = SoftFiles(f"{root}/p/*/{{case}}_{{label}}.png", ["l"])
    with pytest.raises(DatasetError, match=r"label l has two probability maps, .*x/a_l.png and .*y/a_l.png"):
        find_cases([f"{root}/i/{{case}}.png"], soft=maps)


def test_only_the_named_raters_count(make_files) -> None:
    root = make_files(
        "i/a.png", "i/b.png", *(f"r/{c}_{r}.png" for c in "ab" for r in ("r1", "r2", "r3", "old"))
    )
    cases = find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/r/{{case}}_{{rater:r1, r3}}.png"])
    assert [sorted(case.raters) for case in cases] == [["r1", "r3"]] * 2


def test_a_named_rater_without_any_file_is_an_error(make_files) -> None:
    root = make_files("i/a.png", "r/a_r1.png")
    with pytest.raises(UsageError, match="no file fits rater 'r9'; correct it, or leave it out"):
        find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/r/{{case}}_{{rater:r1,r9}}.png"])


def test_hidden_files_are_never_data(make_files) -> None:
    root = make_files(
        "i/a.png", "i/._a.png", "i/.b.png", "r/1/a.png", "r/1/._a.png", "r/.2/a.png", "r/._3/a.png"
    )
    for images in ("i/{case}.png", "i/**/{case}.png", "i*/{case}.png"):
        (case,) = find_cases([f"{root}/{images}"], raters=[f"{root}/r/{{rater}}/{{case}}.png"])
        assert (case.name, sorted(case.raters)) == ("a", ["1"])
    for raters in ("r/**/{rater}/{case}.png", "*/{rater}/{case}.png"):
        (case,) = find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/{raters}"])
        assert sorted(case.raters) == ["1"]


def test_two_stars_must_be_a_whole_folder(make_files) -> None:
    with pytest.raises(UsageError, match=r"\*\* must be a whole folder"):
        find_cases([f"{make_files()}/a**/{{case}}.png"])


def test_extra_files_are_listed_and_ignored_if_asked(make_files) -> None:
    root = make_files("i/a.png", "r/a_1.png", "r/zz_1.png", "g/zz.png", "g/a.png")
    arguments = {"raters": [f"{root}/r/{{case}}_{{rater}}.png"], "ignore": f"{root}/g/{{case}}.png"}
    with pytest.raises(DatasetError, match=r"has no image; add or remove it, or .* extra_files ignore"):
        find_cases([f"{root}/i/{{case}}.png"], **arguments)
    notes: list[str] = []
    (case,) = find_cases([f"{root}/i/{{case}}.png"], **arguments, extra_files="ignore", notes=notes)
    assert (case.name, sorted(case.raters)) == ("a", ["1"])
    assert notes == [f"Ignored, since their cases have no image: {root}/g/zz.png, {root}/r/zz_1.png."]


def test_a_home_folder_is_found_and_an_unknown_one_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.nii").touch()
    assert Pattern("~/{case}.nii", "--images", ["case"]).files() == [str(tmp_path / "a.nii")]
    assert run("inspect", "--raters", "~nobody_here/{rater}/{case}.nii", "--labels", "a=1") == 2
    assert "--raters ~nobody_here/{rater}/{case}.nii: fits no file" in capsys.readouterr().err
    table = tmp_path / "table.csv"
    table.write_text("case,rater,mask\na,anna,~nobody_here/a.nii\n")
    assert run("inspect", "--cases-csv", str(table), "--labels", "a=1") == 2
    assert "mask: no such file" in capsys.readouterr().err


def raters_found(root: Path, pattern: str, **options: Any) -> dict[str, dict[str, str]]:
    cases = find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/r/{pattern}"], **options)
    return {case.name: {rater: Path(str(p)).name for rater, p in case.raters.items()} for case in cases}


def test_the_longest_case_name_that_fits_has_the_file(make_files) -> None:
    root = make_files("i/12.png", "i/A_12.png", "r/anna_12.png", "r/anna_A_12.png", "r/bob_A_12.png")
    assert raters_found(root, "{rater}_{case}.png", may_lack_raters=True) == {
        "12": {"anna": "anna_12.png"},
        "A_12": {"anna": "anna_A_12.png", "bob": "bob_A_12.png"},
    }


@pytest.mark.parametrize(
    ("pattern", "own", "other"),
    [("{rater}/{case}*.png", "k1_v2", "k10_v2"), ("{rater}/*{case}.png", "v2_1k", "v2_11k")],
)
def test_a_wildcard_beside_the_case_cuts_no_number(make_files, pattern: str, own: str, other: str) -> None:
    case = own.replace("v2", "").strip("_")
    root = make_files(f"i/{case}.png", f"r/anna/{own}.png", f"r/bob/{other}.png")
    with pytest.raises(DatasetError, match=f"r/bob/{other}.png: rater's file of case .*, which has no image"):
        raters_found(root, pattern)
    assert raters_found(root, pattern, extra_files="ignore") == {case: {"anna": f"{own}.png"}}


def test_a_wildcard_before_the_case_takes_the_whole_number(make_files) -> None:
    root = make_files("i/1.png", "i/11.png", "r/anna/v_sub1.png", "r/anna/v_sub11.png", "r/bob/v_sub11.png")
    assert raters_found(root, "{rater}/*{case}.png") == {
        "1": {"anna": "v_sub1.png"},
        "11": {"anna": "v_sub11.png", "bob": "v_sub11.png"},
    }
    images = find_cases([f"{root}/r/anna/*{{case}}.png"], may_lack_raters=True)
    assert [case.name for case in images] == ["1", "11"]


def test_no_probability_map_or_mask_is_given_to_two_cases(make_files) -> None:
    root = make_files("i/k1.png", "i/k10.png", "p/k1_a_l.png", "p/k10_a_l.png", "m/k1x.png", "m/k10x.png")
    maps = SoftFiles(f"{root}/p/{{case}}*_{{label}}.png", ["l"])
    k1, k10 = find_cases([f"{root}/i/{{case}}.png"], soft=maps, rois={"m": f"{root}/m/{{case}}*.png"})
    assert (k1.soft["l"], k10.soft["l"]) == (root / "p/k1_a_l.png", root / "p/k10_a_l.png")
    assert (k1.rois["m"], k10.rois["m"]) == (root / "m/k1x.png", root / "m/k10x.png")
    (root / "p/k1_a_l.png").unlink()
    with pytest.raises(DatasetError, match=r"Case k1: no probability map .* for label l; add it"):
        find_cases([f"{root}/i/{{case}}.png"], soft=maps)

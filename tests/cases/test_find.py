from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.files import RaterFiles, SoftFiles
from nnunet_softlabel.cases.find import find_cases
from nnunet_softlabel.cases.groups import read_groups, with_groups, with_test_cases
from nnunet_softlabel.errors import DatasetError, UsageError


@pytest.fixture
def make_files(tmp_path: Path):
    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("raters", "files"),
    [
        ("raters/{case}_rater{rater}.nii.gz", ["raters/a_rater1.nii.gz", "raters/a_rater2.nii.gz"]),
        ("{rater}/{case}.nii.gz", ["1/a.nii.gz", "2/a.nii.gz"]),
        ("masks/{case}/{rater}.nii.gz", ["masks/a/1.nii.gz", "masks/a/2.nii.gz"]),
        ("{rater}/seg_{case}_{rater}.nii.gz", ["1/seg_a_1.nii.gz", "2/seg_a_2.nii.gz"]),
        ("images/{case}_{rater}.nii.gz", ["images/a_1.nii.gz", "images/a_2.nii.gz"]),  # beside the images
    ],
)
def test_any_layout_is_found(make_files, raters: str, files: list[str]) -> None:
    root = make_files("images/a.nii.gz", *files)
    (case,) = find_cases([f"{root}/images/{{case}}.nii.gz"], raters=[f"{root}/{raters}"])
    assert case.name == "a"
    assert case.raters == {"1": root / files[0], "2": root / files[1]}


def test_longest_case_name_wins(make_files) -> None:
    root = make_files("i/a.png", "i/a_b.png", "r/a_1.png", "r/a_b_1.png", "r/a_2_x.png")
    a, a_b = find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/r/{{case}}_{{rater}}.png"])
    assert (a.name, set(a.raters)) == ("a", {"1", "2_x"})
    assert (a_b.name, set(a_b.raters)) == ("a_b", {"1"})


def test_case_names_may_hold_glob_characters(make_files) -> None:
    root = make_files("[x]/a[1].png", "[x]/r/a[1]_1.png")
    (case,) = find_cases([f"{root}/[x]/{{case}}.png"], raters=[f"{root}/[x]/r/{{case}}_{{rater}}.png"])
    assert case.name == "a[1]"


def test_several_channels_and_nnunets_own_names(make_files) -> None:
    root = make_files("i/a_0000.png", "i/a_0001.png", "r/1/a.png")
    patterns = [f"{root}/i/{{case}}_0000.png", f"{root}/i/{{case}}_0001.png"]
    (case,) = find_cases(patterns, raters=[f"{root}/r/{{rater}}/{{case}}.png"])
    assert [path.name for path in case.images] == ["a_0000.png", "a_0001.png"]


def test_raters_may_be_missing(make_files) -> None:
    root = make_files("i/a.png", "i/b.png", "r/a_1.png", "r/a_2.png", "r/b_2.png")
    a, b = find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/r/{{case}}_{{rater}}.png"])
    assert (set(a.raters), set(b.raters)) == ({"1", "2"}, {"2"})


def test_single_rater_soft_labels_and_masks(make_files) -> None:
    root = make_files("i/a.png", "r/a.png", "p/a_x.png", "p/a_y_z.png", "bone/a.png", "skip/a.png", "i/b.png")
    make_files("r/b.png", "p/b_x.png", "p/b_y_z.png", "bone/b.png")
    a, b = find_cases(
        [f"{root}/i/{{case}}.png"],
        raters=RaterFiles(f"{root}/r/{{case}}.png", has_single_rater=True),
        soft=SoftFiles(f"{root}/p/{{case}}_{{label}}.png", ["x", "y_z"]),
        rois={"bone": f"{root}/bone/{{case}}.png"},
        ignore=f"{root}/skip/{{case}}.png",
    )
    assert a.raters == {"rater": root / "r/a.png"}
    assert a.soft == {"x": root / "p/a_x.png", "y_z": root / "p/a_y_z.png"}
    assert a.rois == {"bone": root / "bone/a.png"}
    assert (a.ignore, b.ignore) == (root / "skip/a.png", None)


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ([], {"images": ["i/x.png"]}, r"images .*x.png: needs \{case\}"),
        ([], {"images": ["i/a.png"]}, r"i/a.png: needs \{case\} .*; quote patterns, or the shell replaces"),
        ([], {"images": ["i/{kase}.png"]}, r"unknown placeholder \{kase\}; known are \{case\}"),
        ([], {"images": ["j/{case}.png"]}, "images .*fits no file"),
        ([], {"raters": ["r/{case}.png"]}, r"needs \{rater\} .* add RaterFiles\(has_single_rater=True\)"),
        ([], {"raters": ["s/{case}_{rater}.png"]}, "raters .*s/{case}_{rater}.png: fits no file"),
        (["i/b.png"], {}, "Case b: image .*b.png has no rater's file; add one"),
        (["r/c_1.png"], {}, "c_1.png: rater's file of case 'c', which has no image"),
        (["r2/a_1.png"], {"raters": ["r/{case}_{rater}.png", "r2/{case}_{rater}.png"]}, "1 has two files"),
        (["r/a_.hidden.png"], {}, "a name cannot be empty, begin with a dot"),
        (["i/x_seg.png"], {}, "Case x_seg: nnU-Net takes names"),
        (["i2/z.png"], {"images": ["i/{case}.png", "i2/{case}.png"]}, "image of case 'z', which"),
        (["j/a.png", "i/b.png", "r/b_1.png"], {"images": ["i/{case}.png", "j/{case}.png"]}, "b: has no"),
        ([], {"soft": "p/{case}_{label}.png"}, "Case a: no probability map .*a_x.png for label x"),
        ([], {"soft": "p/{case}.png"}, r"needs \{label\}, since there are 2 labels"),
        (["p/a_x.png", "p/a_y.png", "p/b_x.png"], {"soft": "p/{case}_{label}.png"}, "soft label of case 'b'"),
        (["b/z.png"], {"rois": {"bone": "b/{case}.png"}}, "z.png: mask of case 'z', which has no image"),
        (["i/b.png", "r/b_1.png", "b/a.png"], {"rois": {"bone": "b/{case}.png"}}, "b: has no mask .*rois"),
        (["g/z.png"], {"ignore": "g/{case}.png"}, "z.png: mask of case 'z', which has no image"),
    ],
)  # fmt: skip
def test_files_that_do_not_fit_are_named(make_files, files: list[str], options: dict, message: str) -> None:
    root = make_files("i/a.png", "r/a_1.png", *files)
    given = {
        "images": ["i/{case}.png"],
        "raters": ["r/{case}_{rater}.png"],
    } | options
    for key in ("images", "raters"):
        given[key] = [f"{root}/{text}" for text in given[key]]
    for key in ("soft", "ignore"):
        if key in given:
            given[key] = f"{root}/{given[key]}"
    if "soft" in given:
        given["soft"] = SoftFiles(given["soft"], ["x", "y"])
    if "rois" in given:
        given["rois"] = {name: f"{root}/{text}" for name, text in given["rois"].items()}
    with pytest.raises((UsageError, DatasetError), match=message):
        find_cases(**given)


@pytest.mark.parametrize(
    ("images", "raters", "remedy"),
    [
        ("i/{case}.png", "r/{rater}/{case}.png", "write {case}_seg instead of {case} in raters"),
        ("i/{case}_0000.png", "s/{rater}/{case}.png", "write MR_{case} instead of {case} in images"),
        ("i/{case}_0000.png", "q/{rater}/{case}.png", "the two must name cases alike"),
    ],
)
def test_a_forgotten_part_of_the_name_is_told_with_both_names(make_files, images, raters, remedy) -> None:
    root = make_files(
        *[f"i/MR_k{i}_0000.png" for i in (1, 2)], *[f"s/{r}/k{i}.png" for r in "ab" for i in (1, 2)]
    )
    make_files(*[f"r/{r}/MR_k{i}_0000_seg.png" for r in "ab" for i in (1, 2)])
    make_files(*[f"q/{r}/z{i}.png" for r in "ab" for i in (1, 2)])
    for extra_files in ("refuse", "ignore"):
        with pytest.raises(UsageError) as raised:
            find_cases([f"{root}/{images}"], raters=[f"{root}/{raters}"], extra_files=extra_files)
        text = str(raised.value)
        assert "none of its 4 files fits an image" in text
        assert remedy in text
        assert "an image is of case 'MR_k1" in text


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("rois", {"bone": "m/{case}.png"}), ("ignore", "m/{case}.png"), ("soft", "m/{case}_{label}.png")],
)
def test_masks_and_maps_with_a_forgotten_part_of_the_name(make_files, what, pattern) -> None:
    root = make_files("i/k1.png", "i/k2.png", "r/k1_1.png", "r/k2_1.png")
    make_files(*[f"m/k{i}_new{end}.png" for i in (1, 2) for end in (["_x"] if what == "soft" else [""])])
    given = {k: f"{root}/{v}" for k, v in pattern.items()} if what == "rois" else f"{root}/{pattern}"
    given = SoftFiles(given, ["x"]) if what == "soft" else given
    with pytest.raises(UsageError, match=r"none of its 2 files fits an image; .* write \{case\}_new instead"):
        find_cases(
            [f"{root}/i/{{case}}.png"],
            raters=[f"{root}/r/{{case}}_{{rater}}.png"],
            **{what: given},
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"groups\.csv: no such file"),
        (b"\xff\xfe\x00", "groups.csv: cannot be read"),
        (b"", "has no column 'case'"),
        (b"name,patient\na,1\n", r"has no column 'case'; its columns are name, patient \(case_column\)"),
        (
            b"case,subject\na,1\n",
            r"has no column 'patient'; its columns are case, subject \(group_column\)",
        ),
        (b"case,patient\na,1\na,2\n", "case a is in the groups '1' and '2'; keep one"),
        (b"case,patient\na,\n", "case a has no patient; fill the cell"),
        (b"case,patient\na\n", "case a has no patient; fill the cell"),
    ],
)
def test_wrong_groups_are_named(tmp_path: Path, text: bytes | None, message: str) -> None:
    if text is not None:
        (tmp_path / "groups.csv").write_bytes(text)
    with pytest.raises(DatasetError, match=message):
        read_groups(tmp_path / "groups.csv", group_column="patient")


def test_groups_may_have_more_rows_but_not_fewer(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(
        "\ufeffcase,group\na,1\nb,1\nc,2\n", encoding="utf-8"
    )  # as Excel writes
    groups = read_groups(tmp_path / "groups.csv")
    assert [case.group for case in with_groups([Case("a", []), Case("c", [])], groups, "groups.csv")] == [
        "1",
        "2",
    ]
    with pytest.raises(DatasetError, match=r"groups.csv: has no row for case d; add one"):
        with_groups([Case("d", [])], groups, "groups.csv")


def test_test_cases_are_marked() -> None:
    cases = [Case("a", [], group="1"), Case("b", [], group="2")]
    assert [case.is_test for case in with_test_cases(cases, ["b"])] == [False, True]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x"], "names: no case is named 'x'"),
        (["a", "b", "c"], "nothing is left to train on"),
        (["a"], "group 1 has case b in training and others in the test set"),
    ],
)
def test_wrong_test_cases_are_refused(names: list[str], message: str) -> None:
    cases = [Case("a", [], group="1"), Case("b", [], group="1"), Case("c", [], group="2")]
    with pytest.raises((UsageError, DatasetError), match=message):
        with_test_cases(cases, names)


def test_maps_without_labels_are_refused_not_left_out(make_files) -> None:
    root = make_files("i/a.png", "r/a_1.png", "p/a.png")
    with pytest.raises(UsageError, match=r"^soft .*p/\{case\}.png: has no labels; name them with labels"):
        find_cases(
            f"{root}/i/{{case}}.png",
            raters=f"{root}/r/{{case}}_{{rater}}.png",
            soft=SoftFiles(f"{root}/p/{{case}}.png", []),
        )


@pytest.mark.parametrize("options", [{}, {"extra_files": "ignore"}])
def test_two_spellings_of_an_accent_are_told(make_files, options) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zo\u00e9") for form in ("NFC", "NFD"))
    root = make_files(f"i/{composed}.png", "i/b.png", f"r1/{decomposed}.png", "r1/b.png")
    with pytest.raises(DatasetError, match=r"accents are stored in two ways \('Zoe.u0301', 'Zo.xe9'\)"):
        find_cases([f"{root}/i/{{case}}.png"], raters=[f"{root}/{{rater:r1}}/{{case}}.png"], **options)


def test_a_name_for_two_channels_of_raters_is_refused() -> None:
    files = RaterFiles("r/{case}.nii.gz", axis="last", names=["anna", "bob", "anna"])
    with pytest.raises(UsageError, match="the name 'anna' is given twice; give each channel its own"):
        find_cases(["i/{case}.nii.gz"], raters=files)

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from nnunet_softlabel.cases.groups import read_groups
from nnunet_softlabel.cases.table import read_case_table
from nnunet_softlabel.cases.test_names import read_test_names
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import Channel

FILES = (
    "a.png",
    "b.png",
    "a2.png",
    "b2.png",
    "a_r1.png",
    "a_r2.png",
    "b_r1.png",
    "bone.png",
    "p.png",
    "x.png",
)


@pytest.fixture
def write_table(tmp_path: Path):
    """Write a table beside some files."""
    for name in FILES:
        (tmp_path / name).touch()

    def write(text: str | bytes, name: str = "cases.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


LONG = "case,image,rater,mask\na,a.png,r1,a_r1.png\na,a.png,r2,a_r2.png\nb,b.png,r1,b_r1.png\n"
WIDE = "case,image,r1,r2\na,a.png,a_r1.png,a_r2.png\nb,b.png,b_r1.png,\n"
SAME = {
    "long": LONG,
    "wide": WIDE,
    "image once per case": LONG.replace("a,a.png,r2", "a,,r2"),
    "named raters beside a column that is none": WIDE.replace("r1,r2", "rater:r1,rater:r2,age").replace(
        ".png,a_r2.png", ".png,a_r2.png,61"
    ),
    "semicolons": LONG.replace(",", ";"),
    "tabs": LONG.replace(",", "\t"),
    "byte order mark": b"\xef\xbb\xbf" + LONG.encode(),
    "UTF-16 of a spreadsheet": LONG.replace(",", "\t").encode("utf-16"),
    "CRLF": LONG.replace("\n", "\r\n"),
    "blanks and empty rows": LONG.replace(",", " , ").replace("\n", " \n,,,\n"),
    "quotes": LONG.replace("a_r1.png", '"a_r1.png"'),
    "blanks before quotes": LONG.replace("a_r1.png", ' "a_r1.png" '),
    "Excel's line of the separator": b"\xef\xbb\xbfsep=;\r\n" + LONG.replace(",", ";").encode(),
    "columns in another order": "mask,rater,case,image\n"
    "a_r1.png,r1,a,a.png\na_r2.png,r2,a,a.png\nb_r1.png,r1,b,b.png\n",
    "capitals in the header": LONG.replace("case,image,rater,mask", "Case,IMAGE,Rater,Mask"),
    "BIDS' empty cells": WIDE.replace("b_r1.png,", "b_r1.png,n/a"),
    "a quoted name with the other separator": WIDE.replace("case,image", 'case,"image"').replace(
        "r1,r2", 'rater:r1,"rater:r2",";;;;;"'
    ),
    "paths of Windows": LONG.replace("a_r1.png", ".\\a_r1.png"),
}


@pytest.mark.parametrize("kind", SAME)
def test_any_form_of_a_table_is_read(write_table, tmp_path: Path, kind: str) -> None:
    a, b = read_case_table(write_table(SAME[kind])).cases
    assert (a.name, a.images, b.name, b.images) == ("a", [tmp_path / "a.png"], "b", [tmp_path / "b.png"])
    assert a.raters == {"r1": tmp_path / "a_r1.png", "r2": tmp_path / "a_r2.png"}
    assert b.raters == {"r1": tmp_path / "b_r1.png"}


def test_raters_keep_their_capitals_and_optional_columns_need_none(write_table, tmp_path: Path) -> None:
    text = "Case,Image:T2,Rater:Anna,Group\na,a.png,a_r1.png,p1\n"
    table = read_case_table(write_table(text))
    assert table.channel_names == ("T2",)
    assert table.cases[0].raters == {"Anna": tmp_path / "a_r1.png"}
    assert table.cases[0].group == "p1"
    assert table.ignored_columns == ()


def test_rows_count_from_the_line_of_the_separator(write_table) -> None:
    with pytest.raises(DatasetError, match="row 3: r1: no such file"):
        read_case_table(write_table("sep=;\r\ncase;image;r1\r\na;a.png;no.png\r\n"))


@pytest.mark.parametrize(("stored", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_an_accent_may_be_stored_in_another_way(write_table, tmp_path: Path, stored, written) -> None:
    name = unicodedata.normalize(stored, "Zoé.png")
    (tmp_path / name).touch()
    spelled = unicodedata.normalize(written, name)
    table = read_case_table(write_table(f"case,image,r1\na,a.png,{spelled}\n"))
    assert [path.exists() for path in table.cases[0].raters.values()] == [True]


def test_optional_columns(write_table, tmp_path: Path) -> None:
    text = (
        "case,image:T2,image:FLAIR,mask,label,group,test,roi:bone,ignore\n"
        "a,a.png,a2.png,p.png,lesion,p1,1,bone.png,x.png\n"
        "b,b.png,b2.png,b_r1.png,,p2,no,,\n"
    )
    table = read_case_table(write_table(text), label_names=["lesion"])
    a, b = table.cases
    assert table.channel_names == ("T2", "FLAIR")
    assert a.images == [tmp_path / "a.png", tmp_path / "a2.png"]
    assert (a.soft, a.raters) == ({"lesion": tmp_path / "p.png"}, {})
    assert (a.rois, a.ignore) == ({"bone": tmp_path / "bone.png"}, tmp_path / "x.png")
    assert [(case.group, case.is_test) for case in (a, b)] == [("p1", True), ("p2", False)]
    assert (b.raters, b.rois, b.ignore) == ({"rater": tmp_path / "b_r1.png"}, {}, None)


def test_channels_are_ordered_by_number(write_table, tmp_path: Path) -> None:
    table = read_case_table(write_table("case,image_0001,image_0000,r1\na,a2.png,a.png,a_r1.png\n"))
    assert table.cases[0].images == [tmp_path / "a.png", tmp_path / "a2.png"]
    assert table.channel_names == ()


def test_absolute_paths_and_unused_columns(write_table, tmp_path: Path) -> None:
    table = read_case_table(write_table(f"case,image,rater:r,age\na,{tmp_path / 'a.png'},a_r1.png,60\n"))
    assert table.cases[0].images == [tmp_path / "a.png"]
    assert table.ignored_columns == ("age",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write a header"),
        (" \n,,\n", "is empty; write a header"),
        ("case;image;r1\na,a.png,a_r1.png\n", "row 2: is separated by ',', the header by ';'; use one"),
        ('case,image,rater,mask\na,a.png,"r1,a_r1.png\nb,b.png,r1,b_r1.png"\n', "row 2: a field holds"),
        ("case,image_0000,image_0002,r1\n", "has the columns image_0000, image_0002; number them without"),
        ("case,image,image_0000,r1\n", "has the columns image, image_0000; number them"),
        ("case,image_0002,r1\n", "has the columns image_0002; number them without a gap"),
        (LONG + "b,b.png,r1,b_r1.png\n", "row 5: rater r1 is there twice, with one file; remove a row"),
        ("name,image\n", r"has no column 'case'; its columns are name, image \(case_column\)"),
        ("case,image,r1\n", "has no row under its header"),
        ("case,rater,mask\na,r1,a_r1.png\n", "has no column of images"),
        ("case,image,image:T2,r1\n", "mixes image:NAME with other image columns"),
        ("case,image,mask,rater:r1\n", r"has a column mask .* and rater:r1"),
        ("case,image,case\n", "has two columns 'case'"),
        ("case,image,r1\na,a.png,a_r1.png,more\n", "row 2: has more fields than the header"),
        ("case,image,r1\n,a.png,a_r1.png\n", "row 2: has no case"),
        ("case,image,r1\n\n\na,a.png,no.png\n", "row 4: r1: no such file .*no.png"),
        ("case,image,r1\na,.,a_r1.png\n", "row 2: image: .* is a folder; name a file of it"),
        ("case,image,r1\na,no.png,a_r1.png\n", "row 2: image: no such file .*no.png"),
        ("case,image,r1\na,,a_r1.png\n", "case a has no image; fill one cell"),
        (
            LONG.replace("a,a.png,r2", "a,b.png,r2"),
            "row 3: image is 'b.png', but 'a.png' in row 2 of the same case",
        ),
        (LONG.replace("r2,a_r2.png", "r1,a_r2.png"), "row 3: rater r1 has two files for this case"),
        (LONG.replace("r2,a_r2.png", "r2,"), "row 3: has no mask for r2"),
        ("case,image,rater,label,mask\na,a.png,r1,l,p.png\n", "row 2: has a rater and a label"),
        ("case,image,label,mask\na,a.png,other,p.png\n", "case a has a map of label 'other'"),
        ("case,image,r1,test\na,a.png,a_r1.png,maybe\n", "row 2: test is 'maybe'; write 1 or 0"),
        ("case,image,r1\na_seg,a.png,a_r1.png\n", "Case a_seg: nnU-Net takes names"),
        ("case,image,rater,mask\na,a.png,.r,a_r1.png\n", "row 2: rater '.r': a name cannot"),
        (b"case,image,r1\n\xff\xff\xff,a.png,a_r1.png\n", r"cannot be read \(.*save it as CSV in UTF-8"),
    ],
)  # fmt: skip
def test_errors_name_the_row(write_table, text: str | bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_case_table(write_table(text), label_names=["lesion"])


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """A TIFF of two pages."""
    import numpy as np
    import tifffile

    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2, 5, 6), np.uint8), photometric="minisblack")
    return tmp_path / "stack.tif"


def test_masks_without_rater_may_hold_a_channel_per_rater(write_table, tmp_path: Path, stack) -> None:
    table = write_table("case,image,rater,mask\na,a.png,,stack.tif\nb,b.png,bob,b_r1.png\n")
    a, b = read_case_table(table, rater_axis="first", rater_names=["anna", "bob"]).cases
    assert a.raters == {"anna": Channel(stack, 0, "first"), "bob": Channel(stack, 1, "first")}
    assert b.raters == {"bob": tmp_path / "b_r1.png"}
    without = write_table("case,image,mask\na,a.png,stack.tif\n")
    assert list(read_case_table(without, rater_axis="first").cases[0].raters) == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (LONG, {"rater_axis": "first"}, "rater_axis is for masks without rater, and every mask"),
        (WIDE, {"rater_axis": "first"}, "rater_axis is for masks without rater"),
        (LONG, {"rater_names": ["x"]}, "rater_names belongs to rater_axis; add it"),
        (
            "case,image,mask\na,a.png,stack.tif\n",
            {"rater_axis": "first", "rater_names": ["x"]},
            "row 2: .*stack.tif: has 2 channels, but rater_names gives 1 names",
        ),
        (
            "case,image,rater,mask\na,a.png,,stack.tif\na,a.png,2,a_r1.png\n",
            {"rater_axis": "first"},
            "row 3: rater 2 has two files for this case, channel 2 of .*stack.tif and .*a_r1.png",
        ),
    ],
)
def test_wrong_channels_of_raters_in_a_table(write_table, stack, text, options, message) -> None:
    with pytest.raises((DatasetError, UsageError), match=message):
        read_case_table(write_table(text), **options)


def test_a_table_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent.csv: no such file"):
        read_case_table(tmp_path / "absent.csv")
    with pytest.raises(DatasetError, match=r"is a folder"):
        read_case_table(tmp_path)


def test_groups_are_read_by_the_same_reader(write_table) -> None:
    path = write_table("\ufeffcase ; group\r\na ; p1\r\n\r\nb;p2\r\n".encode())
    assert read_groups(path) == {"a": "p1", "b": "p2"}


def test_test_cases_may_be_names_lines_or_a_table(write_table) -> None:
    assert read_test_names(["a", "b"]) == ["a", "b"]
    assert read_test_names([str(write_table("\ufeffa\r\n\n b \n".encode(), "names.txt"))]) == ["a", "b"]
    assert read_test_names([str(write_table("case;test\na;1\nb;0\nc;yes\n"))]) == ["a", "c"]
    assert read_test_names([str(write_table("case\na\nb\n"))]) == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (b"\xff\xfe\xff", "names.txt", "is no text file; write one case name per line"),
        ("a\nb\n", "names.csv", "has no column 'case'"),
        ("case,test\na,perhaps\n", "names.csv", "row 2: test is 'perhaps'"),
    ],
)
def test_wrong_files_of_test_cases(write_table, text: str | bytes, name: str, message: str) -> None:
    with pytest.raises((DatasetError, UsageError), match=message):
        read_test_names([str(write_table(text, name))])


@pytest.mark.parametrize(
    ("text", "name"), [("\n  \n", "names.txt"), ("", "names.txt"), ("case;test\na;0\n", "t.csv")]
)
def test_a_file_that_names_no_test_case_is_refused(write_table, text, name):
    with pytest.raises(UsageError, match="names no case; fill the file, or leave out the flag"):
        read_test_names([str(write_table(text, name))])


def test_capitals_in_the_header_are_understood_by_all_tables(write_table) -> None:
    assert read_test_names([str(write_table("Case,TEST\na,1\nb,0\n"))]) == ["a"]
    assert read_groups(write_table("CASE,Group\na,p\n")) == {"a": "p"}
    table = write_table("Patient,Case,Image,Mask\np,a,a.png,a.png\n")
    (case,) = read_case_table(table, group_column="patient").cases
    assert (case.name, case.group) == ("a", "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,test\na,0\nb,1\na,1\n", "row 4: test is '1', but '0' in row 2 of the same case; keep one"),
        ("case,patient\na,p\n", "has no column test, but patient; add it"),
        ("case,test\n,1\n", "row 2: has no case; fill the cell or remove the row"),
    ],
)
def test_a_table_of_test_cases_that_is_not_clear_is_refused(write_table, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_test_names([str(write_table(text))])


def test_a_row_of_groups_without_case_is_refused(write_table) -> None:
    with pytest.raises(DatasetError, match="row 2: has no case; fill the cell or remove the row"):
        read_groups(write_table("case,group\n,p\n"))


def test_an_empty_cell_says_nothing_of_a_test_case(write_table) -> None:
    assert read_test_names([str(write_table("case,test\na,1\na,\nb,\n"))]) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,image,mask\na,a.png,a.png\n", "has no column 'patient'; its columns are case, image, mask"),
        ("case,mask,patient,group\na,a.png,p,q\n", "has the columns group and patient; keep one"),
    ],
)
def test_a_wrong_column_of_groups_is_refused(write_table, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_case_table(write_table(text), group_column="patient")

"""What is read and written: broken files reported, the page, the command."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.inspection import (
    dataset_cases,
    format_inspection,
    inspect_raters,
    pattern_cases,
    write_inspection,
)
from nnunet_softlabel.inspection.output import case_rows
from nnunet_softlabel.inspection.run import prior_effects
from nnunet_softlabel.inspection.verdict import verdict
from tests.conftest import RaterFolder, write_volume
from tests.inspection.raters_by_hand import LESION, as_cases, discs


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(UsageError, match="no case has two raters whose masks can be compared"):
        inspect_raters(as_cases(discs(3, 1)), labels=LESION)
    broken = Case("a", [], raters={"1": Path("none.nii.gz"), "2": Path("none.nii.gz")})
    with pytest.raises(UsageError, match=r"compared \(a: rater 1: none.nii.gz: no such file"):
        inspect_raters([broken], labels=LESION)


def test_prior_effects_are_read_from_the_records() -> None:
    record = {"a": {"before": {"lesion": 10}, "after": {"lesion": 4.0}}}
    expected = {"a": {"lesion": {"before_mm3": 10.0, "after_mm3": 4.0}}}
    assert prior_effects(record) == prior_effects({"method": "roi", "records": record}) == expected
    assert prior_effects(None) == prior_effects({"method": "roi"}) == {}
    summary = inspect_raters([Case("a", [], raters=discs(1, 2)[0])], labels=LESION, prior=record)
    assert case_rows(summary)[0]["prior_after_mm3"] == 4.0
    assert "expected volume 10 mm3 before, 4 mm3 after" in format_inspection(summary)


@pytest.mark.parametrize("names", [("1", "2", "3"), ("annotation1", "annotation2", "b")])
def test_columns_of_the_matrix_stand_below_the_whole_name_of_their_rater(names: tuple[str, ...]) -> None:
    cases = [
        Case(str(number), [], raters=dict(zip(names, masks.values(), strict=True)))
        for number, masks in enumerate(discs(3, 3))
    ]
    lines = format_inspection(inspect_raters(cases, labels=LESION)).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Dice "))
    header, *rows = lines[start : start + 1 + len(names)]
    assert header.split() == ["Dice", *names]
    assert [row.split()[0] for row in rows] == list(names)
    assert {len(row) for row in rows} == {len(header)}


def test_cases_are_named_by_raters_files_without_images(rater_folder: RaterFolder) -> None:
    with_images = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    without = pattern_cases([rater_folder.rater_pattern])
    assert [(c.name, dict(c.raters)) for c in without] == [(c.name, dict(c.raters)) for c in with_images]


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["x/{case}.nii.gz"], "needs {rater}"),
        (["x/{rater}.nii.gz"], "needs {case}"),
        (["nowhere/{case}_{rater}.png"], "fits no file"),
    ],
)
def test_wrong_patterns_are_refused(patterns: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pattern_cases(patterns)


def test_two_files_of_one_rater_are_refused(rater_folder: RaterFolder) -> None:
    with pytest.raises(DatasetError, match="rater 1 has two files"):
        pattern_cases([rater_folder.rater_pattern] * 2)


def test_problems_with_files_are_reported_and_the_rest_compared(rater_folder: RaterFolder) -> None:
    a, b, c, d = rater_folder.cases
    mask = np.ones((8, 16, 16), dtype=np.uint8)
    write_volume(rater_folder.rater(a, "1"), mask, (1.0, 1.0, 2.0), origin=(9.0, 0.0, 0.0))
    write_volume(rater_folder.rater(b, "1"), mask[:, :, :9])
    write_volume(rater_folder.rater(c, "1"), mask * 7, (1.0, 1.0, 2.5))
    rater_folder.rater(d, "1").write_bytes(b"no image")
    cases = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    summary = inspect_raters(cases, labels=LESION)
    problems = {found["case"]: found["problem"] for found in summary["problems"]}
    assert "another grid than the image: origin (9.0, 0.0, 0.0)" in problems[a]
    assert "size (9, 16, 8) instead of (16, 16, 8)" in problems[b]
    assert "holds the value 7, which no --labels entry names" in problems[c]
    assert "cannot be read" in problems[d]
    raters = {case: list(found["lesion"]["volume_mm3"]) for case, found in summary["per_case"].items()}
    assert raters == {a: ["1", "2", "3"], b: ["2", "3"], c: ["2", "3"], d: ["2", "3"]}


def test_an_unreadable_image_is_a_problem_and_no_end(rater_folder: RaterFolder, tmp_path: Path) -> None:
    rater_folder.image(rater_folder.cases[0]).write_bytes(b"no image")
    cases = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    summary = inspect_raters(cases, labels=LESION)
    assert [p["case"] for p in summary["problems"]] == [rater_folder.cases[0]]
    assert summary["cases_compared"] == 4
    write_inspection(tmp_path / "o", summary, cases, labels=LESION, title="t")


def test_dark_foreground_in_one_and_eight_bit(tmp_path: Path) -> None:
    from PIL import Image

    mask = np.zeros((6, 6), dtype=bool)
    mask[2:4, 2:4] = True
    for rater, array in {"a": ~mask, "b": np.where(mask, 0, 255).astype(np.uint8)}.items():
        (tmp_path / rater).mkdir()
        Image.fromarray(array).save(tmp_path / rater / "x.png")
    cases = pattern_cases([str(tmp_path / "{rater}" / "{case}.png")], is_dark=True)
    summary = inspect_raters(cases, labels=LESION)
    assert summary["identical"]["raters"] == [{"raters": ["a", "b"], "cases": 1}]
    assert summary["per_case"]["x"]["lesion"]["volume_mm3"] == {"a": 4.0, "b": 4.0}


def refuse_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def test_inspect_a_converted_data_set(
    rater_folder: RaterFolder, nnunet_folders: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(rater_folder.arguments()) == 0
    out = tmp_path / "out"
    assert main(["inspect", "-d", "901", "-o", str(out), "-np", "1"]) == 0
    text = capsys.readouterr().out
    assert "4 of 4 cases have two raters or more; 3 raters" in text
    found = json.loads((out / "inspection.json").read_text(encoding="utf-8"), parse_constant=refuse_constant)
    assert found["raters"] == ["1", "2", "3"]
    with (out / "inspection.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == list(rater_folder.cases)
    assert float(rows[0]["mean_dice"]) == pytest.approx(found["per_case"]["case_00"]["lesion"]["mean_dice"])
    page = (out / "inspection.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 * 4 + 1  # panels of four cases, and a histogram
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert main(["inspect", "-d", "901", "-o", str(out), "-np", "1"]) == 2
    assert "already there" in capsys.readouterr().err
    assert main(["inspect", "-d", "901", "-o", str(out), "-np", "1", "--overwrite"]) == 0


def test_page_says_what_convert_understood(rater_folder, nnunet_folders, tmp_path: Path, capsys) -> None:
    rater_folder.rater("case_01", "3").unlink()
    labels = ["--labels", *rater_folder.labels, "absent=7"]
    assert main([*rater_folder.arguments()[:-2], *labels, "--test-cases", "case_02"]) == 0
    printed = capsys.readouterr().out.split("Data set written")[0].splitlines()
    assert printed[0] == "4 cases: 3 for training, 1 for testing."
    assert main(["inspect", "-d", "901", "-o", str(tmp_path / "d"), "-np", "1"]) == 0
    page = (tmp_path / "d" / "inspection.html").read_text(encoding="utf-8")
    for line in printed:
        assert line.removeprefix("WARNING: ") in page
    assert '<div class="box warn">Label absent occurs in no file.</div>' in page
    understood = json.loads((tmp_path / "d" / "inspection.json").read_text(encoding="utf-8"))["understood"]
    assert [*understood["lines"], *(f"WARNING: {text}" for text in understood["warnings"])] == printed
    files = ["inspect", "--raters", rater_folder.rater_pattern, *labels, "-np", "1"]
    assert main([*files, "-o", str(tmp_path / "f")]) == 0
    page = (tmp_path / "f" / "inspection.html").read_text(encoding="utf-8")
    for line in ("4 cases.", "Rater 3: 3 cases, not case_01.", "Label absent occurs in no file."):
        assert f">{line}</" in page


def test_a_summary_of_another_shape_is_one_line(rater_folder, nnunet_folders, capsys) -> None:
    assert main(rater_folder.arguments()) == 0
    path = nnunet_folders.raw / "Dataset901_Tiny" / "dataset.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for summary in ([], {"disputed_share": "x"}, {}):
        content["soft_labels"]["summary"] = summary
        path.write_text(json.dumps(content), encoding="utf-8")
        assert main(["inspect", "-d", "901", "-np", "1"]) == 2
        assert "dataset.json: " in capsys.readouterr().err


def test_names_are_escaped(tmp_path: Path) -> None:
    maps = discs(1, 2)[0]
    cases = [Case("<b>case", [], raters={"<script>": maps["r0"], "&b": maps["r1"]})]
    summary = inspect_raters(cases, labels=LESION)
    write_inspection(tmp_path, summary, cases, labels=LESION, title="<i>")
    page = (tmp_path / "inspection.html").read_text(encoding="utf-8")
    assert not re.search("<script>|<b>case|<i>", page)
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give -d .* or --raters .* or --cases-csv"),
        (["-d", "901", "--raters", "x"], "leave out --raters"),
        (["--raters", "x/{case}_{rater}.png"], "needs either --labels or --dark-foreground"),
        (["--raters", "x/{case}_{rater}.png", "--labels", "a=1", "--dark-foreground"], "needs either"),
        (["--raters", "x/{case}_{rater}.png", "--labels", "a=1"], "fits no file"),
        (["--raters", "x/{case}_{rater}.png", "--labels", "a="], "expected name=value"),
        (["-d", "901", "-np", "0"], "-np takes a number from 1"),
        (["-d", "901"], "no such data set"),
    ],
)
def test_wrong_flags_end_in_one_line(
    arguments: list[str], message: str, nnunet_folders: SimpleNamespace, capsys: pytest.CaptureFixture
) -> None:
    assert main(["inspect", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert re.search(message, lines[0])


def test_a_data_set_without_raters_is_refused(
    rater_folder: RaterFolder, nnunet_folders: SimpleNamespace
) -> None:
    from shutil import rmtree

    assert main(rater_folder.arguments()) == 0
    dataset = SoftDataset.find(901)
    rmtree(dataset.folder / "raterLabelsTr")
    with pytest.raises(DatasetError, match="holds no rater's mask"):
        dataset_cases(dataset)


def compared(disputed: float, *, volumes: list[dict[str, float]], **more: object) -> dict:
    """What of a comparison the verdict reads."""
    return {
        "is_anonymous": False,
        "raters_missing": {},
        "raters_per_case": {},
        "per_class": {"lesion": {"disputed_share": disputed}},
        "per_case": {
            f"c{i}": {
                "lesion": {"volume_mm3": v, "found_nothing": [r for r in v if not v[r] and any(v.values())]}
            }
            for i, v in enumerate(volumes)
        },
        "stand_out": {"raters": []},
        **more,
    }


@pytest.mark.parametrize(
    ("found", "sentences"),
    [
        (
            compared(0.45, volumes=[{"a": 1.0, "b": 2.0}]),
            ["lesion: 45% of what anyone marked is disputed: soft labels have something to learn."],
        ),
        (
            compared(0.05, volumes=[{"a": 1.0, "b": 2.0}]),
            ["lesion: 5% of what anyone marked is disputed: soft labels can change little."],
        ),
        (
            compared(0.01, volumes=[{"a": 1.0, "b": 1.0}]),
            [
                "lesion: 1% of what anyone marked is disputed: the raters agree, and soft labels hardly "
                "differ from hard ones."
            ],
        ),
        (compared(float("nan"), volumes=[{"a": 0.0, "b": 0.0}]), ["lesion: no rater marked anything."]),
        (
            compared(0.3, volumes=[{"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}]),
            [
                "lesion: 30% of what anyone marked is disputed: soft labels have something to learn.",
                "lesion: in 1 of 2 marked cases one rater marked nothing where another did. This is no "
                "matter of outlines: try `convert --fusion lesion-wise`, or `refine` after a first training.",
            ],
        ),
        (
            compared(
                0.3,
                volumes=[{"a": 1.0}],
                raters_missing={"a": ["c1"], "b": [f"c{i}" for i in range(7)]},
                stand_out={"raters": [{"rater": "a"}, {"rater": "a"}]},
            ),
            [
                "lesion: 30% of what anyone marked is disputed: soft labels have something to learn.",
                "Rater a is missing in 1 case: c1.",
                "Rater b is missing in 7 cases: c0, c1, c2, c3, c4 and 2 more.",
                "Rater a stands out; see below.",
            ],
        ),
        (
            compared(
                0.3, volumes=[{"a": 1.0}], is_anonymous=True, raters_per_case={"3": 47, "4": 439},
                stand_out={"raters": [{"rater": "b"}, {"rater": "a"}]},
            ),
            [
                "lesion: 30% of what anyone marked is disputed: soft labels have something to learn.",
                "Cases have different numbers of raters: 47 cases have 3, 439 cases have 4.",
                "Raters a, b stand out; see below.",
            ],
        ),
    ],
)  # fmt: skip
def test_every_sentence_of_the_verdict(found: dict, sentences: list[str]) -> None:
    assert verdict(found) == sentences


def test_the_page_begins_with_the_verdict_and_lists_who_is_missing(
    rater_folder, tmp_path: Path, capsys
) -> None:
    first, second, *_ = rater_folder.cases
    rater_folder.rater(first, "2").unlink()
    rater_folder.rater(second, "2").unlink()
    cases = pattern_cases([rater_folder.rater_pattern], rater_folder.images)
    summary = inspect_raters(cases, labels=LESION)
    assert summary["raters_missing"] == {"2": [first, second]}
    assert summary["raters_per_case"] == {"2": 2, "3": 2}
    write_inspection(tmp_path / "o", summary, cases, labels=LESION, title="t")
    page = (tmp_path / "o" / "inspection.html").read_text(encoding="utf-8")
    sentences = verdict(summary)
    assert f"Rater 2 is missing in 2 cases: {first}, {second}." in sentences
    assert 0 < page.index(sentences[0]) < page.index("Mean pairwise Dice")
    assert f"<td>2</td><td>2</td><td>{first}, {second}</td>" in page
    assert "<li>4 cases.</li>" in page
    assert 'alt="lesion: mean Dice of the raters in each of 4 cases' in page
    assert format_inspection(summary).splitlines()[1] == sentences[0]
    anonymous = inspect_raters(cases, labels=LESION, is_anonymous=True)
    assert anonymous["raters_missing"] == {}

"""``refine``: from the folds of a first round to the data set of the second, as a user runs it."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cli import main
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.thresholds import choose_threshold
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.refinement import page as page_module

SHAPE = (3, 24, 32)
GRID = Grid.upright(SHAPE, (2.0, 1.0, 1.0))
FINDS, INVENTS = {"a": 0.8, "b": 0.55, "c": 0.35}, {"a": 0.02, "b": 0.1, "c": 0.15}
LESIONS, OTHER = ((4, 3), (4, 14)), ((14, 3), (14, 14), (14, 25))
N_CASES, N_FOLDS = 60, 3


def _given(image: np.ndarray) -> tuple[np.ndarray, Grid]:
    return image, GRID


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take nearly all of the time."""
    monkeypatch.setattr(page_module, "PICTURED", 4)


@pytest.fixture
def first_round(nnunet_folders: SimpleNamespace) -> SimpleNamespace:
    """A data set with misses and inventions, and what three folds would have predicted."""
    rng = np.random.default_rng(0)
    cases, maps = [], {}
    for i in range(N_CASES):
        drawn = {name: np.zeros(SHAPE, np.uint8) for name in FINDS}
        p = np.full(SHAPE, 0.02, np.float32)
        for places, rates, level in ((LESIONS, FINDS, 0.55), (OTHER, INVENTS, 0.2)):
            for row, column in places:
                box = (1, slice(row, row + 5), slice(column, column + 5))
                p[box] = np.clip(level + 0.1 * rng.standard_normal(), 0.05, 0.95)
                for name in FINDS:
                    drawn[name][box] = rng.random() < rates[name]
        image = (100 * p + rng.normal(0, 3, SHAPE)).astype(np.int16)
        cases.append(Case(f"c{i:02d}", [partial(_given, image)], drawn))
        maps[f"c{i:02d}"] = p
    folder = convert(cases, "Dataset910_First", labels=["lesion=1"], channel_names=["MR"])
    results = nnunet_folders.results / folder.name / "nnUNetTrainerSoftCE__nnUNetPlans__3d_fullres"
    names = sorted(maps)
    splits = [
        {"train": [n for j, n in enumerate(names) if j % N_FOLDS != k], "val": names[k::N_FOLDS]}
        for k in range(N_FOLDS)
    ]
    for k, split in enumerate(splits):
        validation = results / f"fold_{k}" / "validation"
        validation.mkdir(parents=True)
        for name in split["val"]:
            np.savez(validation / f"{name}.npz", probabilities=np.stack([1 - maps[name], maps[name]]))
    splits_file = nnunet_folders.preprocessed / folder.name / "splits_final.json"
    splits_file.parent.mkdir(parents=True, exist_ok=True)
    splits_file.write_text(json.dumps(splits))
    return SimpleNamespace(
        dataset=SoftDataset(folder), results=results, splits_file=splits_file, splits=splits
    )


def run(*extra: str) -> int:
    arguments = [
        "refine",
        "-d",
        "910",
        "-tr",
        "nnUNetTrainerSoftCE",
        "-c",
        "3d_fullres",
        "-o",
        "911",
        "-np",
        "1",
    ]
    return main([*arguments, *extra])


def refined(nnunet_raw: Path) -> SoftDataset:
    return SoftDataset(nnunet_raw / "Dataset911_FirstRefined")


def mean_of(soft: np.ndarray, row: int, column: int) -> float:
    return float(soft[0][1, row + 2, column + 2])


def test_lesions_come_back_and_inventions_go(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert "rater a: found" in out
    assert "cases to look at" in out
    assert "Next: nnUNetv2_plan_and_preprocess -d 911" in out
    dataset = refined(nnunet_folders.raw)
    labels = [dataset.read_soft(case) for case in dataset.cases()]
    first = [first_round.dataset.read_soft(case) for case in dataset.cases()]
    assert np.mean([mean_of(q, *at) for q in labels for at in LESIONS]) > 0.85
    assert np.mean([mean_of(q, *at) for q in first for at in LESIONS]) < 0.65
    assert np.mean([mean_of(q, *at) for q in labels for at in OTHER]) < 0.06
    assert dataset.about["refined_from"] == {
        "dataset": "Dataset910_First", "training": "nnUNetTrainerSoftCE__nnUNetPlans__3d_fullres",
    }  # fmt: skip
    assert dataset.about["raters"] == ["a", "b", "c"]
    summary = json.loads((dataset.folder / "refinement" / "refinement.json").read_text())
    for rater, rates in summary["labels"]["lesion"]["rates"].items():
        found, low, high = rates["sensitivity"]
        assert found == pytest.approx(FINDS[rater], abs=0.1)
        assert low < found < high


def test_the_page_shows_the_most_doubtful_first_and_stands_alone(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace
) -> None:
    assert run() == 0
    folder = refined(nnunet_folders.raw).folder / "refinement"
    with (folder / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    doubt = [1 - abs(2 * float(row["posterior"]) - 1) for row in rows]
    assert doubt == sorted(doubt, reverse=True)
    page = (folder / "candidates.html").read_text()
    assert page.index(f"{rows[0]['case']}, lesion, candidate {rows[0]['candidate']}<") > 0
    assert page.count("<article") == 4
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_rates_of_lesions_give_a_threshold_for_the_first_network(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace
) -> None:
    assert run() == 0
    file = refined(nnunet_folders.raw).folder / "refinement" / "rater_rates.json"
    found = choose_threshold("rater-corrected", first_round.dataset, threshold_file=file)
    # (mean of 0.8, 0.55, 0.35 + mean of 0.02, 0.1, 0.15) / 2
    assert found.values["lesion"] == pytest.approx(0.328, abs=0.05)
    with pytest.raises(DatasetError, match="only a mean is the raters' rate"):
        choose_threshold("rater-corrected", refined(nnunet_folders.raw), threshold_file=file)
    file.write_text("{}")
    with pytest.raises(DatasetError, match=r"rater_rates.json holds no rater_rates for lesion"):
        choose_threshold("rater-corrected", first_round.dataset, threshold_file=file)


def test_inspect_shows_the_same_page(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace, tmp_path: Path
) -> None:
    assert run() == 0
    assert main(["inspect", "-d", "911", "-o", str(tmp_path / "out"), "-np", "1"]) == 0
    of_refine = refined(nnunet_folders.raw).folder / "refinement"
    for name in ("candidates.csv", "refinement.json"):
        assert (tmp_path / "out" / name).read_bytes() == (of_refine / name).read_bytes()
    assert (tmp_path / "out" / "candidates.html").is_file()


def test_what_an_expert_says_is_what_the_label_holds(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace, tmp_path: Path
) -> None:
    assert run() == 0
    with (refined(nnunet_folders.raw).folder / "refinement" / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    chosen = next(row for row in rows if len(row["marked_by"].split()) == 1)
    filled = tmp_path / "adjudicated.csv"
    for said, expected in (("yes", 1.0), ("no", 0.0)):
        with filled.open("w", newline="") as file:
            writer = csv.DictWriter(file, chosen.keys())
            writer.writeheader()
            writer.writerow(chosen | {"real": said})
        assert run("--adjudicated", str(filled), "--overwrite") == 0
        soft = refined(nnunet_folders.raw).read_soft(chosen["case"])
        assert soft[0][int(chosen["z"]), int(chosen["y"]), int(chosen["x"])] == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("case,candidate\nc00,1\n", "has no column 'real'"),
        ("case,candidate,real\nc00,1,maybe\n", "line 2: real is 'maybe'"),
        ("case,candidate,real\nc00,one,yes\n", "whole numbers"),
        ("case,candidate,real\nnobody,1,yes\n", "case nobody is no training case"),
        ("case,candidate,real\nc00,99,yes\n", "candidate 99 of lesion was adjudicated"),
        ("case,candidate,real\nc00,1,yes\nc00,1,no\n", "is said to be both"),
        ("case,candidate,label,real\nc00,1,bone,yes\n", "no label 'bone'"),
        ("case,candidate,z,y,x,real\nc00,1,0,0,0,yes\n", "was adjudicated at"),
    ],
)  # fmt: skip
def test_a_bad_file_of_an_expert_is_one_line_and_leaves_nothing(
    first_round: SimpleNamespace,
    nnunet_folders: SimpleNamespace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    (tmp_path / "a.csv").write_text(line)
    assert run("--adjudicated", str(tmp_path / "a.csv")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert sorted(p.name for p in nnunet_folders.raw.iterdir()) == ["Dataset910_First"]


def test_a_case_that_its_network_saw_is_refused(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    first_round.splits[0]["train"].append("c00")
    first_round.splits_file.write_text(json.dumps(first_round.splits))
    assert run() == 2
    assert "fold_0 predicted it and was trained on it" in capsys.readouterr().err
    assert sorted(p.name for p in nnunet_folders.raw.iterdir()) == ["Dataset910_First"]


def test_a_fold_that_is_missing_is_named(
    first_round: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (first_round.results / "fold_1" / "validation").glob("*.npz"):
        path.unlink()
    assert run() == 2
    assert "fold 1 validates it; train it with `nnUNetv2_train ... --npz`" in capsys.readouterr().err


def test_without_splits_nobody_can_tell(
    first_round: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    first_round.splits_file.unlink()
    assert run() == 2
    assert "nobody can tell which cases a fold was trained on" in capsys.readouterr().err


def test_untrained_folds_are_named(first_round: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["refine", "-d", "910", "-tr", "Other", "-c", "2d", "-o", "911"]) == 2
    message = capsys.readouterr().err
    assert (
        "Other__nnUNetPlans__2d is not there; train the model first, or choose with -tr, -p and -c" in message
    )
    assert "what is there: nnUNetTrainerSoftCE__nnUNetPlans__3d_fullres" in message
    (first_round.results.parent / "Other__nnUNetPlans__2d").mkdir()
    assert main(["refine", "-d", "910", "-tr", "Other", "-c", "2d", "-o", "911"]) == 2
    assert "no fold was trained there" in capsys.readouterr().err


def test_networks_that_have_not_learnt_leave_the_mean(
    first_round: SimpleNamespace, nnunet_folders: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in first_round.results.rglob("*.npz"):
        np.savez(path, probabilities=np.full((2, *SHAPE), 0.5, np.float32))
    assert run() == 0
    printed = capsys.readouterr().out
    assert "networks have hardly learnt" in printed
    assert "All labels are the mean of the raters: where those of data set 910 are, too, a second" in printed
    assert "Next:" not in printed
    dataset = refined(nnunet_folders.raw)
    for case in dataset.cases():
        for one, two in zip(dataset.soft_files(case), first_round.dataset.soft_files(case), strict=True):
            assert one.read_bytes() == two.read_bytes()


def test_images_are_linked_where_asked(first_round: SimpleNamespace, nnunet_folders: SimpleNamespace) -> None:
    assert run("--link-images") == 0
    image = refined(nnunet_folders.raw).image_files("c00")[0]
    assert image.is_symlink()
    assert image.resolve() == first_round.dataset.image_files("c00")[0].resolve()


def test_nothing_is_overwritten_unless_asked(
    first_round: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    assert run() == 2
    assert "is already there; add --overwrite" in capsys.readouterr().err
    assert run("--resume") == 0

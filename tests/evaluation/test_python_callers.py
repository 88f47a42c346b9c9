"""What reads and writes files takes texts as it takes paths, and leaves nothing when it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnunet_softlabel as ns
from nnunet_softlabel.evaluation import apply_threshold, average, calibrate, maps, run, tuning
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.inspection import page
from nnunet_softlabel.report import page as report_page
from nnunet_softlabel.simulation import knee_files
from tests.scored_dataset import Builder, Evaluated

ONE = {"num_processes": 1}
NIFTI = ns.ImageFiles(".nii.gz")


@dataclass(frozen=True)
class Call:
    """A function on the data set of a test, as its own types and as people write them.

    Attributes:
        plain: of the data set, the folders of predictions and the output.
        as_typed: the same in texts, mappings and single values.
        at_work: module and function that the call cannot do without.
    """

    plain: Callable[[ns.SoftDataset, list[Path], Path], Any]
    as_typed: Callable[[str, list[str], str], Any]
    at_work: tuple[Any, str]


def cases_of(dataset: ns.SoftDataset) -> list[ns.Case]:
    return [
        ns.Case(case, dataset.image_files(case), raters=dataset.rater_files(case)) for case in dataset.cases()
    ]


def inspect_and_write(dataset: ns.SoftDataset, labels: Any, output: Any) -> None:
    found = ns.inspect_raters(cases_of(dataset), labels=labels)
    ns.write_inspection(output, found, cases_of(dataset), labels=labels, title="Balls")


def score_and_report(dataset: Any, predictions: Any, output: Any) -> None:
    folder = Path(predictions[0]).parent / "scores"
    if not folder.exists():
        ns.evaluate(dataset, predictions, folder, **ONE)
    runs = [ns.RunResult.from_folders("SoftCE", [folder])]
    origin = ns.Provenance(package_versions={"a": "1"})
    ns.write_report(output, ns.Findings(runs), title="Balls", metrics=["dice"], provenance=origin)


def small_knees(folder: Any) -> None:
    ns.simulation.write_knees(folder, seed=1, number=1)


CALLS = {
    "evaluate": Call(
        lambda data, found, out: ns.evaluate(data, found, out, scoring=ns.Scoring(threshold=0.4), **ONE),
        lambda data, found, out: ns.evaluate(data, found, out, scoring=ns.Scoring(threshold=0.4), **ONE),
        (run, "score_files"),
    ),
    "tune_threshold": Call(
        lambda data, found, out: ns.tune_threshold(data, found, out, cases=["case1"], **ONE),
        lambda data, found, out: ns.tune_threshold(data, found, out, cases="case1", **ONE),
        (tuning, "_scores_of_candidates"),
    ),
    "calibrate": Call(
        lambda data, found, out: ns.calibrate(data, found, out, method="temperature", **ONE),
        lambda data, found, out: ns.calibrate(data, found, out, method="temperature", **ONE),
        (calibrate, "_draw"),
    ),
    "apply_threshold": Call(
        lambda data, found, out: ns.apply_threshold(
            found, out, 0.4, Labels({"lesion": (1,)}), files=NIFTI, **ONE
        ),
        lambda data, found, out: ns.apply_threshold(
            found, out, {"lesion": 0.4}, {"lesion": 1}, files=NIFTI, **ONE
        ),
        (apply_threshold, "_write_decision"),
    ),
    "average": Call(
        lambda data, found, out: ns.average(data, found, out, **ONE),
        lambda data, found, out: ns.average(data, tuple(found), out, **ONE),
        (average, "_write"),
    ),
    "write_maps": Call(
        lambda data, found, out: ns.write_maps(data, found, out, **ONE),
        lambda data, found, out: ns.write_maps(data, found, out, **ONE),
        (maps, "_write_case"),
    ),
    "write_inspection": Call(
        lambda data, found, out: inspect_and_write(data, data.labels, out),
        lambda data, found, out: inspect_and_write(ns.SoftDataset(data), {"lesion": 1}, out),
        (page, "write_page"),
    ),
    "write_report": Call(score_and_report, score_and_report, (report_page, "write_text")),
    "write_knees": Call(
        lambda data, found, out: small_knees(out),
        lambda data, found, out: small_knees(out),
        (knee_files, "_write_knee"),
    ),
}


@pytest.fixture
def data(build: Builder) -> Evaluated:
    return build(cases=4)


@pytest.fixture
def models(data: Evaluated) -> list[Path]:
    """Two models that predicted every case."""
    second = data.predictions.with_name("second")
    second.mkdir()
    for path in data.predictions.iterdir():
        (second / path.name).write_bytes(path.read_bytes())
    return [data.predictions, second]


@pytest.fixture(autouse=True)
def _small_knees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knee_files, "SHAPE", (12, 24, 24))


def contents(path: Path) -> dict[str, bytes]:
    """Every file at or below a path."""
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    return {str(p.relative_to(path)): p.read_bytes() for p in files}


@pytest.mark.parametrize("name", CALLS)
def test_texts_and_mappings_give_what_paths_and_labels_give(
    name: str, data: Evaluated, models: list[Path], tmp_path: Path
) -> None:
    call, first, second = CALLS[name], tmp_path / "first", tmp_path / "other"
    call.plain(data.dataset, models, first)
    call.as_typed(str(data.dataset.folder), [str(model) for model in models], str(second))
    found, expected = contents(second), contents(first)
    assert expected
    assert list(found) == list(expected)
    differ = {k for k in found if found[k] != expected[k]}
    assert differ <= {apply_threshold.RECORD}  # says how it was asked for


@pytest.mark.parametrize("error", [TypeError, OSError])
@pytest.mark.parametrize("name", CALLS)
def test_any_exception_leaves_nothing_and_the_next_call_works(
    name: str, error: type[Exception], data: Evaluated, models: list[Path], tmp_path: Path, monkeypatch: Any
) -> None:
    def fails(*args: object, **options: object) -> None:
        raise error("of no kind that a user causes")

    module, function = CALLS[name].at_work
    output = tmp_path / "new" / "output"
    with monkeypatch.context() as patch:
        patch.setattr(module, function, fails)
        with pytest.raises(error):
            CALLS[name].plain(data.dataset, models, output)
    assert not output.exists()
    assert not [path for path in tmp_path.rglob("*") if "unfinished" in path.name or path.suffix == ".tmp"]
    CALLS[name].plain(data.dataset, models, output)
    assert contents(output)


def test_a_data_set_is_found_by_folder_name_and_id(
    data: Evaluated, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(data.dataset.folder.parent))
    summaries = [
        ns.evaluate(given, data.predictions, tmp_path / str(number), **ONE)
        for number, given in enumerate((data.dataset.folder, data.dataset.folder.name, 900, np.int64(900)))
    ]
    assert {summary["dataset"] for summary in summaries} == {"Dataset900_Balls"}
    assert {str(summary["digest"]) for summary in summaries} == {str(summaries[0]["digest"])}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, p, o: ns.Scoring(split="Tx"), "^split: 'Tx' is none of 'Tr', 'Ts'"),
        (
            lambda d, p, o: ns.evaluate(d, p, o, scoring=ns.Scoring(threshold=1.5)),
            "^threshold 1.5: give a number",
        ),
        (lambda d, p, o: ns.evaluate(d, [], o), "^predictions: name at least one folder"),
        (lambda d, p, o: ns.evaluate(d, [p, p], o), "^predictions: .* is given twice"),
        (
            lambda d, p, o: ns.tune_threshold(d, p, o, goal=ns.TuningGoal(beta=-1)),
            "^beta -1.0: must be positive",
        ),
        (lambda d, p, o: ns.tune_threshold(d, p, o, goal=ns.TuningGoal(against="truth")), "truth"),
        (lambda d, p, o: ns.average(d, p, o), "^folders: name at least two"),
        (lambda d, p, o: ns.write_maps(d, p, p), "^output .*: the predictions themselves"),
        (
            lambda d, p, o: ns.apply_threshold(p, o, {"a": 0.3}, {"lesion": 1}, files=NIFTI),
            "^threshold {'a': 0.3}: give a number for each of lesion",
        ),
        (
            lambda d, p, o: ns.apply_threshold(p, o, 0.3, {"lesion": 255}, files=NIFTI),
            "^labels: values of a data set count from 1",
        ),
        (lambda d, p, o: ns.decide(np.zeros((2, 3)), {"lesion": 1}, 2), "^threshold 2"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_the_argument_and_leaves_nothing(
    call: Callable[..., Any], message: str, data: Evaluated, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        call(data.dataset, data.predictions, tmp_path / "new" / "output")
    assert sorted(tmp_path.rglob("*")) == before

"""Test images: predicted by every fold and by the mean of the folds, and reported first."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from nnunet_softlabel.benchmark import benchmark, format_benchmark, held_out, report
from nnunet_softlabel.benchmark.cluster import CellJob
from nnunet_softlabel.benchmark.held_out_results import held_out_notes
from nnunet_softlabel.benchmark.held_out_rows import rows_of, scored_rows
from nnunet_softlabel.benchmark.preflight import describe_grid, find_problems
from nnunet_softlabel.benchmark.recalibrated_rows import recalibrated_folder
from nnunet_softlabel.benchmark.refined_rows import Round
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.average import average
from nnunet_softlabel.evaluation.run import Scoring, evaluate
from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.training.prediction import remove_cut_off
from tests.benchmark.grids import TRAINERS, grid_of, silent

TEST_CASES = 2
FOLDERS = ("images", "labels", "softLabels", "raterLabels")


@pytest.fixture
def with_test_cases(planned_dataset, tmp_path, monkeypatch):
    """The planned data set in a folder of its own, with copies of two cases as test cases."""
    raw = tmp_path / "raw" / planned_dataset.name
    raw.mkdir(parents=True)
    for path in planned_dataset.raw.iterdir():
        (raw / path.name).symlink_to(path)
    for kind in FOLDERS:
        for path in sorted((planned_dataset.raw / f"{kind}Tr").rglob("*")):
            if path.is_file() and path.name.startswith(planned_dataset.cases[:TEST_CASES]):
                inside = path.relative_to(planned_dataset.raw / f"{kind}Tr")
                new = raw / f"{kind}Ts" / inside.with_name(f"test_{inside.name}")
                new.parent.mkdir(parents=True, exist_ok=True)
                new.symlink_to(path)
    content = read_json(raw / "dataset.json")
    digests = content["soft_labels"]["digests"]
    digests |= {f"test_{case}": digests[case] for case in planned_dataset.cases[:TEST_CASES]}
    (raw / "dataset.json").unlink()  # a link to that of all tests
    write_json(raw / "dataset.json", content)
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    return SoftDataset.find(planned_dataset.id)


@pytest.fixture
def grid_factory(with_test_cases, planned_dataset, tmp_path):
    def make(**options):
        options = {"trainers": TRAINERS, "folds": [0, 1], "test": True} | options
        options |= {"plans": "nnUNetPlansReduced"}
        return grid_of(planned_dataset.id, tmp_path / "benchmark", **options)

    return make


@pytest.fixture
def fake_prediction(monkeypatch, with_test_cases):
    """Arguments of the predictions that were started; each fold blurs the soft label in its own way."""
    started = []

    def run(grid, cell, command, *, lock, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        arguments = json.loads(Path(command[-2]).read_text(encoding="utf-8"))
        started.append(arguments)
        folder = Path(arguments["output"])
        folder.mkdir(parents=True, exist_ok=True)
        blur = 0.5 + arguments["fold"] + (0.5 if "APL" in arguments["model"] else 0)
        for files in arguments["images"]:
            case = Path(files[0]).name.removesuffix("_0000" + with_test_cases.file_ending)
            soft = gaussian_filter(with_test_cases.read_soft(case, "Ts"), (0, blur, blur, blur))
            probabilities = with_background(soft)
            np.savez(folder / f"{case}.npz", probabilities=probabilities)
            _, grid = with_test_cases.read(with_test_cases.label_file(case, "Ts"))
            hard = probabilities.argmax(0).astype(np.uint8)
            write_image(folder / f"{case}{with_test_cases.file_ending}", hard, grid)
        write_json(Path(command[-1]), {"seconds": 1.0})
        return SimpleNamespace(poll=lambda: 0, returncode=0, stdin=None)

    monkeypatch.setattr(held_out, "start_supervised", run)
    return started


def test_test_set_is_the_main_result(grid_factory, fake_training, fake_prediction):
    grid, lines = grid_factory(), []
    page = report(grid, benchmark(grid, num_processes=1, log=lines.append)).read_text(encoding="utf-8")
    assert page.index('id="test-set"') < page.index('id="summary"')
    assert "2 test images, which no network had seen" in page
    test = read_json(grid.output / "soft_summary.json")["test"]
    assert test["cases"] == TEST_CASES
    assert list(test["trainers"]) == [
        f"{name}{suffix}" for name in TRAINERS for suffix in ("", ", mean of 2 folds")
    ]
    pairs = {(d["trainer"], d["baseline"]) for d in test["differences"]}
    assert pairs == {
        ("nnUNetTrainer, mean of 2 folds", "nnUNetTrainer"),
        ("nnUNetTrainerAPL", "nnUNetTrainer"),
        ("nnUNetTrainerAPL, mean of 2 folds", "nnUNetTrainer, mean of 2 folds"),
    }
    terminal = format_benchmark(grid.output)
    assert terminal.index("Test set, 2 cases") < terminal.index("Validation cases")
    assert any("test images: predicting 2 cases" in line for line in lines)
    assert "mean of 2 folds" in (grid.output / "test_metrics.csv").read_text(encoding="utf-8")


def test_mean_of_folds_is_that_of_average(grid_factory, fake_training, fake_prediction, tmp_path):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, log=silent)
    folders = [held_out.held_out_folder(grid, cell) for cell in grid.cells]
    average(grid.dataset, folders, tmp_path / "mean", num_processes=1)
    expected = evaluate(
        grid.dataset, tmp_path / "mean", tmp_path / "scores", scoring=Scoring(split="Ts"), num_processes=1
    )
    (row,) = [row for row in rows_of(grid, grid.cells) if len(row.cells) == 2]
    found = read_json(row.folder / "soft_summary.json")
    for metric in ("dice", "brier", "volume_error_abs"):
        for reference in expected["mean"]["model"]:
            own = expected["mean"]["model"][reference]["lesion"].get(metric)
            if own is not None and own["mean"] is not None:
                assert found["mean"]["model"][reference]["lesion"][metric]["mean"] == pytest.approx(
                    own["mean"]
                )


def test_predictions_are_resumed_and_redone_for_another_model(grid_factory, fake_training, fake_prediction):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, log=silent)
    assert [started["fold"] for started in fake_prediction] == [0, 1]
    benchmark(grid, num_processes=1, log=silent)
    assert len(fake_prediction) == 2
    case = grid.test_cases[0]
    (held_out.held_out_folder(grid, grid.cells[1]) / f"{case}.npz").unlink()
    (grid.fold_folder(grid.cells[0]) / "checkpoint_final.pth").write_bytes(b"another")
    benchmark(grid, num_processes=1, log=silent)
    assert sorted(started["fold"] for started in fake_prediction[2:]) == [0, 1]


def test_a_test_image_that_was_replaced_is_predicted_again(grid_factory, fake_training, fake_prediction):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, only="train", log=silent)
    (image,) = grid.dataset.image_files(grid.test_cases[0], "Ts")
    content = bytearray(image.read_bytes())
    content[-1] ^= 1  # as many bytes as before
    image.unlink()  # a link to an image of all tests
    image.write_bytes(content)
    benchmark(grid, num_processes=1, only="train", log=silent)
    assert [started["fold"] for started in fake_prediction] == [0, 1, 0, 1]
    image.unlink()
    image.symlink_to(image.with_name("nothing"))
    with pytest.raises(DatasetError, match=r"cannot be read \(No such file .*; bring this test image back"):
        held_out._made_from(grid, grid.cells[0])


def test_a_row_with_some_seeds_only_is_left_out_and_said(
    grid_factory, fake_training, fake_prediction, monkeypatch
):
    monkeypatch.setattr("nnunet_softlabel.evaluation.calibrate.DECISIVE", ())
    grid = grid_factory(trainers=TRAINERS[:1], seeds=[0, 1], calibrate="temperature")
    outcome = benchmark(grid, num_processes=1, log=silent)
    (recalibrated_folder(grid, grid.cells[2]) / "soft_summary.json").unlink()  # no map for seed 1
    report(grid, outcome)
    summary = read_json(grid.output / "soft_summary.json")
    assert list(summary["test"]["trainers"]) == ["nnUNetTrainer", "nnUNetTrainer, mean of 2 folds"]
    assert list(summary["trainers"]) == ["nnUNetTrainer"]
    row = "nnUNetTrainer, recalibrated: no row"
    assert any(f"{row} of the test set. 2 of 4 networks" in note for note in summary["test"]["notes"])
    assert any(f"{row}. 3 of 4 networks are recalibrated" in note for note in summary["notes"])


def test_means_over_unequal_folds_are_no_row(grid_factory, fake_training, fake_prediction):
    benchmark(grid_factory(trainers=TRAINERS[:1], seeds=[0], folds=[0, 1]), num_processes=1, log=silent)
    grid = grid_factory(trainers=TRAINERS[:1], seeds=[1], folds=[0])
    benchmark(grid, num_processes=1, log=silent)
    grid = grid_factory(trainers=TRAINERS[:1], seeds=[0, 1])
    report(grid, benchmark(grid, num_processes=1, only="report", log=silent))
    test = read_json(grid.output / "soft_summary.json")["test"]
    assert list(test["trainers"]) == ["nnUNetTrainer"]
    assert any("mean of 2 folds: no row of the test set. 2 of 3 networks" in note for note in test["notes"])


def test_a_job_of_a_cluster_trains_and_predicts(grid_factory, fake_training, fake_prediction):
    grid = grid_factory(trainers=TRAINERS[:1])
    assert str(CellJob(grid, grid.cells[0])()) == "done"
    assert [held_out.is_predicted(grid, cell) for cell in grid.cells] == [True, False]
    assert len(fake_training) == len(fake_prediction) == 1


def test_failed_predictions_leave_the_validation_and_say_so(grid_factory, fake_training, monkeypatch):
    def run(grid, cell, command, *, lock, log):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("RuntimeError: no memory\n")
        return SimpleNamespace(poll=lambda: 1, returncode=1, stdin=None)

    monkeypatch.setattr(held_out, "start_supervised", run)
    grid, lines = grid_factory(trainers=TRAINERS[:1]), []
    outcome = benchmark(grid, num_processes=1, log=lines.append)
    page = report(grid, outcome)
    assert any("RuntimeError: no memory" in line for line in lines)
    assert "not predicted" in page.read_text(encoding="utf-8")
    summary = read_json(grid.output / "soft_summary.json")
    assert "test" not in summary
    assert summary["trainers"]
    with pytest.raises(UsageError, match="2 trained folds lack test predictions"):
        held_out.refuse_unpredicted(grid, outcome)


def test_report_without_the_test_set_does_not_replace_the_page(grid_factory, fake_training, fake_prediction):
    grid = grid_factory(trainers=TRAINERS[:1])
    report(grid, benchmark(grid, num_processes=1, log=silent))
    grid = grid_factory(trainers=TRAINERS[:1], test=False)
    report(grid, benchmark(grid, num_processes=1, log=silent))
    kept = grid.output / "report_threshold_0.5_test.html"
    assert 'id="test-set"' in kept.read_text(encoding="utf-8")
    assert (grid.output / "test_metrics_threshold_0.5_test.csv").is_file()


def test_with_a_known_truth_the_verdict_of_the_test_set_is_measured_against_it(
    grid_factory, fake_training, fake_prediction, with_test_cases, tmp_path
):
    truth = tmp_path / "truth"
    truth.mkdir()
    for path in with_test_cases.folder.glob("labelsT[rs]/*.nii.gz"):
        shutil.copyfile(path, truth / path.name)
    grid = grid_factory(truth=truth)
    page = report(grid, benchmark(grid, num_processes=1, log=silent)).read_text(encoding="utf-8")
    assert f"Measured against the known truth: Over {TEST_CASES} cases" in page


def test_recalibrated_and_tuned_rows_have_not_seen_the_test_set(
    grid_factory, fake_training, fake_prediction, monkeypatch
):
    monkeypatch.setattr("nnunet_softlabel.evaluation.calibrate.DECISIVE", ())
    grid = grid_factory(trainers=TRAINERS[:1], calibrate="temperature", threshold="tuned")
    benchmark(grid, num_processes=1, log=silent)
    notes = held_out_notes([Round(grid, {"": grid.cells})])
    assert any("not recalibrated: this map" in note for note in notes)
    rows = scored_rows(grid, {"nnUNetTrainer": grid.cells})
    assert list(rows) == [f"nnUNetTrainer{end}" for end in ("", ", mean of 2 folds", ", recalibrated")]
    files = sorted((grid.output / "test_scores").rglob("thresholds.json"))
    assert len(files) == 5  # two folds, their mean, two recalibrated folds
    for file in files:
        assert set(read_json(file)["cases"]) == {
            c for cell in grid.cells for c in grid.validation_cases(cell)
        }


def test_preflight_asks_for_test_references_and_images(
    grid_factory, with_test_cases, planned_dataset, tmp_path
):
    grid = grid_factory()
    assert not [text for text in find_problems(grid, num_processes=1) if "--test" in text]
    assert describe_grid(grid)[-1] == "test set: 2 cases, predicted by each training"
    images = with_test_cases.folder / "imagesTs"
    (images / f"stranger_0000{with_test_cases.file_ending}").touch()
    assert "1 test images have no reference" in describe_grid(grid)[-1]
    case = grid.test_cases[0]
    (with_test_cases.folder / "imagesTs" / f"{case}_0000{with_test_cases.file_ending}").unlink()
    assert any(
        f"case {case} has a reference, but not" in text for text in find_problems(grid, num_processes=1)
    )
    for path in (with_test_cases.folder / "softLabelsTs").iterdir():
        path.unlink()
    assert any("no softLabelsTs" in text for text in find_problems(grid, num_processes=1))


def test_cut_off_predictions_are_made_again(tmp_path):
    np.savez(tmp_path / "a.npz", probabilities=np.zeros((2, 4, 4, 4)))
    np.savez(tmp_path / "b.npz", probabilities=np.zeros((2, 4, 4, 4)))
    whole = (tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[: len(whole) // 2])
    assert remove_cut_off(tmp_path, ".nii.gz") == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.slow
def test_real_networks_predict_the_test_images(grid_factory):
    grid = grid_factory(trainers=TRAINERS[:1])
    outcome = benchmark(grid, num_processes=1, log=print)
    report(grid, outcome)
    test = read_json(grid.output / "soft_summary.json")["test"]
    assert list(test["trainers"]) == ["nnUNetTrainer", "nnUNetTrainer, mean of 2 folds"]
    folders = [held_out.held_out_folder(grid, cell) for cell in grid.cells]
    own = [np.load(folder / f"{grid.test_cases[0]}.npz")["probabilities"] for folder in folders]
    assert not np.array_equal(*own)
    held_out.refuse_unpredicted(grid, outcome)

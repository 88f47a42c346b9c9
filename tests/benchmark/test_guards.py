"""No scores of something else, no page that is lost, no training for nothing."""

import re
import shutil

import numpy as np
import pytest
from filelock import FileLock

from nnunet_softlabel.benchmark import benchmark, report
from nnunet_softlabel.benchmark.cell_scores import is_scored
from nnunet_softlabel.benchmark.preflight import describe_grid, find_problems
from nnunet_softlabel.benchmark.progress import duration, validation_processes
from nnunet_softlabel.benchmark.status import CellStatus, Outcome
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.images import read_mask, write_image
from tests.benchmark import fake_training as fake
from tests.benchmark.grids import TRAINERS, silent


def soft_dice(grid):
    found = read_json(grid.output / "soft_summary.json")["trainers"][grid.cells[0].trainer]["mean"]
    return found["model"]["soft"]["lesion"]["soft_dice"]["mean"]


def test_a_new_training_is_not_shown_with_the_scores_of_the_earlier_one(
    grid_factory, fake_training, monkeypatch
):
    grid = grid_factory(trainers=TRAINERS[:1])
    report(grid, benchmark(grid, num_processes=1, log=silent))
    first = soft_dice(grid)
    shutil.rmtree(grid.fold_folder(grid.cells[0]))
    grid.record_file(grid.cells[0]).unlink()
    monkeypatch.setitem(fake.BLUR, TRAINERS[0], 3.0)
    report(grid, benchmark(grid, num_processes=1, log=silent))
    second = soft_dice(grid)
    assert second < first
    shutil.rmtree(grid.output / "evaluation")
    report(grid, benchmark(grid, num_processes=1, log=silent))
    assert soft_dice(grid) == second


def write_truth(grid, folder, shift):
    folder.mkdir(exist_ok=True)
    for case in grid.validation_cases(grid.cells[0]):
        array, where = read_mask(grid.dataset.label_file(case))
        write_image(folder / f"{case}.nii.gz", np.roll(array, shift, axis=-1), where)


def test_another_truth_is_scored_again_and_the_earlier_page_stays(grid_factory, fake_training, tmp_path):
    pages = []
    for name, shift in (("one", 0), ("two", 6)):
        grid = grid_factory(trainers=TRAINERS[:1], truth=tmp_path / name)
        write_truth(grid, tmp_path / name, shift)
        pages.append(report(grid, benchmark(grid, num_processes=1, log=silent)))
        summary = read_json(grid.output / "soft_summary.json")
        dice = summary["trainers"][TRAINERS[0]]["mean"]["model"]["truth"]["lesion"]["dice"]["mean"]
        assert (dice > 0.8) == (shift == 0)
    assert pages[0] == pages[1]
    names = {path.name for path in grid.output.glob("*_threshold_0.5_truth_one.*")}
    assert names == {f"{stem}_threshold_0.5_truth_one{end}" for stem, end in
                     (("report", ".html"), ("soft_metrics", ".csv"), ("soft_summary", ".json"))}  # fmt: skip
    # the files of the truth themselves change: scored again, on the same page
    write_truth(grid, tmp_path / "two", 0)
    assert not is_scored(grid, grid.cells[0])


def test_with_a_known_truth_the_verdict_is_measured_against_it(grid_factory, fake_training, tmp_path):
    grid = grid_factory(truth=tmp_path / "truth")
    write_truth(grid, tmp_path / "truth", 0)
    page = report(grid, benchmark(grid, num_processes=1, log=silent)).read_text(encoding="utf-8")
    sentences = read_json(grid.output / "soft_summary.json")["verdict"]
    begin = "Measured against the known truth: "
    assert [sentence.startswith(begin) for sentence in sentences] == [
        True,
        False,
        True,
    ]  # advice, trial, trainer
    assert f"{begin}Over" in page


def test_scores_of_another_threshold_stay_beside_the_first(grid_factory, fake_training):
    for threshold in ("0.5", "0.3", "0.5"):
        grid = grid_factory(trainers=TRAINERS[:1], threshold=threshold)
        report(grid, benchmark(grid, num_processes=1, log=silent))
    assert read_json(grid.output / "soft_summary.json")["asked"] == {"threshold": "0.5", "truth": None}
    kept = read_json(grid.output / "soft_summary_threshold_0.3.json")
    assert kept["asked"]["threshold"] == "0.3"
    assert len(fake_training) == 1


def test_a_data_set_converted_again_while_the_benchmark_works_is_not_scored(
    grid_factory, fake_training, planned_dataset, tmp_path, monkeypatch
):
    planned_dataset.copy_to(tmp_path, monkeypatch)
    grid = grid_factory(trainers=TRAINERS[:1])
    content = read_json(grid.dataset.folder / "dataset.json")
    content["soft_labels"]["digest"] = "another"
    write_json(grid.dataset.folder / "dataset.json", content)
    outcome = benchmark(grid, num_processes=1, log=silent)
    assert "was converted again while this benchmark worked" in str(outcome[grid.cells[0].name])
    with pytest.raises(DatasetError, match="was converted again"):
        report(grid, outcome)
    assert not (grid.output / "report.html").exists()


def test_a_cell_that_another_process_finishes_meanwhile_is_on_the_page(grid_factory, fake_training):
    theirs = grid_factory(trainers=TRAINERS[1:])
    ours = grid_factory()
    lock = ours.record_file(ours.cells[1]).with_suffix(".lock")
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        outcome = benchmark(ours, num_processes=1, log=silent)
    assert outcome[ours.cells[1].name] == Outcome(CellStatus.ELSEWHERE)
    benchmark(theirs, num_processes=1, log=silent)  # ends before our page is written
    report(ours, outcome)
    assert list(read_json(ours.output / "soft_summary.json")["trainers"]) == list(TRAINERS)


def test_without_locks_the_benchmark_goes_on_and_warns(grid_factory, fake_training, monkeypatch):
    def no_locks(self, *args, **kwargs):
        raise NotImplementedError("flock")

    monkeypatch.setattr(FileLock, "acquire", no_locks)
    grid = grid_factory(trainers=TRAINERS[:1])
    with pytest.warns(RuntimeWarning, match="has no locks"):
        outcome = benchmark(grid, num_processes=1, log=silent)
    assert list(map(str, outcome.values())) == ["done"]


def test_progress_is_a_line_when_a_cell_begins_and_one_when_it_ends(grid_factory, fake_training):
    lines = []
    benchmark(grid_factory(trainers=TRAINERS[:1]), num_processes=1, log=lines.append)
    assert lines == [
        "[1/1] nnUNetTrainer__3d_fullres__fold_0__seed_0: training",
        "[1/1] nnUNetTrainer__3d_fullres__fold_0__seed_0: done in 2 s",
    ]
    lines.clear()
    benchmark(grid_factory(folds=[0, 1]), num_processes=1, log=lines.append)
    assert lines[0] == "[1/4] nnUNetTrainer__3d_fullres__fold_0__seed_0: done before"
    assert lines[2].endswith("done in 2 s; 2 left, about 4 s")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (5400, "1 h 30 min")]
)
def test_times_are_in_words(seconds, text):
    assert duration(seconds) == text


def test_small_cases_are_validated_by_one_process_and_large_ones_by_more(grid_factory, monkeypatch):
    grid = grid_factory()
    assert validation_processes(grid, grid.cells[0]) == 1
    monkeypatch.setattr(type(grid), "case_voxels", lambda self, case: 512**3)
    monkeypatch.setattr("os.cpu_count", lambda: 32)
    number = len(grid.validation_cases(grid.cells[0]))
    assert validation_processes(grid, grid.cells[0]) == min(8, number)


def test_nothing_is_wrong_with_a_data_set_that_is_ready(grid_factory, monkeypatch):
    grid = grid_factory()
    assert find_problems(grid, num_processes=1) == []
    assert describe_grid(grid)[1].endswith("not trained; 2 validation cases")
    monkeypatch.setattr(type(grid), "splits", [])
    assert describe_grid(grid)[1].endswith("not trained; nnU-Net makes the folds in the first training")


def remove_reference(grid, monkeypatch):
    grid.dataset.label_file(grid.validation_cases(grid.cells[0])[0]).unlink()


def remove_preprocessed(grid, monkeypatch):
    next(path for path in grid.preprocessed.glob("nnUNetPlans_3d_fullres/case_*.pkl")).unlink()


def remove_splits(grid, monkeypatch):
    (grid.preprocessed / "splits_final.json").unlink()


def leave_too_few_cases(grid, monkeypatch):
    remove_splits(grid, monkeypatch)
    monkeypatch.setitem(grid.dataset.about, "groups", None)
    monkeypatch.setattr(type(grid.dataset), "cases", lambda self, split="Tr": list("abcd"))


def break_splits(grid, monkeypatch):
    (grid.preprocessed / "splits_final.json").write_text('[{"train": 3}]')


def fill_disk(grid, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))


def put_a_file_in_the_way(grid, monkeypatch):
    grid.output.write_text("")


def train_with_something_else(grid, monkeypatch):
    path = grid.record_file(grid.cells[0])
    path.parent.mkdir(parents=True)
    write_json(path, {"made_with": grid.made_with(grid.cells[0]) | {"epochs": 7}, "status": "done"})


def damage_record(grid, monkeypatch):
    path = grid.record_file(grid.cells[0])
    path.parent.mkdir(parents=True)
    write_json(path, {"status": "done"})


PROBLEMS = {
    "reference": (remove_reference, {}, "its reference .* is missing"),
    "preprocessed": (
        remove_preprocessed,
        {},
        "lacks 1 cases, first case_0.*; run nnUNetv2_preprocess -d 911 ",
    ),
    "splits": (remove_splits, {}, "nnU-Net would split cases at random"),
    "few cases": (leave_too_few_cases, {}, "4 training cases are too few for nnU-Net's 5 folds"),
    "broken splits": (break_splits, {}, "cannot be read as nnU-Net's splits"),
    "disk": (fill_disk, {}, "0.0 GB are free there"),
    "output": (put_a_file_in_the_way, {}, "is no folder that can be written"),
    "made with": (train_with_something_else, {}, "was made with epochs 7, this benchmark asks for 1"),
    "record": (damage_record, {}, "is no record of a training"),
    "fold": (lambda grid, patch: None, {"folds": [0, 5, 7]}, "-f 5 7: there are the folds 0 to 2"),
    "trainer": (
        lambda grid, patch: None,
        {"trainers": ["nnUNetTrainerSoftXE"]},
        "SoftXE: no such .* mean nnUNetTrainerSoftCE?",
    ),
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_what_would_end_a_training_is_found_before_it(
    what, grid_factory, planned_dataset, tmp_path, monkeypatch
):
    planned_dataset.copy_to(tmp_path, monkeypatch)
    break_it, options, message = PROBLEMS[what]
    grid = grid_factory(**options)
    break_it(grid, monkeypatch)
    problems = find_problems(grid, num_processes=1)
    assert len(problems) == 1, problems
    assert re.search(message, problems[0])


def command(planned_dataset, folder, *flags):
    arguments = ["benchmark", "-d", str(planned_dataset.id), "-o", str(folder), "-p", "nnUNetPlansReduced"]
    return main([*arguments, "-np", "1", *flags])


def test_a_gpu_that_is_not_there_is_named_with_the_remedy(planned_dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command(planned_dataset, tmp_path / "b", "-f", "0") == 2
    error = capsys.readouterr().err
    assert "add -device cpu" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_dry_run_prints_the_trainings_and_trains_nothing(planned_dataset, tmp_path, capsys):
    flags = ("-f", "0", "1", "-device", "cpu", "--dry-run")
    assert command(planned_dataset, tmp_path / "b", *flags) == 0
    out = capsys.readouterr().out
    assert "4 trainings into" in out
    assert "[4/4] nnUNetTrainerSoftCE__3d_fullres__fold_1__seed_0: not trained; 2 validation cases" in out
    assert command(planned_dataset, tmp_path / "b", *flags, "-tr", "nnUNetTrainerNo") == 2
    captured = capsys.readouterr()
    assert "problem: -tr nnUNetTrainerNo" in captured.out
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("fold", "message"), [("all", "all: has no validation cases"), ("one", "one: give the number of a fold")]
)
def test_folds_that_are_no_numbers_are_one_line(planned_dataset, tmp_path, capsys, fold, message):
    with pytest.raises(SystemExit):
        command(planned_dataset, tmp_path / "b", "-f", fold)
    assert message in capsys.readouterr().err

"""Cells of another split or of an edited trainer do not stand beside new ones; other versions are told."""

import json

import pytest

from nnunet_softlabel.benchmark import benchmark, report
from nnunet_softlabel.benchmark import cell_training as training
from nnunet_softlabel.benchmark.origins import changed_file_message, digest_of_fold, what_differs
from nnunet_softlabel.benchmark.preflight import find_problems
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json, write_json
from tests.benchmark import fake_training as fake
from tests.benchmark.grids import TRAINERS, silent

MINE = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerMine(nnUNetTrainer):
    rate = {}
"""


@pytest.fixture
def own_data(planned_dataset, tmp_path, monkeypatch):
    """The planned data set in a folder of its own."""
    planned_dataset.copy_to(tmp_path, monkeypatch)


def swap_folds(grid, *, number=None):
    """Other validation cases in the first two folds; fewer folds if a number is given."""
    splits = read_json_list(grid.splits_file)
    write_json(grid.splits_file, [splits[1], splits[0], *splits[2:]][:number])


def read_json_list(path):
    return json.loads(path.read_text(encoding="utf-8"))


def change_records(grid, **entries):
    """As another version has written them; None takes an entry away."""
    for cell in grid.cells:
        record = read_json(grid.record_file(cell))
        made_with = {**record["made_with"], **entries}
        record["made_with"] = {key: value for key, value in made_with.items() if value is not None}
        write_json(grid.record_file(cell), record)


def notes_of(grid):
    report(grid, benchmark(grid, num_processes=1, only="report", log=silent))
    return [note for note in read_json(grid.output / "soft_summary.json")["notes"] if "made with" in note]


def test_cells_of_another_split_are_refused_before_anything_is_trained(grid_factory, fake_training, own_data):
    benchmark(grid_factory(trainers=TRAINERS[:1], folds=[0, 1, 2]), num_processes=1, log=silent)
    grid = grid_factory(folds=[0, 1, 2])
    swap_folds(grid)
    cells = ", ".join(f"nnUNetTrainer__3d_fullres__fold_{fold}__seed_0" for fold in (0, 1))
    wanted = f"splits_final.json: has changed since the training of {cells}; .* Choose another output"
    for only in (None, "train", "report"):  # a report mixes no splits either
        with pytest.raises(UsageError, match=wanted):
            benchmark(grid, num_processes=1, only=only, log=silent)
    (problem,) = find_problems(grid, num_processes=1)
    assert "has changed since the training of" in problem
    assert len(fake_training) == 3


def test_the_same_folds_in_another_order_of_cases_are_the_same(grid_factory, fake_training, own_data):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, log=silent)
    splits = [{side: fold[side][::-1] for side in fold} for fold in read_json_list(grid.splits_file)]
    write_json(grid.splits_file, splits)
    assert benchmark(grid, num_processes=1, log=silent)[grid.cells[0].name].is_done
    assert len(fake_training) == 1


def test_a_split_that_is_gone_is_refused(grid_factory, fake_training, own_data):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, log=silent)
    grid.splits_file.unlink()
    with pytest.raises(UsageError, match="is gone since the training of"):
        benchmark(grid, num_processes=1, log=silent)


def test_records_of_earlier_versions_know_no_split_and_bring_no_complaint(
    grid_factory, fake_training, own_data
):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, log=silent)
    change_records(grid, split=None, trainer_source=None, nnunetv2=None)
    swap_folds(grid)
    assert notes_of(grid) == []


def test_folds_that_nnunet_makes_in_the_first_training_are_recorded(
    grid_factory, fake_training, own_data, monkeypatch
):
    grid = grid_factory(trainers=TRAINERS[:1])
    content = grid.splits_file.read_text(encoding="utf-8")
    grid.splits_file.unlink()
    start = training.start_supervised

    def make_splits_and_start(*args, **options):
        grid.splits_file.write_text(content, encoding="utf-8")
        return start(*args, **options)

    monkeypatch.setattr(training, "start_supervised", make_splits_and_start)
    benchmark(grid, num_processes=1, only="train", log=silent)
    made_with = read_json(grid.record_file(grid.cells[0]))["made_with"]
    assert made_with["split"] == digest_of_fold(grid.splits[0])
    swap_folds(grid)
    with pytest.raises(UsageError, match="has changed since"):
        benchmark(grid, num_processes=1, log=silent)


def test_a_training_whose_split_changes_meanwhile_is_not_done(
    grid_factory, fake_training, own_data, monkeypatch
):
    grid, start = grid_factory(trainers=TRAINERS[:1]), training.start_supervised

    def swap_and_start(*args, **options):
        swap_folds(grid)
        return start(*args, **options)

    monkeypatch.setattr(training, "start_supervised", swap_and_start)
    assert str(training.train_cell(grid, grid.cells[0])) == "failed"
    assert "changed during this training" in training.last_line(grid.log_file(grid.cells[0]))
    with pytest.raises(UsageError, match="has changed since"):
        benchmark(grid, num_processes=1, log=silent)


def test_an_edited_trainer_of_the_user_is_refused_and_others_are_not(
    grid_factory, fake_training, tmp_path, monkeypatch
):
    monkeypatch.setitem(fake.BLUR, "nnUNetTrainerMine", 1.0)
    mine = tmp_path / "mine" / "mine.py"
    mine.parent.mkdir()
    mine.write_text(MINE.format("1e-2"))
    monkeypatch.setenv("nnUNet_extTrainer", str(mine.parent))
    trainers = (*TRAINERS[:1], "nnUNetTrainerMine")
    grid = grid_factory(trainers=trainers)
    benchmark(grid, num_processes=1, log=silent)
    mine.write_text(MINE.format("1e-5"))
    wanted = "mine.py: has changed since the training of nnUNetTrainerMine__3d_fullres__fold_0__seed_0; "
    with pytest.raises(UsageError, match=wanted):
        benchmark(grid_factory(trainers=trainers, folds=[0, 1]), num_processes=1, log=silent)
    assert len(fake_training) == 2
    mine.write_text(MINE.format("1e-2"))
    benchmark(grid, num_processes=1, log=silent)
    monkeypatch.delenv("nnUNet_extTrainer")  # a report needs no trainer
    assert notes_of(grid) == []


def test_other_versions_are_told_and_not_refused(grid_factory, fake_training):
    grid = grid_factory(trainers=TRAINERS[:1])
    benchmark(grid, num_processes=1, log=silent)
    change_records(grid, code="0.0.1", nnunetv2="2.8.0")
    grid = grid_factory()
    benchmark(grid, num_processes=1, log=silent)
    ours, nnunet = notes_of(grid)
    assert ours.startswith("1 of 2 trainings were made with nnunet_softlabel 0.0.1, not with ")
    assert nnunet.startswith("1 of 2 trainings were made with nnunetv2 2.8.0, not with ")
    assert "the first is nnUNetTrainer__3d_fullres__fold_0__seed_0." in nnunet
    settings = read_json(grid.output / "soft_summary.json")["settings"]
    assert settings["nnunet_softlabel"][0] == "0.0.1"
    assert len(fake_training) == 2


def test_what_a_record_does_not_know_forbids_nothing():
    wanted = {"epochs": 2, "split": "a", "trainer_source": None, "code": "2"}
    assert what_differs({"epochs": 2, "code": "1"}, wanted) is None
    assert what_differs({"epochs": 2, "split": "a", "trainer_source": "b"}, wanted) is None
    assert what_differs({"epochs": 2, "split": "b"}, wanted) == "split"
    assert what_differs({"epochs": 1, "split": "b"}, wanted) == "epochs"
    assert what_differs({"epochs": 2, "split": "b"}, wanted | {"split": None}) == "split"


def test_a_long_list_of_cells_is_cut(tmp_path):
    text = changed_file_message([tmp_path, tmp_path], list("abcdef"), tmp_path)
    assert "or a file that it imports, is gone since the training of a, b, c, d and 2 more; " in text

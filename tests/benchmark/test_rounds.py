"""Two rounds in one command: refined labels, trained on again, beside the first round."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.benchmark import (
    ClusterJobs,
    SecondRound,
    report,
    results,
    run,
    second_round,
    two_rounds,
)
from nnunet_softlabel.benchmark.refined_rows import refined_notes
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cli import main
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image
from nnunet_softlabel.formats.nnunet_folders import environment_folder
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.refinement import page as page_module
from nnunet_softlabel.refinement import summary
from nnunet_softlabel.refinement.predictions import held_out_predictions
from nnunet_softlabel.refinement.run import Refinement
from tests.benchmark import fake_training as fake
from tests.benchmark.grids import grid_of, silent

SHAPE, FINDS = (3, 24, 32), {"a": 0.8, "b": 0.55, "c": 0.35}
LESIONS, N_FOLDS = ((4, 3), (4, 20), (15, 10)), 3
NAME, REFINED = "Dataset920_Missed", "Dataset921_MissedRefined"
TRAINER = "nnUNetTrainerSoftCE"
ROW = f"{TRAINER}, refined labels"


@pytest.fixture
def n_cases():
    return 6


@pytest.fixture(autouse=True)
def few_pictures(monkeypatch):
    """Pictures and intervals take nearly all of the time."""
    monkeypatch.setattr(page_module, "PICTURED", 2)
    monkeypatch.setattr(summary, "DRAWS", 5)
    monkeypatch.setattr(results, "case_pictures", lambda *_: [])
    monkeypatch.setitem(fake.BLUR, TRAINER, 0.7)


@pytest.fixture
def maps(n_cases):
    """What networks that have learned would give: more where a lesion is, whoever marked it."""
    rng, found = np.random.default_rng(1), {}
    for i in range(n_cases):
        p = np.full(SHAPE, 0.02, np.float32)
        for row, column in LESIONS:
            p[:, row : row + 5, column : column + 5] = np.clip(0.5 + 0.1 * rng.standard_normal(), 0.2, 0.9)
        found[f"c{i:02d}"] = p
    return found


@pytest.fixture
def dataset(nnunet_folders, maps, tmp_path):
    """A planned data set whose raters miss lesions, and the truth."""
    rng, cases, grid = np.random.default_rng(0), [], Grid.upright(SHAPE, (2.0, 1.0, 1.0))
    (tmp_path / "truth").mkdir()
    for name, p in maps.items():
        truth = (p > 0.1).astype(np.uint8)
        drawn = {rater: np.zeros(SHAPE, np.uint8) for rater in FINDS}
        for row, column in LESIONS:
            box = (slice(None), slice(row, row + 5), slice(column, column + 5))
            for rater, rate in FINDS.items():
                drawn[rater][box] = rng.random() < rate
        image = (100 * truth + rng.normal(0, 3, SHAPE)).astype(np.int16)
        cases.append(Case(name, [lambda image=image: (image, grid)], drawn))
        write_image(tmp_path / "truth" / f"{name}.nii.gz", truth, grid)
    folder = convert(cases, "Dataset920_Missed", labels=["lesion=1"], channel_names=["MR"])
    assert folder.name == NAME
    preprocessed = nnunet_folders.preprocessed / NAME
    (preprocessed / "images").mkdir(parents=True)
    for name in maps:
        (preprocessed / "images" / f"{name}.pkl").touch()
    plan = {"dataset_name": NAME, "configurations": {"3d_fullres": {"data_identifier": "images"}}}
    write_json(preprocessed / "nnUNetPlans.json", plan)
    write_json(preprocessed / "dataset_fingerprint.json", {"spacings": []})
    names = sorted(maps)
    splits = [
        {"train": [n for j, n in enumerate(names) if j % N_FOLDS != k], "val": names[k::N_FOLDS]}
        for k in range(N_FOLDS)
    ]
    write_json(preprocessed / "splits_final.json", splits)
    return SoftDataset(folder)


@pytest.fixture
def started(dataset, maps, monkeypatch):
    """Arguments of trainings that were started, and data sets that were preprocessed; none is real."""
    started = []

    def train(command, **options):
        arguments = read_json(Path(command[-2]))
        started.append(arguments["dataset"])
        found = fake.popen(command, **options)
        folder = Path(options["env"]["nnUNet_results"]) / arguments["dataset"]
        if arguments["dataset"] == NAME:
            for path in folder.rglob(f"fold_{arguments['fold']}/validation/*.npz"):
                p = maps[path.stem]
                np.savez(path, probabilities=np.stack([1 - p, p]))
        return found

    def preprocess(grid, cell, name, *, num_processes):
        started.append(f"preprocessing {name}")

    monkeypatch.setattr("nnunet_softlabel.benchmark.cell_training.subprocess", fake.subprocess_with(train))
    monkeypatch.setattr(second_round, "preprocess_images", preprocess)
    return started


@pytest.fixture
def make_grid(dataset, tmp_path):
    def make(**options):
        options = {"trainers": ["nnUNetTrainer", TRAINER], "folds": range(N_FOLDS)} | options
        options = {"truth": tmp_path / "truth"} | options
        return grid_of(NAME, tmp_path / "benchmark", **options)

    return make


@pytest.fixture
def quick(dataset, monkeypatch):
    """A refinement that knows its result, and no scores: both take seconds."""

    def refine(first, training, *, dataset_id, running):
        names = first.cases()
        held_out_predictions(training.folder(first), splits_of(NAME), names)  # refuses what a network saw
        cases = [Case(name, first.image_files(name), first.rater_files(name)) for name in names]
        made = convert(
            cases, f"Dataset{dataset_id}_MissedRefined", labels=["lesion=1"], channel_names=["MR"],
            fusion="majority", running=running,
        )  # fmt: skip
        return Refinement(made, {"labels": {}, "cases_to_look_at": {}}, is_mean=False)

    monkeypatch.setattr(second_round, "refine", refine)
    monkeypatch.setattr(run, "score", lambda *args, **options: None)


def splits_of(name):
    return environment_folder("nnUNet_preprocessed") / name / "splits_final.json"


def both_rounds(grid, asked=None, **options):
    return two_rounds(grid, asked or SecondRound(921), num_processes=1, **({"log": silent} | options))


@pytest.mark.slow
@pytest.mark.parametrize("n_cases", [30])
def test_both_rounds_stand_on_one_page_against_the_same_references(make_grid, started, n_cases):
    lines = []
    grid = make_grid(trainers=[TRAINER])
    rounds = both_rounds(grid, log=lines.append)
    page = report(grid, rounds.first, rounds=rounds)
    assert started == [NAME] * N_FOLDS + [f"preprocessing {REFINED}"] + [REFINED] * N_FOLDS
    found = read_json(grid.output / "soft_summary.json")
    assert list(found["trainers"]) == [TRAINER, ROW]
    means = {name: own["mean"]["model"] for name, own in found["trainers"].items()}
    assert {own["truth"]["lesion"]["dice"]["n"] for own in means.values()} == {n_cases}
    dice = {name: own["truth"]["lesion"]["dice"]["mean"] for name, own in means.items()}
    assert dice[ROW] > dice[TRAINER] + 0.2  # the fake network repeats its label, a little blurred
    tested = {d["baseline"] for d in found["differences"] if d["trainer"] == ROW}
    assert tested == {TRAINER}
    about = SoftDataset.find(921).about
    assert about["refined_from"]["training"] == f"{TRAINER}__nnUNetPlans__3d_fullres"
    text = page.read_text(encoding="utf-8")
    assert f"Rows with refined labels were trained on {REFINED}" in text
    for words in (f"trainings of {TRAINER} on {REFINED}", "rater a: found", "candidates to judge: "):
        assert any(words in line for line in lines)


def test_folds_and_plans_of_both_rounds_are_the_same(make_grid, started, quick, nnunet_folders):
    grid = make_grid(trainers=[TRAINER])
    rounds = both_rounds(grid)
    assert rounds.grid.splits == grid.splits
    plans = read_json(nnunet_folders.preprocessed / REFINED / "nnUNetPlans.json")
    assert plans == read_json(grid.plans_file) | {"dataset_name": REFINED}
    assert (nnunet_folders.preprocessed / REFINED / "dataset_fingerprint.json").is_file()


def test_again_nothing_is_done_twice(make_grid, started, quick):
    both_rounds(make_grid(trainers=[TRAINER]))
    started.clear()
    lines = []
    rounds = both_rounds(make_grid(trainers=[TRAINER]), log=lines.append)
    assert started == []
    assert f"{REFINED}: refined before" in lines
    assert all(outcome.is_done for outcome in rounds.second.values())


def test_labels_of_another_version_are_taken_up_and_told(make_grid, started, quick):
    grid = make_grid(trainers=[TRAINER])
    both_rounds(grid)
    file = grid.output / second_round.FOLDER / "refinement.json"
    record = read_json(file)
    write_json(file, record | {"made_from": record["made_from"] | {"code": "0.0.1"}})
    started.clear()
    rounds = both_rounds(grid)
    assert started == []
    notes = refined_notes(grid, rounds)
    assert any("The refined labels were made with nnunet_softlabel 0.0.1, not with" in note for note in notes)
    cell = rounds.grid.record_file(rounds.grid.cells[0])
    record = read_json(cell)
    write_json(cell, record | {"made_with": record["made_with"] | {"nnunetv2": "2.8.0"}})
    notes = refined_notes(grid, rounds)
    assert any(note.startswith(f"On refined labels, 1 of {N_FOLDS} trainings were made") for note in notes)


@pytest.mark.parametrize("moment", ["refine", "take_plans", "preprocess_images"])
def test_a_killed_second_round_goes_on(make_grid, started, quick, monkeypatch, moment):
    class Killed(BaseException):
        pass

    def kill(*args, **options):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(second_round, moment, kill)
        with pytest.raises(Killed):
            both_rounds(make_grid(trainers=[TRAINER]))
    started.clear()
    rounds = both_rounds(make_grid(trainers=[TRAINER]))
    assert started == [f"preprocessing {REFINED}"] + [REFINED] * N_FOLDS
    assert len(rounds.second) == N_FOLDS


def test_a_failed_fold_leaves_a_page_without_a_second_round(make_grid, started, quick, monkeypatch):
    monkeypatch.setattr(fake, "BLUR", {"nnUNetTrainer": 0.5})
    real = fake.fake_training

    def fails(arguments_file, result_file, environment):
        is_first = read_json(arguments_file)["fold"] == 1 and read_json(arguments_file)["trainer"] == TRAINER
        monkeypatch.setitem(fake.BLUR, TRAINER, 1.5)
        return 1 if is_first else real(arguments_file, result_file, environment)

    monkeypatch.setattr(fake, "fake_training", fails)
    grid = make_grid()
    rounds = both_rounds(grid)
    waits = f"{TRAINER}__3d_fullres__fold_1__seed_0 (failed)"
    assert rounds.why == f"the refined labels wait for {waits}"
    assert refined_notes(grid, rounds) == [f"There is no second round: the refined labels wait for {waits}."]
    assert REFINED not in started


def test_only_train_and_only_report(make_grid, started, quick):
    grid = make_grid(trainers=[TRAINER])
    rounds = both_rounds(grid, only="report")
    assert rounds.why.startswith("the refined labels wait for")
    assert started == []
    assert len(both_rounds(grid, only="train").second) == N_FOLDS
    started.clear()
    assert len(both_rounds(grid, only="report").second) == N_FOLDS
    assert started == []


def test_labels_that_stay_the_mean_are_not_trained_on_again(make_grid, started, maps, monkeypatch):
    monkeypatch.setattr(run, "score", lambda *args, **options: None)
    for p in maps.values():
        p[:] = 0.5  # networks that have not learned
    rounds = both_rounds(make_grid(trainers=[TRAINER]))
    assert rounds.why == "the refined labels are those of the first round: nothing is trained again"
    assert started == [NAME] * N_FOLDS


def test_a_case_that_its_network_saw_is_refused(make_grid, started, quick, nnunet_folders):
    grid = make_grid(trainers=[TRAINER])
    splits = grid.splits
    splits[0]["train"].append(splits[0]["val"][0])
    write_json(grid.preprocessed / "splits_final.json", splits)
    with pytest.raises(Exception, match="fold_0 predicted it and was trained on it"):
        both_rounds(grid)
    assert not (nnunet_folders.raw / REFINED).exists()


def test_rater_corrected_is_for_the_mean_only(make_grid, started, quick):
    grid = make_grid(trainers=[TRAINER], threshold="rater-corrected")
    rounds = both_rounds(grid)
    assert rounds.grid.scoring.threshold == "0.5"
    assert any("Refined rows are cut at 0.5" in note for note in refined_notes(grid, rounds))


@pytest.mark.parametrize(
    ("options", "asked", "message"),
    [
        ({"folds": [0, 2]}, SecondRound(921), "SecondRound: folds lacks 1; every training case"),
        ({}, SecondRound(921, ["nnUNetTrainerAPL"]), "nnUNetTrainerAPL: is not among"),
        ({}, SecondRound(1000), "data set ids are 1 to 999"),
        ({}, SecondRound(920), "the id is taken by .*Dataset920_Missed"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_training(make_grid, started, options, asked, message):
    with pytest.raises(UsageError, match=message):
        two_rounds(make_grid(**options), asked, log=silent)
    assert started == []


@pytest.mark.parametrize("place", ["raw", "preprocessed"])
def test_what_another_made_is_not_overwritten(make_grid, started, quick, nnunet_folders, place):
    mine = getattr(nnunet_folders, place) / REFINED / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(UsageError, match="is already there, and this benchmark did not make it"):
        two_rounds(make_grid(), SecondRound(921), log=silent)
    assert started == []
    assert mine.read_text() == "mine"


def test_another_id_or_trainer_is_no_resume(make_grid, started, quick):
    both_rounds(make_grid())
    for asked in (SecondRound(922), SecondRound(921, ["nnUNetTrainer"])):
        with pytest.raises(UsageError, match="or has another id; choose another"):
            both_rounds(make_grid(), asked)


def test_the_command_tells_what_it_will_do_and_refuses_all_at_once(started, tmp_path, capsys):
    arguments = ["benchmark", "-d", "920", "-device", "cpu", "-np", "1", "-o", str(tmp_path / "b")]
    assert main([*arguments, "-f", "0", "1", "2", "--refine", "921", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"second round: 3 trainings of {TRAINER} on {REFINED}" in out
    assert main([*arguments, "-f", "0", "1", "--refine", "921"]) == 2
    assert "-f lacks 2; every training case needs a network" in capsys.readouterr().err
    assert main([*arguments, "--refine-tr", TRAINER]) == 2
    assert "--refine-tr belongs to --refine." in capsys.readouterr().err
    assert started == []


def test_of_several_configurations_and_seeds_the_first_makes_the_labels_and_all_train_again(
    make_grid, started, quick, nnunet_folders
):
    plans = nnunet_folders.preprocessed / NAME / "nnUNetPlans.json"
    content = read_json(plans)
    content["configurations"]["2d"] = {"data_identifier": "images"}
    write_json(plans, content)
    grid = make_grid(trainers=[TRAINER], configurations=["3d_fullres", "2d"], seeds=[3, 4])
    lines = []
    rounds = both_rounds(grid, log=lines.append)
    made_by = second_round.evidence_cells(grid, SecondRound(921))
    assert {(c.trainer, c.configuration, c.seed) for c in made_by} == {(TRAINER, "3d_fullres", 3)}
    assert any(f"12 trainings of {TRAINER} on {REFINED}" in line for line in lines)
    assert started == [NAME] * 12 + [f"preprocessing {REFINED}"] + [REFINED] * 12
    own = {(c.configuration, c.seed, c.fold) for c in rounds.grid.cells}
    assert own == {(c.configuration, c.seed, c.fold) for c in grid.cells}


def test_jobs_of_a_cluster_train_both_rounds(make_grid, started, quick, monkeypatch):
    asked_of, cluster = [], ClusterJobs("local")

    def benchmark(grid, *, cluster, **options):
        asked_of.append((grid.dataset.folder.name, cluster))
        return run.benchmark(grid, cluster=None, **options)

    monkeypatch.setattr("nnunet_softlabel.benchmark.rounds.benchmark", benchmark)
    both_rounds(make_grid(trainers=[TRAINER]), cluster=cluster)
    assert asked_of == [(NAME, cluster), (REFINED, cluster)]


def test_networks_of_both_rounds_predict_the_test_set(make_grid, started, quick, monkeypatch):
    predicted = []
    monkeypatch.setattr(
        run, "predict_all", lambda grid, cells, log: predicted.append((grid.dataset.folder.name, len(cells)))
    )
    rounds = both_rounds(make_grid(trainers=[TRAINER], test=True))
    assert predicted == [(NAME, N_FOLDS), (REFINED, N_FOLDS)]
    assert rounds.grid.references.folder.name == NAME

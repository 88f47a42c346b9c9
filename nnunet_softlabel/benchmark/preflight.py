"""What is checked before the first hour of training: all that is wrong, at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

from nnunet_softlabel.benchmark.cell_training import recorded_outcome
from nnunet_softlabel.benchmark.disk_space import space_problems
from nnunet_softlabel.benchmark.grid import BenchmarkGrid
from nnunet_softlabel.cases.splits import NUM_FOLDS
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.known_truth import KnownTruth
from nnunet_softlabel.evaluation.references import check_references, processes_for_references
from nnunet_softlabel.formats.files import Json, read_json, visible
from nnunet_softlabel.formats.plans import preprocessing_command
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.processes import for_each_case
from nnunet_softlabel.training.trainer_path import trainer_path


def find_problems(grid: BenchmarkGrid, *, num_processes: int = 2, trains_here: bool = True) -> list[str]:
    """All that would end a training or its evaluation, one line each; empty if nothing is wrong.

    Args:
        grid: the benchmark.
        num_processes: that read references.
        trains_here: False on a login node, which needs no GPU.
    """
    first = [*_output_problems(grid), *_fold_problems(grid)]
    try:
        _ = grid.splits
    except DatasetError:
        return first  # the cases are not known
    return [
        *first,
        *_trainer_problems(grid),
        *(_device_problems(grid) if trains_here else ()),
        *_preprocessing_problems(grid),
        *_cascade_problems(grid),
        *_reference_problems(grid, num_processes),
        *(held_out_problems(grid, num_processes) if grid.scoring.test else ()),
        *space_problems(grid),
    ]


def refuse_problems(problems: Sequence[str]) -> None:
    """Refuse a benchmark that cannot end well.

    Raises:
        UsageError: with all problems in one line.
    """
    if problems:
        more = "" if len(problems) == 1 else f" ({len(problems)} problems; --dry-run lists them)"
        raise UsageError(" ".join(problems[:3]) + more)


def describe_grid(grid: BenchmarkGrid) -> list[str]:
    """One line per cell: what it is, and what became of it so far."""
    lines = [f"{grid.dataset.folder.name}, {grid.plans}: {len(grid.cells)} trainings into {grid.output}"]
    for number, cell in enumerate(grid.cells, start=1):
        status = recorded_outcome(grid, cell)
        cases = f"{len(grid.validation_cases(cell))} validation cases"
        what = cases if grid.splits else "nnU-Net makes the folds in the first training"
        lines.append(f"[{number}/{len(grid.cells)}] {cell.name}: {status}; {what}")
    if grid.scoring.test:
        without = _images_without_references(grid)
        more = f"; {without} test images have no reference and are not predicted" if without else ""
        lines.append(f"test set: {len(grid.test_cases)} cases, predicted by each training{more}")
    return lines


def _images_without_references(grid: BenchmarkGrid) -> int:
    """Number of cases in ``imagesTs`` that cannot be scored."""
    end = len("_0000" + grid.dataset.file_ending)
    images = visible(grid.dataset.folder / "imagesTs", f"*_0000{grid.dataset.file_ending}")
    return len({path.name[:-end] for path in images}.difference(grid.test_cases))


def _output_problems(grid: BenchmarkGrid) -> Iterator[str]:
    there = next(folder for folder in (grid.output, *grid.output.parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield f"-o {grid.output}: {there} is no folder that can be written; choose another place."
    for cell in grid.cells:
        try:
            grid.record(cell)
        except (UsageError, DatasetError) as error:
            yield str(error)
            return


def _fold_problems(grid: BenchmarkGrid) -> Iterator[str]:
    path, folds = grid.preprocessed / "splits_final.json", sorted({cell.fold for cell in grid.cells})
    groups = grid.dataset.about.get("groups")
    try:
        number = len(grid.splits)
    except DatasetError as error:
        yield str(error)
        return
    if not number and groups:
        yield (
            f"{path}: is not there, and nnU-Net would split cases at random, although this data set has "
            f"groups (patients); convert it again with --groups and --overwrite."
        )
    training = len(grid.dataset.cases("Tr"))
    if not number and not groups and training < NUM_FOLDS:
        yield (
            f"-d {grid.dataset.folder.name}: {training} training cases are too few for nnU-Net's {NUM_FOLDS} "
            f"folds; convert it again with --groups and --overwrite, or write {path} yourself."
        )
    beyond = [fold for fold in folds if fold < 0 or fold >= (number or NUM_FOLDS)]
    if beyond:
        yield (
            f"-f {' '.join(map(str, beyond))}: there are the folds 0 to {(number or NUM_FOLDS) - 1}; for "
            f"others nnU-Net splits cases at random, whoever the patients are."
        )


def _trainer_problems(grid: BenchmarkGrid) -> Iterator[str]:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_softlabel.training.recipes import TRAINERS

    before = os.environ.get("nnUNet_extTrainer")
    os.environ["nnUNet_extTrainer"] = trainer_path()
    try:
        for trainer in dict.fromkeys(cell.trainer for cell in grid.cells):
            try:
                with redirect_stdout(StringIO()):  # nnU-Net tells of its search
                    recursive_find_trainer_class_by_name(trainer)
            except RuntimeError:
                near = difflib.get_close_matches(trainer, TRAINERS, n=1, cutoff=0.5)
                meant = f" did you mean {near[0]}?" if near else ""
                asked = "is its name right, its folder on nnUNet_extTrainer?"
                yield f"-tr {trainer}: no such trainer; {asked}{meant}"
    finally:
        if before is None:
            del os.environ["nnUNet_extTrainer"]
        else:
            os.environ["nnUNet_extTrainer"] = before


def _device_problems(grid: BenchmarkGrid) -> Iterator[str]:
    import torch

    if grid.budget.device == "cuda" and not torch.cuda.is_available():
        yield "-device cuda: torch finds no GPU here; add -device cpu, or mend the installation of torch."
    if grid.budget.device == "mps" and not torch.backends.mps.is_available():
        yield "-device mps: torch finds no such device here; add -device cpu."


def _preprocessing_problems(grid: BenchmarkGrid) -> Iterator[str]:
    planned = read_json(grid.plans_file)["configurations"]
    for configuration in dict.fromkeys(cell.configuration for cell in grid.cells):
        name = _data_identifier(planned, configuration)
        folder = grid.preprocessed / str(name)
        remedy = f"run {preprocessing_command(grid.preprocessed, grid.plans, configuration)}"
        if not folder.is_dir():
            yield f"-c {configuration}: {folder} is not there; {remedy}."
            continue
        wanted = {case for fold in grid.splits for cases in fold.values() for case in cases}
        missing = sorted(case for case in wanted if not (folder / f"{case}.pkl").is_file())
        if missing:
            yield f"-c {configuration}: {folder} lacks {len(missing)} cases, first {missing[0]}; {remedy}."


def _data_identifier(planned: Json, configuration: str) -> str | None:
    """The folder of a configuration; one that inherits takes that of its parent."""
    seen: set[str] = set()
    while configuration in planned and configuration not in seen:
        seen.add(configuration)
        content = planned[configuration]
        if "data_identifier" in content:
            return str(content["data_identifier"])
        configuration = content.get("inherits_from", "")
    return None


def _reference_problems(grid: BenchmarkGrid, num_processes: int) -> Iterator[str]:
    cases = sorted({case for cell in grid.cells for case in grid.validation_cases(cell)})
    strangers = sorted(set(cases) - set(grid.dataset.cases()))
    if strangers:
        yield f"Case {strangers[0]}: is in splits_final.json, but has no soft label in {grid.dataset.folder}."
        return
    try:
        truth = (
            None if grid.scoring.truth is None else KnownTruth.find(grid.dataset, grid.scoring.truth, cases)
        )
    except DatasetError as error:
        yield str(error)
        return
    job = partial(_reference_problem, dataset=grid.dataset, truth=truth)
    fitting = processes_for_references(grid.dataset, cases, num_processes, split="Tr")
    found = for_each_case(job, cases, fitting, title="references")
    yield from [problem for problem in found if problem]


def _cascade_problems(grid: BenchmarkGrid) -> Iterator[str]:
    """A second stage learns from the predictions of its first stage for all its cases."""
    splits = grid.splits
    for cell in grid.cells:
        first = grid.first_stage(cell)
        if first is None or recorded_outcome(grid, cell).is_done:
            continue
        predicted = grid.fold_folder(first).parent / "predicted_next_stage" / cell.configuration
        there = {path.stem for path in visible(predicted, "*")}
        for other in grid.cells:
            if grid.needs(cell, other) and other.fold < len(splits):
                there.update(splits[other.fold]["val"])
        part = splits[cell.fold] if cell.fold < len(splits) else {}
        missing = sorted({case for cases in part.values() for case in cases} - there)
        if missing:
            yield (
                f"-c {cell.configuration}: {cell.trainer} learns from the predictions of "
                f"{first.configuration}, which lack {len(missing)} cases of fold {cell.fold} "
                f"({missing[0]}); add {first.configuration} to -c, on all folds (-f)."
            )
            return


def held_out_problems(grid: BenchmarkGrid, num_processes: int) -> Iterator[str]:
    """What ``--test`` needs: references and images of test cases, and the first stage of a cascade."""
    cases = grid.test_cases
    if not cases:
        yield (
            f"--test: {grid.dataset.folder} has no softLabelsTs, the references of test images; convert the "
            f"data set again with test cases, or leave out --test."
        )
        return
    channels = len(read_json(grid.dataset.folder / "dataset.json")["channel_names"])
    bare = [case for case in cases if len(grid.dataset.image_files(case, "Ts")) != channels]
    if bare:
        yield (
            f"--test: case {bare[0]} has a reference, but not {channels} images in "
            f"{grid.dataset.folder / 'imagesTs'} ({len(bare)} such cases)."
        )
    missing = [first for cell in grid.cells if (first := grid.first_stage(cell)) and first not in grid.cells]
    if missing:
        yield (
            f"--test: a cascade predicts from the test predictions of {missing[0].configuration}; add it "
            f"to -c."
        )
    try:
        truth = (
            None if grid.scoring.truth is None else KnownTruth.find(grid.dataset, grid.scoring.truth, cases)
        )
    except DatasetError as error:
        yield f"--test: {error}"
        return
    job = partial(_reference_problem, dataset=grid.dataset, truth=truth, split="Ts")
    fitting = processes_for_references(grid.dataset, cases, num_processes, split="Ts")
    yield from [p for p in for_each_case(job, cases, fitting, title="test references") if p]


def _reference_problem(
    case: str, *, dataset: SoftDataset, truth: KnownTruth | None, split: str = "Tr"
) -> str:
    try:
        grid = check_references(dataset, case, split=split)
        if truth is not None:
            truth.read(case, grid)
    except DatasetError as error:
        return str(error)
    return ""

"""Fitting a recalibration on validation cases, so that no case is judged by a map that has seen it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_softlabel.cases.trained_on import refuse_fold_all
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation import tables
from nnunet_softlabel.evaluation.calibration_file import FORMAT_VERSION
from nnunet_softlabel.evaluation.calibration_scores import SCORES, before_and_after, summary_of_scores
from nnunet_softlabel.evaluation.calibration_targets import CalibrationTargets, Target
from nnunet_softlabel.evaluation.ensemble import Predictions, refuse_recalibrated
from nnunet_softlabel.evaluation.fitted_on import digests_of_fitted, image_marks
from nnunet_softlabel.evaluation.map_fitting import Weighting, cross_fit, fit_map
from nnunet_softlabel.evaluation.recalibration import log_odds_of
from nnunet_softlabel.evaluation.records import BeforeAfter, Calibrated, CalibrationContent
from nnunet_softlabel.evaluation.run import Split, select_cases
from nnunet_softlabel.evaluation.voxel_sample import (
    VoxelSample,
    choose_voxels,
    kinds_of_voxels,
    lifted,
    pieces,
    volume_of,
)
from nnunet_softlabel.formats.channel_store import ChannelStore
from nnunet_softlabel.formats.files import (
    check_can_be_made,
    refuse_another_kind,
    refuse_existing,
    write_json,
    write_text,
)
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.processes import fewer_for_few, for_each_case, run_jobs
from nnunet_softlabel.public import public

VOXELS = 2**20  # drawn from all cases together, so that memory does not grow with their number
FEWEST_VOXELS = 256  # of a case
PARTS = 5  # of the cases of a single fold, by patient
PageOf = Callable[[CalibrationContent], str]
NO_METHOD = "none"  # only the scores: files stay as they are
DECISIVE = ("nll", "nll_near")  # a map must lower both


@public
@dataclass(frozen=True)
class FitTarget:
    """What the map of `calibrate` is fitted to.

    >>> FitTarget("consensus").weighting
    'roots'

    Attributes:
        against: the mean of the raters, the hard consensus, or the soft label as it was fused.
        weighting: of the cases, of `map_fitting.WEIGHTINGS`.
        split: where the references are, Tr or Ts.
    """

    against: Target = "raters"
    weighting: Weighting = "roots"
    split: Split = "Tr"


@public
def calibrate(
    dataset: SoftDataset,
    predictions: Path | Sequence[Path],
    file: Path,
    *,
    method: str = "isotonic",
    target: FitTarget | None = None,
    num_processes: int = 2,
    overwrite: bool = False,
    page_of: PageOf | None = None,
) -> Calibrated:
    """Fit a map from logits to logits on validation probabilities, and store it if it makes them better.

    Each fold gets the map of the other folds, new images the map of all. A single fold, or models that
    predicted the same cases, are cut into five parts by patient. The scores before and after are those of the
    cross-fitted maps; the map is stored if they lower the mean NLL, of the whole image and near the object.

    >>> found = ns.calibrate(501, "predictions", "maps.json", method="temperature", num_processes=1)
    >>> found["method"], found["written"]
    ('temperature', True)

    Args:
        dataset: holds the references.
        predictions: folders with ``CASE.npz`` of validation cases; a folder is a fold.
        file: where the result goes; beside the model, `evaluate` and `apply_calibration` find it.
        method: of `map_fitting.METHODS`.
        target: what the map is fitted to.
        num_processes: spawned workers.
        overwrite: replace the file; a map that does not help leaves none. Method ``none`` changes no file.
        page_of: makes a page that is written beside the file, of the same name with .html; None writes none.

    Returns:
        The content of the file, and ``written``; if it is False, ``why`` says so in words, and ``removed``
        whether an earlier map was replaced by nothing.

    Raises:
        UsageError: if the file is there, if all cases are of one patient, or for the cases of fold all.
        DatasetError: if a prediction or a reference is missing or does not fit, or for a case that its
            network was trained on.
    """
    target = target or FitTarget()
    if method != NO_METHOD:  # which writes nothing
        refuse_existing([file], overwrite=overwrite, advice="choose another place, or pass --overwrite")
        check_can_be_made(file)
        refuse_another_kind(file, "parts", "calibrate")
    found = Predictions.find(predictions, file_ending=dataset.file_ending)
    refuse_fold_all(found.folders)
    for folder in found.folders:
        refuse_recalibrated(folder)
    cases, _ = select_cases(dataset, found, split=target.split, cases=None)
    found.refuse_trained_cases(cases)
    without_raters = CalibrationTargets(dataset, target.split, target.against).without_raters(cases)
    cases = [case for case in cases if case not in without_raters]
    if not cases:
        raise DatasetError(
            f"Case {without_raters[0]}: has its hard label for want of raters, as all cases of -i; calibrate "
            f"with --against soft or consensus."
        )
    parts = parts_of(dataset, found, cases)
    dataset = dataset.for_predictions(found.folders)
    fitted_on = digests_of_fitted(found.folders_of, cases, file)
    references = CalibrationTargets(dataset, target.split, target.against)
    most = max(VOXELS // len(cases), FEWEST_VOXELS)
    draw = partial(_draw, predictions=found, references=references, most=most)
    num_processes = found.processes_that_fit(num_processes, dataset.labels)
    drawn = for_each_case(draw, cases, num_processes, title="fit")
    samples = dict(zip(cases, drawn, strict=True))
    by_part = {name: [samples[case] for case in members] for name, members in parts.items()}
    _refuse_empty(by_part)
    fit = partial(fit_map, method=method, has_regions=dataset.labels.has_regions, weighting=target.weighting)
    maps = cross_fit(
        by_part, method=method, has_regions=dataset.labels.has_regions, weighting=target.weighting
    )
    of_all = fit(list(samples.values()))
    score = partial(before_and_after, predictions=found, references=references)
    map_of = {case: maps[name] for name, members in parts.items() for case in members}
    pairs = [(case, map_of[case]) for case in cases]
    workers, names = fewer_for_few(num_processes, len(cases)), [f"Case {case}" for case in cases]
    scores = list(run_jobs(score, pairs, workers, names=names, in_order=True, title="score"))
    content: CalibrationContent = {
        "format_version": FORMAT_VERSION,
        "dataset": dataset.folder.name,
        "channels": list(dataset.labels.names),
        "has_regions": dataset.labels.has_regions,
        "method": method,
        "against": target.against,
        "weighting": target.weighting,
        "folders": [str(folder) for folder in found.folders],
        "without_raters": without_raters,
        "images": image_marks(dataset, cases),
        "fitted_on": fitted_on,
        "models_averaged": found.models,
        "voxels_drawn": {"of_a_case_at_most": most, "in_all": sum(len(s.weight) for s in samples.values())},
        "all": of_all.to_json(),
        "parts": {name: {"map": maps[name].to_json(), "cases": parts[name]} for name in parts},
        **summary_of_scores(scores, dataset.labels.names),
        "versions": tables.versions(),
    }
    why = _why_not(content["scores"], method)
    removed = bool(why) and method != NO_METHOD and file.is_file()
    if method != NO_METHOD:
        _write(file, None if why else content, page_of)
    return {**content, "written": not why, "why": why, "removed": removed}


def _write(file: Path, content: CalibrationContent | None, page_of: PageOf | None) -> None:
    """The file and its page, both or neither; without content, or a page, an earlier one goes."""
    page = page_beside(file)
    if content is None:
        file.unlink(missing_ok=True)
    else:
        text = None if page_of is None else page_of(content)
        with staged(file.parent, [file.name, page.name], overwrite=True) as new:
            write_json(new / file.name, content)
            if text is not None:
                write_text(new / page.name, text)
    if content is None or page_of is None:
        page.unlink(missing_ok=True)


def page_beside(file: Path) -> Path:
    """Where the page of a calibration lies: ``calibration.html``."""
    return file.with_suffix(".html")


def parts_of(dataset: SoftDataset, predictions: Predictions, cases: Sequence[str]) -> dict[str, list[str]]:
    """Folds, by the folders that hold a case; a single one is cut into five by patient.

    Raises:
        UsageError: if all cases are of one patient.
    """
    by_folders: dict[tuple[Path, ...], list[str]] = {}
    for case in cases:
        by_folders.setdefault(predictions.folders_of[case], []).append(case)
    if len(by_folders) > 1:
        return {" + ".join(map(str, folders)): members for folders, members in by_folders.items()}
    groups = dataset.about.get("groups", {})
    patients = sorted({str(groups.get(case, case)) for case in cases})
    if len(patients) < 2:
        raise UsageError(
            f"-i: {len(cases)} cases of one patient are too few; cross-fitting needs two patients or folds."
        )
    order = np.random.default_rng(0).permutation(len(patients))
    part = {patients[i]: str(k % PARTS) for k, i in enumerate(order)}
    found: dict[str, list[str]] = {}
    for case in cases:
        found.setdefault(f"part {part[str(groups.get(case, case))]}", []).append(case)
    return dict(sorted(found.items()))


def _refuse_empty(samples: Mapping[str, Sequence[VoxelSample]]) -> None:
    """Refuse parts without a voxel to fit on: ignored everywhere, or with probabilities of exactly 0.

    Raises:
        DatasetError: naming the part whose map could not be fitted.
    """
    filled = {name for name, own in samples.items() if any(len(sample.weight) for sample in own)}
    for name in samples:
        if not filled - {name}:
            raise DatasetError(
                f"{name}: its map would come from the other parts, and no voxel there has a probability "
                f"other than 0, or a reference; has this network learned? Look at its predictions."
            )


def _draw(case: str, *, predictions: Predictions, references: CalibrationTargets, most: int) -> VoxelSample:
    """As `sample_voxels`, channel by channel."""
    labels = references.dataset.labels
    targets = references.of(case)
    shape, size = targets.shape, math.prod(targets.shape)
    counts, is_easy = np.empty(size, bool), np.empty(size, bool)
    found = predictions.channels(case, references.dataset, shape)
    with ChannelStore(found, labels.network_channels, shape) as store:
        for where, block in store.blocks():
            log_odds = log_odds_of(block, has_regions=labels.has_regions)
            is_fixed, is_easy[where] = kinds_of_voxels(log_odds)
            counts[where] = ~is_fixed
        foreground = np.zeros(size, np.float32)
        for target, _ in targets.channels():
            q = target.reshape(-1)
            is_easy &= q == 0
            (np.maximum if labels.has_regions else np.add)(foreground, q, out=foreground)
        if targets.mask is not None:
            counts &= targets.mask.reshape(-1)
        rng = np.random.default_rng([ord(letter) for letter in case])
        chosen, weight = choose_voxels(counts, is_easy, most=most, rng=rng)
        drawn = np.stack([channel.reshape(-1)[chosen] for channel in store.channels()])
    # in memory voxel by voxel, as those of `sample_voxels`: sums depend on it
    log_odds = np.empty((len(labels.names), len(chosen)), np.float32, order="F")
    for part in pieces(*drawn.shape):
        log_odds[:, part] = lifted(log_odds_of(drawn[:, part], has_regions=labels.has_regions))
    del drawn
    meant = np.empty_like(log_odds)
    for channel, (target, _) in zip(meant, targets.channels(), strict=True):
        channel[...] = target.reshape(-1)[chosen]
    return VoxelSample(log_odds, meant, weight, volume_of(foreground, targets.mask))


def _why_not(scores: Mapping[str, Mapping[str, BeforeAfter]], method: str) -> str:
    """Why a map is not stored; empty if it is."""
    if method == NO_METHOD:
        return "the method none changes nothing"
    worse = []
    for metric in DECISIVE:
        pairs = [channel[metric] for channel in scores.values() if channel[metric]["before"] is not None]
        if not pairs:
            continue
        before = float(np.mean([pair["before"] for pair in pairs]))
        after = float(np.mean([pair["after"] for pair in pairs]))
        if not after < before:
            worse.append(f"{SCORES[metric]} {before:.4g} -> {after:.4g}")
    return "on cases that a map has not seen it does not help: " + ", ".join(worse) if worse else ""

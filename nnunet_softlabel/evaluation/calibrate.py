"""Fitting a recalibration on validation cases, so that no case is judged by a map that has seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation import tables
from nnunet_softlabel.evaluation.calibration_file import FORMAT_VERSION
from nnunet_softlabel.evaluation.ensemble import Predictions, refuse_recalibrated
from nnunet_softlabel.evaluation.map_fitting import VoxelSample, Weighting, cross_fit, fit_map, sample_voxels
from nnunet_softlabel.evaluation.recalibration import RecalibrationMap, log_odds_of, recalibrated
from nnunet_softlabel.evaluation.run import select_cases
from nnunet_softlabel.formats.encoding import channels_of
from nnunet_softlabel.formats.files import refuse_existing, write_json
from nnunet_softlabel.formats.predictions import foreground
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.metrics import calibration, overlap
from nnunet_softlabel.metrics.registry import Parameters
from nnunet_softlabel.processes import fewer_for_few, for_each_case, run_jobs

Target = Literal["raters", "consensus", "soft"]
VOXELS = 2**20  # drawn from all cases together, so that memory does not grow with their number
FEWEST_VOXELS = 256  # of a case
PARTS = 5  # of the cases of a single fold, by patient
DECISIVE = ("nll", "nll_near")  # a map must lower both
SCORES: dict[str, str] = {
    "nll": "NLL above entropy",
    "nll_near": "NLL near the object",
    "brier": "Brier",
    "brier_near": "Brier near the object",
    "ece_near": "ECE near the object",
    "qubiq_dice": "QUBIQ Dice",
    "volume_error_abs": "Expected volume error, relative, absolute",
    "volume_error": "Expected volume error, relative",
}


def calibrate(
    dataset: SoftDataset,
    predictions: Path | Sequence[Path],
    file: Path,
    *,
    method: str = "isotonic",
    against: Target = "raters",
    weighting: Weighting = "roots",
    split: str = "Tr",
    num_processes: int = 2,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fit a map from logits to logits on validation probabilities, and store it if it makes them better.

    Each fold gets the map of the other folds, new images the map of all. A single fold, or models that
    predicted the same cases, are cut into five parts by patient. The scores before and after are those of the
    cross-fitted maps; the map is stored if they lower the mean NLL, of the whole image and near the object.

    Args:
        dataset: holds the references.
        predictions: folders with ``CASE.npz`` of validation cases; a folder is a fold.
        file: where the result goes; beside the model, `evaluate` and `apply_calibration` find it.
        method: of `map_fitting.METHODS`.
        against: the mean of the raters, the hard consensus, or the soft label as it was fused.
        weighting: of the cases, of `map_fitting.WEIGHTINGS`.
        split: where the references are, Tr or Ts.
        num_processes: spawned workers.
        overwrite: replace the file.

    Returns:
        The content of the file, and ``written``; if it is False, ``why`` says so in words.

    Raises:
        UsageError: if the file is there, or if all cases are of one patient.
        DatasetError: if a prediction or a reference is missing or does not fit.
    """
    refuse_existing([file], overwrite=overwrite, advice="choose another place, or pass --overwrite")
    found = Predictions.find(predictions, file_ending=dataset.file_ending)
    for folder in found.folders:
        refuse_recalibrated(folder)
    cases, _ = select_cases(dataset, found, split=split, cases=None)
    parts = parts_of(dataset, found, cases)
    dataset = dataset.for_predictions(found.folders[0])
    references = _References(dataset, split, against)
    most = max(VOXELS // len(cases), FEWEST_VOXELS)
    draw = partial(_draw, predictions=found, references=references, most=most)
    drawn = for_each_case(draw, cases, num_processes, title="fit")
    samples = dict(zip(cases, drawn, strict=True))
    by_part = {name: [samples[case] for case in members] for name, members in parts.items()}
    fit = partial(fit_map, method=method, has_regions=dataset.labels.has_regions, weighting=weighting)
    maps = cross_fit(by_part, method=method, has_regions=dataset.labels.has_regions, weighting=weighting)
    of_all = fit(list(samples.values()))
    score = partial(_before_and_after, predictions=found, references=references)
    map_of = {case: maps[name] for name, members in parts.items() for case in members}
    pairs = [(case, map_of[case]) for case in cases]
    workers, names = fewer_for_few(num_processes, len(cases)), [f"Case {case}" for case in cases]
    scores = list(run_jobs(score, pairs, workers, names=names, in_order=True, title="score"))
    content = {
        "format_version": FORMAT_VERSION,
        "dataset": dataset.folder.name,
        "channels": list(dataset.labels.names),
        "has_regions": dataset.labels.has_regions,
        "method": method,
        "against": against,
        "weighting": weighting,
        "folders": [str(folder) for folder in found.folders],
        "models_averaged": found.models,
        "voxels_drawn": {"of_a_case_at_most": most, "in_all": sum(len(s.weight) for s in samples.values())},
        "all": of_all.to_json(),
        "parts": {name: {"map": maps[name].to_json(), "cases": parts[name]} for name in parts},
        **_summary(scores, dataset.labels.names),
        "versions": tables.versions(),
    }
    why = _why_not(content["scores"], method)
    if why:
        file.unlink(missing_ok=True)  # an earlier one, which --overwrite gives up
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    return content | {"written": not why, "why": why}


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


@dataclass(frozen=True)
class _References:
    """What probabilities should mean."""

    dataset: SoftDataset
    split: str
    against: Target

    def read(self, case: str) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any], tuple[float, ...]]:
        """Target ``(C, *spatial)``, voxels that count (None: all), what any rater marked, spacing."""
        labels = self.dataset.labels
        for path in (self.dataset.label_file(case, self.split), *self.dataset.soft_files(case, self.split)):
            if not path.is_file():
                raise DatasetError(
                    f"Case {case}: its reference {path} is missing; convert the data set again."
                )
        hard, grid = self.dataset.read(self.dataset.label_file(case, self.split))
        mask = None if labels.ignore is None else hard != labels.ignore
        soft = self.dataset.read_soft(case, self.split)
        target = soft
        if self.against == "consensus":
            target = channels_of(hard, labels).astype(np.float32)
        elif self.against == "raters" and not self._soft_is_mean:
            target, mask = self._mean_of_raters(case, mask)
        if target.shape[1:] != hard.shape:
            raise DatasetError(f"Case {case}: its references differ in shape; convert the data set again.")
        return target, mask, soft > 0, grid.spacing_of_axes_mm

    @property
    def _soft_is_mean(self) -> bool:
        """True if the soft label is the raters' mean, so that their files need not be read."""
        about = self.dataset.about
        fusion = about.get("fusion")
        name = fusion.get("method", fusion.get("name")) if isinstance(fusion, Mapping) else fusion
        return (
            name == "mean"
            and about.get("prior") in (None, "none", {}, [])
            and bool(about.get("raters", True))
        )

    def _mean_of_raters(
        self, case: str, mask: NDArray[Any] | None
    ) -> tuple[NDArray[Any], NDArray[Any] | None]:
        labels = self.dataset.labels
        raters = list(self.dataset.read_raters(case, self.split).values())
        if not raters:
            raise DatasetError(
                f"Case {case}: no rater's label map is kept; calibrate with --against soft or consensus."
            )
        answered = [np.ones(r.shape, bool) if labels.ignore is None else r != labels.ignore for r in raters]
        count = np.sum(answered, axis=0)
        votes = np.sum([channels_of(r, labels) & a for r, a in zip(raters, answered, strict=True)], axis=0)
        target = (votes / np.maximum(count, 1)).astype(np.float32)
        return target, mask if count.all() else (count > 0) & (True if mask is None else mask)


def _draw(case: str, *, predictions: Predictions, references: _References, most: int) -> VoxelSample:
    labels = references.dataset.labels
    target, mask, _, _ = references.read(case)
    p = predictions.read(case, references.dataset, target.shape[1:])
    return sample_voxels(
        log_odds_of(p, has_regions=labels.has_regions),
        target,
        most=most,
        rng=np.random.default_rng([ord(letter) for letter in case]),
        has_regions=labels.has_regions,
        mask=mask,
    )


def _before_and_after(
    case: str, recalibration: RecalibrationMap, *, predictions: Predictions, references: _References
) -> dict[str, Any]:
    """State -> scores ``(C, len(SCORES))`` and reliability tables ``(C, bins, 3)`` of one case."""
    labels = references.dataset.labels
    target, mask, marked, spacing_mm = references.read(case)
    raw = predictions.read(case, labels, target.shape[1:])
    after = recalibrated(raw, recalibration, has_regions=labels.has_regions)
    near_mm = Parameters().near_mm
    near = [calibration.near_object(m, spacing_mm=spacing_mm, near_mm=near_mm) for m in marked]
    found: dict[str, Any] = {}
    for state, p in (("before", raw), ("after", after)):
        channels = list(zip(target, foreground(p, labels), near, strict=True))
        found[state] = np.array([_scores(q, c, mask, n) for q, c, n in channels])
        found[f"reliability_{state}"] = np.array(
            [calibration.reliability(q, c, mask=n if mask is None else n & mask) for q, c, n in channels]
        )
    return found


def _scores(q: NDArray[Any], p: NDArray[Any], mask: NDArray[Any] | None, near: NDArray[Any]) -> list[float]:
    near = near if mask is None else near & mask
    volume = overlap.relative_volume_error(q, p, mask=mask)
    return [
        calibration.nll_above_entropy(q, p, mask=mask),
        calibration.nll_above_entropy(q, p, mask=near),
        calibration.brier(q, p, mask=mask),
        calibration.brier(q, p, mask=near),
        calibration.expected_calibration_error(q, p, mask=near),
        overlap.qubiq_dice(q, p, mask=mask),
        abs(volume),
        volume,
    ]


def _summary(scores: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Means over cases, and reliability tables summed over them, per class."""
    means = {}
    for state in ("before", "after"):
        values = np.array([case[state] for case in scores])  # (cases, C, scores)
        means[state] = [[_mean(column) for column in channel.T] for channel in values.swapaxes(0, 1)]
    return {
        "scores": {
            name: {metric: {state: means[state][c][k] for state in means} for k, metric in enumerate(SCORES)}
            for c, name in enumerate(names)
        },
        "reliability_near": {
            name: {
                state: np.sum([case[f"reliability_{state}"][c] for case in scores], axis=0).tolist()
                for state in means
            }
            for c, name in enumerate(names)
        },
    }


def _mean(values: NDArray[Any]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None


def _why_not(scores: Mapping[str, Any], method: str) -> str:
    """Why a map is not stored; empty if it is."""
    if method == "none":
        return "the method none changes nothing"
    worse = []
    for metric in DECISIVE:
        pairs = [channel[metric] for channel in scores.values() if channel[metric]["before"] is not None]
        before, after = (float(np.mean([pair[state] for pair in pairs])) if pairs else 0.0
                         for state in ("before", "after"))  # fmt: skip
        if pairs and not after < before:
            worse.append(f"{SCORES[metric]} {before:.4g} -> {after:.4g}")
    return "on cases that a map has not seen it does not help: " + ", ".join(worse) if worse else ""


def format_scores(content: Mapping[str, Any]) -> str:
    """The table for the terminal: every score before and after, cross-fitted."""
    width = max(map(len, SCORES.values()))
    lines = []
    for name, scores in content["scores"].items():
        lines += [f"{name:<{width}}      before       after"]
        for metric, title in SCORES.items():
            pair = [scores[metric][state] for state in ("before", "after")]
            lines.append(
                f"{title:<{width}}"
                + "".join(f"{'-' if v is None else tables.four_digits(v):>12}" for v in pair)
            )
    return "\n".join(lines)

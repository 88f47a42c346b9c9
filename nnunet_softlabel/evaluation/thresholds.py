"""From probabilities to a segmentation: nnU-Net's rule, a number, tuned ones, the one of the raters' errors.

A network trained on the mean of raters learns how many of them mark a voxel, not whether it is lesion. Raters
who miss much pull every probability down, and 0.5 then asks for too much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.fitted_on import UNKNOWN, Origin, refuse_changed
from nnunet_softlabel.evaluation.records import ThresholdRecord
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.public import public

TUNED = "tuned"
RATER_CORRECTED = "rater-corrected"
PER_CHANNEL = "per channel"  # numbers that a Python user gives
NAMED = (TUNED, RATER_CORRECTED, PER_CHANNEL)
FILE_NAME = "thresholds.json"


@dataclass(frozen=True)
class Threshold:
    """A decision rule and where it comes from.

    Attributes:
        choice: what was asked for.
        values: channel name -> threshold.
        tuned_on: cases that a tuned threshold has seen.
        calibration: digest of the calibration whose probabilities it was tuned on; None for the network's
            own.
        origin: whose cases ``tuned_on`` names.
    """

    choice: str
    values: Mapping[str, float]
    tuned_on: tuple[str, ...] = ()
    calibration: str | None = None
    origin: Origin = UNKNOWN

    @classmethod
    def of(cls, threshold: Threshold | float | Mapping[str, float], names: Sequence[str]) -> Threshold:
        """The same, also from one number for all channels, or from a number per channel.

        Raises:
            UsageError: for a number outside (0, 1), or channels that are not these.
        """
        if isinstance(threshold, Threshold):
            return threshold
        values = dict(threshold) if isinstance(threshold, Mapping) else dict.fromkeys(names, threshold)
        if set(values) != set(names):
            raise UsageError(f"threshold {values}: give a number for each of {', '.join(names)}.")
        if not all(0 < value < 1 for value in values.values()):
            raise UsageError(f"threshold {threshold}: give numbers in (0, 1).")
        return cls(PER_CHANNEL if isinstance(threshold, Mapping) else str(threshold), values)

    @property
    def is_stock(self) -> bool:
        """True for nnU-Net's own rule, 0.5 asked for as a number."""
        return self.choice not in NAMED and set(self.values.values()) == {0.5}

    @property
    def is_single(self) -> bool:
        """True for one number given for all channels."""
        return self.choice not in NAMED

    def to_json(self) -> ThresholdRecord:
        """As ``soft_summary.json`` holds it."""
        return {
            "choice": self.choice,
            "values": dict(self.values),
            "tuned_on": list(self.tuned_on),
            "calibration": self.calibration,
            "rule": self.rule,
        }

    @property
    def rule(self) -> str:
        """The rule in words."""
        if self.is_stock:
            return "nnU-Net's own: most probable class, regions where p > 0.5"
        if self.is_single:
            return "classes: foreground where 1 - p(background) > t, then the likeliest class; regions: p > t"
        return "classes: among those with p > t the one with the largest p / t; regions: p > t"


@public
def decide(
    probabilities: NDArray[Any], labels: Labels, threshold: Threshold | float | Mapping[str, float]
) -> NDArray[Any]:
    """The label map that a threshold makes of probabilities; 0.5 is exactly what nnU-Net exports.

    * nnU-Net's rule (0.5): classes by argmax, where the background wins ties; regions where p > 0.5.
    * One number t: classes: foreground where ``1 - p_background > t``, then the most probable foreground
      class;
      regions: p > t.
    * One per channel (tuned, rater-corrected): classes: among those with ``p_c > t_c`` the one with the
      largest ``p_c / t_c``; regions: p > t_c.

    Later regions are painted over earlier ones, as nnU-Net does. With one class all rules are p > t.

    >>> probabilities = np.array([[0.7, 0.4], [0.3, 0.6]])  # background and nodule of two voxels
    >>> ns.decide(probabilities, {"nodule": 1}, 0.5), ns.decide(probabilities, {"nodule": 1}, 0.25)
    (array([0, 1], dtype=uint8), array([1, 1], dtype=uint8))

    Args:
        probabilities: ``(K, *spatial)`` as nnU-Net stores them: K = 1 + C with the background first, or C
            regions.
        labels: what the channels mean, also as ``{"nodule": 1}``.
        threshold: the rule, a number for all channels, or a number per channel.

    Returns:
        uint8 (or uint16 beyond 255 labels) ``(*spatial)``.
    """
    threshold = Threshold.of(threshold, labels.names)
    decision = Decision(labels, threshold, probabilities.shape[1:])
    for channel in probabilities:
        decision.take(channel)
    return decision.label_map


def choose_threshold(
    choice: str | float, dataset: SoftDataset, *, threshold_file: Path | None = None
) -> Threshold:
    """The rule behind ``--threshold``: a number, ``tuned`` or ``rater-corrected``.

    Raises:
        UsageError: for anything else, a number outside (0, 1), ``tuned`` without a file, or a file beside a
            number.
        DatasetError: if the data set does not allow ``rater-corrected``, or the file does not fit.
    """
    names = dataset.labels.names
    if choice == TUNED:
        return read_thresholds(threshold_file, names)
    if choice == RATER_CORRECTED:
        return Threshold(RATER_CORRECTED, rater_corrected(dataset, rates_file=threshold_file))
    try:
        value = float(choice)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise UsageError(f"--threshold {choice}: give a number in (0, 1), {TUNED} or {RATER_CORRECTED}.")
    if threshold_file is not None:
        raise UsageError(
            f"--threshold-file {threshold_file}: belongs to --threshold {TUNED} or {RATER_CORRECTED}; the "
            f"threshold is {choice}."
        )
    return Threshold(str(choice), dict.fromkeys(names, value))


def read_thresholds(path: Path | None, names: Sequence[str]) -> Threshold:
    """Read what `tune_threshold` stored.

    Raises:
        UsageError: without a file, or if it was tuned on predictions that have changed since.
        DatasetError: if it was tuned for other channels.
    """
    if path is None:
        raise UsageError(
            f"--threshold {TUNED}: tune one on validation cases first (nnunet_softlabel tune-threshold), and "
            f"name the file with --threshold-file."
        )
    if not path.is_file():
        raise UsageError(
            f"--threshold {TUNED}: {path} does not exist; no {FILE_NAME} was found; tune one on validation "
            f"cases first (nnunet_softlabel tune-threshold), or name the file."
        )
    content = read_json(path)
    values, cases = content.get("thresholds", {}), content.get("cases", [])
    if not isinstance(values, dict) or set(values) != set(names):
        found = sorted(values) if isinstance(values, dict) else values
        raise DatasetError(f"{path}: holds thresholds for {found}, the data set has {sorted(names)}.")
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1:
            raise DatasetError(
                f"{path}: the threshold of {name} is {value}, expected a number between 0 and 1; "
                f"tune it again."
            )
    if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
        raise DatasetError(f"{path}: its cases are no list of names; tune it again.")
    calibration = content.get("calibration")
    if calibration is not None and not isinstance(calibration, str):
        raise DatasetError(f"{path}: its calibration is no digest; tune it again.")
    refuse_changed(path, content, "tune-threshold")
    numbers = {name: float(values[name]) for name in names}
    return Threshold(TUNED, numbers, tuple(cases), calibration, Origin.of(path, content))


def rater_corrected(dataset: SoftDataset, *, rates_file: Path | None = None) -> dict[str, float]:
    """Where lesion is likelier than not, if raters mark lesion at rate s and other tissue at b: (s + b) / 2.

    The network's p estimates the share of raters who mark a voxel: s inside a lesion, b outside. Right only
    for labels fused by ``mean`` without a prior, and for calibrated probabilities.

    Args:
        dataset: that the network was trained on.
        rates_file: ``rater_rates.json`` of `refine`: rates of lesions, which rest on what networks see;
            None: those of voxels in ``dataset.json``.

    Raises:
        DatasetError: if the labels were made in another way, or the rates are unknown.
    """
    about = dataset.about
    made: Mapping[str, Any] = about.get("fusion") or {}
    fusion = made.get("method", made.get("name"))
    refused = f"{dataset.folder}: --threshold {RATER_CORRECTED} cannot be used: "
    if fusion != "mean":
        raise DatasetError(
            f"{refused}labels were fused by {fusion!r}, only a mean is the raters' rate; use 0.5 or {TUNED}."
        )
    if about.get("prior"):
        raise DatasetError(
            f"{refused}a prior was applied, so labels are no longer the raters' rate; use 0.5 or {TUNED}."
        )
    held = about if rates_file is None else read_json(rates_file)
    where, again = (
        ("dataset.json", "convert the data set") if rates_file is None else (str(rates_file), "run refine")
    )
    rates: Mapping[str, Mapping[str, float]] = held.get("rater_rates") or {}
    if not isinstance(rates, Mapping):
        raise DatasetError(f"{refused}rater_rates of {where} is no object; {again} again.")
    missing = [name for name in dataset.labels.names if name not in rates]
    if missing:
        raise DatasetError(
            f"{refused}{where} holds no rater_rates for {', '.join(missing)}; "
            f"`nnunet_softlabel convert` estimates them where most cases have three raters or more; "
            f"use 0.5 or {TUNED}."
        )
    thresholds = {}
    for name in dataset.labels.names:
        try:
            sensitivity, false_positive = (
                float(rates[name][k]) for k in ("sensitivity", "false_positive_rate")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{refused}rater_rates of {name} in {where} lack sensitivity or false_positive_rate; "
                f"{again} again."
            ) from error
        if not 0 <= false_positive < sensitivity <= 1:
            raise DatasetError(
                f"{refused}the raters' sensitivity for {name} ({sensitivity:.3g}) does not exceed their "
                f"false positive rate ({false_positive:.3g}); such marks say nothing."
            )
        thresholds[name] = (sensitivity + false_positive) / 2
    return thresholds

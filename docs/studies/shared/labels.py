"""Labels of generated knees that several studies train on or compare."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, mean_vote
from nnunet_softlabel.priors.intensity import IntensityRule, apply_intensity_prior
from nnunet_softlabel.priors.lesions import LesionModel, lesion_statistics
from nnunet_softlabel.priors.roi import apply_roi
from nnunet_softlabel.priors.tissue import TissueModel, estimate_tissue
from nnunet_softlabel.simulation.knee_phantom import KneePhantom

# What most bone masks are not: exact. Voxels are 4 x 2 x 2 mm.
ROI_MARGIN_MM = 2.0

Labels = list[np.ndarray]


def mean_in_bone(knees: Sequence[KneePhantom], votes: Sequence[RaterVotes]) -> Labels:
    return [
        apply_roi(mean_vote(v), [k.bone_mask], spacing_mm=k.spacing_mm, margin_mm=ROI_MARGIN_MM)
        for k, v in zip(knees, votes, strict=True)
    ]


def lesion_model(
    knees: Sequence[KneePhantom], votes: Sequence[RaterVotes]
) -> tuple[Labels, list[TissueModel], LesionModel]:
    """The label in bone, normal tissue of each knee, and lesions pooled over all knees."""
    in_bone = mean_in_bone(knees, votes)
    tissues = [estimate_tissue(k.image, k.bone_mask, q) for k, q in zip(knees, in_bone, strict=True)]
    parts = [
        lesion_statistics(k.image, k.bone_mask, q, t) for k, q, t in zip(knees, in_bone, tissues, strict=True)
    ]
    return in_bone, tissues, reduce(add, parts).model()


def mean_in_bone_bright(
    knees: Sequence[KneePhantom], votes: Sequence[RaterVotes], *, raises_unmarked: bool = False
) -> Labels:
    """ROI, then the intensity prior with its other defaults."""
    in_bone, tissues, lesions = lesion_model(knees, votes)
    rule = IntensityRule(raises_unmarked=raises_unmarked)
    return [
        apply_intensity_prior(q, k.image, k.bone_mask, tissue=t, lesions=lesions, rule=rule)
        for k, q, t in zip(knees, in_bone, tissues, strict=True)
    ]


def rater_corrected(votes: Sequence[RaterVotes]) -> float:
    """(s + b) / 2 of the mean rates of voxels, estimated from the raters' votes alone."""
    rates = estimate_rater_rates(votes)
    sensitivity = np.mean([s[0] for s in rates.sensitivity.values()])
    specificity = np.mean([s[0] for s in rates.specificity.values()])
    return float((sensitivity + 1 - specificity) / 2)

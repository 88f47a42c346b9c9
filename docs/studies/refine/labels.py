"""The labels that the study compares, each for all images of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from docs.studies.refine.scenes import READERS, Images
from docs.studies.shared.labels import ROI_MARGIN_MM
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, lesion_wise, mean_vote, staple
from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.lesion_candidates import find_candidates
from nnunet_softlabel.fusion.lesions import lesion_label
from nnunet_softlabel.priors.intensity import apply_intensity_prior
from nnunet_softlabel.priors.lesions import lesion_statistics
from nnunet_softlabel.priors.roi import apply_roi
from nnunet_softlabel.priors.tissue import estimate_tissue


def votes_of(images: Images) -> list[RaterVotes]:
    """The readers of each image."""
    return [RaterVotes(v[:, None], READERS[: len(v)], images.spacing_mm) for v in images.votes]


def mean(votes: Sequence[RaterVotes]) -> np.ndarray:
    """``(N, H, W)``."""
    return np.stack([mean_vote(v)[0] for v in votes])


def pooled_staple(votes: Sequence[RaterVotes], *, is_anonymous: bool = False) -> np.ndarray:
    rates = estimate_rater_rates(votes, shared=is_anonymous)
    return np.stack([staple(v, rates=rates)[0] for v in votes])


def every_mark(votes: Sequence[RaterVotes]) -> np.ndarray:
    """Mean of those who marked a candidate."""
    found = [find_candidates(v, 0) for v in votes]
    return np.stack(
        [
            lesion_label(v, mean_vote(v)[0], f, np.ones(len(f.candidates)))
            for v, f in zip(votes, found, strict=True)
        ]
    )


def lesions(
    votes: Sequence[RaterVotes], probabilities: np.ndarray | None, *, is_anonymous: bool = False
) -> tuple[np.ndarray, DetectionModel]:
    """The label of lesion-wise fusion, and its model of the readers."""
    maps = [None] * len(votes) if probabilities is None else list(probabilities)
    model = estimate_detection(
        [find_candidates(v, 0, p).candidates for v, p in zip(votes, maps, strict=True)], shared=is_anonymous
    )
    fused = [
        lesion_wise(v, models=[model], probabilities=None if p is None else p[None])[0]
        for v, p in zip(votes, maps, strict=True)
    ]
    return np.stack(fused), model


def anatomy(images: Images, label: np.ndarray) -> np.ndarray | None:
    """The label, bone mask and brightness; None where there is no bone, or lesions are not brighter."""
    if not images.bone.any():
        return None
    in_bone = [
        apply_roi(q[None], [b], spacing_mm=images.spacing_mm, margin_mm=ROI_MARGIN_MM)
        for q, b in zip(label, images.bone, strict=True)
    ]
    parts = list(zip(images.image, images.bone, in_bone, strict=True))
    tissues = [estimate_tissue(i, b, q) for i, b, q in parts]
    try:
        model = reduce(
            add, (lesion_statistics(i, b, q, t) for (i, b, q), t in zip(parts, tissues, strict=True))
        ).model()
        return np.stack(
            [
                apply_intensity_prior(q, i, b, tissue=t, lesions=model)[0]
                for (i, b, q), t in zip(parts, tissues, strict=True)
            ]
        )
    except ValueError:  # lesions that are not brighter
        return None

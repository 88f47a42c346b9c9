"""One case of a conversion: what anatomy says about its fused label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.one_case.fuse import Fused
from nnunet_softlabel.conversion.one_case.read import LoadedCase
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.soft_labels import PriorOfCase
from nnunet_softlabel.priors.intensity import IntensityRule, apply_intensity_prior
from nnunet_softlabel.priors.lesions import LesionStatistics, lesion_statistics
from nnunet_softlabel.priors.roi import apply_roi
from nnunet_softlabel.priors.tissue import TissueModel, estimate_tissue


def apply_priors(
    case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings
) -> tuple[NDArray[Any], PriorOfCase]:
    """Apply the ROI, then intensity.

    Returns:
        Foreground probabilities, float32 ``(C, *spatial)``; and the record: expected volume per label before
        and after, and the normal tissue if intensity was used.

    Raises:
        DatasetError: if the case has too little normal tissue.
    """
    priors, spacing_mm = settings.priors, loaded.grid.spacing_of_axes_mm
    soft = fused.soft
    record: PriorOfCase = {"before": {}, "after": {}}
    if priors.roi is not None:
        soft = apply_roi(
            soft,
            loaded.rois,
            spacing_mm=spacing_mm,
            margin_mm=priors.roi.margin_mm,
            weights=priors.roi.in_order(),
        )
    if priors.intensity is not None:
        tissue = tissue_of(case, loaded, fused, settings)
        record = {"tissue": {"median": tissue.median, "spread": tissue.spread}, **record}
        soft = _with_intensity(loaded, replace(fused, soft=soft), tissue, settings)
    for of_label, label in ((record["before"], fused.soft), (record["after"], soft)):
        of_label |= zip(settings.labels.names, expected_volume_mm3(label, spacing_mm), strict=True)
    return soft.astype(np.float32, copy=False), record


def _with_intensity(
    loaded: LoadedCase, fused: Fused, tissue: TissueModel, settings: CaseSettings
) -> NDArray[Any]:
    """The intensity prior where its tissue is; the ROI's margin is another tissue and keeps its label."""
    intensity, lesions = settings.priors.intensity, settings.estimates.lesions
    assert intensity is not None  # the caller asked
    assert lesions is not None  # estimated before any case is written
    tissue_mask = _tissue_mask(loaded, fused, settings)
    changed = apply_intensity_prior(
        fused.soft,
        image_channel(loaded, intensity.channel),
        tissue_mask,
        tissue=tissue,
        lesions=lesions,
        rule=IntensityRule(intensity.strength, intensity.direction, intensity.raises_unmarked),
        exclusive=not settings.labels.has_regions,
    )
    return np.where(tissue_mask, changed, fused.soft)


def tissue_of(case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings) -> TissueModel:
    """The normal tissue of a case.

    Raises:
        DatasetError: if there is too little of it.
    """
    intensity = settings.priors.intensity
    assert intensity is not None  # the caller asked
    image, mask = image_channel(loaded, intensity.channel), _tissue_mask(loaded, fused, settings)
    try:
        return estimate_tissue(image, mask, fused.soft)
    except ValueError as error:
        raise DatasetError(
            f"Case {case.name}: --intensity-prior {intensity.direction}: {error}; "
            f"correct the ROI or the image, or leave the case or the prior out."
        ) from error


def lesions_of(case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings) -> LesionStatistics:
    """What the case tells about lesions: the fused label, before the ROI's weights lower it."""
    assert settings.priors.intensity is not None  # the caller asked
    image = image_channel(loaded, settings.priors.intensity.channel)
    tissue = tissue_of(case, loaded, fused, settings)
    return lesion_statistics(image, _tissue_mask(loaded, fused, settings), fused.soft, tissue)


def _tissue_mask(loaded: LoadedCase, fused: Fused, settings: CaseSettings) -> NDArray[Any]:
    """All ROIs that weigh anything, without what is ignored."""
    roi = settings.priors.roi
    assert roi is not None  # `Priors.check` asks for one
    pairs = zip(loaded.rois, roi.in_order(), strict=True)
    inside = np.any([mask for mask, weight in pairs if weight > 0], axis=0)
    return inside if fused.ignored is None else inside & ~fused.ignored


def image_channel(loaded: LoadedCase, channel: int) -> NDArray[Any]:
    """One channel ``(*spatial)`` of the image; a colour file holds several."""
    ndim = len(loaded.grid.shape)
    files = [np.moveaxis(image, -1, 0) if image.ndim > ndim else image[None] for image in loaded.images]
    return [one for channels in files for one in channels][channel]


def expected_volume_mm3(soft: NDArray[Any], spacing_mm: Sequence[float]) -> list[float]:
    """Expected volume of each channel, the sum of its probabilities: take it before and after a prior."""
    return (soft.sum(axis=tuple(range(1, soft.ndim)), dtype=np.float64) * np.prod(spacing_mm)).tolist()

"""One case of a conversion: what anatomy says about its fused label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.one_case.fuse import Fused
from nnunet_softlabel.conversion.one_case.read import LoadedCase
from nnunet_softlabel.conversion.prior_settings import RoiPrior
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.packed import PackedMap, stacked
from nnunet_softlabel.formats.soft_labels import PriorOfCase
from nnunet_softlabel.priors.intensity import IntensityRule, apply_intensity_prior
from nnunet_softlabel.priors.lesions import LesionStatistics, agreed_intensities, statistics_of
from nnunet_softlabel.priors.roi import roi_weights
from nnunet_softlabel.priors.tissue import TissueModel, tissue_of_values, unmarked


def apply_priors(
    case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings
) -> tuple[list[PackedMap], PriorOfCase]:
    """Apply the ROI, then intensity, chunk by chunk.

    Returns:
        Foreground probabilities, one float32 map per channel; and the record: expected volume per label
        before and after, and the normal tissue if intensity was used.

    Raises:
        DatasetError: if the case has too little normal tissue.
    """
    priors = settings.priors
    soft = fused.soft
    record: PriorOfCase = {"before": {}, "after": {}}
    if priors.roi is not None:
        soft = _within_roi(loaded, soft, priors.roi)
    if priors.intensity is not None:
        tissue = tissue_of(case, loaded, fused, settings)
        record = {"tissue": {"median": tissue.median, "spread": tissue.spread}, **record}
        soft = _with_intensity(loaded, replace(fused, soft=soft), tissue, settings)
    for of_label, label in ((record["before"], fused.soft), (record["after"], soft)):
        for name, packed in zip(settings.labels.names, label, strict=True):
            (of_label[name],) = expected_volume_mm3(packed.whole()[None], loaded.grid.spacing_of_axes_mm)
    return soft, record


def _within_roi(loaded: LoadedCase, soft: Sequence[PackedMap], roi: RoiPrior) -> list[PackedMap]:
    """See `apply_roi`."""
    possible = roi_weights(
        loaded.rois,
        spacing_mm=loaded.grid.spacing_of_axes_mm,
        margin_mm=roi.margin_mm,
        weights=roi.in_order(),
    ).reshape(-1)
    changed = []
    for packed in soft:
        own = PackedMap(packed.shape, np.float32)
        for index in range(own.n_chunks):
            if not packed.is_zero(index):
                own.put(index, packed.get(index) * possible[own.part(index)])
        changed.append(own)
    return changed


def _with_intensity(
    loaded: LoadedCase, fused: Fused, tissue: TissueModel, settings: CaseSettings
) -> list[PackedMap]:
    """The intensity prior where its tissue is; the ROI's margin is another tissue and keeps its label."""
    intensity, lesions = settings.priors.intensity, settings.estimates.lesions
    assert intensity is not None  # the caller asked
    assert lesions is not None  # estimated before any case is written
    rule = IntensityRule(intensity.strength, intensity.direction, intensity.raises_unmarked)
    changed = [PackedMap(packed.shape, np.float32) for packed in fused.soft]
    for index, image, tissue_mask, soft in _tissue_chunks(loaded, fused, settings):
        kept = soft
        if tissue_mask.any():
            kept = apply_intensity_prior(
                soft,
                image,
                tissue_mask,
                tissue=tissue,
                lesions=lesions,
                rule=rule,
                exclusive=not settings.labels.has_regions,
            )
            kept = np.where(tissue_mask, kept, soft)
        for packed, own in zip(changed, kept, strict=True):
            packed.put(index, own)
    return changed


def tissue_of(case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings) -> TissueModel:
    """The normal tissue of a case.

    Raises:
        DatasetError: if there is too little of it.
    """
    intensity = settings.priors.intensity
    assert intensity is not None  # the caller asked
    chunks = _tissue_chunks(loaded, fused, settings)
    try:
        return tissue_of_values(
            np.concatenate([unmarked(image, mask, soft) for _, image, mask, soft in chunks])
        )
    except ValueError as error:
        raise DatasetError(
            f"Case {case.name}: --intensity-prior {intensity.direction}: {error}; "
            f"correct the ROI or the image, or leave the case or the prior out."
        ) from error


def lesions_of(case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings) -> LesionStatistics:
    """What the case tells about lesions: the fused label, before the ROI's weights lower it."""
    tissue = tissue_of(case, loaded, fused, settings)
    parts = [
        agreed_intensities(image, mask, soft, tissue)
        for _, image, mask, soft in _tissue_chunks(loaded, fused, settings)
    ]
    return statistics_of([np.concatenate(of_channel) for of_channel in zip(*parts, strict=True)])


def _tissue_chunks(
    loaded: LoadedCase, fused: Fused, settings: CaseSettings
) -> Iterator[tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Chunk by chunk: its index, the image, the mask of the tissue, the soft label ``(C, n)``.

    The tissue is that of all ROIs that weigh anything, without what is ignored.
    """
    roi, intensity = settings.priors.roi, settings.priors.intensity
    assert roi is not None  # `Priors.check` asks for one
    assert intensity is not None  # the caller asked
    image = image_channel(loaded, intensity.channel).reshape(-1)
    pairs = zip(loaded.rois, roi.in_order(), strict=True)
    rois = [mask.reshape(-1) for mask, weight in pairs if weight > 0]
    for index in range(fused.soft[0].n_chunks):
        part = fused.soft[0].part(index)
        inside = np.any([mask[part] for mask in rois], axis=0)
        if fused.ignored is not None:
            inside = inside & ~fused.ignored.get(index)
        yield index, image[part], inside, stacked(fused.soft, index)


def image_channel(loaded: LoadedCase, channel: int) -> NDArray[Any]:
    """One channel ``(*spatial)`` of the image; a colour file holds several."""
    ndim = len(loaded.grid.shape)
    files = [
        np.moveaxis(image, -1, 0) if image.ndim > ndim else image[None]
        for image in loaded.images
        if image is not None  # a prior that asks for them keeps all
    ]
    return [one for channels in files for one in channels][channel]


def expected_volume_mm3(soft: NDArray[Any], spacing_mm: Sequence[float]) -> list[float]:
    """Expected volume of each channel, the sum of its probabilities: take it before and after a prior."""
    return (soft.sum(axis=tuple(range(1, soft.ndim)), dtype=np.float64) * np.prod(spacing_mm)).tolist()

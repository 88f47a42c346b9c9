"""One case of a conversion: fuse its raters, write what nnU-Net and evaluation need."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case, source_name
from nnunet_softlabel.conversion.case_records import CaseRecord, JudgedJson
from nnunet_softlabel.conversion.one_case.apply_priors import apply_priors
from nnunet_softlabel.conversion.one_case.describe import describe
from nnunet_softlabel.conversion.one_case.fuse import Fused, JudgedLesions, fuse_case
from nnunet_softlabel.conversion.one_case.read import LoadedCase, load_case
from nnunet_softlabel.conversion.settings import CaseSettings, has_too_few_raters
from nnunet_softlabel.conversion.sources import digest_of_case
from nnunet_softlabel.conversion.work_folder import record_file
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.encoding import consensus
from nnunet_softlabel.formats.files import hash_files, write_json
from nnunet_softlabel.formats.flat_images import is_stored_as_read
from nnunet_softlabel.formats.images import file_ending, is_flat, read_mask, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.packed import PackedMap, is_zero_in_all, stacked
from nnunet_softlabel.formats.probability_maps import write_probability
from nnunet_softlabel.formats.soft_dataset import soft_ending, soft_files


def write_case(case: Case, work: Path, settings: CaseSettings) -> CaseRecord:
    """Convert one case into ``work/dataset``; its record is written last.

    Returns:
        The record: raters, disputed share of the marked voxels, number of soft voxels, expected volume per
        label, what priors changed, and how many voxels got which votes if the label is their mean.

    Raises:
        DatasetError: for any file that is not what it should be.
    """
    record: CaseRecord = {"case": case.name, "raters": sorted(case.raters), "is_test": case.is_test}
    if has_too_few_raters(case, settings):
        record["is_dropped"] = True
    else:
        loaded = load_case(case, settings)
        fused = fuse_case(case, loaded, settings)
        if settings.priors:
            soft, record["prior"] = apply_priors(case, loaded, fused, settings)
            fused = replace(fused, soft=soft)
        if settings.counts_votes:
            record["votes"] = fused.counted()
        if fused.lesions is not None:
            record["lesions"] = _judged(fused.lesions, settings.labels)
        expected = _write_files(case, loaded, fused, work / "dataset", settings=settings)
        record |= describe(fused.soft, loaded, settings.labels, expected)
        record["moved"] = {what: move.to_json() for what, move in loaded.moved.items()}
        record["sizes"] = _sizes(case, loaded, len(fused.soft), work / "dataset", settings=settings)
        record["hash"] = _hash_of_soft(record, work / "dataset")
    record["sources"] = digest_of_case(case)
    write_json(record_file(work, case.name), record, is_for_people=False)
    return record


def is_whole(record: CaseRecord, work: Path) -> bool:
    """True if the files of a finished case are as they were written; a machine that went down may lose some.

    Sizes are compared, and the content of soft labels. Records of earlier versions know no sizes.
    """
    folder = work / "dataset"
    sizes = record.get("sizes")
    if sizes is None:
        return True
    paths = {folder / name: size for name, size in sizes.items()}
    is_there = all(path.is_file() and path.stat().st_size == size for path, size in paths.items())
    return is_there and _hash_of_soft(record, folder) == record["hash"]


def _sizes(
    case: Case, loaded: LoadedCase, channels: int, folder: Path, *, settings: CaseSettings
) -> dict[str, int]:
    """Bytes of every file of a case, by their names in the data set."""
    split, ending, name = "Ts" if case.is_test else "Tr", settings.ending, case.name
    soft = soft_files(folder / f"softLabels{split}", name, channels, soft_ending(ending))
    raters = [folder / f"raterLabels{split}" / rater / f"{name}{ending}" for rater in loaded.rater_maps]
    others = [folder / f"labels{split}" / f"{name}{ending}"]
    others += [folder / f"images{split}" / f"{name}_{i:04d}{ending}" for i in range(len(case.images))]
    written = [*soft, *raters, *(path for path in others if path.exists())]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in written}


def _hash_of_soft(record: CaseRecord, folder: Path) -> str:
    return hash_files([folder / name for name in sorted(record["sizes"]) if name.startswith("softLabels")])


def _judged(lesions: JudgedLesions, labels: Labels) -> dict[str, list[JudgedJson]]:
    """Label name -> its candidates, numbered from 1, with the probability to be a lesion (None: the mean)."""
    return {
        name: [
            {"candidate": number, **c.to_json(), "posterior": None if np.isnan(p) else round(float(p), 4)}
            for number, (c, p) in enumerate(zip(found, posterior, strict=True), start=1)
        ]
        for name, found, posterior in zip(labels.names, lesions.candidates, lesions.posteriors, strict=True)
    }


def _write_files(
    case: Case, loaded: LoadedCase, fused: Fused, folder: Path, *, settings: CaseSettings
) -> list[float]:
    """Write one file after the other, of which one is in memory; the sum of each channel."""
    check_can_be_written(case, loaded, fused, settings)
    split, ending = "Ts" if case.is_test else "Tr", settings.ending
    if settings.hard_labels is None:
        _write_images(case, loaded, _made(folder / f"images{split}"), settings)
        hard = consensus_of(fused.soft, settings.labels, fused.ignored)
        write_image(_made(folder / f"labels{split}") / f"{case.name}{ending}", hard, loaded.grid)
        del hard
    files = soft_files(_made(folder / f"softLabels{split}"), case.name, len(fused.soft), soft_ending(ending))
    expected = []
    for path, packed in zip(files, fused.soft, strict=True):
        channel = packed.whole()
        write_probability(path, channel, loaded.grid)
        expected.append(float(channel.sum(dtype=np.float64)))
    for rater, label_map in loaded.rater_maps.items():
        write_image(
            _made(folder / f"raterLabels{split}" / rater) / f"{case.name}{ending}",
            label_map.whole(),
            loaded.grid,
        )
    return expected


def consensus_of(soft: Sequence[PackedMap], labels: Labels, ignored: PackedMap | None) -> NDArray[Any]:
    """See `consensus`, chunk by chunk."""
    hard: NDArray[Any] | None = None
    for index in range(soft[0].n_chunks):
        is_ignored = None if ignored is None else ignored.get(index)
        if hard is not None and is_zero_in_all(soft, index) and (is_ignored is None or not is_ignored.any()):
            continue
        chunk = consensus(stacked(soft, index), labels, is_ignored)
        hard = np.zeros(soft[0].shape, chunk.dtype) if hard is None else hard
        hard.reshape(-1)[soft[0].part(index)] = chunk
    assert hard is not None, "there is a chunk"
    return hard


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_can_be_written(case: Case, loaded: LoadedCase, fused: Fused, settings: CaseSettings) -> None:
    """Refuse what would go wrong only when files are written.

    Raises:
        DatasetError: for an image that its new format cannot hold, or a hard label that does not fit.
    """
    if settings.hard_labels is not None:
        _check_hard_label(case, fused.ignored, settings)
        return
    for source, array in zip(case.images, loaded.images, strict=True):
        if array is None or (isinstance(source, Path) and _may_be_copied(source, array, settings.ending)):
            continue
        if is_flat(Path(f"image{settings.ending}")) and array.dtype not in (np.uint8, np.uint16, bool):
            raise DatasetError(
                f"{source_name(source)}: a {array.dtype} image does not fit into PNG; store 8 or 16 bit."
            )


def _check_hard_label(case: Case, ignored: PackedMap | None, settings: CaseSettings) -> None:
    """Refuse voxels that nobody answered and a hard label that is there already does not ignore."""
    if ignored is None or not ignored.any() or settings.hard_labels is None:
        return
    path = settings.hard_labels / f"{case.name}{settings.ending}"
    unmarked = int((ignored.whole() & (read_mask(path)[0] != settings.labels.ignore)).sum())
    if unmarked:
        raise DatasetError(
            f"{path}: {unmarked} voxels that no rater answered have a label; "
            f"give them the value {settings.labels.ignore} (ignore) there."
        )


def _write_images(case: Case, loaded: LoadedCase, folder: Path, settings: CaseSettings) -> None:
    ending = settings.ending
    for channel, (source, array) in enumerate(zip(case.images, loaded.images, strict=True)):
        target = folder / f"{case.name}_{channel:04d}{ending}"
        if array is None or (isinstance(source, Path) and _may_be_copied(source, array, ending)):
            assert isinstance(source, Path), "only files are not kept"
            if settings.links_images:
                target.unlink(missing_ok=True)  # of a run that was cut off
                target.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, target)
            continue
        if is_flat(target) and array.dtype == bool:
            array = array.astype(np.uint8)
        write_image(target, array, loaded.grid)


def _may_be_copied(source: Path, array: NDArray[Any], ending: str) -> bool:
    """True if the file is what nnU-Net reads: ``.tiff`` is ``.tif`` to it."""
    own = file_ending(source)
    if not is_flat(source):
        return own == ending
    return ending in (own, own.removesuffix("f")) and is_stored_as_read(source, array)

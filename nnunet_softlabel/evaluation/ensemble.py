"""Probabilities of cases: of one folder, of several folds, the mean of several models; recalibrated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_softlabel.cases.trained_on import refuse_trained_cases
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation import SEARCHED
from nnunet_softlabel.evaluation.calibration_file import Calibration, find_calibration, read_calibration
from nnunet_softlabel.evaluation.consistency import channels_of_models, exhaust
from nnunet_softlabel.evaluation.decision import Decision
from nnunet_softlabel.evaluation.recalibration import recalibrated
from nnunet_softlabel.formats.channel_store import ChannelStore
from nnunet_softlabel.formats.files import read_json, visible
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import predicted_cases, predicted_voxels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.memory import LargestCase, largest_of, processes_that_fit

RECORD = "made_from.json"  # in folders that `average` and `apply-calibration` wrote


@dataclass(frozen=True)
class Predictions:
    """Where the probabilities of every case are, and what is done to them when they are read.

    Attributes:
        folders_of: case -> folders that hold it; their probabilities are averaged.
        calibration: recalibrates them afterwards, or None.
    """

    folders_of: Mapping[str, tuple[Path, ...]]
    calibration: Calibration | None = None

    @classmethod
    def find(
        cls, folders: Path | Sequence[Path], *, file_ending: str, with_masks: bool = True
    ) -> Predictions:
        """Cases of one or several folders, all of them in the same number of folders.

        Folders of several folds hold other cases each; folders of several models hold the same cases, whose
        probabilities are then averaged. ``with_masks`` asks for probabilities beside every segmentation.

        Raises:
            DatasetError: if a folder is incomplete, or some cases lie in more folders than others.
            UsageError: for no folder, one given twice, or recalibrated probabilities beside others.
        """
        given = [folders] if isinstance(folders, Path) else list(folders)
        if not given:
            raise UsageError("-i: name at least one folder of predictions.")
        twice = [str(f) for f, n in Counter(folder.resolve() for folder in given).items() if n > 1]
        if twice:
            raise UsageError(f"-i: {twice[0]} is given twice.")
        found: dict[str, list[Path]] = {}
        for folder in given:
            cases = [] if with_masks else [path.stem for path in visible(folder, "*.npz")]
            for case in cases or predicted_cases(folder, file_ending=file_ending):
                found.setdefault(case, []).append(folder)
        most = max(found, key=lambda case: len(found[case]))
        fewest = min(found, key=lambda case: len(found[case]))
        if len(found[most]) != len(found[fewest]):
            raise DatasetError(
                f"Case {fewest} lies in {len(found[fewest])} of the folders of -i, case {most} in "
                f"{len(found[most])}; a mean over different models is no comparison. Give folds with "
                f"different cases, or models that predicted the same cases."
            )
        if len({is_recalibrated(folder) for folder in given}) > 1:
            raise UsageError("-i: some folders hold recalibrated probabilities, others the network's own.")
        return cls({case: tuple(found[case]) for case in sorted(found)})

    @property
    def cases(self) -> list[str]:
        """Names of the cases, sorted."""
        return list(self.folders_of)

    @property
    def folders(self) -> list[Path]:
        """All folders, each once."""
        return list(dict.fromkeys(folder for folders in self.folders_of.values() for folder in folders))

    @property
    def models(self) -> int:
        """How many probabilities of a case are averaged."""
        return len(next(iter(self.folders_of.values())))

    @property
    def recalibrated_by(self) -> str | None:
        """Digest of the calibration behind the probabilities, now or when the folders were written, or None.

        Models that have a calibration each are named by all of them.
        """
        if self.calibration is not None:
            return self.calibration.digest
        return joined_digests(self.folders)

    @property
    def note(self) -> str:
        """What is done to the probabilities, for the user; empty for one folder as it is."""
        parts = []
        if self.models > 1:
            parts.append(f"the mean of {self.models} models' probabilities")
        if self.calibration is not None:
            own = sum(case in self.calibration.part_of for case in self.folders_of)
            parts.append(f"recalibrated with {self.calibration.file}")
            if own:
                parts.append(f"{own} cases with the map that has not seen them")
        elif self.recalibrated_by is not None:
            parts.append(f"recalibrated before, with the calibration {self.recalibrated_by}")
        return ", ".join(parts)

    def processes_that_fit(
        self, num_processes: int, labels: Labels, *, command: str = "predictions", raters: int = 0
    ) -> int:
        """At most ``num_processes``, fewer where memory is short for the largest case.

        Args:
            num_processes: as asked for.
            labels: of the data set.
            command: a key of `PER_VOXEL`.
            raters: whose label maps are read beside the probabilities.
        """
        files = {case: folders[0] / f"{case}.npz" for case, folders in self.folders_of.items()}
        largest = LargestCase(
            *largest_of(files, predicted_voxels), len(labels.names), raters, models=self.models
        )
        return processes_that_fit(num_processes, len(files), largest, command)

    def mask_file(self, case: str, file_ending: str) -> Path:
        """nnU-Net's own segmentation of a case, which holds its geometry."""
        return self.folders_of[case][0] / f"{case}{file_ending}"

    def refuse_trained_cases(self, cases: Iterable[str]) -> None:
        """Refuse cases of a validation folder that its network was trained on, as far as that is known.

        Raises:
            DatasetError: naming the first.
        """
        for folder in self.folders:
            refuse_trained_cases(folder, [case for case in cases if folder in self.folders_of[case]])

    def refuse_as_output(self, output: Path, *, replaces: bool = False) -> None:
        """Refuse to write into a folder of predictions, these or others.

        Args:
            output: folder that is asked for.
            replaces: predictions that `average` or `apply_calibration` wrote may be replaced.

        Raises:
            UsageError: naming it.
        """
        if output.resolve() in [folder.resolve() for folder in self.folders]:
            raise UsageError(
                f"-o {output}: the predictions themselves lie there, with nnU-Net's own segmentations; "
                f"choose another folder."
            )
        is_validation = output.name == "validation" and output.parent.name.startswith("fold_")
        is_ours = replaces and (output / RECORD).is_file()
        if is_validation or (not is_ours and any(output.glob("*.npz"))):
            raise UsageError(
                f"-o {output}: predictions lie there, with segmentations of their own; choose another folder."
            )

    def with_calibration(self, file: Path | str | None, like: SoftDataset | Labels) -> Predictions:
        """The same, recalibrated with a file; `SEARCHED` looks beside the predictions, None changes nothing.

        ``like`` says what channels mean; a data set also tells its cases from others of the same name.

        Raises:
            UsageError: if there is no such file, if a case cannot be recalibrated fairly, or if the folders
                hold recalibrated probabilities already.
            DatasetError: if it does not fit.
        """
        if file is None:
            return self
        for folder in self.folders:
            refuse_recalibrated(folder)
        path = find_calibration(self.folders) if str(file) == SEARCHED else Path(file)
        labels, dataset = (like, None) if isinstance(like, Labels) else (like.labels, like)
        calibration = read_calibration(path, labels).for_cases(self.cases, dataset)
        for case in self.folders_of:
            calibration.map_for(case)
        return replace(self, calibration=calibration)

    def channels(
        self,
        case: str,
        like: SoftDataset | Labels,
        shape: tuple[int, ...],
        *,
        stock: Decision | None = None,
    ) -> Iterator[NDArray[Any]]:
        """Probabilities of a case, averaged and recalibrated: float32 ``(*spatial)``, channel by channel.

        Classes have the background first. No channel is kept in memory. A recalibration asks all channels of
        a voxel, so that they are kept in a temporary file.

        Args:
            case: its name.
            like: what channels mean; a data set also has the segmentations beside the probabilities checked.
            shape: of the case.
            stock: see `checked_channels`; of one model as it is.

        Raises:
            DatasetError: as `channels_of_models`.
        """
        labels = like if isinstance(like, Labels) else like.labels
        if self.calibration is None:
            yield from self._mean_channels(case, like, shape, stock)
            return
        recalibration = self.calibration.map_for(case)
        mean = self._mean_channels(case, like, shape, None)
        with ChannelStore(mean, labels.network_channels, shape) as store:
            store.change(partial(recalibrated, recalibration=recalibration, has_regions=labels.has_regions))
            yield from store.channels()

    def _mean_channels(
        self, case: str, like: SoftDataset | Labels, shape: tuple[int, ...], stock: Decision | None
    ) -> Iterator[NDArray[Any]]:
        streams = channels_of_models(like, self.folders_of[case], case, shape, stock=stock)
        return streams[0] if len(streams) == 1 else mean_of_channels(streams)


def mean_of_channels(streams: Sequence[Iterator[NDArray[Any]]]) -> Iterator[NDArray[Any]]:
    """Channel by channel the mean of several models, in single precision; their arrays may be written to."""
    first, *others = streams
    yield from map(partial(_mean_with, others), first)  # which keeps none of them
    for other in others:
        exhaust(other)


def _mean_with(others: Sequence[Iterator[NDArray[Any]]], total: NDArray[Any]) -> NDArray[Any]:
    for other in others:
        total += next(other)
    total /= np.float32(len(others) + 1)
    return total


def check_geometry(case: str, file: Path) -> None:
    """Refuse a case without the file that says where its voxels lie.

    Raises:
        DatasetError: naming it.
    """
    if not file.is_file():
        raise DatasetError(f"Case {case}: its geometry should come from {file}, which does not exist.")


def refuse_recalibrated(folder: Path) -> None:
    """Refuse a folder whose probabilities are recalibrated already: a second time would be wrong.

    Raises:
        UsageError: naming the folder.
    """
    if is_recalibrated(folder):
        raise UsageError(f"{folder}: holds recalibrated probabilities already; give the network's own.")


def joined_digests(folders: Sequence[Path]) -> str | None:
    """The calibrations that made the probabilities of the folders, None for the network's own."""
    records = [read_json(folder / RECORD) for folder in folders if is_recalibrated(folder)]
    return " + ".join(sorted({str(record.get("digest")) for record in records})) or None


def is_recalibrated(folder: Path) -> bool:
    """True if `apply_calibration` wrote the folder, or `average` from such folders."""
    record = folder / RECORD
    return record.is_file() and bool(read_json(record).get("recalibrated"))

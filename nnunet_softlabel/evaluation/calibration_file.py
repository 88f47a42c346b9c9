"""``calibration.json``: recalibration maps beside the models, and which cases each of them has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.fitted_on import UNKNOWN, Origin, refuse_changed
from nnunet_softlabel.evaluation.recalibration import RecalibrationMap, map_from_json
from nnunet_softlabel.evaluation.records import CalibrationRecord
from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset

FILE_NAME = "calibration.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """Maps of a model, cross-fitted.

    Attributes:
        file: where they are stored.
        digest: of the file's content.
        of_all: fitted on all cases; for new images.
        parts: for the cases of each part (a fold), the map fitted on the other parts.
        part_of: case -> part, of every case that ``of_all`` has seen.
        origin: whose cases these are.
    """

    file: Path
    digest: str
    of_all: RecalibrationMap
    parts: Mapping[str, RecalibrationMap]
    part_of: Mapping[str, str]
    origin: Origin = UNKNOWN

    @property
    def about(self) -> CalibrationRecord:
        """Which calibration it is, for records."""
        return {"file": str(self.file), "digest": self.digest}

    def for_cases(self, cases: Sequence[str], dataset: SoftDataset | None) -> Calibration:
        """The same for cases of a data set, without those that only have the name of one it has seen."""
        named = [case for case in cases if case in self.part_of]
        seen = set(self.origin.seen(named, dataset))
        return replace(self, part_of={c: p for c, p in self.part_of.items() if c in seen or c not in named})

    def map_for(self, case: str) -> RecalibrationMap:
        """A map that has not seen the case.

        Raises:
            UsageError: if every map of the file has seen it.
        """
        if case not in self.part_of:
            return self.of_all
        if self.part_of[case] not in self.parts:
            raise UsageError(
                f"{self.file}: case {case} was among the cases that the map was fitted on, so its scores "
                f"would flatter the map; recalibrate other cases, or fit with cases in two folds or more."
            )
        return self.parts[self.part_of[case]]


def read_calibration(file: Path, labels: Labels) -> Calibration:
    """Read what `calibrate` stored.

    Raises:
        UsageError: if there is no such file, or if it was fitted on predictions that have changed since.
        DatasetError: if it is of another version, or was fitted for other channels.
    """
    if not file.is_file():
        raise UsageError(f"{file} does not exist; fit it first with `nnunet_softlabel calibrate`.")
    content = read_json(file)
    if content.get("format_version") != FORMAT_VERSION:
        raise DatasetError(
            f"{file}: calibration format {content.get('format_version')}, this version reads "
            f"{FORMAT_VERSION}; run calibrate again."
        )
    if content.get("channels") != list(labels.names) or content.get("has_regions") != labels.has_regions:
        raise DatasetError(
            f"{file}: was fitted for the channels {content.get('channels')}, the data set has "
            f"{list(labels.names)}; is this the model's data set?"
        )
    refuse_changed(file, content, "calibrate")
    try:
        return Calibration(
            file,
            hashlib.sha256(file.read_bytes()).hexdigest()[:12],
            map_from_json(content["all"]),
            {name: map_from_json(part["map"]) for name, part in content["parts"].items()},
            {case: name for name, part in content["parts"].items() for case in part["cases"]},
            Origin.of(file, content),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read ({error}); run calibrate again.") from error


def find_calibration(folders: Sequence[Path]) -> Path:
    """``calibration.json`` in the folders of the predictions or up to two levels above: beside the model.

    Raises:
        UsageError: if there is none, or if the folders have different ones.
    """
    found: list[Path] = []
    for folder in folders:
        absolute = folder.absolute()
        places = [place / FILE_NAME for place in (absolute, *absolute.parents[:2])]
        there = [place for place in places if place.is_file()]
        if not there:
            raise UsageError(
                f"no {FILE_NAME} lies in {folder} or up to two folders above; name it, or fit it first with "
                f"`nnunet_softlabel calibrate`."
            )
        found.append(there[0])
    if len(set(found)) > 1:
        raise UsageError(f"the folders of -i have different calibrations: {found[0]}, {found[-1]}; name one.")
    return found[0]

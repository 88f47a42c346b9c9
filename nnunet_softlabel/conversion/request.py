"""What was asked for, as JSON and as one word."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from nnunet_softlabel import __version__
from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.cases.label_maps import Reading
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.labels import Values


class RequestDescription(TypedDict):
    """What decides the bytes of a data set; plain values, as in JSON."""

    version: str
    settings: dict[str, object]
    cases: dict[str, dict[str, object]]


def request_digest(cases: Sequence[Case], settings: CaseSettings) -> str:
    """One word for what was asked for, without the places of files: stored in ``dataset.json``."""
    request = {
        "settings": _settings_as_json(settings),
        "cases": {
            case.name: [
                len(case.images),
                *([True] if case.prediction is not None else []),
                *([_adjudicated(case)] if case.adjudicated else []),
                *(sorted(sources) for sources in (case.raters, case.soft, case.rois)),
                case.group,
                case.is_test,
                *(["hard"] if case.hard is not None else []),
            ]
            for case in cases
        },
    }
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _settings_as_json(settings: CaseSettings) -> dict[str, object]:
    asked = asdict(settings)
    del asked["estimates"]
    if not asked["links_images"]:
        del asked["links_images"]  # as in data sets that were made before there was a choice
    return {
        **asked,
        "reading": _reading_as_json(settings.reading),
        "hard_labels": None if settings.hard_labels is None else settings.hard_labels.name,
    }


def _adjudicated(case: Case) -> dict[str, list[list[int]]]:
    return {
        label: [[number, int(one.is_real)] for number, one in sorted(said.items())]
        for label, said in sorted(case.adjudicated.items())
    }


def _reading_as_json(reading: Reading) -> dict[str, object]:
    """How files were read; keys are text, as in JSON."""
    of_rater = {rater: values_as_text(values) for rater, values in reading.of_rater.items()}
    return asdict(reading) | {"values": values_as_text(reading.values), "of_rater": of_rater}


def values_as_text(values: Values) -> dict[str, int]:
    """Value in a file -> label, with keys as JSON has them."""
    return {str(value): label for value, label in values.items()}


def request_description(cases: Sequence[Case], settings: CaseSettings) -> RequestDescription:
    """What decides the bytes of the result, files included."""

    def described(source: Source) -> list[object]:
        if isinstance(source, Channel):
            return [*described(source.path), source.axis, source.index]
        if not isinstance(source, Path):
            return ["in memory"]
        status = source.stat() if source.is_file() else None  # what is missing has its own error later
        return [str(source.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())]

    def all_described(sources: Mapping[str, Source]) -> dict[str, list[object]]:
        return {key: described(source) for key, source in sources.items()}

    description = {
        "version": __version__,
        "settings": _settings_as_json(settings),
        "cases": {
            case.name: {
                "images": [described(source) for source in case.images],
                "raters": all_described(case.raters),
                "soft": all_described(case.soft),
                "rois": all_described(case.rois),
                "ignore": None if case.ignore is None else described(case.ignore),
                "hard": None if case.hard is None else described(case.hard),
                "group": case.group,
                "is_test": case.is_test,
                "prediction": None if case.prediction is None else described(case.prediction),
                "adjudicated": _adjudicated(case),
            }
            for case in cases
        },
    }
    return json.loads(json.dumps(description))  # lists where the settings hold tuples, as in the file

"""What the channels of a soft label mean and which values they take: pure functions on arrays.

`Labels` names the channels, `consensus` makes nnU-Net's hard label, `quantise` says how probabilities travel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_softlabel.arguments import as_label_texts
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.dataset_json import problem_of_labels
from nnunet_softlabel.formats.files import Json, is_formula

MAX_LABEL = 65535
# value of a label, or name of a segment, in the raters' files -> label value in the data set
Values = Mapping[int | str, int]


@dataclass(frozen=True)
class Labels:
    """What the foreground channels of a data set mean, in nnU-Net's terms.

    Attributes:
        values: name -> label values of the hard label map, in channel order. One value each for classes;
            regions may overlap.
        ignore: label value of voxels that nobody answered, or None.
        given_order: nnU-Net's ``regions_class_order`` of a data set that was made elsewhere, or None for the
            rule of `region_order`.
    """

    values: Mapping[str, tuple[int, ...]]
    ignore: int | None = None
    given_order: tuple[int, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the foreground channels, in order."""
        return tuple(self.values)

    @property
    def own_values(self) -> dict[int | str, int]:
        """Every value of the hard label map, background and ignore included, as the map to itself."""
        values = {0} | {value for region in self.values.values() for value in region}
        values |= {self.ignore} if self.ignore is not None else set()
        return {value: value for value in values}

    @property
    def has_regions(self) -> bool:
        """True if channels may overlap (sigmoid), False if they exclude each other (softmax)."""
        return any(len(values) > 1 for values in self.values.values())

    @property
    def network_channels(self) -> int:
        """How many probabilities a network gives for a voxel: classes have the background first."""
        return len(self.names) + (not self.has_regions)

    @property
    def region_order(self) -> tuple[int, ...]:
        """nnU-Net's ``regions_class_order``: as given, or per region its smallest label in no later region.

        Raises:
            UsageError: if a region is covered by later ones.
        """
        if self.given_order is not None:
            return self.given_order
        regions = list(self.values.items())
        order = []
        for i, (name, values) in enumerate(regions):
            own = set(values).difference(*(later for _, later in regions[i + 1 :]))
            if not own:
                sizes = [len(values) for _, values in regions]
                advice = (
                    "name the largest regions first"
                    if sizes != sorted(sizes, reverse=True)
                    else "nnU-Net needs a value that is in no region inside it: leave one of these out"
                )
                raise UsageError(f"--labels: every value of region {name!r} is in a later region; {advice}.")
            order.append(min(own))
        return tuple(order)

    @classmethod
    def from_argument(cls, value: Any, argument: str) -> Labels:
        """Labels of ``{"nodule": 1}`` or ``["nodule=1"]``, with these values in the data set."""
        labels, values = parse_labels(as_label_texts(value, argument))
        moved = [f"{old} would be {new}" for old, new in values.items() if old != new]
        if moved:
            raise UsageError(f"{argument}: values of a data set count from 1, in order; {moved[0]}.")
        return labels

    @classmethod
    def from_dataset_json(cls, dataset_json: Mapping[str, Any]) -> Labels:
        """Read the labels of an nnU-Net ``dataset.json``.

        Raises:
            DatasetError: if they are not of the shape that nnU-Net v2 reads.
        """
        problem = problem_of_labels(dataset_json)
        if problem:
            raise DatasetError(f"dataset.json: {problem}.")
        values = {
            name: tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
            for name, value in dataset_json["labels"].items()
            if name not in ("background", "ignore")
        }
        if not any(len(v) > 1 for v in values.values()):  # nnU-Net's softmax channels go by label value
            values = dict(sorted(values.items(), key=lambda item: item[1]))
        ignore = dataset_json["labels"].get("ignore")
        order = dataset_json.get("regions_class_order")
        return cls(
            values,
            None if ignore is None else int(ignore),
            None if order is None else tuple(int(v) for v in order),
        )

    def to_dataset_json(self) -> Json:
        """The keys ``labels`` and, with regions, ``regions_class_order`` of nnU-Net's ``dataset.json``."""
        labels: dict[str, int | list[int]] = {"background": 0}
        labels |= {name: list(v) if len(v) > 1 else v[0] for name, v in self.values.items()}
        if self.ignore is not None:
            labels["ignore"] = self.ignore
        return {"labels": labels} | (
            {"regions_class_order": list(self.region_order)} if self.has_regions else {}
        )


def parse_labels(texts: Sequence[str]) -> tuple[Labels, dict[int | str, int]]:
    """Read ``--labels name=value[,value...] ...``, or names of segments in place of values.

    Label values in the raters' files may be any positive integers; nnU-Net wants 1, 2, 3, ... with ``ignore``
    last. Segments have names: ``lesion=Lesion``, or ``lesion`` where the segment has the name of the label.
    ``background=3`` names a value, channel or segment that is background, too.

    Returns:
        The labels in nnU-Net's values, and the map from the raters' values to them (0 stays 0).

    Raises:
        UsageError: for text of another form, a name that cannot be, a name or class value given twice, the
            value 0, or a covered region.
    """
    given: dict[str, tuple[int | str, ...]] = {}
    for text in texts:
        name, values = _name_and_values(text, "--labels")
        _check_name(name, text)
        if name in given:
            raise UsageError(f"--labels: the name {name!r} is given twice.")
        given[name] = values
    ignored, background = given.pop("ignore", None), given.pop("background", ())
    if not given:
        besides = "0 is the background; " if background else ""
        raise UsageError(f"--labels: {besides}name at least one foreground label, as in nodule=1.")
    if any(value in background for values in (*given.values(), ignored or ()) for value in values):
        raise UsageError("--labels: background shares a value with a label; give it values of its own.")
    if ignored is not None and (len(ignored) > 1 or any(ignored[0] in v for v in given.values())):
        raise UsageError("--labels: ignore takes one value of its own, as in ignore=255.")
    sources = _in_order(given, ignored)
    is_region = any(len(values) > 1 for values in given.values())
    if not is_region and len(sources) < len(given):
        raise UsageError("--labels: two names share a value; give each class a value of its own.")
    mapping: dict[int | str, int] = {value: 0 for value in (0, *background)}
    mapping |= {value: i for i, value in enumerate(sources, start=1)}
    channels = {name: tuple(mapping[v] for v in values) for name, values in given.items()}
    if not is_region:
        channels = dict(sorted(channels.items(), key=lambda item: item[1]))
    if ignored is not None:
        mapping[ignored[0]] = len(sources) + 1
    labels = Labels(channels, mapping[ignored[0]] if ignored is not None else None)
    if is_region:
        _ = labels.region_order  # refuses a covered region now, before any file is read
    return labels, mapping


def channels_of_labels(labels: Labels, values: Values) -> dict[str, int]:
    """Label -> number in the raters' files, which is its channel where files have a channel per label.

    Regions, and labels that have names of segments in place of numbers, are numbered in their order.
    """
    numbers = {label: value for value, label in reversed(list(values.items())) if isinstance(value, int)}
    if labels.has_regions:
        numbers = {}  # a value is in several regions, so it cannot be the channel of one
    return {
        name: numbers.get(region[0], i) for i, (name, region) in enumerate(labels.values.items(), start=1)
    }


def parse_rater_labels(
    texts: Sequence[str], labels: Labels, mapping: Values
) -> dict[str, dict[int | str, int]]:
    """Read ``--rater-labels rater:name=value[,value...] ...`` for raters who use other values.

    A label that is not given for a rater keeps the values that ``--labels`` gives it.

    Args:
        texts: of the command line.
        labels: of the data set.
        mapping: value in the files -> value in the data set, of all other raters.

    Returns:
        Rater -> value in that rater's files -> value in the data set.

    Raises:
        UsageError: for text of another form, an unknown label, or values that do not go together.
    """
    given: dict[str, dict[str, tuple[int | str, ...]]] = {}
    for text in texts:
        rater, colon, rest = text.partition(":")
        if not rater or not colon or "=" not in rest:
            raise UsageError(f"--rater-labels {text}: expected RATER:NAME=VALUE, as in r2:lesion=3.")
        name, values = _name_and_values(rest, "--rater-labels")
        if name not in labels.names and not (name == "ignore" and labels.ignore is not None):
            raise UsageError(
                f"--rater-labels {text}: {name} is none of the labels {', '.join(labels.names)}."
            )
        if name in given.setdefault(rater, {}):
            raise UsageError(f"--rater-labels {text}: {name} of rater {rater} is given twice.")
        given[rater][name] = values
    return {rater: _values_of_rater(rater, own, labels, mapping) for rater, own in given.items()}


def _values_of_rater(
    rater: str, own: Mapping[str, tuple[int | str, ...]], labels: Labels, mapping: Values
) -> dict[int | str, int]:
    """A value of the rater means the value of the data set that is in the same labels."""
    members = {
        name: {v for v, label in mapping.items() if label in region} for name, region in labels.values.items()
    }
    if labels.ignore is not None:
        members["ignore"] = {v for v, label in mapping.items() if label == labels.ignore}
    members |= {name: set(values) for name, values in own.items()}
    regions = {name: set(region) for name, region in labels.values.items()}
    regions |= {"ignore": {labels.ignore}} if labels.ignore is not None else {}
    values: dict[int | str, int] = {value: 0 for value, label in mapping.items() if label == 0}
    for value in sorted({v for known in members.values() for v in known}, key=str):
        names = {name for name, known in members.items() if value in known}
        same = [
            label
            for label in sorted(set().union(*regions.values()))
            if {name for name, region in regions.items() if label in region} == names
        ]
        if len(same) != 1:
            raise UsageError(
                f"--rater-labels: value {value} of rater {rater} would be {' and '.join(sorted(names))}; "
                f"give all labels of this rater."
            )
        values[value] = same[0]
    return values


def _check_name(name: str, text: str) -> None:
    if is_formula(name):
        raise UsageError(
            f"--labels {text}: a name cannot begin with = + - @: a spreadsheet would run it as a formula."
        )
    if name.lower() in ("ignore", "background") and name != name.lower():
        raise UsageError(
            f"--labels {text}: {name} would be a label to learn; write {name.lower()} in small letters, or "
            f"take another name."
        )


def _name_and_values(text: str, flag: str) -> tuple[str, tuple[int | str, ...]]:
    """``name=1,2`` or ``name=Segment`` or ``name``, which is the segment of that name."""
    name, equals, rest = text.partition("=")
    values = [value.strip() for value in rest.split(",")] if equals else [name]
    numbers = [value for value in values if re.fullmatch(r"[-+.\d]+", value)]
    is_wrong = not name or re.search(r"[,\s]", name) or not all(values) or (equals and not rest)
    if is_wrong or (numbers and not all(v.isdigit() for v in values)) or (not equals and numbers):
        raise UsageError(
            f"{flag} {text}: expected name=value or name=value,value, as in nodule=1 (for segments their "
            f"names: nodule=Nodule)."
        )
    if not numbers:
        return name, tuple(dict.fromkeys(values))
    found = tuple(dict.fromkeys(int(value) for value in values))
    if 0 in found:
        raise UsageError(f"{flag} {text}: 0 is the background and needs no name; name the other values.")
    if max(found) > MAX_LABEL:
        raise UsageError(f"{flag}: the value {max(found)} is too large; label values go to {MAX_LABEL}.")
    return name, found


def _in_order(
    given: Mapping[str, tuple[int | str, ...]], ignored: tuple[int | str, ...] | None
) -> list[int | str]:
    """All values: numbers by size, names as given."""
    values = list(dict.fromkeys(value for known in given.values() for value in known))
    numbers = [value for value in values if isinstance(value, int)]
    if 0 < len(numbers) < len(values) or (
        ignored is not None and bool(numbers) != isinstance(ignored[0], int)
    ):
        raise UsageError("--labels: give numbers for all labels, or names of segments for all.")
    return [*sorted(numbers)] if numbers else values

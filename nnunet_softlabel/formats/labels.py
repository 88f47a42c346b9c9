"""What the channels of a soft label mean and which values they take: pure functions on arrays.

`Labels` names the channels, `consensus` makes nnU-Net's hard label, `quantise` says how probabilities travel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.dataset_json import problem_of_labels

MAX_LABEL = 65535


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
    def has_regions(self) -> bool:
        """True if channels may overlap (sigmoid), False if they exclude each other (softmax)."""
        return any(len(values) > 1 for values in self.values.values())

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
                raise UsageError(
                    f"--labels: every value of region {name!r} is in a later region; "
                    f"name the largest regions first."
                )
            order.append(min(own))
        return tuple(order)

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

    def to_dataset_json(self) -> dict[str, Any]:
        """The keys ``labels`` and, with regions, ``regions_class_order`` of nnU-Net's ``dataset.json``."""
        labels: dict[str, Any] = {"background": 0}
        labels |= {name: list(v) if len(v) > 1 else v[0] for name, v in self.values.items()}
        if self.ignore is not None:
            labels["ignore"] = self.ignore
        return {"labels": labels} | (
            {"regions_class_order": list(self.region_order)} if self.has_regions else {}
        )


def parse_labels(texts: Sequence[str]) -> tuple[Labels, dict[int, int]]:
    """Read ``--labels name=value[,value...] ...``.

    Label values in the raters' files may be any positive integers; nnU-Net wants 1, 2, 3, ... with ``ignore``
    last.

    Returns:
        The labels in nnU-Net's values, and the map from the raters' values to them (0 stays 0).

    Raises:
        UsageError: for text of another form, a name or class value given twice, the value 0, or a covered
            region.
    """
    given: dict[str, tuple[int, ...]] = {}
    for text in texts:
        match = re.fullmatch(r"([^=,\s]+)=(\d+(?:,\d+)*)", text)
        if match is None:
            raise UsageError(f"--labels {text}: expected name=value or name=value,value, as in nodule=1.")
        name, values = match[1], tuple(int(v) for v in match[2].split(","))
        if name in given:
            raise UsageError(f"--labels: the name {name!r} is given twice.")
        if name == "background" or 0 in values:
            raise UsageError(
                f"--labels {text}: 0 is the background and needs no name; name the other values."
            )
        given[name] = tuple(dict.fromkeys(values))
    ignored = given.pop("ignore", None)
    if not given:
        raise UsageError("--labels: name at least one foreground label, as in nodule=1.")
    if ignored is not None and (len(ignored) > 1 or any(ignored[0] in v for v in given.values())):
        raise UsageError("--labels: ignore takes one value of its own, as in ignore=255.")
    highest = max(value for values in (*given.values(), ignored or ()) for value in values)
    if highest > MAX_LABEL:
        raise UsageError(f"--labels: the value {highest} is too large; label values go to {MAX_LABEL}.")
    is_region = any(len(values) > 1 for values in given.values())
    sources = sorted({value for values in given.values() for value in values})
    if not is_region and len(sources) < len(given):
        raise UsageError("--labels: two names share a value; give each class a value of its own.")
    mapping = {0: 0} | {value: i for i, value in enumerate(sources, start=1)}
    channels = {name: tuple(mapping[v] for v in values) for name, values in given.items()}
    if not is_region:
        channels = dict(sorted(channels.items(), key=lambda item: item[1]))
    if ignored is not None:
        mapping[ignored[0]] = len(sources) + 1
    labels = Labels(channels, mapping[ignored[0]] if ignored is not None else None)
    if is_region:
        _ = labels.region_order  # refuses a covered region now, before any file is read
    return labels, mapping

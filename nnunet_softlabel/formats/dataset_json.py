"""nnU-Net's ``dataset.json``, read and checked: another shape is said in one line that names the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import Json, read_json

OF_V1 = "nnU-Net v1's layout? `nnUNetv2_convert_old_nnUNet_dataset` makes v2's of it"
# keys of the record `soft_labels`, and what they hold where they are there
RECORD: dict[str, type | tuple[type, ...]] = {
    "digest": str,
    "made_hard_labels": bool,
    "raters": list,
    "raters_of_case": dict,
    "dropped_cases": list,
    "disputed_share": dict,
    "digests": dict,
    "groups": dict,
    "test_labels": dict,
    "label_values": dict,
    "moved": dict,
    "prior": (dict, type(None)),
    "fusion": (dict, type(None)),
    "summary": dict,
    "rater_rates": dict,
    "rates_of_raters": dict,
}
REQUIRED_OF_RECORD = ("digest", "made_hard_labels")


def read_dataset_json(folder: Path) -> Json:
    """Read ``dataset.json`` of a data set.

    Raises:
        DatasetError: if it is missing, or not of the shape that nnU-Net v2 reads.
    """
    content = read_json(folder / "dataset.json")
    check_dataset_json(folder, content)
    return content


def channel_names_of(content: Mapping[str, Any]) -> list[str]:
    """Names of the image channels by their numbers, in whatever order the file has them.

    >>> channel_names_of({"channel_names": {"1": "PET", "0": "CT"}})
    ['CT', 'PET']
    """
    names = content["channel_names"]
    if all(str(number).isdigit() for number in names):
        return [str(names[number]) for number in sorted(names, key=int)]
    return [str(name) for name in names.values()]


def check_dataset_json(folder: Path, content: Mapping[str, Any]) -> None:
    """Check what was read; see `read_dataset_json`."""
    problem = _problem(content)
    if problem:
        raise DatasetError(f"{folder / 'dataset.json'}: {problem}.")


def _problem(content: Mapping[str, Any]) -> str | None:
    """What is wrong, or None."""
    channels = content.get("channel_names")
    if not isinstance(channels, dict) or not channels:
        return f"has no channel_names ({OF_V1})"
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        return f"has no file_ending such as .nii.gz ({OF_V1})"
    about = content.get("soft_labels")
    return problem_of_labels(content) or (None if about is None else _problem_of_record(about))


def problem_of_labels(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the labels, or None."""
    labels = content.get("labels")
    if not isinstance(labels, dict) or not labels:
        return "has no labels; nnU-Net v2 wants name: value"
    if all(name.isdigit() for name in labels) and all(isinstance(v, str) for v in labels.values()):
        return f"its labels are value: name, nnU-Net v2 wants name: value ({OF_V1})"
    for name, value in labels.items():
        values = value if isinstance(value, list) and name != "ignore" else [value]
        if not values or not all(_is_label_value(v) for v in values):
            return f"label {name} has the value {value!r}; label values are whole numbers from 0"
    if not set(labels) - {"background", "ignore"}:
        return "names no foreground label"
    order = content.get("regions_class_order")
    if order is not None and not (isinstance(order, list) and all(map(_is_label_value, order))):
        return "regions_class_order is no list of label values"
    return None


def _is_label_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 65535


def _problem_of_record(about: Any) -> str | None:
    if not isinstance(about, dict):
        return "soft_labels is no record of `nnunet_softlabel convert`; convert the data set again"
    for key, kind in RECORD.items():
        is_lacking = key in REQUIRED_OF_RECORD and key not in about
        if is_lacking or (about.get(key) is not None and not isinstance(about[key], kind)):
            return f"soft_labels.{key} is not what `nnunet_softlabel convert` writes; convert again"
    return None

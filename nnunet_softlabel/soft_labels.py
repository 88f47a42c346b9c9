"""The soft-label format: names, values and places of everything a soft-label data set holds.

`Labels` says what the channels mean, `SoftDataset` where the files are, `quantise` how probabilities travel.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.image_io import read_mask, read_probability

FORMAT_VERSION = 1
# Probabilities travel as int16 multiples of 1 / SCALE. 32760 = 2^3 3^2 5 7 13 keeps k / R exact for up to ten raters,
# and one-hot labels exact always.
SCALE = 32760
IGNORED = -1  # in the first channel of a quantised soft label: nobody answered here


@dataclass(frozen=True)
class Labels:
    """What the foreground channels of a data set mean, in nnU-Net's terms.

    Attributes:
        values: name -> label values of the hard label map, in channel order. One value each for classes;
            regions may overlap.
        ignore: label value of voxels that nobody answered, or None.
    """

    values: Mapping[str, tuple[int, ...]]
    ignore: int | None = None

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
        """nnU-Net's ``regions_class_order``: per region its smallest label that is in no later region.

        Raises:
            UsageError: if a region is covered by later ones.
        """
        regions = list(self.values.items())
        order = []
        for i, (name, values) in enumerate(regions):
            own = set(values).difference(*(later for _, later in regions[i + 1 :]))
            if not own:
                raise UsageError(
                    f"--labels: every value of region {name!r} is in a later region; name the largest regions first."
                )
            order.append(min(own))
        return tuple(order)

    @classmethod
    def from_dataset_json(cls, dataset_json: Mapping[str, Any]) -> Labels:
        """Read the labels of an nnU-Net ``dataset.json``."""
        values = {
            name: tuple(int(v) for v in value) if isinstance(value, list | tuple) else (int(value),)
            for name, value in dataset_json["labels"].items()
            if name not in ("background", "ignore")
        }
        if not any(len(v) > 1 for v in values.values()):  # nnU-Net's softmax channels go by label value
            values = dict(sorted(values.items(), key=lambda item: item[1]))
        ignore = dataset_json["labels"].get("ignore")
        return cls(values, None if ignore is None else int(ignore))

    def to_dataset_json(self) -> dict[str, Any]:
        """The keys ``labels`` and, with regions, ``regions_class_order`` of nnU-Net's ``dataset.json``."""
        labels: dict[str, Any] = {"background": 0}
        labels |= {name: list(v) if len(v) > 1 else v[0] for name, v in self.values.items()}
        if self.ignore is not None:
            labels["ignore"] = self.ignore
        return {"labels": labels} | ({"regions_class_order": list(self.region_order)} if self.has_regions else {})


def parse_labels(texts: Sequence[str]) -> tuple[Labels, dict[int, int]]:
    """Read ``--labels name=value[,value...] ...``.

    Label values in the raters' files may be any positive integers; nnU-Net wants 1, 2, 3, ... with ``ignore`` last.

    Returns:
        The labels in nnU-Net's values, and the map from the raters' values to them (0 stays 0).

    Raises:
        UsageError: for text of another form, a name or class value given twice, the value 0, or a covered region.
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
            raise UsageError(f"--labels {text}: 0 is the background and needs no name; name the other values.")
        given[name] = tuple(dict.fromkeys(values))
    ignored = given.pop("ignore", None)
    if not given:
        raise UsageError("--labels: name at least one foreground label, as in nodule=1.")
    if ignored is not None and (len(ignored) > 1 or any(ignored[0] in v for v in given.values())):
        raise UsageError("--labels: ignore takes one value of its own, as in ignore=255.")
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


def quantise(soft: np.ndarray) -> np.ndarray:
    """Probabilities as int16 multiples of 1 / `SCALE` (error <= 1.6e-5; exact for k / R with R <= 10)."""
    return np.rint(soft * np.float32(SCALE)).astype(np.int16)


def dequantise(quantised: np.ndarray) -> np.ndarray:
    """Inverse of `quantise` as float32; negative values (padding, ignored) become 0."""
    return np.maximum(quantised, 0).astype(np.float32) / np.float32(SCALE)


def with_background(soft: np.ndarray) -> np.ndarray:
    """Prepend the background, 1 - sum, to foreground probabilities ``(C, *spatial)`` of classes."""
    background = np.clip(1 - soft.sum(axis=0, keepdims=True, dtype=np.float32), 0, 1)
    return np.concatenate([background, soft.astype(np.float32, copy=False)])


def consensus(soft: np.ndarray, labels: Labels, ignored: np.ndarray | None = None) -> np.ndarray:
    """The hard label nnU-Net itself would export for a soft label.

    The same rule as its ``LabelManager.convert_probabilities_to_segmentation`` (a test compares them): argmax for
    classes, where the background wins ties; > 0.5, later regions over earlier ones, for regions. Worked in integers,
    so that a tie is a tie.

    Args:
        soft: foreground probabilities ``(C, *spatial)``.
        labels: what the channels mean.
        ignored: bool ``(*spatial)``, True where nobody answered.

    Returns:
        uint8 (or uint16 beyond 255 labels) ``(*spatial)``.
    """
    quantised = quantise(soft).astype(np.int32)
    highest = max(max(values) for values in labels.values.values()) + 1
    hard = np.zeros(soft.shape[1:], dtype=np.uint8 if highest < 256 else np.uint16)
    if labels.has_regions:
        for channel, value in zip(quantised, labels.region_order, strict=True):
            hard[2 * channel > SCALE] = value
    else:
        best = SCALE - quantised.sum(axis=0)
        for channel, (value,) in zip(quantised, labels.values.values(), strict=True):
            wins = channel > best
            hard[wins] = value
            best = np.where(wins, channel, best)
    if ignored is not None:
        if labels.ignore is None:
            raise ValueError("voxels are ignored, but the labels have no ignore value")
        hard[ignored] = labels.ignore
    return hard


def channels_of(label_map: np.ndarray, labels: Labels) -> np.ndarray:
    """Membership of a hard label map in every foreground channel, bool ``(C, *spatial)``."""
    return np.stack([np.isin(label_map, values) for values in labels.values.values()])


def environment_folder(variable: str) -> Path:
    """The folder an nnU-Net environment variable names.

    Raises:
        UsageError: if the variable is not set.
    """
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"{variable} is not set; export it to the folder nnU-Net uses, as for nnU-Net itself.")
    return Path(value)


def find_dataset(base: Path, dataset: int | str) -> Path:
    """The folder ``DatasetXXX_NAME`` of an id or a full name under ``base``.

    Raises:
        UsageError: if there is none, or more than one.
    """
    text = str(dataset)
    if text.startswith("Dataset"):
        found = [base / text] if (base / text).is_dir() else []
    elif text.isdigit():
        found = sorted(path for path in base.glob(f"Dataset{int(text):03d}_*") if path.is_dir())
    else:
        raise UsageError(f"-d {dataset}: give the number of a data set, or its full name DatasetXXX_NAME.")
    if not found:
        raise UsageError(f"-d {dataset}: no such data set in {base}.")
    if len(found) > 1:
        raise UsageError(f"-d {dataset}: several data sets in {base}: {', '.join(p.name for p in found)}.")
    return found[0]


class SoftDataset:
    """A soft-label data set in ``nnUNet_raw``: where its files are and what they mean.

    Raises:
        DatasetError: if the folder is no data set, or has no soft labels.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dataset_json: dict[str, Any] = read_json(folder / "dataset.json")
        self.about: dict[str, Any] | None = self.dataset_json.get("soft_labels")
        if self.about is None:
            raise DatasetError(
                f"{folder}: holds no soft labels; make them with `nnunet_softlabel convert` (--into adds them here)."
            )
        if self.about.get("format_version") != FORMAT_VERSION:
            raise DatasetError(
                f"{folder}: soft-label format {self.about.get('format_version')}, this version reads "
                f"{FORMAT_VERSION}; convert the data set again."
            )
        self.labels = Labels.from_dataset_json(self.dataset_json)

    @classmethod
    def find(cls, dataset: int | str) -> SoftDataset:
        """The data set of this id or name in ``nnUNet_raw``."""
        return cls(find_dataset(environment_folder("nnUNet_raw"), dataset))

    @property
    def file_ending(self) -> str:
        """Ending of all image files, ``.nii.gz`` or ``.png``."""
        return str(self.dataset_json["file_ending"])

    def cases(self, split: str = "Tr") -> list[str]:
        """Names of the cases with soft labels, sorted."""
        folder = self.folder / f"softLabels{split}"
        if not folder.is_dir():
            return []
        end = len("_0001" + self.file_ending)
        return sorted({path.name[:-end] for path in folder.glob(f"*{self.file_ending}")})

    def image_files(self, case: str, split: str = "Tr") -> list[Path]:
        """Image files of a case, one per channel."""
        pattern = re.compile(re.escape(case) + r"_\d{4}" + re.escape(self.file_ending))
        return sorted(p for p in (self.folder / f"images{split}").iterdir() if pattern.fullmatch(p.name))

    def label_file(self, case: str, split: str = "Tr") -> Path:
        """The hard consensus of a case."""
        return self.folder / f"labels{split}" / f"{case}{self.file_ending}"

    def soft_files(self, case: str, split: str = "Tr") -> list[Path]:
        """One probability map per foreground class or region, in channel order."""
        return soft_files(self.folder / f"softLabels{split}", case, len(self.labels.names), self.file_ending)

    def rater_files(self, case: str, split: str = "Tr") -> dict[str, Path]:
        """What each rater drew: rater -> file, for the raters who marked this case."""
        folder = self.folder / f"raterLabels{split}"
        if not folder.is_dir():
            return {}
        files = {rater.name: rater / f"{case}{self.file_ending}" for rater in sorted(folder.iterdir())}
        return {rater: path for rater, path in files.items() if path.is_file()}

    def read_soft(self, case: str, split: str = "Tr") -> np.ndarray:
        """Foreground probabilities of a case, float32 ``(C, *spatial)``, sum <= 1 unless there are regions."""
        return np.stack([read_probability(path)[0] for path in self.soft_files(case, split)])

    def read_hard(self, case: str, split: str = "Tr") -> np.ndarray:
        """The hard consensus of a case, integers ``(*spatial)``."""
        return read_mask(self.label_file(case, split))[0]

    def read_raters(self, case: str, split: str = "Tr") -> dict[str, np.ndarray]:
        """Hard label map of every rater of a case, integers ``(*spatial)`` in the data set's own label values."""
        return {rater: read_mask(path)[0] for rater, path in self.rater_files(case, split).items()}


def soft_files(folder: Path, case: str, channels: int, ending: str) -> list[Path]:
    """Probability maps of a case, one per foreground channel: ``CASE_0001``, ``CASE_0002``, ..."""
    return [folder / f"{case}_{channel:04d}{ending}" for channel in range(1, channels + 1)]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DatasetError: if the file is missing or no JSON.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file.") from error
    except (ValueError, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: holds a {type(content).__name__}, expected an object.")
    return content


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def check_case_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be file names, and names given twice.

    Raises:
        DatasetError: naming the case.
    """
    seen: set[str] = set()
    for name in names:
        if not name or "/" in name or "\\" in name or name in (".", ".."):
            raise DatasetError(f"Case {name!r}: a case name cannot be empty or hold a path separator; rename it.")
        if name in seen:
            raise DatasetError(f"Case {name}: given twice; case names must be unique.")
        seen.add(name)

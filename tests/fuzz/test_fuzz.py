"""Whatever a file or a flag holds: a result, or an error of one line.

The same examples in every run, so that a change breaks what it breaks. An hour by hand, other examples each
time: ``FUZZ_EXAMPLES=20000 pytest tests/fuzz``; what is found becomes an `example` here.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nnunet_softlabel.cases.groups import read_groups
from nnunet_softlabel.cases.patterns import Pattern
from nnunet_softlabel.cases.splits import check_splits_file
from nnunet_softlabel.cases.test_names import read_test_names
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, read_mask, write_image
from nnunet_softlabel.formats.labels import Labels, parse_labels
from nnunet_softlabel.formats.plans import read_plans
from nnunet_softlabel.formats.predictions import read_probabilities
from nnunet_softlabel.formats.probability_maps import read_probability
from nnunet_softlabel.formats.soft_dataset import SoftDataset

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
GRID = Grid.upright((2, 3, 4), (2.0, 1.0, 1.0))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def result_or_one_line(work: Callable[[], Any]) -> None:
    """Nothing but the errors that a command prints as one line may come out."""
    with suppress(DatasetError, UsageError):
        work()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of every format."""
    folder = tmp_path_factory.mktemp("good")
    volume, flat = (
        np.arange(24, dtype=np.int16).reshape(GRID.shape),
        np.arange(80, dtype=np.uint8).reshape(8, 10),
    )
    found = {}
    for ending in (".nii", ".nii.gz", ".nrrd", ".mha", ".gipl"):
        write_image(folder / f"a{ending}", volume, GRID)
    for ending in (".png", ".tif", ".bmp"):
        write_image(folder / f"a{ending}", flat, Grid.flat(flat.shape))
    for path in folder.iterdir():
        found[path.name[1:]] = path.read_bytes()
    return found


@fuzz
@given(
    ending=st.sampled_from([".nii", ".nii.gz", ".nrrd", ".mha", ".gipl", ".png", ".tif", ".bmp"]),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    length=st.none() | st.integers(0, 400),
    is_inside=st.booleans(),
)
def test_damaged_images(tmp_path: Path, images, ending, changes, length, is_inside) -> None:
    zipped = ending == ".nii.gz" and is_inside
    content = bytearray(gzip.decompress(images[ending]) if zipped else images[ending])
    for place, value in changes:
        content[place % len(content)] = value
    content = content[:length]
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(bytes(content)) if zipped else bytes(content))
    for reader in (read_image, read_mask, read_probability):
        result_or_one_line(lambda reader=reader: reader(path))


@fuzz
@given(
    content=JSON,
    key=st.sampled_from(["labels", "channel_names", "file_ending", "soft_labels", "configurations"]),
)
def test_json_of_any_shape(tmp_path: Path, content, key) -> None:
    good = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    for whole in (
        content,
        {**good, key: content},
        {**good, "soft_labels": {"format_version": 1, key: content}},
    ):
        (tmp_path / "dataset.json").write_text(json.dumps(whole))
        result_or_one_line(lambda: read_dataset_json(tmp_path))
        result_or_one_line(lambda: SoftDataset(tmp_path))
        result_or_one_line(lambda: read_plans(tmp_path, "dataset"))
        result_or_one_line(lambda: check_splits_file(tmp_path / "dataset.json", None, [], may_replace=False))


@fuzz
@given(
    content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))
)
def test_tables_of_any_content(tmp_path: Path, content) -> None:
    for data in (content, b"case,group\n" + content, b"\xef\xbb\xbfcase,test\n" + content):
        (tmp_path / "t.csv").write_bytes(data)
        (tmp_path / "dataset.json").write_bytes(data)
        result_or_one_line(lambda: read_groups(tmp_path / "t.csv"))
        result_or_one_line(lambda: read_test_names([str(tmp_path / "t.csv")], "case"))
        result_or_one_line(lambda: read_dataset_json(tmp_path))


@fuzz
@given(text=st.text(st.sampled_from("{}case:rater,*/[]~.a\\|()^$+?"), max_size=30))
def test_patterns_of_any_text(tmp_path: Path, text) -> None:
    (tmp_path / "a.nii.gz").touch()

    def find() -> None:
        pattern = Pattern(f"{tmp_path}/{text}", "--raters", ["case", "rater"])
        for path in pattern.files():
            pattern.regex().fullmatch(path)

    result_or_one_line(find)


@fuzz
@given(text=st.lists(st.text(st.sampled_from("a=1,0 -é"), max_size=10), min_size=1, max_size=3))
def test_labels_of_any_text(text) -> None:
    result_or_one_line(lambda: parse_labels(text))


@fuzz
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    length=st.none() | st.integers(0, 600),
    is_compressed=st.booleans(),
)
@example(changes=[(3699, 1)], length=None, is_compressed=False)  # the bit that says "has a password"
def test_damaged_probabilities(tmp_path: Path, changes, length, is_compressed) -> None:
    save = np.savez_compressed if is_compressed else np.savez
    save(tmp_path / "a.npz", probabilities=np.full((2, *GRID.shape), 0.5, np.float32))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / "a.npz").write_bytes(content[:length])
    result_or_one_line(lambda: read_probabilities(tmp_path, "a", Labels({"x": (1,)}), GRID.shape))

"""What is read back is what was fused: any grid, raters, classes, regions, ignored voxels, file format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.formats.encoding import consensus
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, write_image
from nnunet_softlabel.formats.labels import parse_labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset

round_trips = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# names -> values in the raters' files, which data sets number anew
LABELS = (
    {"lesion": (1,)},
    {"lesion": (255,)},
    {"edge": (7,), "core": (3,), "fluid": (200,)},
    {"whole": (1, 2, 5), "core": (2, 5), "centre": (5,)},
    {"whole": (40, 30), "core": (30,)},
)
IGNORE = 99
AXES = [np.array(axes)[:, None] == np.arange(3) for axes in permutations(range(3))]


@dataclass
class Drawn:
    """One case: an image and what each rater drew, in the raters' values."""

    image: NDArray[np.int16]
    grid: Grid
    raters: dict[str, NDArray[np.uint8]]
    labels: dict[str, tuple[int, ...]]
    has_ignore: bool
    ending: str


@st.composite
def drawings(draw) -> Drawn:
    size = tuple(draw(st.integers(1, 6)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.05, 9.0)) for _ in range(3))
    origin = tuple(draw(st.floats(-500, 500)) for _ in range(3))
    direction = draw(st.sampled_from(AXES)) * np.array([draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)])
    angle = draw(st.floats(0, 0.5))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    grid = Grid(size, spacing, origin, tuple((turn @ direction).ravel().tolist()))
    labels = draw(st.sampled_from(LABELS))
    has_ignore = draw(st.booleans())
    values = [0, *sorted({value for own in labels.values() for value in own}), *[IGNORE] * has_ignore]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True))
    raters = {name: random.choice(values, grid.shape).astype(np.uint8) for name in names}
    image = random.integers(-1000, 1000, grid.shape, dtype=np.int16)
    ending = draw(st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha"]))
    return Drawn(image, grid, raters, labels, has_ignore, ending)


def converted(drawn: Drawn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> SoftDataset:
    """The drawing as files, and the data set that `convert` makes of them."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    for name, mask in drawn.raters.items():
        (folder / name).mkdir(parents=True)
        write_image(folder / name / f"case{drawn.ending}", mask, drawn.grid)
    write_image(folder / f"case{drawn.ending}", drawn.image, drawn.grid)
    raters = {name: folder / name / f"case{drawn.ending}" for name in drawn.raters}
    case = Case("case", folder / f"case{drawn.ending}", raters)
    labels = {**drawn.labels, **({"ignore": (IGNORE,)} if drawn.has_ignore else {})}
    convert([case], "Dataset901_T", labels=labels, channel_names="MR")
    return SoftDataset.find(901)


@round_trips
@given(drawn=drawings())
def test_what_is_read_back_is_what_was_fused(drawn: Drawn, tmp_path_factory, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        dataset = converted(drawn, tmp_path_factory.mktemp("trip"), patch)
    masks = np.stack(list(drawn.raters.values()))
    answered = masks != IGNORE if drawn.has_ignore else np.ones(masks.shape, bool)
    n_answers = answered.sum(axis=0)
    texts = [f"{name}={','.join(map(str, own))}" for name, own in drawn.labels.items()]
    labels, to_own = parse_labels([*texts, *([f"ignore={IGNORE}"] if drawn.has_ignore else [])])
    soft = np.stack(
        [np.isin(masks, drawn.labels[name]).sum(axis=0) / np.maximum(n_answers, 1) for name in labels.names]
    )
    np.testing.assert_allclose(dataset.read_soft("case"), soft, atol=1e-6)
    ignored = n_answers == 0 if drawn.has_ignore else None
    np.testing.assert_array_equal(
        dataset.read_hard("case"), consensus(soft.astype(np.float32), labels, ignored)
    )
    own = np.zeros(256, np.uint16)
    for value, meant in to_own.items():
        own[int(value)] = meant
    read = dataset.read_raters("case")
    assert sorted(read) == sorted(drawn.raters)
    for name, mask in drawn.raters.items():
        np.testing.assert_array_equal(read[name], own[mask])
    (image_file,) = dataset.image_files("case")
    image, grid = read_image(image_file)
    np.testing.assert_array_equal(image, drawn.image)
    written = [dataset.label_file("case"), *dataset.soft_files("case"), *dataset.rater_files("case").values()]
    for path in written:
        assert grid.difference(read_image(path)[1]) is None
    assert drawn.grid.difference(grid) is None

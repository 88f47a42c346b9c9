"""What is read back is what was fused: any grid, raters, classes, regions, ignored voxels, file format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.formats.encoding import consensus
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import read_image, write_image
from nnunet_softlabel.formats.labels import parse_labels
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.fusion import FUSIONS, RaterVotes
from tests.conversion.conversion_helpers import tree
from tests.conversion.killing import Killed, kill_at

round_trips = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
kills = settings(round_trips, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "6")))
IGNORE = 99
AXES = [np.array(axes)[:, None] == np.arange(3) for axes in permutations(range(3))]
# those of which every voxel can be checked without the other cases
FUSED_ALONE = ("majority", "weighted", "sba", "svls")


@dataclass
class Drawn:
    """One case: its image channels and what each rater drew, in the raters' values."""

    images: list[NDArray[Any]]
    grid: Grid
    raters: dict[str, NDArray[np.uint8]]


@dataclass
class DrawnSet:
    """Cases, and names -> values in the raters' files, which data sets number anew."""

    cases: dict[str, Drawn]
    labels: dict[str, tuple[int, ...]]
    has_ignore: bool
    ending: str

    @property
    def with_ignore(self) -> dict[str, tuple[int, ...]]:
        return {**self.labels, **({"ignore": (IGNORE,)} if self.has_ignore else {})}


@st.composite
def labels_of_any_kind(draw: st.DrawFn) -> dict[str, tuple[int, ...]]:
    """Up to 12 classes of a value, up to 6 of several, or up to 5 nested regions."""
    kind = draw(st.sampled_from(["classes", "joined", "regions"]))
    most = {"classes": 12, "joined": 6, "regions": 5}[kind]
    values = draw(
        st.lists(st.integers(1, 255).filter(lambda v: v != IGNORE), min_size=1, max_size=most, unique=True)
    )
    if kind == "classes":
        parts = [(value,) for value in values]
    elif kind == "regions":
        parts = [tuple(values[i:]) for i in range(len(values))]
    else:
        cut = draw(st.integers(1, len(values)))
        parts = [tuple(values[:cut]), *((value,) for value in values[cut:])]
    return {f"label{i}": own for i, own in enumerate(parts)}


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    size = tuple(draw(st.integers(1, 6)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.05, 9.0)) for _ in range(3))
    origin = tuple(draw(st.floats(-500, 500)) for _ in range(3))
    direction = draw(st.sampled_from(AXES)) * np.array([draw(st.sampled_from([-1.0, 1.0])) for _ in range(3)])
    angle = draw(st.floats(0, 0.5))
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return Grid(size, spacing, origin, tuple((turn @ direction).ravel().tolist()))


@st.composite
def drawings(draw: st.DrawFn) -> DrawnSet:
    ending = draw(st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha", ".png"]))
    labels, has_ignore = draw(labels_of_any_kind()), draw(st.booleans())
    values = [0, *sorted({value for own in labels.values() for value in own}), *[IGNORE] * has_ignore]
    channels = 1 if ending == ".png" else draw(st.integers(1, 2))
    cases = {}
    for number in range(draw(st.integers(1, 2))):
        if ending == ".png":
            grid = Grid.flat((draw(st.integers(1, 9)), draw(st.integers(1, 9))))
        else:
            grid = draw(grids())
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        names = draw(st.lists(st.sampled_from("abcdefghi"), min_size=1, max_size=9, unique=True))
        raters = {name: random.choice(values, grid.shape).astype(np.uint8) for name in names}
        low, high, dtype = (0, 256, np.uint8) if ending == ".png" else (-1000, 1000, np.int16)
        images = [random.integers(low, high, grid.shape, dtype=dtype) for _ in range(channels)]
        cases[f"case{number}"] = Drawn(images, grid, raters)
    return DrawnSet(cases, labels, has_ignore, ending)


def written(drawn: DrawnSet, folder: Path) -> list[Case]:
    """The drawing as files."""
    cases = []
    for name, case in drawn.cases.items():
        images = []
        for channel, image in enumerate(case.images):
            images.append(folder / f"images{channel}" / f"{name}{drawn.ending}")
            images[-1].parent.mkdir(parents=True, exist_ok=True)
            write_image(images[-1], image, case.grid)
        raters = {rater: folder / rater / f"{name}{drawn.ending}" for rater in case.raters}
        for rater, path in raters.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, case.raters[rater], case.grid)
        cases.append(Case(name, images, raters))
    return cases


def converted(drawn: DrawnSet, cases: list[Case], fusion: str = "mean", **running: bool) -> SoftDataset:
    channels = len(next(iter(drawn.cases.values())).images)
    convert(
        cases,
        "Dataset901_T",
        labels=drawn.with_ignore,
        channel_names=["MR", "CT"][:channels],
        fusion=fusion,
        running=Running(num_processes=1, **running),
    )
    return SoftDataset.find(901)


@contextmanager
def nnunet_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(folder / name))
        yield


@round_trips
@given(drawn=drawings())
def test_what_is_read_back_is_what_was_fused(drawn: DrawnSet, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("trip")
    with nnunet_in(folder):
        dataset = converted(drawn, written(drawn, folder))
    assert dataset.cases() == sorted(drawn.cases)
    texts = [f"{name}={','.join(map(str, own))}" for name, own in drawn.with_ignore.items()]
    labels, to_own = parse_labels(texts)
    own = np.zeros(256, np.uint16)
    for value, meant in to_own.items():
        own[int(value)] = meant
    for name, case in drawn.cases.items():
        masks = np.stack(list(case.raters.values()))
        n_answers = (masks != IGNORE).sum(axis=0)  # nobody draws that value unless it is the ignored one
        soft = np.stack(
            [np.isin(masks, drawn.labels[n]).sum(axis=0) / np.maximum(n_answers, 1) for n in labels.names]
        )
        read = dataset.read_soft(name)
        np.testing.assert_allclose(read.reshape(soft.shape), soft, atol=ROUNDING[drawn.ending == ".png"])
        ignored = n_answers == 0 if drawn.has_ignore else None
        expected = consensus(soft.astype(np.float32), labels, ignored)
        np.testing.assert_array_equal(dataset.read_hard(name).reshape(expected.shape), expected)
        raters = dataset.read_raters(name)
        assert sorted(raters) == sorted(case.raters)
        for rater, mask in case.raters.items():
            np.testing.assert_array_equal(raters[rater].reshape(mask.shape), own[mask])
        check_files(dataset, name, case)


ROUNDING = (1e-6, 1e-5)  # flat images hold 16 bits


def check_files(dataset: SoftDataset, name: str, case: Drawn) -> None:
    """Image channels come back as they were, and all files lie on their grid."""
    files = dataset.image_files(name)
    assert len(files) == len(case.images)
    for file, expected in zip(files, case.images, strict=True):
        image, grid = read_image(file)
        np.testing.assert_array_equal(image, expected)
        assert case.grid.difference(grid) is None
    rest = [dataset.label_file(name), *dataset.soft_files(name), *dataset.rater_files(name).values()]
    for path in rest:
        assert grid.difference(read_image(path)[1]) is None


@round_trips
@given(drawn=drawings(), fusion=st.sampled_from(FUSED_ALONE))
def test_other_fusions_are_read_back_too(drawn: DrawnSet, fusion: str, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("trip")
    name, case = next(iter(drawn.cases.items()))
    alone = DrawnSet({name: case}, drawn.labels, drawn.has_ignore, drawn.ending)
    with nnunet_in(folder):
        dataset = converted(alone, written(alone, folder), fusion)
    masks = np.stack(list(case.raters.values()))
    names = dataset.labels.names
    votes = np.stack([np.isin(masks, drawn.labels[n]) for n in names], axis=1)
    raters = RaterVotes(
        votes,
        tuple(case.raters),
        case.grid.spacing_of_axes_mm,
        answered=masks != IGNORE if drawn.has_ignore else None,
        exclusive=not dataset.labels.has_regions,
    )
    soft = FUSIONS[fusion](raters)
    found = dataset.read_soft(name).reshape(soft.shape)
    np.testing.assert_allclose(found, soft, atol=ROUNDING[drawn.ending == ".png"])


@kills
@given(drawn=drawings(), data=st.data(), fusion=st.sampled_from(["mean", "staple", "svls"]))
def test_a_conversion_that_is_killed_anywhere_is_resumed_to_the_same_bytes(
    drawn: DrawnSet, data: st.DataObject, fusion: str, tmp_path_factory
) -> None:
    folder = tmp_path_factory.mktemp("kill")
    with nnunet_in(folder):
        cases = written(drawn, folder)
        with pytest.MonkeyPatch.context() as patch:
            never = kill_at(-1, patch)
            converted(drawn, cases, fusion)
        complete = tree(folder / "raw", folder / "preprocessed")
        step = data.draw(st.integers(1, never.count), label="killed at")
        shutil.rmtree(folder / "raw")
        with pytest.MonkeyPatch.context() as patch:
            kill_at(step, patch)
            with pytest.raises(Killed):
                converted(drawn, cases, fusion)
        final = {path: content for path, content in complete.items() if "Dataset901_T" in path}
        assert tree(folder / "raw" / "Dataset901_T") in ({}, final)
        converted(drawn, cases, fusion, resume=True)
        assert tree(folder / "raw", folder / "preprocessed") == complete

"""Masks and maps that are not what they seem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import read_probabilities
from nnunet_softlabel.fusion.rater_votes import RaterVotes
from nnunet_softlabel.fusion.voting import weighted_vote
from tests.conversion.conversion_helpers import GRID, in_memory_cases


@pytest.mark.parametrize("kind", ["ignore", "roi"])
def test_interpolated_masks_are_refused(nnunet_folders, kind: str) -> None:
    from nnunet_softlabel.conversion.prior_settings import Priors, RoiPrior

    mask = np.full(GRID.shape, 1e-7, np.float32)
    mask[0, 0, 0] = 1
    options = {"ignore": mask} if kind == "ignore" else {"rois": {"bone": mask}}
    cases = in_memory_cases([1, 1], [1], **options)
    priors = Priors(RoiPrior(("bone",))) if kind == "roi" else None
    with pytest.raises(DatasetError, match="holds fractions such as 1e-07, as interpolation leaves them"):
        convert(cases, "Dataset901_T", labels=["a=1"], channel_names=["MR"], priors=priors)
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int64, np.uint8])
def test_arrays_of_every_type_are_taken_from_python(nnunet_folders, dtype: type) -> None:
    rater = np.zeros(GRID.shape, dtype)
    rater[0, 0, :2] = 1
    image = np.arange(24).reshape(GRID.shape).astype(dtype)
    cases = [Case(f"c{i}", [lambda: (image, GRID)], {"1": rater}) for i in range(2)]
    convert(cases, "Dataset901_T", labels=["a=1"], channel_names=["MR"])


def test_inner_region_likelier_than_the_outer_is_refused(nnunet_folders) -> None:
    image = np.zeros(GRID.shape, np.int16)
    soft = {"whole": np.full(GRID.shape, 0.2, np.float32), "core": np.full(GRID.shape, 0.6, np.float32)}
    cases = [Case(f"c{i}", [lambda: (image, GRID)], soft=soft) for i in range(2)]
    with pytest.raises(DatasetError, match="region core is likelier than whole, which contains it"):
        convert(cases, "Dataset901_T", labels=["whole=1,2", "core=2"], channel_names=["MR"])


@pytest.mark.parametrize("weight", [3e38, 1e-40, 1e300])
def test_extreme_weights_give_probabilities(weight: float) -> None:
    votes = RaterVotes(np.array([[[[True]]], [[[False]]]]), ("a", "b"), (1.0, 1.0))
    np.testing.assert_allclose(weighted_vote(votes, weights={"a": weight, "b": weight}), 0.5)


@pytest.mark.parametrize("total", [0.0, 2.0])
def test_probabilities_that_do_not_sum_to_1_are_refused(tmp_path: Path, total: float) -> None:
    np.savez(tmp_path / "a.npz", probabilities=np.full((2, 2, 3, 4), total / 2, np.float32))
    with pytest.raises(DatasetError, match="instead of 1; predict again"):
        read_probabilities(tmp_path, "a", Labels({"x": (1,)}), (2, 3, 4))


@pytest.mark.parametrize("content", ["npy", "objects", "text", "complex", "cut off", "empty", "petabytes"])
def test_npz_files_that_are_none_are_one_line(tmp_path: Path, content: str) -> None:
    path, good = tmp_path / "a.npz", np.full((2, 2, 3, 4), 0.5, np.float32)
    if content == "npy":
        with path.open("wb") as file:
            np.save(file, good)
    elif content in ("objects", "text", "complex"):
        arrays = {"objects": np.array([{}, None]), "text": np.array(["x"]), "complex": good * 1j}
        np.savez(path, probabilities=arrays[content])
    elif content == "petabytes":
        import io
        import zipfile

        header = io.BytesIO()
        shape = (2, 10**6, 10**6, 10**3)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("probabilities.npy", header.getvalue())
    else:
        np.savez_compressed(path, probabilities=good)
        path.write_bytes(path.read_bytes()[: -60 if content == "cut off" else 0])
    with pytest.raises(DatasetError, match=r"a.npz: (cannot be read|holds .* no probabilities)"):
        read_probabilities(tmp_path, "a", Labels({"x": (1,)}), (2, 3, 4))

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nnunet_softlabel.metrics.near import SLACK, near_object


@pytest.mark.parametrize("density", [0.002, 0.02, 0.3])
@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [((17,), (0.7,)), ((15, 18), (0.5, 1.3)), ((9, 14, 11), (2.5, 0.8, 0.8)), ((1, 14, 11), (5.0, 1.0, 0.3))],
)
@pytest.mark.parametrize("near_mm", [0.0, 1.0, 2.4, 5.0])
def test_near_voxels_are_those_of_a_distance_transform(rng, shape, spacing_mm, density, near_mm):
    marked = rng.random(shape) < density
    marked.flat[rng.integers(marked.size)] = True
    expected = ndimage.distance_transform_edt(~marked, sampling=spacing_mm) <= near_mm * (1 + SLACK)
    np.testing.assert_array_equal(near_object(marked, spacing_mm=spacing_mm, near_mm=near_mm), expected)


def test_a_spacing_that_a_header_rounds_moves_no_voxel():
    marked = np.array([True] + [False] * 8)
    spacings = (0.999999, 1.0, 1.000001, 1.01)
    found = [near_object(marked, spacing_mm=(mm,), near_mm=5.0).sum() for mm in spacings]
    assert found == [6, 6, 6, 5]  # the marked one, and five at 1 to 5 mm

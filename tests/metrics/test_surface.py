from __future__ import annotations

import math

import numpy as np
import pytest
import surface_distance

from nnunet_softlabel.metrics.surface import hd95, mean_distance_mm, nsd, surface_distances

SPACING_MM = (1.0, 1.0, 1.0)


def plate(start: int, thickness: int = 2) -> np.ndarray:
    """A plate across a volume, from slice ``start``."""
    mask = np.zeros((16, 12, 12), bool)
    mask[start : start + thickness, 2:10, 2:10] = True
    return mask


def box(shift: int) -> np.ndarray:
    mask = np.zeros((24, 24, 24), bool)
    mask[6 + shift : 14 + shift, 6:16, 6:16] = True
    return mask


def test_distance_of_shifted_plates_is_the_shift_in_millimetres():
    # the farthest faces of plates shifted by 3 slices of 2 mm are 6 mm apart
    distances = surface_distances(plate(4), plate(7), spacing_mm=(2.0, 1.0, 1.0))
    assert hd95(distances) == pytest.approx(6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("shape", "spacing_mm"), [((9, 10, 11), (2.5, 0.7, 0.8)), ((15, 12), (0.5, 1.5))])
def test_distances_are_those_of_surface_distance(rng, shape, spacing_mm):
    for density in (0.02, 0.4):  # lone voxels, and masks that touch the border of the image
        a, b = rng.random(shape) < density, rng.random(shape) < density
        a.flat[0] = b.flat[-1] = True  # the library fails on empty masks
        expected = surface_distance.compute_surface_distances(a, b, spacing_mm)
        found = surface_distances(a, b, spacing_mm=spacing_mm)
        assert found.keys() == expected.keys()
        assert hd95(found) == pytest.approx(surface_distance.compute_robust_hausdorff(expected, 95))
        for way, side in (("gt_to_pred", "gt"), ("pred_to_gt", "pred")):
            columns = [
                np.stack([d[f"distances_{way}"], d[f"surfel_areas_{side}"]]) for d in (found, expected)
            ]
            ordered = [c[:, np.lexsort(c[::-1].round(9))] for c in columns]
            np.testing.assert_allclose(*ordered)


def test_equal_masks_have_no_distance():
    mask = box(0)
    distances = surface_distances(mask, mask, spacing_mm=SPACING_MM)
    assert hd95(distances) == mean_distance_mm(distances) == 0
    assert nsd(mask, mask, distances, tolerance_mm=0.0) == 1


@pytest.mark.parametrize("shift", [1, 2, 4])
def test_hd95_is_close_to_monais(shift):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    a, b = box(0), box(shift)
    pair = [torch.from_numpy(np.stack([~m, m])[None]) for m in (b, a)]
    expected = metrics.compute_hausdorff_distance(*pair, percentile=95, spacing=SPACING_MM)
    # MONAI takes voxels for surfaces, unweighted: the same here but for the corners
    assert hd95(surface_distances(a, b, spacing_mm=SPACING_MM)) == pytest.approx(float(expected), abs=0.3)


@pytest.mark.parametrize("tolerance_mm", [0.5, 1.0, 2.0])
def test_nsd_agrees_with_monais_subvoxel_variant(tolerance_mm):
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    a, b = box(0), box(1)
    pair = [torch.from_numpy(np.stack([~m, m])[None]) for m in (b, a)]
    expected = metrics.compute_surface_dice(
        *pair, class_thresholds=[tolerance_mm], spacing=SPACING_MM, use_subvoxels=True
    )
    distances = surface_distances(a, b, spacing_mm=SPACING_MM)
    assert nsd(a, b, distances, tolerance_mm=tolerance_mm) == pytest.approx(float(expected), abs=1e-6)


def test_nsd_grows_with_the_tolerance():
    a, b = box(0), box(2)
    distances = surface_distances(a, b, spacing_mm=SPACING_MM)
    values = [nsd(a, b, distances, tolerance_mm=t) for t in (0.0, 1.0, 2.0, 5.0)]
    assert values == sorted(values)
    assert values[-1] == 1


def test_flat_masks_work():
    a = np.zeros((12, 12), bool)
    a[3:8, 3:8] = True
    distances = surface_distances(a, np.roll(a, 2, axis=0), spacing_mm=(0.5, 1.0))
    assert hd95(distances) == pytest.approx(1)


def test_empty_masks():
    full, empty = box(0), np.zeros_like(box(0))
    for pair in ((full, empty), (empty, full), (empty, empty)):
        assert surface_distances(*pair, spacing_mm=SPACING_MM) is None
    assert math.isnan(hd95(None))
    assert math.isnan(mean_distance_mm(None))
    assert nsd(full, empty, None, tolerance_mm=1) == nsd(empty, full, None, tolerance_mm=1) == 0
    assert math.isnan(nsd(empty, empty, None, tolerance_mm=1))


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        surface_distances(box(0), box(0)[:5], spacing_mm=SPACING_MM)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_has_the_surface_of_the_flat_image(axis):
    reference, prediction = np.zeros((24, 24), bool), np.zeros((24, 24), bool)
    reference[6:14, 6:14] = prediction[6:14, 6:18] = True
    spacing = (2.0, 1.0)
    flat = surface_distances(reference, prediction, spacing_mm=spacing)
    thick = surface_distances(
        np.expand_dims(reference, axis),
        np.expand_dims(prediction, axis),
        spacing_mm=(*spacing[:axis], 7.0, *spacing[axis:]),
    )
    assert hd95(thick) == hd95(flat) == 4.0
    assert mean_distance_mm(thick) == mean_distance_mm(flat)


def test_a_spacing_that_a_header_rounds_moves_no_voxel_out_of_the_tolerance():
    first, second = plate(4), plate(5)
    found = {}
    for mm in (0.7, 0.700001, 0.71):
        distances = surface_distances(first, second, spacing_mm=(mm, mm, mm))
        found[mm] = nsd(first, second, distances, tolerance_mm=0.7)
    assert found[0.7] == pytest.approx(found[0.700001], abs=1e-6)
    assert found[0.71] < found[0.7] - 0.1

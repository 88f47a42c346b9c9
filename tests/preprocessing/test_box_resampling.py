"""Resampling in the box of what is not zero gives what nnU-Net's resampling of the whole volume gives."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)

from nnunet_softlabel.preprocessing import box_resampling
from nnunet_softlabel.preprocessing.box_resampling import is_linear, resampled_in_box, thick_axis

DEFAULT = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
theirs = partial(resample_data_or_seg_to_shape, **DEFAULT)


@pytest.mark.parametrize(
    ("shape", "spacing", "new_spacing"),
    [
        ((13, 14, 15), (1, 1, 1), (0.7, 0.9, 1.3)),
        ((13, 14, 15), (1, 1, 1), (2.1, 1, 0.5)),
        ((9, 20, 21), (5, 1, 1), (2.5, 0.7, 0.7)),  # thick slices: nearest across
        ((12, 20, 21), (5, 1, 1), (5, 0.7, 1.7)),
        ((9, 20, 21), (1, 1, 1), (4, 1, 1)),
        ((20, 9, 21), (1, 5, 1), (0.7, 2.5, 0.8)),
        ((20, 21, 8), (1, 1, 6), (1.2, 1.4, 2)),
    ],
)
def test_box_is_resampled_as_the_whole_volume(shape, spacing, new_spacing):
    rng = np.random.default_rng(0)
    new_shape = [round(n * a / b) for n, a, b in zip(shape, spacing, new_spacing, strict=True)]
    for _ in range(6):
        values = np.zeros(shape, np.float32)
        box = tuple(slice(*sorted(rng.choice(n + 1, 2, replace=False))) for n in shape)
        values[box] = rng.random(values[box].shape)
        found = resampled_in_box(values, new_shape, spacing, new_spacing)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, theirs(values[None], new_shape, spacing, new_spacing)[0], atol=1e-6)


def test_a_label_thinner_than_the_new_voxels_may_vanish():
    values = np.zeros((30, 4, 4), np.float32)
    values[0] = 1
    new_shape, spacing, new_spacing = [3, 4, 4], (1, 1, 1), (10, 1, 1)
    found = resampled_in_box(values, new_shape, spacing, new_spacing)
    np.testing.assert_array_equal(found, theirs(values[None], new_shape, spacing, new_spacing)[0])
    assert not found.any()


@pytest.mark.parametrize("piece", [1, 500])
def test_the_result_is_the_same_in_pieces(piece, monkeypatch):
    values = np.random.default_rng(0).random((9, 8, 7)).astype(np.float32)
    given = (values, (14, 5, 9), (1, 1, 1), (9 / 14, 8 / 5, 7 / 9))
    whole = resampled_in_box(*given)
    monkeypatch.setattr(box_resampling, "PIECE", piece)
    np.testing.assert_array_equal(resampled_in_box(*given), whole)


def test_only_nnunets_default_is_taken_for_linear():
    assert is_linear(theirs)
    assert not is_linear(partial(resample_data_or_seg_to_shape, **{**DEFAULT, "order": 3}))
    assert not is_linear(partial(resample_data_or_seg_to_shape, **{**DEFAULT, "order_z": 1}))
    assert not is_linear(partial(resample_data_or_seg_to_shape, is_seg=False))
    assert not is_linear(partial(resample_data_or_seg_to_shape, **DEFAULT, separate_z_anisotropy_threshold=2))
    assert not is_linear(lambda *args: args[0])


SPACINGS = st.lists(st.sampled_from([0.3, 0.5, 1.0, 1.5, 3.0, 5.0, 0.1 * 3, 9.0]), min_size=3, max_size=3)


@given(spacing=SPACINGS, new_spacing=SPACINGS, force=st.sampled_from([None, True, False]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_thick_slices_are_those_that_nnunet_takes_for_thick(spacing, new_spacing, force):
    separate, axis = determine_do_sep_z_and_axis(force, spacing, new_spacing)
    assert thick_axis(spacing, new_spacing, force_separate_z=force) == (int(axis) if separate else None)

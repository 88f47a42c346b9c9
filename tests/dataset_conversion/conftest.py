import json
import locale
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import io

from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import write_image

ROOT = Path(__file__).resolve().parents[2]
# scripts import each other by name, as when they are run
sys.path.insert(0, str(ROOT / "dataset_conversion"))


@pytest.fixture(autouse=True)
def nnunet_folders(tmp_path, monkeypatch):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        folder = tmp_path / variable
        folder.mkdir()
        monkeypatch.setenv(variable, str(folder))


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real data sets."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("NNUNET_SOFTLABEL_SHARED", default))
    if not folder.is_dir():
        pytest.skip("the real data sets are not here; NNUNET_SOFTLABEL_SHARED names their folder")
    return folder


def box_mask(stop, shape=(4, 12, 10), value=1):
    """A block from (1, 2, 2) to ``stop`` (exclusive)."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[tuple(slice(min(2, extent // 3), end) for extent, end in zip(shape, stop, strict=True))] = value
    return mask


def write_volume(path, array, spacing=(0.7, 0.7, 2.5), origin=(1.0, -2.0, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    write_image(path, array, Grid(array.shape[::-1], spacing, origin, identity))


def write_flat(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, array, check_contrast=False)


def ct(shape=(4, 12, 10), seed=0):
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def to_dataset(cases, **options):
    """Convert in this process; returns the folder and its dataset.json."""
    folder = convert(list(cases), "Dataset501_Set", **options)
    return folder, json.loads((folder / "dataset.json").read_text(encoding="utf-8"))


def voxels(source):
    """The array a source of a case stands for."""
    result = source() if callable(source) else source
    return result[0] if isinstance(result, tuple) else result


@pytest.fixture
def tools():
    """Helpers to build small trees and look at what came of them."""
    names = ("box_mask", "write_volume", "write_flat", "ct", "to_dataset", "voxels")
    return type("Tools", (), {name: staticmethod(globals()[name]) for name in names})


LOCALE = locale.setlocale(locale.LC_ALL)


@pytest.fixture(autouse=True)
def _kept_locale():
    """Writing DICOM for a test sets the C locale, in which later tests could not read their pages."""
    yield
    locale.setlocale(locale.LC_ALL, LOCALE)

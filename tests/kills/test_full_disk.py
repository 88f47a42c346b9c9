"""A full disk: one line, exit code 2, and no complete-looking result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.formats.files import read_json
from nnunet_softlabel.formats.images import read_mask, write_image
from tests.conversion.conversion_helpers import run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="mount, RLIMIT_FSIZE")]
LIMITED = """
import resource, signal, sys
from nnunet_softlabel.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def noisy(rater_folder):
    """Masks that do not compress to nothing."""
    random = np.random.default_rng(0)
    for case in rater_folder.cases:
        for rater in rater_folder.raters:
            array, grid = read_mask(rater_folder.rater(case, rater))
            write_image(
                rater_folder.rater(case, rater), random.integers(0, 2, array.shape).astype(np.uint8), grid
            )
    return rater_folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def limited(size: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose files cannot grow; with -B, or Python cuts off its own compiled modules, too."""
    command = [sys.executable, "-B", "-c", LIMITED, str(size), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def is_one_line(done: subprocess.CompletedProcess[str]) -> bool:
    errors = [line for line in done.stderr.splitlines() if ": error: " in line]
    return done.returncode == 2 and len(errors) == 1 and "Traceback" not in done.stderr


def test_convert_on_a_full_disk(noisy, small_disk: Path, nnunet_folders, monkeypatch, capsys) -> None:
    monkeypatch.setenv("nnUNet_raw", str(small_disk))
    assert run(*noisy.arguments()) == 2
    assert ": error: " in capsys.readouterr().err
    assert not (small_disk / "Dataset901_Tiny").exists()


@pytest.mark.parametrize("size", [200, 600, 1000, 2000])
def test_convert_where_files_cannot_grow(noisy, nnunet_folders, size: int) -> None:
    assert is_one_line(limited(size, *noisy.arguments()))
    assert not (nnunet_folders.raw / "Dataset901_Tiny").exists()
    assert run(*noisy.arguments(), "--overwrite") == 0


@pytest.mark.parametrize("size", [200, 600, 1000])
def test_convert_into_where_files_cannot_grow(noisy, nnunet_folders, size: int) -> None:
    assert run(*noisy.arguments()) == 0
    folder = nnunet_folders.raw / "Dataset901_Tiny"
    before = read_json(folder / "dataset.json")
    into = ["convert", "--into", "901", "--raters", noisy.rater_pattern, "-np", "1", "--overwrite"]
    assert is_one_line(limited(size, *into, "--fusion", "svls"))
    assert read_json(folder / "dataset.json") == before
    for path in (folder / "softLabelsTr").iterdir():
        read_mask(path)


def test_inspect_on_a_full_disk(noisy, small_disk: Path, capsys) -> None:
    arguments = ["inspect", "--raters", noisy.rater_pattern, "--labels", *noisy.labels, "-np", "1"]
    (small_disk / "filler").write_bytes(b"x" * 36_000)
    assert run(*arguments, "-o", str(small_disk / "out")) == 2
    assert ": error: " in capsys.readouterr().err
    assert not (small_disk / "out" / "inspection.html").exists()


@pytest.mark.parametrize("size", [500, 3000])
def test_preprocess_where_files_cannot_grow(planned_dataset, tmp_path: Path, monkeypatch, size: int) -> None:
    own = planned_dataset.copy_to(tmp_path, monkeypatch)
    folder = own.preprocessed / "nnUNetPlans_3d_fullres" / "soft_labels"
    done = limited(size, "preprocess", "-d", "911", "-np", "1", "--overwrite")
    assert is_one_line(done), done.stderr
    assert run("preprocess", "-d", "911", "-np", "1") == 0
    assert (folder / "manifest.json").is_file()

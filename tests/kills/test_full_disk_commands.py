"""A full disk, at every amount of free space: one line, exit code 2, and what was there before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cli import main
from nnunet_softlabel.formats.images import read_image
from nnunet_softlabel.simulation import knee_files
from tests.benchmark.conftest import fake_training
from tests.conftest import write_volume
from tests.conversion.conversion_helpers import tree
from tests.kills.models import model
from tests.refinement.test_refine import few_pictures, first_round
from tests.scored_dataset import Evaluated, write_dataset

__all__ = ["fake_training", "few_pictures", "first_round", "model"]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="mount")]
PAGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 1024)
PAGE = 4096  # bytes: the least that such a file system gives


@dataclass(frozen=True)
class SmallDisk:
    """A file system of some pages."""

    folder: Path
    pages: int

    def leave_free(self, pages: int) -> None:
        """Fill it up to the last few pages."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        free = shutil.disk_usage(self.folder).free // PAGE
        filler.write_bytes(b"x" * PAGE * max(0, free - pages))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "small", 2048)
    disk.folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={disk.pages * PAGE}", "tmpfs", str(disk.folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk.folder)], check=True)


def fill_up(
    disk: SmallDisk,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    *,
    call: Callable[[Sequence[str]], int] = main,
    pages: Sequence[int] = PAGES,
    after_failure: Callable[[], None] | None = None,
) -> None:
    """Run the command with ever more free space until it succeeds; no failure may change anything."""
    before = tree(disk.folder)
    failures = 0
    for number in pages:
        disk.leave_free(number)
        code, error = call(arguments), capsys.readouterr().err
        (disk.folder / "filler").unlink()
        if code == 0:
            break
        failures += 1
        assert code == 2, error
        assert len([line for line in error.splitlines() if ": error: " in line]) == 1, error
        assert "No space left on device" in error or "is the disk full?" in error, error
        assert "Traceback" not in error
        if after_failure is None:
            assert tree(disk.folder) == before, f"{number} pages"
        else:
            after_failure()
    assert failures
    assert code == 0


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return write_dataset(tmp_path_factory.mktemp("scored"), cases=4)


EVALUATIONS = {
    "evaluate": [],
    "tune-threshold": [],
    "apply-threshold": ["--threshold", "0.3"],
    "calibrate": [],
    "apply-calibration": ["--calibration-file", "calibration.json"],
    "average": [],
    "maps": [],
}
IS_FILE = {"tune-threshold": "thresholds.json", "calibrate": "calibration.json"}


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize("command", EVALUATIONS)
def test_commands_on_predictions(
    scored: Evaluated,
    small_disk: SmallDisk,
    tmp_path: Path,
    monkeypatch,
    capsys,
    command: str,
    is_there: bool,
) -> None:
    monkeypatch.setenv("nnUNet_raw", str(scored.dataset.folder.parent))
    monkeypatch.chdir(tmp_path)
    common = ["-d", "900", "-i", str(scored.predictions)]
    if command == "apply-calibration":
        assert main(["calibrate", *common, "-o", "calibration.json"]) == 0
    if command == "average":
        shutil.copytree(scored.predictions, tmp_path / "other")
        common.append(str(tmp_path / "other"))
    output = small_disk.folder / IS_FILE.get(command, "out")
    arguments = [command, *common, "-o", str(output), *EVALUATIONS[command]]
    arguments += [] if command in ("calibrate", "average", "apply-calibration", "maps") else ["-np", "1"]
    if is_there:
        assert main(arguments) == 0
        arguments.append("--overwrite")
    capsys.readouterr()
    fill_up(small_disk, arguments, capsys)


@pytest.mark.parametrize("is_there", [False, True])
def test_export_stock(model: Path, small_disk: SmallDisk, capsys, is_there: bool) -> None:
    arguments = ["export-stock", "-d", "901", "-c", "2d", "-tr", "nnUNetTrainerSoftCE"]
    arguments += ["-o", str(small_disk.folder / "out")]
    if is_there:
        assert main([*arguments, "-f", "0"]) == 0
        arguments.append("--overwrite")
    capsys.readouterr()
    fill_up(small_disk, arguments, capsys)


def test_reduce_plans(planned_dataset, small_disk: SmallDisk, monkeypatch, capsys) -> None:
    planned_dataset.copy_to(small_disk.folder, monkeypatch)
    arguments = ["reduce-plans", "-d", str(planned_dataset.id), "-o", "Smaller"]
    fill_up(small_disk, arguments, capsys)
    fill_up(small_disk, [*arguments, "--features", "4", "--overwrite"], capsys)


def test_report_of_a_benchmark(
    planned_dataset, fake_training, small_disk: SmallDisk, tmp_path: Path, capsys
) -> None:
    common = ["benchmark", "-d", str(planned_dataset.id), "-p", "nnUNetPlansReduced", "-f", "0", "-np", "1"]
    common += ["-device", "cpu", "--epochs", "1", "--iterations", "1"]
    common += ["-tr", "nnUNetTrainer", "nnUNetTrainerAPL", "-o"]
    folders = tmp_path / "whole", small_disk.folder / "out"
    for folder in folders:
        assert main([*common, str(folder), "--only", "train"]) == 0
    report = [*common, str(folders[1]), "--only", "report"]
    assert main([*common, str(folders[0]), "--only", "report"]) == 0
    capsys.readouterr()

    def whole_files_only() -> None:
        made = {path for path in folders[1].rglob("*") if path.is_file() and path.suffix != ".lock"}
        for path in made - {folders[1] / "filler"}:
            assert (folders[0] / path.relative_to(folders[1])).is_file(), path
        assert not (folders[1] / "report.html").exists()

    fill_up(small_disk, report, capsys, pages=(0, 4, 16, 1024), after_failure=whole_files_only)
    for path in folders[0].rglob("*.csv"):
        assert (folders[1] / path.relative_to(folders[0])).read_bytes() == path.read_bytes()
    assert (folders[1] / "report.html").is_file()


def test_script_for_a_public_data_set(small_disk: SmallDisk, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "dataset_conversion")
    script = import_module("convert_kits23")
    random = np.random.default_rng(0)
    for case in ("case_00000", "case_00001"):
        folder = tmp_path / "dataset" / case
        write_volume(folder / "imaging.nii.gz", random.integers(-900, 900, (20, 30, 30)).astype(np.int16))
        for number in (1, 2):
            mask = random.integers(0, 2, (20, 30, 30)).astype(np.uint8)
            write_volume(folder / "instances" / f"kidney_instance-1_annotation-{number}.nii.gz", mask)
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(small_disk.folder / name))
        (small_disk.folder / name).mkdir()
    fill_up(small_disk, [str(tmp_path), "-d", "501", "-np", "1"], capsys, call=script.main)


def test_refine(first_round, few_pictures, small_disk: SmallDisk, monkeypatch, capsys) -> None:
    raw = small_disk.folder / "raw"
    shutil.copytree(first_round.dataset.folder.parent, raw)
    monkeypatch.setenv("nnUNet_raw", str(raw))
    arguments = ["refine", "-d", "910", "-tr", "nnUNetTrainerSoftCE", "-c", "3d_fullres", "-o", "911"]
    fill_up(small_disk, [*arguments, "-np", "1"], capsys, pages=(0, 8, 100, 1024))


def test_knees_of_the_demo(small_disk: SmallDisk, monkeypatch, capsys) -> None:
    monkeypatch.setattr(knee_files, "SHAPE", (12, 32, 32))
    for pages in (0, 4, 16):
        small_disk.leave_free(pages)
        output = small_disk.folder / f"demo{pages}"
        assert main(["demo", "-o", str(output)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "No space left on device" in error or "is the disk full?" in error
        for path in output.rglob("*.nii.gz"):
            read_image(path)
        (small_disk.folder / "filler").unlink()

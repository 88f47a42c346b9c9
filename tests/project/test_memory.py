"""How many processes fit into memory: what Linux and control groups say, the line, starved jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel import memory
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.sizes import processes_for_cases
from nnunet_softlabel.cli import main
from nnunet_softlabel.errors import WorkerError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.images import voxels_in, write_image
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.predictions import predicted_voxels
from nnunet_softlabel.memory import GIB, PER_VOXEL, LargestCase, PerVoxel, free_bytes, processes_that_fit
from nnunet_softlabel.processes import run_jobs

MIB = 2**20


def files(root: Path, **content: str) -> Path:
    """A file system: names with ``__`` for ``/``."""
    for name, text in content.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc__meminfo": "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:  4000 kB\n"}


def test_without_groups_the_free_memory_is_what_linux_calls_available(tmp_path: Path) -> None:
    assert free_bytes(files(tmp_path, **MEMINFO)) == 4000 * 1024


def test_where_the_system_does_not_say_there_is_no_limit(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None


def group(tmp_path: Path, line: str, folder: str, **content: str) -> Path:
    root = files(tmp_path, **MEMINFO, proc__self__cgroup=line)
    place = root / "sys/fs/cgroup" / folder
    place.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (place / name.replace("__", ".")).write_text(text)
    return root


def test_version_2_leaves_its_limit_without_what_is_in_use_but_files_in_cache_can_go(tmp_path: Path) -> None:
    stat = "anon 5\ninactive_file 300000\n"
    content = {"memory__max": "1000000\n", "memory__current": "700000\n", "memory__stat": stat}
    assert free_bytes(group(tmp_path, "0::/job/step\n", "job", **content)) == 600_000


def test_version_1_has_other_names(tmp_path: Path) -> None:
    content = {"memory__limit_in_bytes": "1000000", "memory__usage_in_bytes": "900000"}
    root = group(tmp_path, "5:cpu:/a\n4:memory:/of/the/host\n", "memory", **content)  # as in a container
    assert free_bytes(root) == 100_000


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_a_group_without_limit_limits_nothing(tmp_path: Path, limit: str) -> None:
    content = {"memory__max": limit, "memory__current": "1", "memory__limit_in_bytes": limit}
    assert free_bytes(group(tmp_path, "0::/\n", "", **content)) == 4000 * 1024


def test_more_in_use_than_the_limit_leaves_nothing(tmp_path: Path) -> None:
    content = {"memory__max": "10", "memory__current": "11"}
    assert free_bytes(group(tmp_path, "0::/\n", "", **content)) == 0


@pytest.fixture
def plain_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 byte per voxel, 10 per label, 100 per rater, nothing for Python."""
    monkeypatch.setattr(memory, "PROCESS_BYTES", 0)
    monkeypatch.setitem(PER_VOXEL, "convert", PerVoxel(1, per_label=10, per_rater=100))


@pytest.mark.parametrize(
    ("free_gib", "wanted", "cases", "expected"),
    [
        (100.0, 8, 20, 8),
        (None, 8, 20, 8),
        (12.0, 8, 20, 2),
        (12.0, 2, 20, 2),
        (12.0, 8, 2, 8),
        (5.0, 8, 20, 1),
    ],
)
def test_processes_follow_from_free_memory_and_the_largest_case(
    plain_costs, monkeypatch, capsys, free_gib, wanted, cases, expected
) -> None:
    """1 + 2 * 10 + 3 * 100 = 321 bytes for each of 2**24 voxels: 5.02 GiB. A tenth is spared."""
    monkeypatch.setattr(memory, "free_bytes", lambda: None if free_gib is None else int(free_gib * GIB))
    largest = LargestCase("knee_03", 2**24, labels=2, raters=3)
    assert largest.bytes_for("convert") == 321 * 2**24
    assert processes_that_fit(wanted, cases, largest, "convert") == expected
    said = {
        2: "2 of 8 processes: 12.0 GiB of memory are free, and case knee_03 takes about 5.0 GiB.\n",
        1: "Case knee_03 takes about 5.0 GiB of memory, 5.0 GiB are free: one process works, and may be "
        "ended for lack of memory.\n",
    }
    assert capsys.readouterr().out == (said[expected] if expected < min(wanted, cases) else "")


def test_headers_tell_the_voxels(tmp_path: Path) -> None:
    for ending in (".nii.gz", ".nii", ".nrrd"):
        write_image(tmp_path / f"a{ending}", np.zeros((3, 4, 5), np.uint8), Grid.without_geometry((3, 4, 5)))
        assert voxels_in(tmp_path / f"a{ending}") == 60
    write_image(tmp_path / "a.png", np.zeros((4, 5), np.uint8), Grid.flat((4, 5)))
    assert voxels_in(tmp_path / "a.png") == 20
    (tmp_path / "b.nrrd").write_text("nothing")
    (tmp_path / "b.nii.gz").write_text("nothing")
    assert voxels_in(tmp_path / "b.nrrd") == voxels_in(tmp_path / "b.nii.gz") == 0
    np.savez_compressed(tmp_path / "p.npz", probabilities=np.zeros((2, 3, 4, 5), np.float32))
    assert predicted_voxels(tmp_path / "p.npz") == 60
    assert predicted_voxels(tmp_path / "b.nrrd") == 0


def test_the_largest_case_is_found_among_small_ones(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: 1000 * MIB)
    cases = []
    for number in range(30):
        shape = (8, 64, 64 if number == 11 else 8)
        path = tmp_path / f"k{number}.nii.gz"
        write_image(path, np.random.default_rng(0).integers(0, 99, shape), Grid.without_geometry(shape))
        cases.append(Case(f"k{number}", [path], raters={"a": path}))
    assert processes_for_cases(cases, 8, Labels({"a": (1,)}), "convert") == 2
    assert capsys.readouterr().out.startswith(
        "2 of 8 processes: 1.0 GiB of memory are free, and case k11 takes"
    )
    of_arrays = [Case("a", [np.zeros((2, 2))])]
    assert processes_for_cases(of_arrays, 8, Labels({"a": (1,)}), "convert") == 8


def starved(number: int) -> int:
    if number == 1:
        raise MemoryError("Unable to allocate 9 GiB")
    return number


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_job_without_memory_is_named_with_the_remedy(num_processes: int) -> None:
    jobs, names = [(0,), (1,)], ["Case 0", "Case 1"]
    with pytest.raises(WorkerError) as error:
        list(run_jobs(starved, jobs, num_processes, names=names, in_order=True))
    assert str(error.value) == (
        "Case 1: out of memory (Unable to allocate 9 GiB); run the same command again with a smaller -np."
    )


def test_a_command_without_memory_ends_with_one_line(
    rater_folder, nnunet_folders, monkeypatch, capsys
) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("nnunet_softlabel.conversion.one_case.write.load_case", without_memory)
    call = ["convert", "-d", "990", "-n", "T", "--images", *rater_folder.images, "-np", "1"]
    call += ["--channel-names", *rater_folder.channel_names, "--labels", *rater_folder.labels]
    assert main([*call, "--raters", rater_folder.rater_pattern]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        "Case case_00: out of memory (no more to be had); run the same command again with a smaller" in line
    )
    assert line.endswith("-np and --resume.")

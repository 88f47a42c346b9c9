"""How many processes fit into memory: free memory, over what the largest case takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
PROCESS_BYTES = 300 * 2**20  # of Python and its libraries, before any image is read
SPARED = 0.1  # part of the free memory that is left to other programs
HEADERS = 16  # of the largest files are read; the case with most voxels is among them
UNLIMITED = 2**60  # cgroup v1 has no word for "no limit", only numbers near 2**63


@dataclass(frozen=True)
class PerVoxel:
    """Bytes per voxel of the image at the peak of a command, for one case.

    Attributes:
        always: whatever the labels and raters are.
        per_label: more for each label.
        per_rater: more for each rater.
        per_model: more for each model whose predictions are read side by side.
    """

    always: float
    per_label: float = 0.0
    per_rater: float = 0.0
    per_model: float = 0.0


# Measured by tests/performance/benchmark_memory.py, rounded up.
PER_VOXEL = {
    "convert": PerVoxel(26, per_label=0.2),
    "inspect": PerVoxel(18, per_label=0.2),
    "preprocess": PerVoxel(32, per_label=0.3),
    # where lesions fill a third of the volume; small ones take what `convert` takes
    "convert, lesion-wise": PerVoxel(26, per_label=0.2, per_rater=4),
    "evaluate": PerVoxel(40, per_rater=1),
    "predictions": PerVoxel(40),
    "maps": PerVoxel(30, per_model=4),
    "references": PerVoxel(16),
}


@dataclass(frozen=True)
class LargestCase:
    """The case that decides how many processes fit.

    Attributes:
        name: for messages.
        voxels: of its image; 0 if nobody knows.
        labels: number of foreground channels.
        raters: number.
        models: number.
    """

    name: str
    voxels: int
    labels: int = 1
    raters: int = 0
    models: int = 1

    def bytes_for(self, command: str) -> int:
        """What a process that works on it takes at its peak."""
        each = PER_VOXEL[command]
        per_voxel = each.always + each.per_label * self.labels + each.per_rater * self.raters
        per_voxel += each.per_model * self.models
        return PROCESS_BYTES + int(per_voxel * self.voxels)


def largest_of(files: Mapping[str, Path], voxels_in: Callable[[Path], int]) -> tuple[str, int]:
    """The case whose file has most voxels, and how many; 0 of none.

    Args:
        files: case -> one of its files.
        voxels_in: a file by its header; 0 where nobody knows.
    """
    sizes = {name: path.stat().st_size for name, path in files.items() if path.is_file()}
    candidates = sorted(sizes, key=lambda name: sizes[name], reverse=True)[:HEADERS]
    voxels = {name: voxels_in(files[name]) for name in candidates}
    return max(voxels.items(), key=lambda item: item[1], default=("", 0))


def processes_that_fit(num_processes: int, num_cases: int, largest: LargestCase, command: str) -> int:
    """At most ``num_processes``, fewer where memory is short; then a line is printed.

    Args:
        num_processes: as asked for.
        num_cases: more processes are never at work.
        largest: case.
        command: a key of `PER_VOXEL`.
    """
    free = free_bytes()
    if free is None or largest.voxels == 0:
        return num_processes
    needed = largest.bytes_for(command)
    if needed > free:
        print(
            f"Case {largest.name} takes about {needed / GIB:.1f} GiB of memory, {free / GIB:.1f} GiB are "
            f"free: one process works, and may be ended for lack of memory."
        )
        return 1
    fitting = int((1 - SPARED) * free) // needed or 1
    if fitting >= min(num_processes, num_cases):
        return num_processes
    print(
        f"{fitting} of {min(num_processes, num_cases)} processes: {free / GIB:.1f} GiB of memory are free, "
        f"and case {largest.name} takes about {needed / GIB:.1f} GiB."
    )
    return fitting


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process and its children may still take; None where the system does not say.

    The smaller of what Linux calls available and what is left in the control groups of this process, as
    containers and batch systems set them.

    Args:
        root: of the file system.
    """
    free = [_available(root), *_left_in_groups(root)]
    return min((f for f in free if f is not None), default=None)


def _available(root: Path) -> int | None:
    for line in _text(root / "proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        if key == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _left_in_groups(root: Path) -> Iterator[int]:
    """Of the group of this process and every group around it, in version 1 and 2 of control groups."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = base / path.lstrip("/")
        for group in (own, *own.parents):
            left = _left_in(group, *names)
            if left is not None:
                yield left
            if group == base:
                break


def _left_in(group: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    limit, usage = _text(group / limit_name).strip(), _text(group / usage_name).strip()
    if not limit.isdigit() or not usage.isdigit() or int(limit) >= UNLIMITED:
        return None
    cache = 0  # of files, which the kernel gives up when memory is asked for
    for line in _text(group / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == cache_name and value.isdigit():
            cache = int(value)
    return max(0, int(limit) - max(0, int(usage) - cache))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

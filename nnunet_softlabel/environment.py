"""What this machine has, in one paste for a report of a fault: versions, variables, device."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from nnunet_softlabel import __version__
from nnunet_softlabel.training.trainer_path import PLUGIN_FOLDER

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")
REQUIRED_IF_NOT_INSTALLED = ("nnunetv2", "torch", "numpy", "scipy", "simpleitk")


def describe_environment() -> str:
    """Versions, nnU-Net's variables and the device, as plain text; the home folder is written ``~``.

    >>> print(describe_environment().splitlines()[0].split()[0])
    nnunet_softlabel
    """
    parts = {"Versions": _versions(), "Variables": _variables(), "Device": _device()}
    lines = [f"nnunet_softlabel {__version__}, Python {platform.python_version()}, {platform.platform()}"]
    for title, found in parts.items():
        lines += ["", f"{title}:", *(f"  {line}" for line in found)]
    return "\n".join(lines)


def _versions() -> Iterator[str]:
    """What the package needs, and what of it is there."""
    try:
        required = metadata.requires("nnunet-softlabel") or []
    except metadata.PackageNotFoundError:
        yield "nnunet-softlabel: not installed, run from its source"
        required = list(REQUIRED_IF_NOT_INSTALLED)
    for requirement in required:
        name, _, extra = requirement.partition(";")
        if "extra" in extra:
            continue
        package = re.split(r"[^\w.-]", name.strip())[0]
        try:
            yield f"{package} {metadata.version(package)}"
        except metadata.PackageNotFoundError:
            yield f"{package}: not installed"


def _variables() -> Iterator[str]:
    """nnU-Net's folders and all its other variables, and those that decide on threads and GPUs."""
    for name in FOLDERS:
        value = os.environ.get(name)
        yield f"{name}: {_folder(value) if value else 'not set'}"
    trainers = os.environ.get("nnUNet_extTrainer", "")
    is_found = str(PLUGIN_FOLDER) in trainers.split(os.pathsep)
    yield (
        f"nnUNet_extTrainer: {_short(trainers) or 'not set'} "
        f"({'names' if is_found else 'does not name'} our trainers)"
    )
    told = {*FOLDERS, "nnUNet_extTrainer"}
    others = sorted(name for name in os.environ if name.lower().startswith("nnunet_") and name not in told)
    for name in (*others, *SETTINGS):
        yield f"{name}: {_short(os.environ.get(name, '')) or 'not set'}"


def _folder(value: str) -> str:
    path = Path(value)
    if not path.is_dir():
        return f"{_short(value)} (no such folder)"
    return _short(value) + ("" if os.access(path, os.W_OK) else " (cannot be written)")


def _short(text: str) -> str:
    """The home folder, which holds the user's name, as ``~``."""
    home = os.path.expanduser("~")
    shortened = [
        "~" + part.removeprefix(home) if part == home or part.startswith(home + os.sep) else part
        for part in text.split(os.pathsep)
    ]
    return text if home == os.sep else os.pathsep.join(shortened)


def _device() -> Iterator[str]:
    """Cores, memory, and what PyTorch can compute on."""
    yield f"{_usable_cores()} of {os.cpu_count()} CPU cores, {_memory_gib()} GiB of memory"
    try:
        import torch
    except (ImportError, OSError) as error:  # a report is wanted most where the environment is broken
        yield f"torch cannot be imported: {error}"
        return
    if not torch.cuda.is_available():
        yield f"no CUDA device (torch was built for CUDA {torch.version.cuda or '-'})"
    for number in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(number)
        yield (
            f"cuda:{number} {found.name}, {found.total_memory / 2**30:.0f} GiB, "
            f"capability {found.major}.{found.minor}, CUDA {torch.version.cuda}"
        )
    if torch.backends.mps.is_available():
        yield "mps"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}"
    except (AttributeError, ValueError, OSError):  # not on Windows
        return "?"

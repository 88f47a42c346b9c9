"""Soft labels and noise-robust losses for nnU-Net."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nnunet-softlabel")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0+unknown"

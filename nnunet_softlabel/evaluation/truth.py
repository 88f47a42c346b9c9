"""A known truth as people have it, and what the flags say of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from nnunet_softlabel.arguments import LabelTexts
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import ChannelAxis
from nnunet_softlabel.formats.dicom_seg import is_dicom_file
from nnunet_softlabel.formats.regrid import Regrid
from nnunet_softlabel.formats.slicer import is_slicer_file
from nnunet_softlabel.public import public

TruthFusion = Literal["mean"]
# flag -> what it is in `Truth`; `evaluate`, `benchmark` and `tune-threshold` have them all
TRUTH_FLAGS = {
    "--truth-labels": "labels",
    "--regrid": "regrid",
    "--class-axis": "class_axis",
    "--rater-axis": "rater_axis",
    "--soft-scale": "soft_scale",
    "--truth-fusion": "fusion",
}


@public
@dataclass(frozen=True)
class Truth:
    """Where the files of a truth are, and how they are read.

    Attributes:
        place: a folder of ``CASE<ending>``; a pattern with ``{case}``, and ``{label}`` for probability maps
            or ``{rater}`` for several raters; a table with case and mask; or an nnU-Net data set.
        labels: as ``--labels`` of `convert`, if the files have values of their own.
        regrid: put files on another grid on that of the image; None: they are refused.
        class_axis: "first" or "last": files hold a channel per class, which count from 1 in ``labels``.
        rater_axis: "first" or "last": files hold a channel per rater.
        soft_scale: files are probability maps, and this value is probability 1.
        fusion: "mean": where a case has several raters, their mean is the truth; None: they are refused.
    """

    place: Path
    labels: LabelTexts | None = None
    regrid: Regrid | None = None
    class_axis: ChannelAxis | None = None
    rater_axis: ChannelAxis | None = None
    soft_scale: float | None = None
    fusion: TruthFusion | None = None

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.soft_scale is not None and not 0 < self.soft_scale < float("inf"):
            raise UsageError(f"--soft-scale {self.soft_scale:g}: give the value that means 1, as 255 or 100.")
        if self.rater_axis is not None and (self.class_axis is not None or self.soft_scale is not None):
            raise UsageError(
                "--rater-axis: a channel is a rater's label map; leave out --class-axis, --soft-scale."
            )

    @classmethod
    def of(cls, truth: Path | Truth) -> Truth:
        """A place alone has the usual files."""
        return truth if isinstance(truth, Truth) else cls(truth)

    @property
    def options(self) -> str:
        """How files are read, where that is said."""
        said = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return ", ".join(f"{name}={value}" for name, value in said.items() if value is not None)

    def __str__(self) -> str:
        """The place, and how it is read: another reading is another truth."""
        return f"{self.place} ({self.options})" if self.options else str(self.place)

    def has_segments(self, path: Path) -> bool:
        """Whether classes are apart in a file: segments, or channels."""
        return is_dicom_file(path) or is_slicer_file(path) or self.class_axis is not None


def truth_of_flags(args: argparse.Namespace) -> Truth | None:
    """What the flags of a command say.

    Raises:
        UsageError: for a flag without ``--truth``.
    """
    given = {flag: getattr(args, flag[2:].replace("-", "_"), None) for flag in TRUTH_FLAGS}
    given = {flag: value for flag, value in given.items() if value is not None}
    if args.truth is not None:
        return Truth(args.truth, **{TRUTH_FLAGS[flag]: value for flag, value in given.items()})
    if given:
        raise UsageError(f"{', '.join(given)}: belongs to --truth; add it.")
    return None


@contextmanager
def own_flag() -> Iterator[None]:
    """What is said of labels in raters' files is said of the truth's, which have a flag of their own."""
    try:
        yield
    except (DatasetError, UsageError) as error:
        raise type(error)(str(error).replace("--labels", "--truth-labels")) from error

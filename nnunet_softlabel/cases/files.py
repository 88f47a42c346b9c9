"""Which files hold what raters drew, and ready probability maps: patterns, and what is in each file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from nnunet_softlabel.arguments import Texts, as_texts
from nnunet_softlabel.cases.patterns import Pattern
from nnunet_softlabel.cases.raters import RaterChannels, rater_pattern
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.channels import ChannelAxis
from nnunet_softlabel.public import public


@public
@dataclass(frozen=True)
class RaterFiles:
    """The files of raters.

    >>> RaterFiles("masks/{case}.nii.gz", axis="last", names=["anna", "bob"]).patterns
    ['masks/{case}.nii.gz']

    Attributes:
        patterns: with ``{case}`` and ``{rater}``.
        has_single_rater: allows patterns without ``{rater}``: one rater per case.
        axis: files of patterns without ``{rater}`` hold a channel per rater along this axis.
        names: of these channels; none: 1, 2, 3, ...
    """

    patterns: Texts = ()
    has_single_rater: bool = False
    axis: ChannelAxis | None = None
    names: Texts = ()

    @property
    def channels(self) -> RaterChannels:
        """How one file holds several raters."""
        return RaterChannels(self.axis, tuple(self.names))

    def parsed(self) -> list[Pattern]:
        """The patterns.

        Raises:
            UsageError: if nothing says who drew what.
        """
        return [rater_pattern(text, self.has_single_rater, self.channels) for text in self.patterns]


@public
@dataclass(frozen=True)
class SoftFiles:
    """The files of ready probability maps.

    >>> SoftFiles("maps/{case}.nii.gz", labels=["lesion", "bone"], axis="first").channel_of
    {'lesion': 1, 'bone': 2}

    Attributes:
        pattern: with ``{case}`` and ``{label}``.
        labels: what ``{label}`` may stand for, or label -> its channel, from 1.
        axis: files of a pattern without ``{label}`` hold a channel per label along this axis.
    """

    pattern: str
    labels: Sequence[str] | Mapping[str, int]
    axis: ChannelAxis | None = None

    @property
    def channel_of(self) -> dict[str, int]:
        """Label -> its channel; in the order of the names if none are given."""
        if isinstance(self.labels, Mapping):
            return dict(self.labels)
        return {name: number for number, name in enumerate(self.labels, start=1)}

    @property
    def has_channels(self) -> bool:
        """Whether the maps of a case are channels of one file."""
        return self.axis is not None and not self.parsed().has("label")

    def parsed(self) -> Pattern:
        """The pattern.

        Raises:
            UsageError: if nothing tells several labels apart.
        """
        pattern = Pattern(self.pattern, "--soft", ["case", "label"])
        if not self.labels:
            raise UsageError(f"--soft {self.pattern}: has no labels; name them with --labels.")
        if not pattern.has("label") and len(self.labels) > 1 and self.axis is None:
            raise UsageError(
                f"--soft {self.pattern}: needs {{label}}, since there are {len(self.labels)} labels; for a "
                f"channel per label in one file add --class-axis."
            )
        return pattern


def as_rater_files(value: Any, argument: str) -> RaterFiles:
    """Patterns alone have a rater each."""
    return value if isinstance(value, RaterFiles) else RaterFiles(as_texts(value, argument))


# type hint of what `public` brings to one kind
AnyRaterFiles: TypeAlias = Annotated[RaterFiles | Sequence[str] | str, as_rater_files]

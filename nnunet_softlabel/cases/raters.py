"""Which rater drew a file: a name in its path, or a channel in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_softlabel.cases.case import SINGLE_RATER, Case, Source, source_name
from nnunet_softlabel.cases.names import check_file_name
from nnunet_softlabel.cases.patterns import Pattern
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.channels import Channel, ChannelAxis, number_of_channels

# files that nnU-Net and this package leave beside segmentations
OUTPUT_SIGNS = (
    *("predict_from_raw_data_args.json", "plans.json", "dataset.json", "summary.json", "thresholds.json"),
    *("apply_threshold.json", "made_from.json", "volumes.csv", "progress.png", "checkpoint_final.pth"),
)


@dataclass(frozen=True)
class RaterChannels:
    """How one file holds several raters: the axis of its channels, and their names."""

    axis: ChannelAxis | None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names without an axis, and a name that is given twice."""
        if self.names and self.axis is None:
            raise UsageError("--rater-names belongs to --rater-axis; add it.")
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise UsageError(f"--rater-names: the name {twice!r} is given twice; give each channel its own.")

    def raters_of(self, path: Path) -> dict[str, Source]:
        """Rater -> the channel.

        Raises:
            DatasetError: if there are more or fewer channels than names.
        """
        if self.axis is None:
            return {SINGLE_RATER: path}
        number = number_of_channels(path, self.axis)
        names = self.names or tuple(str(i) for i in range(1, number + 1))
        if len(names) != number:
            raise DatasetError(f"{path}: has {number} channels, but --rater-names gives {len(names)} names.")
        return {name: Channel(path, i, self.axis) for i, name in enumerate(names)}


def rater_pattern(text: str, has_single_rater: bool, channels: RaterChannels) -> Pattern:
    """The pattern of raters' files.

    Raises:
        UsageError: if nothing says who drew what.
    """
    pattern = Pattern(text, "--raters", ["case", "rater"])
    if not pattern.has("rater") and not has_single_rater and channels.axis is None:
        raise UsageError(
            f"--raters {text}: needs {{rater}} where the rater's name stands; for one rater per case add "
            f"--single-rater, for a channel per rater in one file --rater-axis."
        )
    if pattern.has("rater") and channels.axis is not None:
        raise UsageError(f"--raters {text}: has {{rater}}, so leave out --rater-axis.")
    return pattern


def with_raters(case: str, known: Mapping[str, Source], found: Mapping[str, Source]) -> dict[str, Source]:
    """The raters of a case and some more.

    Raises:
        DatasetError: for a rater with two files.
    """
    for rater, source in found.items():
        check_file_name(rater, f"Case {case}: rater")
        if rater in known:
            raise DatasetError(
                f"Case {case}: rater {rater} has two files, {source_name(known[rater])} and "
                f"{source_name(source)}; keep one, or merge them into one file."
            )
    return {**known, **found}


def check_raters_are_there(names: Iterable[str], cases: Iterable[Case], flag: str) -> None:
    """Refuse a flag for a rater who drew no case: a name may be misspelt.

    Raises:
        UsageError: naming the raters that there are.
    """
    there = {rater for case in cases for rater in case.raters}
    for name in names:
        if name not in there:
            known = ", ".join(sorted(there)) or "none"
            raise UsageError(f"{flag} {name}: no case has a rater of that name; there is {known}.")


def check_are_no_outputs(cases: Iterable[Case]) -> None:
    """Refuse as a rater what nnU-Net or this package wrote: predictions beside raters fit the same pattern.

    Raises:
        DatasetError: naming the folder.
    """
    looked: set[Path] = set()
    for case in cases:
        for rater, source in case.raters.items():
            if not isinstance(source, Path) or source.parent in looked:
                continue
            looked.add(source.parent)
            sign = next((name for name in OUTPUT_SIGNS if (source.parent / name).exists()), None)
            if sign is not None:
                raise DatasetError(
                    f"{source}: rater {rater} is no rater: {sign} in that folder says that a program wrote "
                    f"it. Keep raters apart, in raters/{{rater}}/{{case}}, or name them: {{rater:a,b}}."
                )


def cases_of_raters(
    raters: Sequence[str], *, rater_axis: ChannelAxis | None = None, rater_names: Sequence[str] = ()
) -> list[Case]:
    """Cases without images, named after the raters' files; for looking at raters only.

    Args:
        raters: patterns, as for `find_cases`.
        rater_axis: see there.
        rater_names: see there.

    Raises:
        UsageError: for a wrong pattern, or one that fits no file.
        DatasetError: if a rater has two files of a case.
    """
    channels = RaterChannels(rater_axis, tuple(rater_names))
    cases: dict[str, dict[str, Source]] = {}
    for text in raters:
        pattern = rater_pattern(text, False, channels)
        regex = pattern.regex()
        matches = [(path, match) for path in pattern.files() if (match := regex.fullmatch(path))]
        if not matches:
            raise UsageError(f"--raters {text}: fits no file; check the path, and quote the pattern.")
        for path, match in matches:
            found = {match["rater"]: Path(path)} if pattern.has("rater") else channels.raters_of(Path(path))
            cases[match["case"]] = with_raters(match["case"], cases.get(match["case"], {}), found)
    return [Case(name, [], raters=found) for name, found in sorted(cases.items())]

"""Flags of ``nnunet_softlabel convert`` checked, and the cases that they name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from nnunet_softlabel.commands.case_flags import check_file_flags, found_cases, names_all_files
from nnunet_softlabel.commands.convert_priors import roi_patterns
from nnunet_softlabel.errors import UsageError

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that do not go together, and those that are missing."""
    if not args.raters and not args.soft and not names_all_files(args):
        raise UsageError(
            "give --raters (annotations to fuse), --soft (ready probability maps) or --cases-csv (a table)."
        )
    check_file_flags(args)
    needed = {"-d": args.d, "-n": args.n, "--images": args.images, "--channel-names": args.channel_names}
    needed |= {"--labels": args.labels}
    if args.into:
        extra = [flag for flag, value in needed.items() if value is not None and flag != "--labels"]
        extra += ["--groups"] * bool(args.groups) + ["--test-cases"] * bool(args.test_cases)
        if extra:
            raise UsageError(
                f"--into takes images and cases from the data set; leave out {', '.join(extra)}."
            )
        if args.few_raters == "drop":
            raise UsageError(
                "--into cannot drop cases for few raters; leave out --few-raters drop (--missing-raters drop "
                "leaves out cases without any)."
            )
    else:
        if names_all_files(args):  # it names images, and may name channels
            del needed["--images"], needed["--channel-names"]
        missing = [flag for flag, value in needed.items() if value is None]
        if missing:
            raise UsageError(f"missing: {', '.join(missing)}.")


class Given(NamedTuple):
    """What a conversion is given.

    Attributes:
        cases: of the flags.
        dataset: folder of the data set that gets soft labels, or None for a new one.
        channel_names: of the images.
        dropped: names of the cases without raters that are left out.
    """

    cases: list[Case]
    dataset: Path | None
    channel_names: list[str]
    dropped: Sequence[str]


def cases_of_files(args: argparse.Namespace) -> Given:
    """Cases of a new data set."""
    from nnunet_softlabel.cases.groups import read_groups, with_groups, with_test_cases
    from nnunet_softlabel.cases.test_names import read_test_names
    from nnunet_softlabel.formats.labels import channels_of_labels, parse_labels

    channels = channels_of_labels(*parse_labels(args.labels))
    found = found_cases(args, args.images or [], roi_patterns(args), channels)
    cases, case_column = found.cases, args.case_column or "case"
    if args.groups is not None:
        columns = {"case_column": case_column, "group_column": args.group_column or "group"}
        groups = read_groups(args.groups, **columns)
        cases = with_groups(cases, groups, str(args.groups))
    if args.test_cases:
        cases = with_test_cases(cases, read_test_names(args.test_cases, case_column))
    channel_names = _channel_names(args.channel_names, found.channel_names)
    return Given(cases, None, channel_names, found.dropped)


def _channel_names(given: Sequence[str] | None, of_table: Sequence[str]) -> list[str]:
    """Those of ``--channel-names``, which may rename the columns of a table, but not exchange them."""
    if not given and not of_table:
        raise UsageError("missing: --channel-names (or name the columns of the table image:T2).")
    if not given or not of_table or len(given) != len(of_table):  # a wrong number has its own error
        return list(given or of_table)
    for name, column in zip(given, of_table, strict=True):
        if name != column and name in of_table:
            raise UsageError(
                f"--channel-names {' '.join(given)}: the columns of the table are in another order, "
                f"{', '.join(f'image:{column}' for column in of_table)}; leave out --channel-names."
            )
        if name != column:
            print(f"Channel {name}: column image:{column} of the table.")
    return list(given)


def cases_of_dataset(args: argparse.Namespace) -> Given:
    """Cases of a data set that is there."""
    from nnunet_softlabel.cases.patterns import literal
    from nnunet_softlabel.conversion.checks import check_takes_soft_labels, labels_of
    from nnunet_softlabel.conversion.exchange import put_back
    from nnunet_softlabel.formats.dataset_json import channel_names_of, read_dataset_json
    from nnunet_softlabel.formats.files import visible
    from nnunet_softlabel.formats.labels import channels_of_labels
    from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset

    dataset = find_dataset(environment_folder("nnUNet_raw"), args.into)
    put_back(dataset)  # its own raters may be what is fused
    content = read_dataset_json(dataset)
    check_takes_soft_labels(dataset, content)
    ending, channel_names = content["file_ending"], channel_names_of(content)
    if args.ignore and "ignore" not in content["labels"]:
        raise UsageError(
            f"--ignore: {dataset.name} has no ignore label; add it to its dataset.json and hard labels."
        )
    numbers = range(len(channel_names))
    if not visible(dataset / "imagesTr", f"*_0001{ending}"):  # one file: grey, or of all colours
        numbers = range(1)
    images = [f"{literal(dataset / 'imagesTr')}/{{case}}_{i:04d}{ending}" for i in numbers]
    found = found_cases(
        args,
        images,
        roi_patterns(args),
        channels_of_labels(*labels_of(dataset, content, args.labels)),
        hard_label=lambda case: dataset / "labelsTr" / f"{case}{ending}",
    )
    return Given(found.cases, dataset, channel_names, found.dropped)


def fusion_options(args: argparse.Namespace) -> dict[str, str | dict[str, float]]:
    """What ``--weights`` says."""
    if not args.weights:
        return {}
    if args.fusion != "weighted":
        raise UsageError(f"--weights belongs to --fusion weighted, not to {args.fusion}.")
    if args.weights == ["agreement"]:
        return {"weights": "agreement"}
    weights: dict[str, float] = {}
    for text in args.weights:
        rater, _, number = text.rpartition("=")
        if rater in weights:
            raise UsageError(f"--weights {text}: rater {rater} has a weight already; keep one.")
        try:
            weights[rater] = float(number)
        except ValueError:
            weights[rater] = -1.0
        if not rater or weights[rater] < 0:
            raise UsageError(
                f"--weights {text}: expected RATER=WEIGHT with a weight of at least 0, or `agreement`."
            )
    return {"weights": weights}

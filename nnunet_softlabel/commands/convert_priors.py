"""The flags of ``convert`` for anatomical priors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nnunet_softlabel.errors import UsageError

if TYPE_CHECKING:
    from nnunet_softlabel.cases.case import Case


def add_prior_flags(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--roi",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=PATTERN",
        help="Where lesions can be: 'bone=bones/{case}.nii.gz'; labels fall to 0 outside.",
    )
    parser.add_argument(
        "--roi-margin-mm", type=float, metavar="MM", help="Width of the ROI's soft border (default 0)."
    )
    parser.add_argument(
        "--roi-weight",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=WEIGHT",
        help="How possible lesions are in a ROI, 0 to 1 (default 1).",
    )
    parser.add_argument(
        "--intensity-prior",
        choices=["brighter", "darker"],
        help="Lesions are brighter or darker than the tissue of the ROI.",
    )
    parser.add_argument(
        "--prior-strength", type=float, metavar="S", help="Of that evidence; 1 (default) is Bayes' rule."
    )
    parser.add_argument(
        "--prior-channel", type=int, metavar="N", help="Image channel it looks at (default 0)."
    )
    parser.add_argument(
        "--raise-unmarked", action="store_true", help="It may also raise voxels that no rater marked."
    )


def roi_patterns(args: argparse.Namespace) -> dict[str, str]:
    """ROI name -> file pattern."""
    patterns: dict[str, str] = {}
    for text in args.roi:
        name, equals, pattern = text.partition("=")
        if not name or not equals or not pattern:
            raise UsageError(f"--roi {text}: expected NAME=PATTERN, as in 'bone=bones/{{case}}.nii.gz'.")
        if name in patterns:
            raise UsageError(f"--roi: the name {name!r} is given twice.")
        patterns[name] = pattern
    return patterns


def priors_of(args: argparse.Namespace, cases: Sequence[Case]) -> Any:
    """The `Priors` that the flags ask for; a flag without its prior is an error.

    Args:
        args: the flags.
        cases: the ROIs that a table gives them count as those of ``--roi``.
    """
    from nnunet_softlabel.conversion.prior_settings import IntensityPrior, Priors, RoiPrior

    names = tuple(roi_patterns(args)) or tuple(sorted({roi for case in cases for roi in case.rois}))
    if not names and (args.roi_margin_mm is not None or args.roi_weight):
        raise UsageError("--roi-margin-mm and --roi-weight belong to --roi; add it.")
    given = {"--prior-strength": args.prior_strength, "--prior-channel": args.prior_channel}
    given["--raise-unmarked"] = args.raise_unmarked or None
    if args.intensity_prior is None:
        lonely = [flag for flag, value in given.items() if value is not None]
        if lonely:
            raise UsageError(f"{', '.join(lonely)}: belongs to --intensity-prior; add it.")
        intensity = None
    else:
        intensity = IntensityPrior(
            args.intensity_prior,
            1.0 if args.prior_strength is None else args.prior_strength,
            args.prior_channel or 0,
            args.raise_unmarked,
        )
    roi = RoiPrior(names, args.roi_margin_mm or 0.0, _weights(args.roi_weight)) if names else None
    return Priors(roi, intensity)


def _weights(texts: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if name in weights:
            raise UsageError(f"--roi-weight {text}: {name} has a weight already; keep one.")
        try:
            weights[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"--roi-weight {text}: expected NAME=WEIGHT, as in bone=0.8.")
    return weights

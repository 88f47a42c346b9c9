"""What ``--help`` adds to the flags: the order of use, examples; and how to go on after Ctrl-C."""

from __future__ import annotations

import argparse

ORDER_OF_USE = """\
order of use:
  inspect        do the raters agree? (before anything else)
  convert        raters' masks become a soft-label data set of nnU-Net
  nnUNetv2_plan_and_preprocess -d 501
  preprocess     soft labels through nnU-Net's plan
  eval "$(nnunet_softlabel env)"; nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerSoftCE --npz
  evaluate       probabilities against soft labels and raters
  calibrate      probabilities that mean what the raters say; tune-threshold: masks from them
  benchmark      instead of the last three: trainers beside each other, with tests and one page
  refine         lesions that readers missed or invented: better labels for a second round
  export-stock   a model that predicts without this package

`nnunet_softlabel COMMAND --help` shows an example of each. `nnunet_softlabel demo` runs all of it in minutes.
"""

EXAMPLES = {
    "convert": "-d 501 -n Nodules --images 'images/{case}.nii.gz' --channel-names CT "
    "--raters 'raters/{rater}/{case}.nii.gz' --labels nodule=1",
    "inspect": "--raters 'raters/{rater}/{case}.nii.gz' --labels nodule=1 -o inspected",
    "refine": "-d 501 -c 3d_fullres -tr nnUNetTrainerSoftCE -o 502",
    "preprocess": "-d 501",
    "evaluate": "-d 501 -i predicted -o scores --split Ts",
    "tune-threshold": "-d 501 -i RESULTS/fold_0/validation -o RESULTS/fold_0/thresholds.json",
    "apply-threshold": "-d 501 -i predicted -o segmented --threshold 0.3",
    "calibrate": "-d 501 -c 3d_fullres -tr nnUNetTrainerSoftCE",
    "apply-calibration": "-d 501 -i predicted -o recalibrated --calibration-file calibration.json",
    "average": "-d 501 -i fold_0 fold_1 fold_2 -o averaged",
    "maps": "-d 501 -i predicted -o maps",
    "benchmark": "-d 501 -f 0 1 2 3 4 -o benchmark --dry-run",
    "demo": "-o demo",
    "env": "--report",
    "reduce-plans": "-d 501 --features 8 -o nnUNetPlansReduced",
    "export-stock": "-d 501 -c 3d_fullres -o stock_results",
}

_FILES = {
    "data set": ("-d", "-n", "--into", "--channel-names", "--link-images"),
    "files": (
        "--images", "--raters", "--single-rater", "--soft", "--ignore", "--cases-csv", "--case-column",
        "--rater-datasets", "--extra-files",
    ),
    "what the files hold": (
        "--labels", "--rater-labels", "--rater-axis", "--rater-names", "--class-axis", "--soft-scale",
        "--regrid",
    ),
    "which cases": (
        "--missing-raters", "--min-raters", "--few-raters", "--groups", "--group-column", "--test-cases",
    ),
    "fusion": ("--fusion", "--weights", "--staple-scope", "--anonymous-raters"),
    "anatomy": (
        "--roi", "--roi-margin-mm", "--roi-weight", "--intensity-prior", "--prior-strength",
        "--prior-channel", "--raise-unmarked",
    ),
}  # fmt: skip
# command -> title of a group -> its flags; the others stay among the options
GROUPS = {
    "convert": _FILES,
    "inspect": _FILES,
    "benchmark": {
        "trainings": ("-c", "-f", "-tr", "-p", "--seeds", "--epochs", "--iterations", "-device"),
        "scores and report": (
            "--truth", "--threshold", "--primary", "--calibrate", "--test", "--margin",
        ),
        "files of the truth": (
            "--truth-labels", "--truth-fusion", "--regrid", "--class-axis", "--rater-axis", "--soft-scale",
        ),
        "second round": ("--refine", "--refine-tr"),
        "where and when": ("--jobs", "--only", "--cluster", "--cluster-options", "--dry-run"),
    },
}  # fmt: skip

GO_ON = {
    "convert": "add --resume to the same command, and it goes on where it stopped",
    "preprocess": "the same command goes on where it stopped",
    "benchmark": "the same command goes on: finished trainings stay, others continue from their checkpoint",
    "refine": "add --resume to the same command, and it goes on where it stopped",
    "demo": "add --overwrite to the same command; finished trainings stay",
}


def example_of(program: str) -> str | None:
    """The example of a command, by the last word of its program."""
    command = program.rpartition(" ")[2]
    return f"example:\n  {program} {EXAMPLES[command]}" if command in EXAMPLES else None


def groups_of(program: str) -> dict[str, tuple[str, ...]]:
    """The groups of flags of a command, by the last word of its program."""
    return GROUPS.get(program.rpartition(" ")[2], {})


def how_to_go_on(program: str) -> str:
    """What to do after Ctrl-C."""
    return GO_ON.get(program.rpartition(" ")[2], "nothing is half-written; the same command starts again")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Appends the default of a flag where its help does not name it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        is_silent = action.default in (None, False, argparse.SUPPRESS, [], ())
        if is_silent or action.nargs == 0 or "default" in text.lower():
            return text
        value = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f"{text} (default {str(value).replace('%', '%%')})"

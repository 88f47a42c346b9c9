"""Messages that name flags, in the words of Python: ``--min-raters 3`` is ``min_raters 3``."""

from __future__ import annotations

import re
from collections.abc import Collection

# a flag -> arguments that stand for it; the first that the function has is named
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "-i": ("predictions", "folders"),
    "-o": ("output", "file", "path", "folder", "name"),
    "-d": ("dataset_id", "dataset"),
    "-n": ("name", "dataset"),
    "-c": ("configuration", "configurations"),
    "-f": ("fold", "folds"),
    "-p": ("plans",),
    "-tr": ("trainer", "trainers"),
    "-np": ("num_processes",),
    "-device": ("device",),
    "--roi": ("rois", "names"),
    "--calibrated": ("calibrated",),
    "--calibration": ("calibration", "file"),
    "--calibration-file": ("file",),
    "--cases-csv": ("path", "cases"),
    "--groups": ("groups", "path"),
    "--test-cases": ("names",),
    "--rater-datasets": ("folders",),
    "--missing-raters": ("handling",),
    "--cluster": ("kind",),
    "--cluster-options": ("options",),
    "--margin": ("margins",),
    "--cascade": ("with_cascade",),
    "--link-images": ("links_images",),
    "--seed": ("seeds",),
}
# a flag -> what Python has for it, where the function itself has no such argument
ELSEWHERE: dict[str, str] = {
    "--rater-labels": "FileOptions(rater_labels=...)",
    "--regrid": "FileOptions(regrid=...)",
    "--soft-scale": "FileOptions(soft_scale=...)",
    "--class-axis": "axis of SoftFiles and class_axis of FileOptions",
    "--staple-scope": "Fusion(scope=...)",
    "--anonymous-raters": "Fusion(has_anonymous_raters=True)",
    "--weights": 'Fusion(options={"weights": ...})',
    "--roi": "RoiPrior(names=...)",
    "--roi-margin-mm": "RoiPrior(margin_mm=...)",
    "--roi-weight": "RoiPrior(weights=...)",
    "--intensity-prior": "IntensityPrior(direction=...)",
    "--prior-strength": "IntensityPrior(strength=...)",
    "--prior-channel": "IntensityPrior(channel=...)",
    "--raise-unmarked": "IntensityPrior(raises_unmarked=True)",
    "--images": "Case.images",
    "--raters": "Case.raters",
    "--soft": "Case.soft",
    "--ignore": "Case.ignore",
    "--groups": "with_groups",
    "--test-cases": "with_test_cases",
    "--missing-raters": "with_missing_raters",
    "--cases-csv": "read_case_table",
    "--rater-datasets": "read_rater_datasets",
    "--into": "add_soft_labels",
    "--extra-files": "extra_files of find_cases",
    "--rater-axis": "RaterFiles(axis=...)",
    "--rater-names": "RaterFiles(names=...)",
    "--single-rater": "RaterFiles(has_single_rater=True)",
    "--min-raters": "Fusion(min_raters=...)",
    "--few-raters": "Fusion(few_raters=...)",
    "--case-column": "case_column",
    "--group-column": "group_column",
    "--truth": "truth",
    "--labels": "labels",
    "--calibration": "calibration",
    "--threshold": "threshold",
    "--threshold-file": "threshold_file",
    "--split": "split",
    "--against": "against",
    "--beta": "beta",
    "--overwrite": "overwrite",
    "--resume": "resume",
    "--regions": "labels",
    "--iterations": "Budget(iterations=...)",
    "--epochs": "Budget(epochs=...)",
    "--features": "NetworkSize(features=...)",
    "--batch-size": "NetworkSize(batch_size=...)",
    "--patch-size": "NetworkSize(patch_size=...)",
    "--max-stages": "NetworkSize(max_stages=...)",
    "--calibrate": "calibrate",
    "-c": "configurations",
    "-device": "device",
    "-p": "plans",
    "--dark-foreground": "as_dark",
    "--refine": "SecondRound",
    "--refine-tr": "SecondRound(trainers=...)",
    "-tr": "trainers",
    "-np": "num_processes",
    "-i": "predictions",
    "-o": "output",
    "-d": "dataset",
    "-n": "name",
    "-f": "folds",
}
# the same where the files of a truth are meant: in functions that take one
OF_TRUTH = {
    "--truth-labels": "labels",
    "--truth-fusion": "fusion",
    "--regrid": "regrid",
    "--class-axis": "class_axis",
    "--rater-axis": "rater_axis",
    "--soft-scale": "soft_scale",
}
WITH_A_TRUTH = ("truth", "scoring", "goal")
# a flag -> an argument that is a record, and the flag's place in it
IN_RECORDS: dict[str, tuple[str, str]] = {
    "-np": ("running", "Running(num_processes=...)"),
    "--overwrite": ("running", "Running(overwrite=True)"),
    "--resume": ("running", "Running(resume=True)"),
    "--link-images": ("files", "FileOptions(links_images=True)"),
}
SWITCHES = ("overwrite", "resume", "links_images", "has_single_rater", "with_cascade", "calibrated")
# commands stay as they are: in backquotes, or up to the end of their clause
COMMAND = re.compile(
    r"`[^`]*`|\b(?:nnUNetv2_\w+|nnunet_softlabel [a-z]|pip install)[^;,)]*?(?=[;,)]|\. |\.$|$)"
)
CHOICES = "case|dataset|brighter|darker|nearest|linear|first|last|mean|drop|refuse"
FLAG = re.compile(r"(?<![\w/.-])--?[a-z][a-z-]*\b(?!\.\w)")


def in_words_of_python(message: str, arguments: Collection[str]) -> str:
    """The message with arguments in place of flags.

    >>> in_words_of_python("--split Tx: add --overwrite, or another -o.", ["split", "file", "overwrite"])
    'split Tx: add overwrite=True, or another file.'
    """
    parts, end = [], 0
    for command in COMMAND.finditer(message):
        parts += [_translated(message[end : command.start()], arguments), command.group()]
        end = command.end()
    return "".join([*parts, _translated(message[end:], arguments)])


def _translated(text: str, arguments: Collection[str]) -> str:
    chosen = re.compile(rf"({FLAG.pattern}) ({CHOICES})\b")
    text = chosen.sub(lambda match: _with_choice(word_for(match[1], arguments), match[2]), text)
    return FLAG.sub(lambda match: word_for(match.group(), arguments), text)


def _with_choice(word: str, choice: str) -> str:
    return word.replace("...", repr(choice)) if "..." in word else f"{word} {choice}"


def word_for(flag: str, arguments: Collection[str]) -> str:
    """What Python calls a flag; a flag that Python does not have stays."""
    own = flag.lstrip("-").replace("-", "_")
    for name in (*ARGUMENTS.get(flag, ()), own):
        if name in arguments:
            return f"{name}=True" if name in SWITCHES else name
    if flag in OF_TRUTH and (flag not in ELSEWHERE or any(name in arguments for name in WITH_A_TRUTH)):
        return f"Truth({OF_TRUTH[flag]}=...)"
    if flag in IN_RECORDS and IN_RECORDS[flag][0] in arguments:
        return IN_RECORDS[flag][1]
    if flag in ELSEWHERE:
        word = ELSEWHERE[flag]
        return f"{word}=True" if word in SWITCHES else word
    return flag

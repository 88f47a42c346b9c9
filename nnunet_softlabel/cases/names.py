"""Names of cases and raters that can be file names, and that nnU-Net does not misread."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import FORMULA_SIGNS, is_formula
from nnunet_softlabel.formats.images import FLAT_ENDINGS, VOLUME_ENDINGS

# bytes: the longest file name is 255, and what is written adds an ending, or the name of a temporary file
LONGEST_NAME = 190
IMAGE_ENDINGS = (*VOLUME_ENDINGS, *FLAT_ENDINGS)


def check_group(name: str, what: str) -> None:
    """Refuse a group that a spreadsheet would run as a formula; numbers of any sign are good.

    Raises:
        DatasetError: naming it.
    """
    if is_formula(name):
        raise DatasetError(
            f"{what} {name!r}: a group cannot begin with = + - @: a spreadsheet would run it as a formula; "
            f"rename it."
        )


def check_case_names(names: Iterable[str]) -> None:
    """Refuse names that cannot be file names, names that nnU-Net would misread, and names given twice.

    Raises:
        DatasetError: naming the case.
    """
    seen: set[str] = set()
    for name in names:
        check_file_name(name, "Case")
        if name.endswith("_seg"):
            raise DatasetError(
                f"Case {name}: nnU-Net takes names that end in _seg for segmentations; rename it."
            )
        ending = next((end for end in IMAGE_ENDINGS if name.lower().endswith(end)), None)
        if ending is not None:
            raise DatasetError(
                f"Case {name}: a case name cannot end in {ending}, which readers of images take for the "
                f"format; write the whole ending into the pattern, as in {{case}}.nii.gz, or rename the file."
            )
        if name in seen:
            raise DatasetError(f"Case {name}: given twice; case names must be unique.")
        seen.add(name)
    check_spelling(seen, "Case")


def check_spelling(names: Iterable[str], what: str) -> None:
    """Refuse names that look alike and differ in how Unicode spells them, as macOS and Linux do.

    Raises:
        DatasetError: naming it.
    """
    spelt: dict[str, str] = {}
    for name in sorted(names):
        other = spelt.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise DatasetError(
                f"{what} {name}: two names look like this one and differ in their Unicode spelling (NFC, "
                f"NFD); rename one of the files."
            )


def check_file_name(name: str, what: str) -> None:
    """Refuse a name of a case or rater that cannot be the name of a file.

    Raises:
        DatasetError: naming it.
    """
    if name[:1] in FORMULA_SIGNS or any(ord(letter) < 32 for letter in name):
        raise DatasetError(
            f"{what} {name!r}: a name cannot begin with = + - @ or hold control characters: a spreadsheet "
            f"would run it as a formula; rename it."
        )
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise DatasetError(f"{what} {name[:40]!r}...: a name has at most {LONGEST_NAME} bytes; shorten it.")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DatasetError(f"{what} {name!r}: is no UTF-8 text; rename the file.") from error
    if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise DatasetError(
            f"{what} {name!r}: a name cannot be empty, begin with a dot or hold a path separator; rename it."
        )


def check_spelled_alike(what: str, strangers: Iterable[str], cases: Iterable[str]) -> None:
    """Refuse names that look like the name of a case, but store its accents in another way.

    Raises:
        DatasetError: naming both.
    """
    known = {unicodedata.normalize("NFC", name): name for name in cases}
    for stranger in strangers:
        case = known.get(unicodedata.normalize("NFC", stranger), stranger)
        if case != stranger:
            raise DatasetError(
                f"{what}: {stranger!r} looks like the case {case!r} of an image, but accents are stored in "
                f"two ways ({stranger!a}, {case!a}), as macOS and other systems do; rename one of the two."
            )

"""Names of cases and raters that can be file names, and that nnU-Net does not misread."""

from __future__ import annotations

from collections.abc import Iterable

from nnunet_softlabel.errors import DatasetError


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
        if name in seen:
            raise DatasetError(f"Case {name}: given twice; case names must be unique.")
        seen.add(name)


def check_file_name(name: str, what: str) -> None:
    """Refuse a name of a case or rater that cannot be the name of a file.

    Raises:
        DatasetError: naming it.
    """
    if not name or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise DatasetError(
            f"{what} {name!r}: a name cannot be empty, begin with a dot or hold a path separator; rename it."
        )

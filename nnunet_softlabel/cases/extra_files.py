"""Files of cases that have no image: refused, or ignored and named."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nnunet_softlabel.errors import DatasetError

ExtraFiles = Literal["refuse", "ignore"]


class Extra:
    """What happens to files of cases that have no image."""

    def __init__(self, handling: ExtraFiles) -> None:
        self.handling = handling
        self.ignored: list[str] = []

    def add(self, path: str | Path, what: str) -> None:
        """Refuse the file, or keep it for the notes."""
        if self.handling == "refuse":
            raise DatasetError(
                f"{path}: {what}, which has no image; add or remove it, or leave such files out with "
                f"--extra-files ignore."
            )
        self.ignored.append(str(path))

    def notes(self) -> list[str]:
        """One sentence that names the files, if there are any."""
        if not self.ignored:
            return []
        return [f"Ignored, since their cases have no image: {', '.join(sorted(self.ignored))}."]

"""What became of a cell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class CellStatus(Enum):
    """Of a cell; the first three are in its record."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"
    UNTRAINED = "not trained"
    ELSEWHERE = "in training elsewhere"
    UNSCORED = "trained, but not scored"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell, and why where there is more to say.

    >>> print(Outcome(CellStatus.UNTRAINED, "waits for another"))
    not trained: waits for another

    Attributes:
        status: in a word.
        why: in words.
    """

    status: CellStatus
    why: str = ""

    @property
    def is_done(self) -> bool:
        """True if the training is done, and nothing kept it from being scored."""
        return self.status is CellStatus.DONE

    def __str__(self) -> str:
        words = "started, not finished" if self.status is CellStatus.STARTED else self.status.value
        return f"{words}: {self.why}" if self.why else words

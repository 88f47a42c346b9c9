"""File patterns with placeholders, ``raters/{case}_rater{rater}.nii.gz``, and what they find."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from glob import escape, glob
from pathlib import Path

from nnunet_softlabel.errors import UsageError


class Pattern:
    """A path with placeholders, as in ``raters/{case}_rater{rater}.nii.gz``.

    Raises:
        UsageError: for an unknown placeholder, or if ``{case}`` is missing.
    """

    def __init__(self, text: str, flag: str, placeholders: Sequence[str]) -> None:
        self.text, self.flag = str(Path(text).expanduser()), flag
        self.parts = re.split(r"\{(\w+)\}", self.text)
        unknown = set(self.parts[1::2]) - set(placeholders)
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in placeholders)
            raise UsageError(f"{flag} {text}: unknown placeholder {{{min(unknown)}}}; known are {known}.")
        if "case" not in self.parts[1::2]:
            raise UsageError(
                f"{flag} {text}: needs {{case}} where the case's name stands, as in {{case}}.nii.gz."
            )

    def has(self, placeholder: str) -> bool:
        """True if the placeholder occurs."""
        return placeholder in self.parts[1::2]

    def filled(self, **names: str) -> str:
        """The path with names in place of the placeholders."""
        return "".join(names[part] if i % 2 else part for i, part in enumerate(self.parts))

    def files(self) -> list[str]:
        """All files that fit, whatever the placeholders stand for."""
        found = glob("".join("*" if i % 2 else escape(part) for i, part in enumerate(self.parts)))
        return sorted(path for path in found if Path(path).is_file())

    def regex(self, **choices: Iterable[str]) -> re.Pattern[str]:
        """A regular expression with a group per placeholder, restricted to ``choices`` where given."""
        seen: set[str] = set()
        expression = ""
        for i, part in enumerate(self.parts):
            if not i % 2:
                expression += re.escape(part)
            elif part in seen:
                expression += f"(?P={part})"
            else:
                seen.add(part)
                # longest first, so that of the names `a` and `a_b` the file `a_b_1` belongs to `a_b`
                names = (
                    sorted(choices[part], key=lambda name: (-len(name), name)) if part in choices else None
                )
                inner = "|".join(map(re.escape, names)) if names is not None else "[^/]+"
                expression += f"(?P<{part}>{inner})"
        return re.compile(expression)


class CaseMatcher:
    """Finds the case, rater and label in a path, given the cases there are.

    Of the names ``a`` and ``a_b`` the file ``a_b_1`` belongs to ``a_b``.
    """

    def __init__(self, pattern: Pattern, cases: Iterable[str], label_names: Sequence[str] = ()) -> None:
        self.cases = set(cases)
        labels = {"label": label_names} if label_names else {}
        self.anything = pattern.regex(**labels)
        self._make_exact = lambda: pattern.regex(case=self.cases, **labels)
        self._exact: re.Pattern[str] | None = None

    def match(self, path: str) -> re.Match[str] | None:
        """The match if the file is of one of the cases."""
        match = self.anything.fullmatch(path)
        if match is None or match["case"] in self.cases:
            return match
        if self._exact is None:  # slow with thousands of cases, and rarely needed
            self._exact = self._make_exact()
        return self._exact.fullmatch(path)

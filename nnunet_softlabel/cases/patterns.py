"""File patterns with placeholders and wildcards, ``raters/*/{case}_{rater}.nii.gz``, and what they find."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from glob import escape, glob
from pathlib import Path

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.file_checks import check_is_file
from nnunet_softlabel.formats.images import FLAT_ENDINGS, VOLUME_ENDINGS

OPENING, CLOSING = "\0", "\1"  # in no path
WHOLE_NUMBER = "(?!(?<=[0-9])[0-9])"  # not between two digits


def literal(path: Path) -> str:
    """The text of a pattern that means this very path, braces included."""
    return str(path).replace("{", "{{").replace("}", "}}")


class Pattern:
    """A path with placeholders, as in ``raters/{case}_rater{rater}.nii.gz``.

    ``{rater:r1,r2}`` names what a placeholder may stand for. ``*`` stands for any part of a file or folder
    name, ``**`` for any number of folders, ``{{`` and ``}}`` for braces.
    Hidden files, which macOS's ``._*`` are too, never fit.

    Raises:
        UsageError: for an unknown placeholder, or if ``{case}`` is missing.
    """

    def __init__(self, text: str, flag: str, placeholders: Sequence[str]) -> None:
        self.text, self.flag = str(Path(os.path.expanduser(text))), flag  # ~nobody stays
        marked = self.text.replace("{{", OPENING).replace("}}", CLOSING)
        pieces = re.split(r"\{(\w+)(?::([^{}]*))?\}", marked)
        self.literals = [piece.replace(OPENING, "{").replace(CLOSING, "}") for piece in pieces[::3]]
        self.names = pieces[1::3]
        self.choices: dict[str, list[str]] = {}
        for name, choice in zip(self.names, pieces[2::3], strict=True):
            if choice is not None:
                self.choices[name] = [one.strip() for one in choice.split(",")]
        unknown = set(self.names) - set(placeholders)
        if unknown:
            known = ", ".join(f"{{{name}}}" for name in placeholders)
            raise UsageError(
                f"{flag} {text}: unknown placeholder {{{min(unknown)}}}; known are {known} "
                f"(a brace of a name is written {{{{ or }}}})."
            )
        if "case" not in self.names:
            quote = "; quote patterns, or the shell replaces their stars" if Path(text).is_file() else ""
            raise UsageError(
                f"{flag} {text}: needs {{case}} where the case's name stands, as in {{case}}.nii.gz{quote}."
            )
        if any("**" in folder and folder != "**" for folder in self.text.split("/")):
            raise UsageError(f"{flag} {text}: ** must be a whole folder, as in scans/**/{{case}}.nii.gz.")

    def has(self, placeholder: str) -> bool:
        """True if the placeholder occurs."""
        return placeholder in self.names

    def filled(self, **names: str) -> str:
        """The path with names in place of the placeholders, for messages."""
        pairs = zip([names[name] for name in self.names], self.literals[1:], strict=True)
        return self.literals[0] + "".join(a + b for a, b in pairs)

    def files(self) -> list[str]:
        """All files that fit, whatever the placeholders stand for.

        Raises:
            UsageError: if nothing fits a name that the pattern lists.
        """
        found = self._found(self._joined(["*"] * len(self.names)))
        if self.choices:
            matches = {path: match for path in found if (match := self.regex().fullmatch(path))}
            found = list(matches)
            for name, choices in self.choices.items():
                for missing in [c for c in choices if not any(m[name] == c for m in matches.values())]:
                    raise UsageError(
                        f"{self.flag} {self.text}: no file fits {name} {missing!r}; correct it, or leave it "
                        f"out."
                    )
        return found

    def _joined(self, between: Sequence[str]) -> str:
        literals = ["*".join(map(escape, literal.split("*"))) for literal in self.literals]
        return literals[0] + "".join(a + b for a, b in zip(between, literals[1:], strict=True))

    def _found(self, pattern: str) -> list[str]:
        """Files that fit; no name that a wildcard or placeholder stands for begins with a dot."""
        found = {path for path in glob(pattern, recursive=True) if not Path(path).name.startswith(".")}
        return sorted(path for path in found if _is_file(path))

    def regex(self, **choices: Iterable[str]) -> re.Pattern[str]:
        """A regular expression with a group per placeholder, restricted to ``choices`` where given."""
        allowed = {**self.choices, **choices}
        seen: set[str] = set()
        expression = _literal_expression(self.literals[0], ends_at_case=self.names[0] == "case")
        following = [*self.names[1:], ""]
        for name, literal, next_name in zip(self.names, self.literals[1:], following, strict=True):
            if name in seen:
                expression += f"(?P={name})"
            else:
                seen.add(name)
                # longest first, so that of the names `a` and `a_b` the file `a_b_1` belongs to `a_b`
                names = sorted(allowed[name], key=lambda n: (-len(n), n)) if name in allowed else None
                inner = "|".join(map(re.escape, names)) if names is not None else "[^/]+"
                expression += f"(?P<{name}>{inner})"
            expression += _literal_expression(
                literal, begins_at_case=name == "case", ends_at_case=next_name == "case"
            )
        return re.compile(expression)


def _is_file(path: str) -> bool:
    """True for files and for what stands in their place; a folder may be another that fits by chance.

    Raises:
        DatasetError: for a link to nowhere or a pipe: a rater would be left out without a word.
    """
    if Path(path).is_dir():
        if any(path.lower().endswith(ending) for ending in (*FLAT_ENDINGS, *VOLUME_ENDINGS)):
            check_is_file(Path(path))
        return False
    check_is_file(Path(path))
    return True


def _literal_expression(text: str, *, begins_at_case: bool = False, ends_at_case: bool = False) -> str:
    """The regular expression of the text between placeholders, in which ``*`` and ``**`` are wildcards.

    A wildcard beside ``{case}`` cuts no number: ``{case}*`` finds ``k1_v2`` for the case k1, not ``k10``.
    """
    pieces = [piece for piece in re.split(r"(\*\*/|\*)", text) if piece]
    found = [{"**/": "(?:[^/]+/)*", "*": "[^/]*"}.get(piece, re.escape(piece)) for piece in pieces]
    if begins_at_case and pieces[:1] == ["*"]:
        found[0] = f"(?:{WHOLE_NUMBER}[^/]+|)"
    if ends_at_case and pieces[-1:] == ["*"]:
        found[-1] = f"(?:[^/]+{WHOLE_NUMBER}|)"
    return "".join(found)


class CaseMatcher:
    """Finds the case, rater and label in a path, given the cases there are.

    The longest name that fits wins: of the names ``a`` and ``a_b`` the file ``a_b_1`` belongs to ``a_b``, of
    ``12`` and ``A_12`` the file ``anna_A_12`` to ``A_12``.
    """

    def __init__(self, pattern: Pattern, cases: Iterable[str], label_names: Sequence[str] = ()) -> None:
        self.cases, self.pattern = set(cases), pattern
        self.labels = {"label": label_names} if label_names else {}
        self.anything = pattern.regex(**self.labels)
        self.lengths = sorted({len(case) for case in self.cases}, reverse=True)
        self._of_case: dict[str, re.Pattern[str]] = {}

    def match(self, path: str) -> re.Match[str] | None:
        """The match if the file is of one of the cases."""
        match = self.anything.fullmatch(path)
        if match is None:
            return None
        for length in self.lengths:
            if length == len(match["case"]) and match["case"] in self.cases:
                return match
            parts = {path[i : i + length] for i in range(len(path) - length + 1)}
            for case in sorted(parts & self.cases):
                if longer := self._regex_of(case).fullmatch(path):
                    return longer
        return None

    def _regex_of(self, case: str) -> re.Pattern[str]:
        if case not in self._of_case:
            self._of_case[case] = self.pattern.regex(case=[case], **self.labels)
        return self._of_case[case]

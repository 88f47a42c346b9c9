"""JSON, CSV and text on disk, written whole or not at all; what is there is replaced only if asked for."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from nnunet_softlabel.errors import DatasetError, UsageError

Json = dict[str, Any]  # of another program, or not checked yet

FORMULA_SIGNS = ("=", "+", "-", "@")  # with which a cell begins that a spreadsheet runs


def check_is_no_pipe(path: Path) -> None:
    """Refuse a pipe, in which nobody may ever write; those that a shell makes for ``<(command)`` are good.

    Raises:
        DatasetError: for a pipe.
    """
    with suppress(OSError, ValueError):  # has its own error where it is opened
        if path.is_fifo() and not path.is_relative_to("/dev"):
            raise DatasetError(f"{path}: is a pipe, no file; write what comes out of it into a file.")


def is_formula(text: str) -> bool:
    """True for a text that a spreadsheet would run: it begins with ``= + - @`` and is no number."""
    try:
        float(text)
    except ValueError:
        return text[:1] in FORMULA_SIGNS
    return False


def read_json(path: Path) -> Json:
    """Read a JSON object.

    Raises:
        DatasetError: if the file is missing or no JSON.
    """
    check_is_no_pipe(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: no such file.") from error
    except (ValueError, OSError, RecursionError, MemoryError) as error:
        raise DatasetError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path}: holds a {type(content).__name__}, expected an object.")
    return content


@contextmanager
def expecting_shape(path: Path, remedy: str) -> Iterator[None]:
    """Say of a JSON file that it is of another shape than what is taken from it; wrap nothing else in it.

    Args:
        path: the file.
        remedy: what to do, a clause without full stop.

    Raises:
        DatasetError: in place of what a missing key or a value of another type raises.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        what = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise DatasetError(f"{path}: is not of the expected shape ({what}); {remedy}.") from error


def write_json(
    path: Path, content: Any, temporary: Path | None = None, *, is_for_people: bool = True
) -> None:
    """Write JSON so that a reader sees the old file or the whole new one, never a part.

    Args:
        path: the file.
        content: what goes into it.
        temporary: where the new file grows, on the same file system; None: beside it, under a name of its
            own.
        is_for_people: with a line per value, which takes Python's slow encoder; else in one line.
    """
    write_text(path, json.dumps(content, indent=2 if is_for_people else None) + "\n", temporary)


def write_text(path: Path, text: str, temporary: Path | None = None) -> None:
    """Write a text in the same way; see `write_json`."""
    temporary = temporary or temporary_beside(path)
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # there is one after an error only


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, leaves_out_others: bool = False
) -> None:
    """Write a table in the same way; numbers with 9 digits, a value that a row lacks stays empty.

    Raises:
        ValueError: for a row with another column, unless ``leaves_out_others``.
    """
    text = io.StringIO(newline="")
    extra: Literal["raise", "ignore"] = "ignore" if leaves_out_others else "raise"
    writer = csv.DictWriter(text, columns, restval="", extrasaction=extra, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
    write_text(path, text.getvalue())


def temporary_beside(path: Path) -> Path:
    """Where the new content of a file or folder grows: a name that no other process takes, on any machine."""
    return path.with_name(f".{path.name}.{uuid4().hex}.tmp")


def refuse_existing(
    paths: Iterable[Path], *, overwrite: bool, advice: str = "choose another -o, or pass --overwrite"
) -> None:
    """Refuse to replace what is there.

    Args:
        paths: what is going to be written.
        overwrite: it may be replaced.
        advice: what the user can do.

    Raises:
        UsageError: naming the first.
    """
    there = next((path for path in paths if path.exists() or path.is_symlink()), None)
    if there is not None and not overwrite:
        raise UsageError(f"{there}: is already there; {advice}.")


def refuse_left_over(output: Path, names: Iterable[str], pattern: str) -> None:
    """Refuse a folder in which files of an earlier run would stay beside the new ones.

    Args:
        output: folder, which may not be there.
        names: of the files that are going to be written.
        pattern: of such files.

    Raises:
        UsageError: naming the first.
    """
    left = sorted({path.name for path in visible(output, pattern)}.difference(names))
    if left:
        raise UsageError(
            f"{output / left[0]}: is no result of this run, and an earlier run wrote into the folder; choose "
            f"another -o, or remove the earlier results."
        )


def hash_files(files: Sequence[Path]) -> str:
    """One word for the content of files."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def check_can_be_made(path: Path) -> None:
    """Refuse, before the work, a file or folder that could not be made afterwards.

    Raises:
        UsageError: naming it.
    """
    nearest = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    probe = temporary_beside(nearest / "probe")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"-o {path}: cannot be made ({error.strerror}); choose another place.") from error


def refuse_another_kind(path: Path, key: str, command: str) -> None:
    """Refuse to replace a JSON file that is no result of a command, such as nnU-Net's own files.

    Args:
        path: the file, which may be there.
        key: that results of the command have.
        command: its name.

    Raises:
        UsageError: if another file is there.
        DatasetError: if what is there is no JSON.
    """
    content = read_json(path) if path.exists() else {}
    if content and key not in content:
        raise UsageError(f"-o {path}: is there and no result of {command}; choose another place.")


def visible(folder: Path, pattern: str) -> list[Path]:
    """What fits the pattern in a folder, sorted, without hidden files such as macOS's ``._*``."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))

"""What the files of a conversion hold, as one word: was a data set made from the files that are there?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from nnunet_softlabel.cases.case import Case, Source
from nnunet_softlabel.formats.channels import Channel


def digest_of_case(case: Case) -> str:
    """One word for the content of all files of a case, wherever they lie; arrays in memory have none."""
    digest = hashlib.sha256()
    others = {"ignore": case.ignore, "hard": case.hard}
    named: list[tuple[str, Source]] = [(f"image{i}", source) for i, source in enumerate(case.images)]
    for kind, sources in (("rater", case.raters), ("soft", case.soft), ("roi", case.rois)):
        named += [(f"{kind} {name}", source) for name, source in sorted(sources.items())]
    named += [(name, source) for name, source in others.items() if source is not None]
    if case.prediction is not None:
        named.append(("prediction", case.prediction))
    for name, source in named:
        digest.update(name.encode())
        for path in _files_of(source):
            digest.update(_digest_of_file(path))
    return digest.hexdigest()


def digest_of_sources(digests: Sequence[str]) -> str:
    """One word for all cases, in order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _files_of(source: Source) -> Iterator[Path]:
    if isinstance(source, Path):
        yield source
    elif isinstance(source, Channel):
        yield source.path
    elif isinstance(source, partial):  # a reader of a script, and the files that it reads
        for argument in (*source.args, *source.keywords.values()):
            paths = argument if isinstance(argument, list | tuple) else [argument]
            yield from (Path(path) for path in paths if isinstance(path, str | Path) and Path(path).is_file())


def _digest_of_file(path: Path) -> bytes:
    if not path.is_file():
        return b"none"  # has its own error where it is read
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()

"""What Python users write, as what the public functions work with; else an error that names the argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Any, TypeAlias


def as_path(value: Any, argument: str) -> Path:
    """A path from a text or a path.

    >>> as_path("data/images", "output").name
    'images'
    """
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{argument}: expected a path, got {described(value)}.")
    return Path(fspath(value))


def as_texts(value: Any, argument: str) -> list[str]:
    """Texts from one, or from several; paths count as texts.

    >>> as_texts("images/{case}.nii.gz", "images")
    ['images/{case}.nii.gz']
    """
    values = [value] if isinstance(value, str | PathLike) else value
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{argument}: expected a text or a list of texts, got {described(value)}.")
    texts = list(values)
    for text in texts:
        if not isinstance(text, str | PathLike):
            raise TypeError(f"{argument}: expected a list of texts, it holds {described(text)}.")
    return [fspath(text) for text in texts]


def as_label_texts(value: Any, argument: str = "labels") -> list[str]:
    """Labels as the command line writes them, from a mapping, one text, or several.

    >>> as_label_texts({"nodule": 1, "whole": [1, 2]})
    ['nodule=1', 'whole=1,2']
    """
    if not isinstance(value, Mapping):
        return as_texts(value, argument)
    texts = []
    for name, values in value.items():
        several = list(values) if isinstance(values, list | tuple) else [values]
        if not several or any(isinstance(v, bool) or not isinstance(v, int | str) for v in several):
            raise TypeError(
                f"{argument}: {name!r} needs a label value, or several, got {described(values)}; "
                f'as in {{"nodule": 1}}.'
            )
        texts.append(f"{name}={','.join(map(str, several))}")
    return texts


def described(value: Any) -> str:
    """Kind and value for a message.

    >>> described(3)
    'int 3'
    """
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '...'}"


# type hints of what `public` brings to one kind: list[str]
Texts: TypeAlias = Annotated[Sequence[str] | str, as_texts]
LabelTexts: TypeAlias = Annotated[Sequence[str] | Mapping[str, int | Sequence[int]], as_label_texts]

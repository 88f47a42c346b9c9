"""The door of every exported function: takes what Python users write, and names arguments where it refuses.

What is given is brought to the kind that the type hint asks for: a text becomes a path, one value a list of
one, ``{"nodule": 1}`` labels, a folder, a name or an id a data set. A class that knows how to make itself of
what users write has a class method ``from_argument(value, argument)``.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from nnunet_softlabel.arguments import described
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.flag_words import in_words_of_python

Thing = TypeVar("Thing")
# True while a command line runs: its user knows flags, and no arguments
is_command_line: ContextVar[bool] = ContextVar("is_command_line", default=False)
SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
MARK = "takes_what_python_users_write"
LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
MAPPINGS = (dict, collections.abc.Mapping)


def public(thing: Thing) -> Thing:
    """Decorate a function, or a class with its constructor.

    >>> @public
    ... def write(output: Path, names: Sequence[str]) -> tuple[str, list[str]]:
    ...     return output.name, list(names)
    >>> write("a/b", "anna")
    ('b', ['anna'])
    >>> write(3, "anna")
    Traceback (most recent call last):
    TypeError: output: expected a path, got int 3.
    """
    if isinstance(thing, type):
        constructor: Any = thing.__init__  # type: ignore[misc]
        setattr(thing, "__init__", _checked(constructor))  # noqa: B010
        setattr(thing, MARK, thing)
        return thing
    return cast(Thing, _checked(cast(Callable[..., Any], thing)))


def is_public(thing: Any) -> bool:
    """True for what `public` decorates itself, not for a subclass of it."""
    marked = getattr(thing, MARK, None)
    return marked is thing if isinstance(thing, type) else marked is not None


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @cache
    def hints() -> Mapping[str, Any]:  # at the first call: type hints may name what is defined later
        return get_type_hints(function, include_extras=True)

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            bound = signature.bind_partial(*args, **options)
        except TypeError:
            return function(*args, **options)  # says which argument is unknown
        for name, value in bound.arguments.items():
            if name in hints() and signature.parameters[name].kind not in SEVERAL:
                bound.arguments[name] = fitted(value, hints()[name], name)
        try:
            return function(*bound.args, **bound.kwargs)
        except (UsageError, DatasetError) as error:
            if not is_command_line.get() and error.args:
                error.args = (in_words_of_python(str(error), signature.parameters),)
            raise

    setattr(call, MARK, function)
    return call


def fitted(value: Any, hint: Any, argument: str) -> Any:
    """The value as the type hint asks for it.

    >>> fitted("a", Sequence[Path], "folders") == [Path("a")]
    True
    >>> fitted("often", Literal["once", "twice"], "when")
    Traceback (most recent call last):
    nnunet_softlabel.errors.UsageError: when: 'often' is none of 'once', 'twice'.

    Raises:
        TypeError: naming the argument, for a value of another kind.
        UsageError: naming the argument, for a text that is none of those to choose from.
    """
    origin = get_origin(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return value
    if origin is Annotated:  # with the function that makes it of what users write
        return get_args(hint)[1](value, argument)
    if origin in (Union, types.UnionType):
        return _fitted_to_one_of(value, get_args(hint), argument)
    if origin is Literal:
        return _chosen(value, get_args(hint), argument)
    if hint in LISTS or origin in LISTS:
        return _list(value, hint, argument)
    if hint in MAPPINGS or origin in MAPPINGS or is_typeddict(hint):
        return _mapping(value, get_args(hint), argument)
    if origin is collections.abc.Callable or hint is collections.abc.Callable:
        return value if callable(value) else _refuse(value, "a function", argument)
    return _single(value, origin or hint, argument)


def _single(value: Any, kind: Any, argument: str) -> Any:
    if kind is bool:
        return bool(value) if _is_bool(value) else _refuse(value, "True or False", argument)
    if kind is int:
        is_whole = isinstance(value, Integral) and not _is_bool(value)
        return int(value) if is_whole else _refuse(value, "a whole number", argument)
    if kind is float:
        is_number = isinstance(value, Real) and not _is_bool(value)
        return float(value) if is_number else _refuse(value, "a number", argument)
    if kind is str:
        return fspath(value) if isinstance(value, str | PathLike) else _refuse(value, "a text", argument)
    if kind is Path:
        is_path = isinstance(value, str | PathLike)
        return Path(fspath(value)) if is_path else _refuse(value, "a path", argument)
    if kind is type(None):
        return value if value is None else _refuse(value, "None", argument)
    if not isinstance(kind, type) or isinstance(value, kind):
        return value
    if hasattr(kind, "from_argument"):
        return kind.from_argument(value, argument)
    return _refuse(value, f"a {kind.__name__}", argument)


def _fitted_to_one_of(value: Any, hints: Sequence[Any], argument: str) -> Any:
    """The first that takes the value as it is, else the first that it can be made into."""
    wishes = []
    for hint in sorted(hints, key=lambda hint: not _is_already(value, hint)):
        try:
            return fitted(value, hint, argument)
        except TypeError as error:
            if not str(error).startswith(f"{argument}: expected "):
                raise
            wishes.append(str(error).removeprefix(f"{argument}: expected ").rpartition(", got ")[0])
    wished = dict.fromkeys(wish for wish in wishes if wish)
    return _refuse(value, " or ".join(wished), argument)


def _is_already(value: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind is Literal:
        return value in get_args(hint) if isinstance(value, str | int) else False
    if is_typeddict(kind):
        return isinstance(value, Mapping)
    if kind in (int, float):
        return isinstance(value, kind) and not _is_bool(value)
    if kind in LISTS and isinstance(value, str | bytes | Mapping):
        return False
    return isinstance(kind, type) and isinstance(value, kind)


def _chosen(value: Any, choices: Sequence[Any], argument: str) -> Any:
    if not isinstance(value, str | int):
        _refuse(value, f"one of {', '.join(map(repr, choices))}", argument)
    if value not in choices:
        raise UsageError(f"{argument}: {value!r} is none of {', '.join(map(repr, choices))}.")
    return value


def _list(value: Any, hint: Any, argument: str) -> Any:
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is list and isinstance(value, list):
        return value  # it may be there to be filled
    fixed = inner if origin is tuple and Ellipsis not in inner else ()
    of = inner[0] if inner and not fixed else Any
    is_one = isinstance(value, str | PathLike) or not isinstance(value, Iterable)
    if isinstance(value, Mapping | bytes) or (is_one and of is Any):
        _refuse(value, "a list", argument)
    try:
        values = [fitted(item, of, argument) for item in ([value] if is_one else value)]
    except TypeError as error:
        if not str(error).startswith(f"{argument}: expected "):
            raise  # of the user's own iterator
        wished = str(error).removeprefix(f"{argument}: expected ")
        raise TypeError(f"{argument}: expected a list; each item: {wished}") from None
    if fixed and len(values) != len(fixed):
        raise TypeError(f"{argument}: expected {len(fixed)} values, got {described(value)}.")
    return tuple(values) if origin is tuple else values


def _mapping(value: Any, inner: Sequence[Any], argument: str) -> Any:
    if not isinstance(value, Mapping):
        _refuse(value, "a mapping such as a dict", argument)
    if len(inner) != 2:
        return value
    fit = {key: fitted(item, inner[1], f"{argument}[{key!r}]") for key, item in value.items()}
    return value if all(fit[key] is value[key] for key in fit) else fit


def _is_bool(value: Any) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # numpy's too


def _refuse(value: Any, wished: str, argument: str) -> Any:
    raise TypeError(f"{argument}: expected {wished}, got {described(value)}.")

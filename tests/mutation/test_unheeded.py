"""Mutants are made where values come from."""

from __future__ import annotations

import pytest

pytest.importorskip("cosmic_ray")
from tests.mutation.mutants import unheeded

SOURCE = """@dataclass(frozen=True)
class A:
    x: int = 1
def f(a: int, *, b=3 + 4) -> int | None:
    return a * b
"""


def is_left_out(text: str) -> bool:
    line = next(n for n, content in enumerate(SOURCE.splitlines()) if text in content)
    place = line + 1, SOURCE.splitlines()[line].index(text)
    return any(begin <= place < end for begin, end in unheeded(SOURCE))


@pytest.mark.parametrize("text", ["True", "int = 1", "*, b", "int | None"])
def test_what_no_value_depends_on_is_left_out(text):
    assert is_left_out(text)


@pytest.mark.parametrize("text", ["= 1", "3 + 4", "+ 4", "* b"])
def test_values_defaults_and_bodies_are_changed(text):
    assert not is_left_out(text)

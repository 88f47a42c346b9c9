"""Mutants are made where values come from."""

from __future__ import annotations

import pytest

pytest.importorskip("cosmic_ray")
from tests.mutation.mutants import drawn, lines_of_statement, mutants_of, unheeded

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


SHORT = """def f(a):
    if (a >
            3):
        return a + 1
    return 0
"""


@pytest.mark.parametrize(("line", "lines"), [(2, {2, 3}), (3, {2, 3}), (4, {4}), (5, {5})])
def test_a_mutant_concerns_the_lines_of_its_statement(line, lines):
    assert set(lines_of_statement(SHORT, line)) == lines


def test_mutants_are_made_of_operators_comparisons_and_numbers_and_drawn_alike_each_time():
    mutants = list(mutants_of("m.py", SHORT))
    changed = {"".join(mutant.code(SHORT).split()) for mutant in mutants}
    plain = "".join(SHORT.split())
    assert {plain.replace(a, b) for a, b in ((">", ">="), ("+", "-"), ("3", "4"))} <= changed
    assert all(mutant.code(SHORT) != SHORT for mutant in mutants)
    some = drawn(mutants, 5, 0)
    assert some == drawn(mutants[::-1], 5, 0) != drawn(mutants, 5, 1)
    assert len(drawn(mutants, 999, 0)) == len(mutants)
    assert any("return a - 1" in mutant.difference(SHORT) for mutant in mutants)

"""Numbers behind the tables of the studies, worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from docs.studies.shared.numbers import (
    by_seed,
    difference_text,
    markdown,
    mean_and_interval,
    mean_text,
    paired,
    ranks,
    select,
    write_tables,
)

ROWS = [
    {"name": "a", "seed": "0", "x": "1"},
    {"name": "a", "seed": "1", "x": "3"},
    {"name": "b", "seed": "0", "x": "2"},
    {"name": "b", "seed": "1", "x": "6"},
    {"name": "b", "seed": "1", "x": "8"},
]


def test_rows_of_a_seed_are_averaged():
    assert by_seed(select(ROWS, name="b"), "x") == {"0": 2.0, "1": 7.0}


def test_difference_is_paired_by_seed():
    # seeds: 2 - 1 = 1 and 7 - 3 = 4; mean 2.5, s = 2.1213, t(0.975, 1) = 12.706, half = 12.706 * s / sqrt 2
    mean, low, high = paired(select(ROWS, name="a"), select(ROWS, name="b"), "x")
    assert mean == 2.5
    assert (low, high) == pytest.approx((2.5 - 19.059, 2.5 + 19.059), abs=1e-3)


def test_one_seed_has_no_interval():
    mean, low, high = mean_and_interval([0.5])
    assert mean == 0.5
    assert math.isnan(low)
    assert math.isnan(high)


def test_star_says_that_the_interval_leaves_out_zero():
    assert difference_text((0.2, 0.1, 0.3)) == "+0.200 (+0.100 to +0.300) *"
    assert difference_text((0.2, -0.1, 0.5)) == "+0.200 (-0.100 to +0.500)"


def test_undefined_values_are_left_out_of_means():
    assert mean_text(np.array([np.nan, 1.0, 2.0])) == "1.500"
    assert mean_text(np.array([np.nan])) == "-"


def test_ranks_are_averaged_over_columns():
    # column 1: 0.9 > 0.5 > nan; column 2: 0.1 < 0.2 = 0.2, ties share 1.5
    table = np.array([[0.9, 0.1], [0.5, 0.2], [np.nan, 0.2]])
    np.testing.assert_allclose(ranks(table, higher_is_better=True), [2.0, 1.75, 2.25])


def test_markdown_table():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_tables_of_a_study_name_the_command_that_made_them(tmp_path):
    page = tmp_path / "knees" / "tables.md"
    page.parent.mkdir()
    page.write_text("of before")
    write_tables(page, {"First": "| a |\n", "Second": "\nb"})
    head, first, second = page.read_text().split("\n\n## ")
    assert "`python -m docs.studies.knees --tables`" in head
    assert (first, second) == ("First\n\n| a |", "Second\n\nb\n")

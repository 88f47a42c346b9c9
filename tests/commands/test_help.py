"""``--help``: an example of each command, flags in groups, defaults; the order of use."""

import re

import pytest

from nnunet_softlabel.cli import build_parser
from nnunet_softlabel.help_texts import GROUPS
from tests.flags_of_commands import flags


def help_of(command):
    return build_parser()._subparsers._group_actions[0].choices[command].format_help()


@pytest.mark.parametrize("command", flags())
def test_every_command_has_a_description_and_an_example_that_parses(command):
    text = help_of(command)
    assert re.search(r"\n\n[A-Z].*\.", text)
    (example,) = re.findall(r"example:\n  nnunet_softlabel (.*)", text)
    words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", example)]
    assert build_parser().parse_args(words).command == command


@pytest.mark.parametrize("command", GROUPS)
def test_flags_of_a_large_command_stand_in_groups_each_once(command):
    text = help_of(command)
    assert text == help_of(command)
    listing = text.split("\n\n", 1)[1]
    for flag in flags()[command]:
        assert len(re.findall(rf"^  (?:-h, )?{flag}\b(?!-)", listing, re.MULTILINE)) == 1, flag
    options = re.search(r"\noptions:\n(.*?)\n\nexample", text, re.DOTALL)[1]
    assert len(re.findall(r"^  -", options, re.MULTILINE)) <= 8


def test_groups_name_flags_that_some_command_has():
    known = set().union(*flags().values())
    assert {flag for groups in GROUPS.values() for group in groups.values() for flag in group} <= known


@pytest.mark.parametrize(
    ("command", "default"),
    [("benchmark", "--jobs"), ("convert", "-np"), ("tune-threshold", "--beta"), ("demo", "--epochs")],
)
def test_a_flag_says_its_default(command, default):
    about = re.search(rf"^  {default}\b.*?(?=^  -|\Z)", help_of(command), re.MULTILINE | re.DOTALL)[0]
    assert "default" in about


def test_the_order_of_use_is_told():
    text = build_parser().format_help()
    order = [
        line.split()[0] for line in text.split("order of use:\n")[1].splitlines() if line.startswith("  ")
    ]
    assert (
        order.index("inspect") < order.index("convert") < order.index("evaluate") < order.index("benchmark")
    )

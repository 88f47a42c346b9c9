from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_softlabel import cli, help_texts
from nnunet_softlabel.commands import preprocess
from nnunet_softlabel.errors import DatasetError, UsageError
from tests.conversion.conversion_helpers import run

COMMANDS_PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli.build_parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: the following arguments are required: command"),
        (["fly"], "invalid choice: 'fly'"),
        (["convert", "--nothing"], "convert: error: unrecognized arguments: --nothing (see "),
        (
            ["convert", "--channel-name", "CT"],
            "arguments: --channel-name CT; did you mean --channel-names? (see ",
        ),
        (["convert", "-d"], "argument -d: expected one argument"),
        (["preprocess"], "the following arguments are required: -d"),
    ],
)
def test_wrong_command_line_is_one_line_without_usage(capsys, arguments: list[str], message: str) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert "usage" not in captured.err + captured.out


def test_part_of_a_flag_is_no_flag(capsys) -> None:
    assert run("convert", "--rater", "x/{case}_{rater}.png") == 2
    assert "--rater" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DatasetError("a\n  b"), "a b"),
        (UsageError("wrong"), "wrong"),
        (ValueError("wrong"), "wrong"),
        (NotImplementedError("not yet"), "not yet"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (OSError("disk"), "disk"),
    ],
)
def test_what_a_user_can_mend_is_one_line(monkeypatch, capsys, error: Exception, line: str) -> None:
    def fail(args: argparse.Namespace) -> None:
        raise error

    monkeypatch.setattr(preprocess, "run", fail)
    assert run("preprocess", "-d", "1") == 2
    assert capsys.readouterr().err == f"nnunet_softlabel preprocess: error: {line}\n"


def test_bug_is_not_hidden(monkeypatch) -> None:
    def fail(args: argparse.Namespace) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(preprocess, "run", fail)
    with pytest.raises(KeyError):
        run("preprocess", "-d", "1")


def test_interrupt_is_one_line(monkeypatch, capsys) -> None:
    def interrupt(args: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preprocess, "run", interrupt)
    assert run("preprocess", "-d", "1") == 130
    error = capsys.readouterr().err
    assert error == "nnunet_softlabel preprocess: interrupted; the same command goes on where it stopped.\n"


def test_installed_command_starts_without_nnunet() -> None:
    """nnU-Net takes seconds to import; `--help` and a wrong flag must not wait for it."""
    code = "import sys; from nnunet_softlabel import cli; cli.build_parser(); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "False"


def test_env_keeps_what_is_there(monkeypatch, capsys) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    assert run("env") == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith("export nnUNet_extTrainer=/mine")
    monkeypatch.setenv("nnUNet_extTrainer", line.removeprefix("export nnUNet_extTrainer=").strip("'"))
    assert run("env") == 0
    assert capsys.readouterr().out.strip() == line


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_flag_is_documented(name: str) -> None:
    page = COMMANDS_PAGE.read_text(encoding="utf-8")
    section = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/commands.md has no section {name}"
    flags = {flag for action in commands()[name]._actions for flag in action.option_strings} - {
        "-h",
        "--help",
    }
    missing = {flag for flag in flags if not re.search(rf"{flag}\b(?!-)", section[1])}
    assert not missing
    named = set(re.findall(r"(?<![\w-])--?[a-z][a-z_-]*", section[1].split("```")[-1])) - {"-d"}
    assert named <= flags | {"--npz", "--save_probabilities"}


@pytest.mark.parametrize("name", commands())
def test_help_of_a_command_describes_it_and_marks_what_is_required(name: str) -> None:
    parser = commands()[name]
    text = " ".join(parser.format_help().split())
    assert parser.description
    assert parser.description in text
    flags = [action for action in parser._actions if action.required]
    assert ("required: " in text) == bool(flags)
    for action in parser._actions:
        if action.default not in (None, False, argparse.SUPPRESS, []) and action.nargs != 0:
            assert "default" in parser._get_formatter()._expand_help(action).lower(), action.dest


@pytest.mark.parametrize("name", sorted(help_texts.EXAMPLES))
def test_examples_of_the_help_are_commands_that_parse(name: str) -> None:
    cli.build_parser().parse_args([name, *shlex.split(help_texts.EXAMPLES[name])])
    assert help_texts.EXAMPLES[name] in commands()[name].format_help()


def test_help_says_the_order_of_use(capsys) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out.split("order of use:")[1]
    assert out.index("  convert  ") < out.index("nnUNetv2_plan_and_preprocess") < out.index("  evaluate  ")


def test_the_shell_completes_commands_and_flags() -> None:
    pytest.importorskip("argcomplete")
    code = "import sys; sys.argv = ['nnunet_softlabel']; from nnunet_softlabel.cli import main; main()"
    line = "nnunet_softlabel export-stock --over"
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "--overwrite" in done.stdout

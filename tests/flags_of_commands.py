"""Messages of a command name only flags that this command has."""

from __future__ import annotations

from functools import cache

from nnunet_softlabel.cli import build_parser
from nnunet_softlabel.flag_words import COMMAND, FLAG

WHERE = "nnunet_softlabel "


@cache
def flags() -> dict[str, frozenset[str]]:
    """Command -> its flags, as the command line names them."""
    (commands,) = build_parser()._subparsers._group_actions  # type: ignore[union-attr]
    return {
        name: frozenset(flag for action in parser._actions for flag in action.option_strings)
        for name, parser in dict(commands.choices).items()  # type: ignore[arg-type]
    }


def strange_flags(program: str, message: str) -> list[str]:
    """Flags that a message of ``nnunet_softlabel COMMAND`` names and the command does not have.

    Flags of a command that the message quotes are that command's.
    """
    known = flags().get(program.removeprefix(WHERE))
    if known is None:  # a script of dataset_conversion
        return []
    return [flag for flag in FLAG.findall(COMMAND.sub(" ", message)) if flag not in known]

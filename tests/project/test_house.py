"""The house stays tidy: short files, few parameters, records with types."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "nnunet_softlabel"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_PARAMETERS, MOST_BY_POSITION = 300, 8, 4

MORE_BY_POSITION = {
    "losses/fused/fused_loss.py _FusedFunction.forward": "torch calls it",
    "training/loss_trainer.py LossTrainer.__init__": "nnU-Net calls it",
}
# names of dictionaries that another program, or a file not checked yet, decides
FOREIGN = {"formats/files.py", "training/records.py"}


def functions():
    """Name of every function of the package, with the class it is in -> its arguments."""
    found = {}
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = parents[node]
                owner = f"{inside.name}." if isinstance(inside, ast.ClassDef) else ""
                found[f"{path.relative_to(PACKAGE).as_posix()} {owner}{node.name}"] = node.args
    return found


def by_position(arguments):
    return [a.arg for a in arguments.posonlyargs + arguments.args if a.arg not in ("self", "cls")]


def test_no_file_has_more_than_300_lines():
    assert len(FILES) > 200
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_functions_have_at_most_8_parameters():
    many = {
        name
        for name, arguments in functions().items()
        if len(by_position(arguments)) + len(arguments.kwonlyargs) > MOST_PARAMETERS
    }
    assert many == set()


def test_functions_take_at_most_4_by_position_unless_a_reason_is_given():
    many = {name for name, arguments in functions().items() if len(by_position(arguments)) > MOST_BY_POSITION}
    assert many == set(MORE_BY_POSITION)


def test_records_have_types():
    """What travels between modules says what it holds: no ``dict[str, Any]``."""
    loose = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if "dict[str, Any]" in path.read_text(encoding="utf-8")
    }
    assert loose == FOREIGN

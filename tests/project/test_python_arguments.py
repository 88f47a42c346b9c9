"""Every exported function and class: takes what Python users write, names the argument it refuses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

import numpy as np
import pytest

import nnunet_softlabel as ns
from nnunet_softlabel import flag_words
from nnunet_softlabel.command_line import exit_code_of
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.flag_words import FLAG, in_words_of_python, word_for
from nnunet_softlabel.public import fitted, is_public
from tests.project.test_public_face import exported

PACKAGE = Path(ns.__file__).parent
# modules of pure functions: they take arrays, tensors and numbers
PURE = ("losses.", "metrics.", "fusion.", "priors.", "recipes.", "simulation.")
# trainers are made by nnU-Net, errors and results by this package, a Case checks what it is made of itself
NOT_MADE_BY_USERS = (
    "HardLabelTrainer", "SoftLabelTrainer", "DatasetError", "UsageError", "WorkerError", "PairedDifference",
    "RunResult", "Case", "benchmark.CellStatus", "benchmark.Outcome", "benchmark.Rounds",
)  # fmt: skip
DOORS = {
    name: value
    for name, value in exported().items()
    if callable(value) and name not in NOT_MADE_BY_USERS and not name.startswith(PURE)
} | {"simulation.write_knees": ns.simulation.write_knees}


class Stranger:
    """Of no kind that anything takes."""

    def __repr__(self) -> str:
        return "a stranger"


def parameters(door: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(door).parameters)
    found.pop("self", None)
    return found


def hints(door: Any) -> dict[str, Any]:
    return get_type_hints(door.__init__ if isinstance(door, type) else door)


ARGUMENTS = [(name, argument) for name, door in DOORS.items() for argument in parameters(door)]


def test_there_are_doors() -> None:
    some = (
        "evaluate tune_threshold apply_threshold calibrate apply_calibration average write_maps "
        "inspect_raters preprocess benchmark.benchmark refine train export_stock convert find_cases "
        "add_soft_labels Truth"
    )
    assert set(some.split()) < set(DOORS)


@pytest.mark.parametrize("name", DOORS)
def test_what_users_call_checks_its_arguments(name: str) -> None:
    assert is_public(DOORS[name])
    assert set(parameters(DOORS[name])) <= set(hints(DOORS[name]))


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS, ids=[f"{n}-{a}" for n, a in ARGUMENTS])
def test_an_argument_of_no_kind_is_named_and_leaves_nothing(
    name: str, argument: str, nnunet_folders: Any, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(TypeError, match=rf"^{argument}: expected "):
        DOORS[name](**{argument: Stranger()})
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "hint", "made"),
    [
        ("a/b", Path, Path("a/b")),
        ("a", Path | None, Path("a")),
        (None, Path | None, None),
        ("a", Path | Sequence[Path], Path("a")),
        (["a", Path("b")], Path | Sequence[Path], [Path("a"), Path("b")]),
        ("a", Sequence[Path], [Path("a")]),
        ("anna", Sequence[str], ["anna"]),
        ("bone", tuple[str, ...], ("bone",)),
        ((x for x in ("a", "b")), Sequence[str], ["a", "b"]),
        (np.int64(3), int, 3),
        (2, Sequence[int], [2]),
        (1, float, 1.0),
        (np.float32(0.5), float, 0.5),
        (0.4, str | float, 0.4),
        ("tuned", str | float, "tuned"),
        (Path("Dataset001_A"), int | str, "Dataset001_A"),
        (True, bool | Path, True),
        ("maps.json", bool | Path, Path("maps.json")),
        ({"bone": "bone.nii.gz"}, Mapping[str, Path], {"bone": Path("bone.nii.gz")}),
        ("Tr", Literal["Tr", "Ts"], "Tr"),
    ],
)
def test_what_is_given_becomes_what_is_asked_for(given: Any, hint: Any, made: Any) -> None:
    found = fitted(given, hint, "x")
    assert found == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("given", "hint", "message"),
    [
        (3, Path, "x: expected a path, got int 3"),
        (True, int, "x: expected a whole number, got bool True"),
        ("3", int, "x: expected a whole number, got str '3'"),
        (1, bool, "x: expected True or False, got int 1"),
        ([1], Sequence[str], r"x: expected a list; each item: a text, got int 1"),
        (3, Path | Sequence[Path], r"x: expected a path or a list; each item: a path, got int 3"),
        ({"a": 1}, Sequence[str], r"x: expected a list, got dict"),
        (["a"], Mapping[str, str], "x: expected a mapping such as a dict, got list"),
        ({"a": 1}, Mapping[str, str], r"x\['a'\]: expected a text, got int 1"),
        (("a",), tuple[str, str], r"x: expected 2 values, got tuple"),
        (1.5, Literal["Tr", "Ts"], "x: expected one of 'Tr', 'Ts', got float 1.5"),
        (3, Callable[[], None], "x: expected a function, got int 3"),
    ],
)
def test_what_does_not_fit_is_named(given: Any, hint: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        fitted(given, hint, "x")


def test_a_text_that_cannot_be_chosen_is_a_value_error_with_the_choice() -> None:
    with pytest.raises(ValueError, match=r"^split: 'Tx' is none of 'Tr', 'Ts'\."):
        fitted("Tx", Literal["Tr", "Ts"], "split")


def test_an_error_of_the_users_own_iterator_stays_as_it_is() -> None:
    def cases() -> Any:
        raise TypeError("not this way")
        yield

    with pytest.raises(TypeError, match=r"^not this way"):
        fitted(cases(), Sequence[str], "cases")


def flags_of_messages() -> set[str]:
    """Flags in the texts of errors, but for the files that know the command line alone."""
    only_flags = ("commands", "flag_words.py", "help_texts.py", "command_line.py", "cli.py", "demo.py")
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in only_flags:
            continue
        code = path.read_text(encoding="utf-8")
        for raised in re.findall(r"raise \w+Error\((.*?)\)\n", code, re.DOTALL):
            text = " ".join(re.findall(r'"((?:[^"\\]|\\.)*)"', raised))
            found |= set(FLAG.findall(flag_words.COMMAND.sub("", text)))
    return found


def test_every_flag_of_a_message_has_words_for_python() -> None:
    names = {argument for _, argument in ARGUMENTS}
    without = {flag for flag in flags_of_messages() if word_for(flag, names) == flag}
    assert not without


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        ("--min-raters 3: leaves no case.", ["min_raters"], "min_raters 3: leaves no case."),
        ("--min-raters 3: leaves no case.", ["fusion"], "Fusion(min_raters=...) 3: leaves no case."),
        ("use --few-raters drop", ["fusion"], "use Fusion(few_raters='drop')"),
        ("add --overwrite", ["running"], "add Running(overwrite=True)"),
        ("add --overwrite, or take another -d and -n", ["overwrite", "dataset_id", "name"],
         "add overwrite=True, or take another dataset_id and name"),
        ("add --regrid.", ["cases"], "add FileOptions(regrid=...)."),
        ("run nnUNetv2_train -d 5 --npz; then -i again", ["predictions"],
         "run nnUNetv2_train -d 5 --npz; then predictions again"),
        ("try `nnunet_softlabel convert --into`.", [], "try `nnunet_softlabel convert --into`."),
        ("fold-wise, a well-known file-name -0.5 1e-9", ["f"], "fold-wise, a well-known file-name -0.5 1e-9"),
    ],
)  # fmt: skip
def test_messages_name_arguments(message: str, arguments: list[str], expected: str) -> None:
    assert in_words_of_python(message, arguments) == expected


def test_the_same_error_names_an_argument_in_python_and_a_flag_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cases.csv").write_text("name,image,rater,mask\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"^path .*cases\.csv: .*case_column"):
        ns.read_case_table(str(tmp_path / "cases.csv"))
    assert exit_code_of("program", lambda: _read(tmp_path / "cases.csv")) == 2
    assert re.search(r"--cases-csv .*--case-column", capsys.readouterr().err)


def _read(table: Path) -> None:
    ns.read_case_table(table)

"""Every ``>>>`` of the package runs, and says what it says; everything that is exported has one."""

from __future__ import annotations

import doctest
import inspect
import json
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import nnunet_softlabel as ns
from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.public import is_public
from tests.project.example_world import enter, make_world
from tests.project.test_public_face import exported

PACKAGE = Path(__file__).parents[2] / "nnunet_softlabel"
MODULES = [
    ".".join(("nnunet_softlabel", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
# what every example may use without an import
KNOWN = {"ns": ns, "np": np, "torch": torch, "Path": Path}
# these need a planned data set, or train: below
SLOW = ("preprocess", "reduce_plans", "train", "export_stock", "refine")
FUNCTIONS = {
    name: value
    for name, value in exported().items()
    if inspect.isfunction(value) and not name.startswith("recipes.")
}
DOORS = [name for name, value in FUNCTIONS.items() if is_public(value)]
OF_DOORS = {f"{inner.__module__}.{inner.__name__}" for inner in (inspect.unwrap(FUNCTIONS[n]) for n in DOORS)}
FLAGS = doctest.NORMALIZE_WHITESPACE


def run_example(function: Any, name: str, **known: Any) -> None:
    """Run the example of a function that a decorator hides from doctest."""
    inner = inspect.unwrap(function)
    module = import_module(inner.__module__)
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    tests = doctest.DocTestFinder(recurse=False).find(
        inner, name, module, globs={**vars(module), **KNOWN, **known}
    )
    results = [runner.run(test) for test in tests]
    assert sum(result.attempted for result in results) > 0
    assert not sum(result.failed for result in results)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module: str) -> None:
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    for test in doctest.DocTestFinder().find(import_module(module), module, extraglobs=KNOWN):
        if test.name not in OF_DOORS:  # those run in a folder with files, below
            assert not runner.run(test).failed


@pytest.mark.parametrize(
    "name", [name for name in DOORS if name not in SLOW and not name.startswith("benchmark.")]
)
def test_examples_of_doors_run(name: str, world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter(world, monkeypatch)
    run_example(FUNCTIONS[name], name)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_exported_function_has_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.parametrize("name", ns.losses.LOSSES)
def test_every_loss_has_an_example(name: str) -> None:
    loss = ns.losses.LOSSES[name]
    assert ">>> " in (inspect.getdoc(getattr(loss, "func", loss)) or "")


# -- examples that plan, train and predict -------------------------------------------------------------


@pytest.fixture
def trainable(planned_dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A planned data set of this test, and settings for a training in this process."""
    copied = planned_dataset.copy_to(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    monkeypatch.setenv("nnUNet_extTrainer", str(PACKAGE / "training" / "nnunet_plugin"))
    return copied


@pytest.mark.parametrize("name", ["preprocess", "reduce_plans"])
def test_examples_of_planned_data_run(name: str, trainable: Any) -> None:
    run_example(FUNCTIONS[name], name)


def test_the_example_of_refine_runs(trainable: Any, tmp_path: Path) -> None:
    dataset = ns.SoftDataset(trainable.raw)
    training = tmp_path / "results" / trainable.name / "nnUNetTrainerSoftCE__nnUNetPlansReduced__3d_fullres"
    for fold, split in enumerate(json.loads((trainable.preprocessed / "splits_final.json").read_text())):
        validation = training / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        for case in split["val"]:
            probabilities = with_background(np.clip(dataset.read_soft(case), 0.01, 0.99))
            np.savez(validation / f"{case}.npz", probabilities=probabilities)
    run_example(FUNCTIONS["refine"], "refine")


@pytest.mark.slow
def test_examples_of_trainings_run(trainable: Any) -> None:
    def quiet_train(*args: Any, **options: Any) -> Any:
        with redirect_stdout(StringIO()):  # nnU-Net prints its log
            return ns.train(*args, **options)

    run_example(FUNCTIONS["train"], "train", ns=SimpleNamespace(train=quiet_train, Budget=ns.Budget))
    run_example(FUNCTIONS["export_stock"], "export_stock")


@pytest.mark.slow
def test_examples_of_a_benchmark_run(trainable: Any) -> None:
    for name in (
        "benchmark.benchmark",
        "benchmark.report",
        "benchmark.format_benchmark",
        "benchmark.two_rounds",
    ):
        run_example(FUNCTIONS[name], name)

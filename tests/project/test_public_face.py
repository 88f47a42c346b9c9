"""``import nnunet_softlabel as ns``: one list of names, loaded when used; docs name nothing else."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nnunet_softlabel as ns

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs" / "reference.md"
ENTRIES = re.findall(r"^::: (\S+)", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)
IMPORT = re.compile(r"^\s*from (nnunet_softlabel[\w.]*) import (?:\(([^)]*)\)|(.+))$", re.MULTILINE)


def public_names(module: ModuleType) -> list[str]:
    """What a module of the public face hands on."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]


def exported() -> dict[str, Any]:
    """Every public object by the path under which `ns` has it."""
    found = {name: getattr(ns, name) for name in (*ns.EXPORTED, *ns.MODULES)}
    for name in ns.MODULES:
        found |= {f"{name}.{inner}": getattr(found[name], inner) for inner in public_names(found[name])}
    return found


def resolved(path: str) -> Any:
    """The module, or the object of a module, at this path."""
    try:
        return import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(import_module(module), name)


def test_importing_the_package_takes_nothing_along() -> None:
    code = (
        "import sys; before = set(sys.modules); import nnunet_softlabel; "
        "print(sorted({'torch', 'numpy', 'nnunetv2', 'SimpleITK'} & (set(sys.modules) - before)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_every_name_is_there_and_listed() -> None:
    for name in ns.__all__:
        assert getattr(ns, name) is not None, name
    assert set(dir(ns)) == set(ns.__all__)
    assert len(ns.__all__) == len(set(ns.__all__))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'fuse_all'"):
        ns.fuse_all  # noqa: B018


def test_a_name_is_the_same_object_as_in_its_module() -> None:
    from nnunet_softlabel.conversion.run import convert

    assert ns.convert is convert


def test_the_reference_lists_what_is_exported_and_nothing_else() -> None:
    known = exported()
    listed = [resolved(path) for path in ENTRIES]
    strangers = [
        p for p, value in zip(ENTRIES, listed, strict=True) if not any(value is v for v in known.values())
    ]
    assert not strangers
    missing = [
        path
        for path, value in known.items()
        if (inspect.isclass(value) or inspect.isfunction(value))
        and not path.startswith("recipes.")
        and not any(value is other for other in listed)
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_docs_import_only_what_is_exported(page: Path) -> None:
    known = exported()
    places = {"nnunet_softlabel": "", **{module: f"{name}." for name, module in ns.MODULES.items()}}
    for module, bracketed, plain in IMPORT.findall(page.read_text(encoding="utf-8")):
        assert module in places, f"{page.name}: {module}"
        for name in re.findall(r"\w+", bracketed or plain):
            assert f"{places[module]}{name}" in known, f"{page.name}: {module}.{name}"

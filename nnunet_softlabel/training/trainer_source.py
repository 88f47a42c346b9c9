"""The files of a user's own trainer, found without importing them."""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

from nnunet_softlabel.training.trainer_path import PLUGIN_FOLDER

OURS = PLUGIN_FOLDER.parents[1]


def digest_of_own_trainer(trainer: str) -> str | None:
    """SHA-256 over the files of `own_trainer_files`; None for a trainer of nnU-Net or of this package."""
    files = own_trainer_files(trainer)
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def own_trainer_files(trainer: str) -> list[Path]:
    """The file in which nnU-Net finds a trainer of the user, then the files beside it that it imports.

    Empty for a trainer of nnU-Net or of this package, and for one that no file defines by name.
    """
    of_nnunet = _file_in_nnunet(trainer)
    if of_nnunet is not None:
        return _with_imports(of_nnunet, _nnunet().parent) if _is_own(of_nnunet) else []
    for part in os.environ.get("nnUNet_extTrainer", "").split(os.pathsep):
        folder = Path(part).absolute()
        if part.strip() and folder.resolve() != PLUGIN_FOLDER.resolve():
            file = _file_that_defines(trainer, folder, folder)
            if file is not None:
                return _with_imports(file, folder)
    return []


def _nnunet() -> Path:
    found = find_spec("nnunetv2")
    assert found is not None
    assert found.submodule_search_locations, "nnunetv2 is a package"
    return Path(found.submodule_search_locations[0]).absolute()


@cache
def _file_in_nnunet(trainer: str) -> Path | None:
    nnunet = _nnunet()
    return _file_that_defines(trainer, nnunet / "training" / "nnUNetTrainer", nnunet.parent)


@cache
def _files_of_nnunet() -> frozenset[Path]:
    """What nnU-Net's installer wrote; its trainers are not among them where nnU-Net is a clone (``-e``)."""
    return frozenset(Path(str(file.locate())).resolve() for file in metadata.files("nnunetv2") or ())


def _is_own(path: Path) -> bool:
    """Whether a file is neither of nnU-Net nor of this package."""
    path, nnunet, known = path.resolve(), _nnunet().resolve(), _files_of_nnunet()
    if path.is_relative_to(OURS.resolve()):
        return False
    if path.is_relative_to(nnunet):  # users copy trainers into it
        is_clone = nnunet / "training" / "nnUNetTrainer" / "nnUNetTrainer.py" not in known
        return not is_clone and path not in known
    return True


def _file_that_defines(trainer: str, folder: Path, root: Path) -> Path | None:
    """In nnU-Net's order of search: the modules of a folder, then its packages."""
    modules = list(iter_modules([str(folder)]))
    for module in modules:
        path = folder / f"{module.name}.py"
        if not module.ispkg and path.is_file() and _defines(path, trainer, root):
            return path
    inside = (_file_that_defines(trainer, folder / m.name, root) for m in modules if m.ispkg)
    return next((path for path in inside if path is not None), None)


def _defines(file: Path, trainer: str, root: Path) -> bool:
    """Whether a file defines a class, or takes it from another file of the user."""
    if trainer.encode() not in file.read_bytes():
        return False
    for node in ast.walk(_parsed(file)):
        match node:
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()) if name == trainer:
                return True
            case ast.ImportFrom(names=aliases) if any((a.asname or a.name) == trainer for a in aliases):
                return any(_imported_by(node, file, root))
    return False


def _parsed(file: Path) -> ast.Module:
    """Of a file that Python cannot read, nothing: nnU-Net says so when it imports the file."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _with_imports(file: Path, root: Path) -> list[Path]:
    """A file, and the user's own files below the root that it imports, directly or not."""
    found, waiting = dict[Path, None](), [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += [other for node in ast.walk(_parsed(path)) for other in _imported_by(node, path, root)]
    return [file, *sorted(set(found) - {file})]


def _imported_by(node: ast.AST, file: Path, root: Path) -> Iterator[Path]:
    """The user's own files that an import statement reads; none of other nodes."""
    base, names = root, list[str]()
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = file.parents[node.level - 1] if node.level else root
        module = f"{node.module}." if node.module else ""
        names = [module + alias.name for alias in node.names]
    nnunet = _nnunet()
    for name in names:
        parts = name.split(".")
        if base == nnunet.parent and parts[0] != nnunet.name:  # another package that is installed beside it
            continue
        for number in range(1, len(parts) + 1):
            place = base.joinpath(*parts[:number])
            for path in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                if path.is_file() and _is_own(path):
                    yield path

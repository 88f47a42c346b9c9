"""Which mutants there are, which are drawn, and what their code is. cosmic-ray's operators make them."""

from __future__ import annotations

import ast
import difflib
import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

Place = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """One change: the ``occurrence``-th thing in ``module`` that ``operator`` can change."""

    module: str
    start: Place
    operator: str
    occurrence: int

    @property
    def order(self) -> tuple[object, ...]:
        """So that a draw is the same in every run."""
        return self.module, self.start, self.operator, self.occurrence

    def code(self, source: str) -> str:
        changed = mutate_code(source, get_operator(self.operator)(), self.occurrence)
        assert changed is not None
        return str(changed)

    def difference(self, source: str) -> str:
        lines = source.splitlines(), self.code(source).splitlines()
        return "\n".join(list(difflib.unified_diff(*lines, self.module, lineterm="", n=1))[2:])

    def key(self, source: str) -> str:
        """Names the mutant and the code that it changes: a result counts as long as both stay."""
        return hashlib.sha256(f"{self.order} {source}".encode()).hexdigest()[:16]


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """All that change what some value depends on."""
    left_out, tree = list(unheeded(source)), get_ast(source)
    for name in operator_names():
        operator: Any = get_operator(name)
        if operator.arguments():  # those need a configuration: names of variables
            continue
        places = (start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node))
        for occurrence, start in enumerate(places):
            if not any(begin <= start < end for begin, end in left_out):
                yield Mutant(module, start, name, occurrence)


def drawn(mutants: Sequence[Mutant], sample: int, seed: int) -> list[Mutant]:
    """A sample by lot, in the order of the lot."""
    in_order = sorted(mutants, key=lambda mutant: mutant.order)
    return random.Random(seed).sample(in_order, min(sample, len(in_order)))


def unheeded(source: str) -> Iterator[tuple[Place, Place]]:
    """Where code is that no value depends on: (line, column) from and to; lines count from 1.

    Annotations, signatures (``*`` before what must be named; defaults count), ``frozen`` of a dataclass.
    """
    for node in ast.walk(ast.parse(source)):
        parts: list[ast.expr | None] = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        if isinstance(node, ast.ClassDef):
            parts += node.decorator_list
        yield from ((_begin(p), (p.end_lineno or 0, p.end_col_offset or 0)) for p in parts if p is not None)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            last = _begin(node)
            defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
            for default in sorted(defaults, key=_begin):
                yield last, _begin(default)
                last = default.end_lineno or 0, default.end_col_offset or 0
            yield last, _begin(node.body[0])


def _begin(node: ast.expr | ast.stmt) -> Place:
    return node.lineno, node.col_offset


def lines_of_statement(source: str, line: int) -> range:
    """Lines of the smallest statement around a line; of a compound statement only its head."""
    found = range(line, line + 1)
    size = 10**9
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno or 0
            lines = range(node.lineno, max(last, node.lineno) + 1)
            if line in lines and len(lines) < size:
                found, size = lines, len(lines)
    return found


def tree_of(root: Path, modules: Sequence[str]) -> dict[str, str]:
    """Source by path below ``root``; a folder stands for its modules."""
    paths = [root / module for module in modules]
    files = [file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    return {str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in files}

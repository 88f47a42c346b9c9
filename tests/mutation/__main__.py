"""Would the tests notice? Mutants of the modules that compute what is published; run by hand.

    pip install -e '.[test,mutation]'
    python -m tests.mutation fusion --sample 60    # 60 of the mutants, drawn by lot with seed 0
    python -m tests.mutation all --sample 60

A mutant is the code with one operator, comparison, constant or branch changed. It is killed when a fast test
of its group fails. cosmic-ray makes mutants and runs the tests, in a copy of the tree. Mutants of annotations
and signatures are left out: no value depends on them. What survived is printed with its difference;
docs/reliability.md keeps the result.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[2]
PACKAGE = "nnunet_softlabel"
CONFIG = """[cosmic-ray]
module-path = {modules}
timeout = 600.0
excluded-modules = []
test-command = "{python} -m pytest -x -q -m 'not slow' -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
"""


@dataclass(frozen=True)
class Group:
    """Modules, below the package, and the tests that must notice."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "fusion": Group(
        tuple(
            f"fusion/{m}.py"
            for m in ("voting", "staple", "rater_rates", "rater_votes", "shape", "smoothing")
        ),
        tuple(
            f"tests/fusion/test_{t}.py"
            for t in ("fusion_laws", "voting", "staple", "rater_votes", "shape", "smoothing")
        ),
    ),
    "lesions": Group(
        tuple(
            f"fusion/{m}.py"
            for m in (
                "candidate", "detection", "detection_fit", "detection_likelihood", "detection_model",
                "lesion_candidates", "lesions",
            )
        ),
        tuple(f"tests/fusion/test_{t}.py" for t in ("detection", "lesion_candidates", "lesions")),
    ),
    "priors": Group(("priors",), ("tests/priors",)),
    "losses": Group(("losses",), ("tests/losses",)),
    "metrics": Group(("metrics",), ("tests/metrics",)),
    "thresholds": Group(
        ("evaluation/thresholds.py", "evaluation/tuning.py"),
        ("tests/evaluation/test_thresholds.py", "tests/evaluation/test_tuning.py"),
    ),
    "calibration": Group(
        tuple(f"evaluation/{m}.py" for m in ("map_fitting", "maps", "recalibration", "calibration_scores")),
        tuple(f"tests/evaluation/test_{t}.py" for t in ("map_fitting", "maps", "recalibration", "calibrate")),
    ),
    "significance": Group(
        ("report/significance.py", "report/comparison.py"),
        ("tests/report/test_comparison.py", "tests/report/test_verdict.py"),
    ),
}  # fmt: skip


Place = tuple[int, int]


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


def is_unheeded(mutation: MutationSpec, folder: Path) -> bool:
    """True if no value depends on what the mutant changes."""
    source = (folder / mutation.module_path).read_text(encoding="utf-8")
    return any(begin <= mutation.start_pos < end for begin, end in unheeded(source))


def place(item: WorkItem) -> tuple[object, ...]:
    """Of a mutant, so that a draw is the same in every run."""
    m = item.mutations[0]
    return str(m.module_path), m.start_pos, m.operator_name, m.occurrence, str(m.operator_args)


def leave_out(database: WorkDB, folder: Path, sample: int, seed: int) -> tuple[int, int]:
    """Mark all mutants but a sample as not to be run; how many there are, and how many are left."""
    items = sorted((w for w in database.work_items if not is_unheeded(w.mutations[0], folder)), key=place)
    chosen = {w.job_id for w in random.Random(seed).sample(items, min(sample, len(items)))}
    skipped = [w.job_id for w in database.work_items if w.job_id not in chosen]
    database.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED, "not in the sample"))
    return len(items), len(chosen)


def run(name: str, sample: int, seed: int) -> None:
    """Print how many mutants of the group were killed, and those that were not."""
    with tempfile.TemporaryDirectory(prefix="mutants_") as temporary:
        folder = Path(temporary) / "tree"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info"))
        group, session = GROUPS[name], Path(temporary) / "session.sqlite"
        modules = [f"{PACKAGE}/{module}" for module in group.modules]
        config = Path(temporary) / "config.toml"
        config.write_text(CONFIG.format(modules=modules, python=sys.executable, tests=" ".join(group.tests)))
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}

        def cosmic_ray(*words: str | Path) -> None:
            command = [sys.executable, "-m", "cosmic_ray.cli", *map(str, words)]
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)

        cosmic_ray("init", config, session)
        with use_db(session, WorkDB.Mode.open) as database:
            n_all, n_run = leave_out(database, folder, sample, seed)
        cosmic_ray("baseline", config)
        cosmic_ray("exec", config, session)
        with use_db(session, WorkDB.Mode.open) as database:
            report(name, n_all, n_run, database)


def report(name: str, n_all: int, n_run: int, database: WorkDB) -> None:
    done = [(w, r) for w, r in database.completed_work_items if r.worker_outcome != WorkerOutcome.SKIPPED]
    survivors = [(w, r) for w, r in done if not r.is_killed]
    for work, result in survivors:
        print(f"--- {work.mutations[0].module_path}:{work.mutations[0].start_pos[0]} survived\n{result.diff}")
    print(f"{name}: {len(done) - len(survivors)} of {n_run} killed ({n_all} mutants in all)", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("group", choices=[*GROUPS, "all"])
    parser.add_argument("--sample", type=int, default=60, help="Mutants per group (default 60).")
    parser.add_argument("--seed", type=int, default=0, help="Of the draw (default 0).")
    args = parser.parse_args(arguments)
    for name in GROUPS if args.group == "all" else [args.group]:
        run(name, args.sample, args.seed)


if __name__ == "__main__":
    main()

"""Run the tests on a mutant, cheaply: in a fork of a process that has imported torch and all else already.

First all tests of the group run once; which test runs which line is noted. On a mutant, the tests that run
the changed lines come first, and the first that fails ends the trial. A mutant gets as much CPU time as a
few runs of its tests; how busy the machine is does not matter.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import coverage
import pytest

from tests.mutation.mutants import Mutant, lines_of_statement

PACKAGE = "nnunet_softlabel"
MEMORY = 8 * 2**30
LONGEST_WAIT_S = 1800


@dataclass
class Baseline:
    """Of the unchanged code: CPU seconds of each test, and the tests that run each line of each module."""

    seconds: dict[str, float]
    tests_of_line: dict[str, dict[int, list[str]]]
    imports: list[str] = field(default_factory=list)

    def tests_of(self, mutant: Mutant, source: str) -> set[str]:
        """Tests that run the changed statement."""
        lines = self.tests_of_line.get(mutant.module, {})
        found = {test for line in lines_of_statement(source, mutant.start[0]) for test in lines.get(line, [])}
        return found - {""}


class Order:
    """Of the tests, those that run the changed line first, and the quick ones before the others."""

    def __init__(self, baseline: Baseline, first: set[str]) -> None:
        self.baseline, self.first = baseline, first

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        costs: dict[tuple[bool, str], float] = defaultdict(float)
        for item in items:
            costs[self._part(item)] += self._seconds(item)
        # file by file, for what is made once per file
        items.sort(key=lambda i: (self._part(i)[0], costs[self._part(i)], self._part(i), self._seconds(i)))

    def _part(self, item: pytest.Item) -> tuple[bool, str]:
        return item.nodeid not in self.first, item.nodeid.split("::")[0]

    def _seconds(self, item: pytest.Item) -> float:
        return self.baseline.seconds.get(item.nodeid, 0.0)


class Watch:
    """Notes CPU seconds per test and, in coverage's contexts, which test runs."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.seconds = measured, dict[str, float]()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.measured.switch_context(item.nodeid)
        start = time.process_time()
        yield
        self.seconds[item.nodeid] = time.process_time() - start
        self.measured.switch_context("")


def run_pytest(tests: Sequence[str], *plugins: object) -> int:
    words = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--hypothesis-seed=0", *tests]
    return int(pytest.main(words, plugins=list(plugins)))


def baseline_of(tests: Sequence[str], folder: Path) -> Baseline:
    """Run all tests once, in a fork; they must pass."""
    noted = folder / "baseline.json"
    code = in_fork(lambda: _measure(tests, noted), None)
    if code != 0:
        said = (folder / "output.txt").read_text(errors="replace")
        raise SystemExit(f"The tests do not pass on the unchanged code:\n{said[-3000:]}")
    content = json.loads(noted.read_text())
    by_line = {m: {int(n): t for n, t in lines.items()} for m, lines in content["tests_of_line"].items()}
    return Baseline(content["seconds"], by_line, content["imports"])


def _measure(tests: Sequence[str], noted: Path) -> int:
    measured = coverage.Coverage(data_file=None, source=[PACKAGE], config_file=False)
    watch = Watch(measured)
    measured.start()
    code = run_pytest(tests, watch)
    measured.stop()
    data, here = measured.get_data(), Path.cwd()
    lines = {
        str(Path(file).relative_to(here)): data.contexts_by_lineno(file) for file in data.measured_files()
    }
    own = (PACKAGE, "tests", "conftest", "docs")
    imports = [name for name in list(sys.modules) if name.split(".")[0] not in own]
    noted.write_text(json.dumps({"seconds": watch.seconds, "tests_of_line": lines, "imports": imports}))
    return code


class NotThere(MetaPathFinder):
    """Libraries that cannot be imported."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)


def preload(names: Sequence[str]) -> None:
    """Import what the tests import from elsewhere, so that each fork has it."""
    for name in names:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def try_out(mutant: Mutant, source: str, tests: Sequence[str], baseline: Baseline) -> str:
    """'' if the mutant survives, else how it was killed. The file is as before afterwards.

    The files of the tests that run the line are run; all files where no test does, for such a line runs at
    import or in another process.
    """
    path = Path(mutant.module)
    first = baseline.tests_of(mutant, source)
    tests = sorted({test.split("::")[0] for test in first}) or tests
    before = path.stat()
    path.write_text(mutant.code(source), encoding="utf-8")
    os.utime(path, (before.st_atime, before.st_mtime + 10**6))  # else a compiled file may pass for it
    usual = sum(baseline.seconds.values())
    try:
        code = in_fork(lambda: run_pytest(tests, Order(baseline, first)), int(60 + 3 * usual))
    finally:
        path.write_text(source, encoding="utf-8")
        os.utime(path, (before.st_atime, before.st_mtime))
    if code == 0:
        return ""
    assert code != pytest.ExitCode.NO_TESTS_COLLECTED
    return "a test fails" if code == 1 else "takes too long" if code < 0 else f"pytest ends with {code}"


def in_fork(action: Callable[[], int], cpu_seconds: int | None) -> int:
    """What the action returns, or minus the signal that ended it; its words go to output.txt."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.setsid()
            file = os.open("../output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(file, 2)
            sys.dont_write_bytecode = cpu_seconds is not None
            if cpu_seconds is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
                resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
            code = action()
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        return _wait(child, None if cpu_seconds is None else time.monotonic() + LONGEST_WAIT_S)
    finally:
        _end_group(child)


def _wait(child: int, end: float | None) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() > end:
            _end_group(child)
        time.sleep(0.02)


def _end_group(leader: int) -> None:
    """What the fork started ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)

"""What helps those who come after: the files that no command reads stay true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nnunet_softlabel"
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_pre_commit_runs_the_lines_of_ci():
    lines = re.findall(r'^"\$environment/venv/bin/(ruff|mypy)"(.*)$', CI, re.MULTILINE)
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == [tool + rest for tool, rest in lines]
    assert not any(hook["pass_filenames"] for hook in repository["hooks"])


def test_workflow_runs_ci_on_every_python_that_is_supported(project):
    job = read(".github/workflows/ci.yml")["jobs"]["test"]
    versions = job["strategy"]["matrix"]["python"]
    assert versions == [f"3.{minor}" for minor in range(10, 14)]
    assert project["requires-python"] == f">={versions[0]}"
    assert {".ci/run"} <= {step.get("run") for step in job["steps"]}


def test_issue_form_asks_for_the_report_of_the_environment():
    form = read(".github/ISSUE_TEMPLATE/fault.yml")
    (asked,) = (field for field in form["body"] if field.get("id") == "environment")
    assert "`nnunet_softlabel env --report`" in asked["attributes"]["label"]
    assert asked["validations"]["required"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"])


def test_citation_names_the_package_and_the_paper(project):
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
    assert citation["title"].startswith(project["name"])
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]
    papers = {reference["authors"][0]["family-names"]: reference for reference in citation["references"]}
    assert set(papers) == {"Felfeliyan", "Isensee"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert papers["Felfeliyan"]["url"] in readme
    assert papers["Felfeliyan"]["title"] in " ".join(readme.split())


def test_contributing_names_files_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("| to add |") : text.index("A loss of your own")]
    named = [name for name in re.findall(r"`([\w./]+)`", table) if re.search(r"[./]", name)]
    assert len(named) > 15
    for name in named:
        if "NAME" not in name:
            known = [folder for folder in (ROOT, PACKAGE, PACKAGE / "losses") if (folder / name).exists()]
            assert known, name


def test_lowest_versions_are_those_of_the_project(project):
    """Each thing the package needs has a lower bound, and that version is tested with."""
    lines = (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.lower().split("==") for line in lines if "==" in line)
    bounds = dict(re.match(r"([\w-]+)>=([\d.]+)", need).groups() for need in project["dependencies"])
    assert {name.lower(): bound for name, bound in bounds.items()} == pinned
    assert len(bounds) == len(project["dependencies"])
    job = read(".github/workflows/ci.yml")["jobs"]["lowest"]
    assert {".ci/versions --lowest python3"} <= {step.get("run") for step in job["steps"]}


def interpreter(version: str, folder: Path) -> str:
    """What ``.ci/interpreter`` finds where ``folder`` comes first on the path."""
    path = f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"
    call = [str(ROOT / ".ci" / "interpreter"), version]
    return subprocess.run(call, env={"PATH": path}, check=True, capture_output=True, text=True).stdout.strip()


def test_interpreter_that_does_not_start_counts_as_none(tmp_path):
    """A manager of versions leaves names on the path that lead nowhere."""
    shim = tmp_path / "python3.99"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    assert interpreter("3.99", tmp_path) == ""


def test_interpreter_of_another_version_than_its_name_is_not_taken(tmp_path):
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for name in (f"python{version}", "python3.99"):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (tmp_path / name).chmod(0o755)
    assert interpreter(version, tmp_path) == f"python{version}"
    assert interpreter("3.99", tmp_path) == ""

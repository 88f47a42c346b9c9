"""README and docs: snippets run, command lines are understood, links lead somewhere, the site builds."""

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from nnunet_softlabel.cli import COMMANDS, build_parser, main
from nnunet_softlabel.formats.encoding import with_background
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.benchmark import fake_training as fake
from tests.nnunet_commands import check_nnunet_understands
from tests.project.layout_trees import write_layouts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
STUDIES = sorted(DOCS.glob("studies/*/README.md"))
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted(DOCS.glob("*.md")),
        *sorted(DOCS.glob("studies/*/*.md")),
    ]
}
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: .+? -->\n```\w*\n.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page):
    return PAGES[page].read_text(encoding="utf-8")


def python_blocks(page):
    """Code of a page, but for blocks under ``<!-- not run: why -->``."""
    text = NOT_RUN.sub("", text_of(page))
    return [code for _, language, code in FENCE.findall(text) if language == "python"]


def shell_commands(page):
    """Words of every command in shell blocks and indented code, variables and comments left out."""
    text = text_of(page)
    code = "\n".join(code for _, language, code in FENCE.findall(text) if language in ("", "bash"))
    code += "\n" + "\n".join(
        re.findall(r"^    (?=nnunet_softlabel |nnUNet|python )(?:.*\\\n)*.*", FENCE.sub("", text), re.M)
    )
    code = re.sub(r"\\\n\s*", " ", code)
    code = re.sub(r"\$\(\(.*?\)\)", "0", code)
    for line in code.splitlines():
        if re.search(r"(^|[\s'/(])(nnunet_softlabel (?!\d)|nnUNetv2_|python )", line):
            yield from _commands_of_line(line)


def _commands_of_line(line):
    line = re.sub(r"\"\$\((.*?)\)\"", r"; \1 ;", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    words = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";&|"):
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                yield [Path(words[0]).name, *words[1:]]
            words = []
        elif word.startswith("nnunet_softlabel "):  # a command handed to a scheduler
            yield shlex.split(word)
        else:
            words.append(word)


def commands_called(program_prefix):
    return [
        pytest.param(words, id=f"{page}-{number}")
        for page in PAGES
        for number, words in enumerate(shell_commands(page))
        if words[0].startswith(program_prefix)
    ]


@pytest.mark.parametrize("words", commands_called("nnunet_softlabel"))
def test_command_lines_are_understood(words):
    if "--help" in words:
        with pytest.raises(SystemExit, match="0"):
            build_parser().parse_args(words[1:])
    else:
        assert build_parser().parse_args(words[1:]).command == words[1]


@pytest.mark.parametrize("words", commands_called("nnUNetv2_"))
def test_commands_of_nnunet_are_understood(words, monkeypatch):
    check_nnunet_understands(words, monkeypatch)


@pytest.mark.parametrize("words", commands_called("python"))
def test_scripts_and_modules_exist(words):
    assert find_spec(words[2]) if words[1] == "-m" else (ROOT / words[1]).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_in_sentences_exist(page):
    known = {name.replace("_", "-") for name in COMMANDS}
    assert set(re.findall(r"`nnunet_softlabel ([a-z][a-z-]*)", text_of(page))) <= known


def test_no_command_escapes_the_tests():
    """As many calls are found as lines of code begin with one."""
    for page in PAGES:
        lines = re.findall(r"^(?:\w+=\S+ )*nnunet_softlabel (?!\d)", text_of(page), re.MULTILINE)
        assert sum(words[0] == "nnunet_softlabel" for words in shell_commands(page)) >= len(lines), page


def write_knee_files(folder):
    """Files that the snippet of docs/dataset_format.md reads."""
    from tests.conftest import write_volume

    for name in ("knee1", "knee2"):
        write_volume(folder / f"{name}.nii.gz", np.full((8, 16, 16), 7, np.uint8))
        mask = np.zeros((8, 16, 16), np.uint8)
        mask[2:5, 4:9, 4:9] = 1
        write_volume(folder / f"{name}_anna.nii.gz", mask)


SETUPS = {"docs/dataset_format.md": write_knee_files, "docs/layouts.md": write_layouts}
ONE_SPACE = {"docs/layouts.md"}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with nnU-Net's variables set into it."""
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)])
def test_python_snippets_run(page, workplace):
    SETUPS.get(page, lambda folder: None)(workplace)
    shared = {"__name__": "snippet"}  # of a page whose blocks follow each other
    for code in python_blocks(page):
        # spaces of their own: pages show alternatives; __name__ keeps spawned workers from running it
        exec(compile(code, page, "exec"), shared if page in ONE_SPACE else {"__name__": "snippet"})


def slug(heading):
    """The anchor of a heading, as Python-Markdown makes it."""
    plain = re.sub(r"`|\*|\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = FENCE.sub("", text_of(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (PAGES[page].parent / name).resolve() if name else PAGES[page]
        if path == DOCS / "index.md":
            path = ROOT / "README.md"  # it is the site's first page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page}: {target}"


def table_rows(page):
    """The lines of all tables of a page."""
    return [line for line in text_of(page).splitlines() if line.startswith("|")]


def test_benchmark_is_one_page_with_a_link_to_every_study():
    page = "docs/benchmark.md"
    assert len(text_of(page).splitlines()) <= 80
    assert {f"studies/{path.parent.name}/README.md" for path in STUDIES} <= set(
        re.findall(r"\]\(([^)]+)\)", text_of(page))
    )


@pytest.mark.parametrize("name", [path.parent.name for path in STUDIES])
def test_numbers_of_a_study_are_those_of_its_tables(name):
    rows = table_rows(f"docs/studies/{name}/README.md")
    assert rows
    assert set(rows) <= set(table_rows(f"docs/studies/{name}/tables.md"))
    assert sum(not re.match(r"[|\s-]+$", row) for row in rows) <= 20  # a page shows a choice, tables.md all


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "nnU-Net takes one hard label" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    contributing = (tmp_path / "site" / "contributing" / "index.html").read_text(encoding="utf-8")
    assert "How a study is added" in contributing


def predict_soft_labels(dataset, output):
    """What ``nnUNetv2_predict --save_probabilities`` leaves, the soft label standing in for a network."""
    from nnunet_softlabel.formats.images import read_mask, write_image

    output.mkdir()
    for case in dataset.cases("Ts"):
        np.savez(output / f"{case}.npz", probabilities=with_background(dataset.read_soft(case, "Ts")))
        (output / f"{case}.pkl").write_bytes(b"")
        hard, grid = read_mask(dataset.label_file(case, "Ts"))
        write_image(output / f"{case}.nii.gz", hard, grid)


@pytest.mark.slow
def test_tutorial_leads_to_the_report(workplace, monkeypatch, capsys):
    """Every command of the tutorial, in order; trainings and prediction are stood in for."""
    from nnunet_softlabel.benchmark import cell_training, preflight
    from tests.conftest import plan_in_process

    monkeypatch.setattr(preflight, "_device_problems", lambda grid: ())  # the tutorial's machine has a GPU
    monkeypatch.setattr(cell_training, "subprocess", fake.subprocess_with(fake.popen))
    for code in python_blocks("docs/tutorial.md"):
        exec(compile(code, "docs/tutorial.md", "exec"), {"__name__": "snippet"})
    for words in shell_commands("docs/tutorial.md"):
        if words[0] == "nnUNetv2_plan_and_preprocess":
            plan_in_process(510, ("3d_fullres",))
        elif words[0] == "nnUNetv2_predict":
            predict_soft_labels(SoftDataset.find(510), Path("predicted"))
        elif words[0] == "nnunet_softlabel":
            assert main(words[1:]) == 0, capsys.readouterr().err
    assert Path("inspection/inspection.html").is_file()
    assert Path("report/report.html").is_file()
    assert "margin 0.02" in Path("report_cpu/report.html").read_text(encoding="utf-8")
    segmented = ["apply_threshold.json", "knee_008.nii.gz", "knee_009.nii.gz"]
    assert sorted(path.name for path in Path("segmented").iterdir()) == segmented

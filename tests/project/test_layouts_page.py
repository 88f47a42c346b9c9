"""docs/layouts.md: every command runs on its tree, and gives the data set that plain files give."""

import locale

import numpy as np
import pytest

from nnunet_softlabel.cli import main
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from tests.project.layout_trees import write_layouts
from tests.project.test_docs import python_blocks, shell_commands

PAGE = "docs/layouts.md"


pytest.importorskip("highdicom")
LOCALE = locale.setlocale(locale.LC_ALL)


@pytest.fixture(autouse=True)
def _kept_locale():
    """Writing DICOM sets the C locale, in which later tests could not read their pages."""
    yield
    locale.setlocale(locale.LC_ALL, LOCALE)


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """All trees of the page, and nnU-Net's folders."""
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    write_layouts(tmp_path)


def commands():
    """The conversions; how `evaluate` takes a truth is tested in tests/evaluation/test_truth.py."""
    return [words for words in shell_commands(PAGE) if words[:2] == ["nnunet_softlabel", "convert"]]


def test_every_command_gives_the_data_set_of_plain_files(trees, capsys):
    wanted = None
    for words in commands():
        assert main([*words[1:], "-np", "1"]) == 0, capsys.readouterr().err
        if "--into" in words:
            continue
        dataset = SoftDataset.find(words[words.index("-d") + 1])
        soft = dataset.read_soft(dataset.cases()[0])
        wanted = soft if wanted is None else wanted
        assert len(dataset.cases()) == 2
        atol = 2e-3 if "--soft-scale" in words else 0  # maps have 255 steps
        reference = wanted[: len(soft), 3] if soft.ndim == 3 else wanted[: len(soft)]
        atol = 1e-4 if soft.ndim == 3 else atol  # flat maps have 16 bit
        np.testing.assert_allclose(soft, reference, atol=atol, err_msg=" ".join(words))
    assert wanted is not None
    assert sorted(np.unique(wanted).tolist()) == [0, 0.5, 1]
    filled = SoftDataset.find(601)
    assert filled.about is not None
    assert filled.about["cases_from_hard_labels"] == ["k2"]


def test_every_recipe_has_its_lines_in_python(trees):
    space = {"__name__": "snippet"}
    for code in python_blocks(PAGE):
        exec(compile(code, PAGE, "exec"), space)
    wanted = SoftDataset.find(702)
    for words in commands():
        if "-d" in words:
            number = int(words[words.index("-d") + 1])
            dataset = SoftDataset.find(number + 100)
            if number != 601:  # filled by the last recipe
                soft = dataset.read_soft(dataset.cases()[0])
                atol = 2e-3 if "--soft-scale" in words else 0
                reference = wanted.read_soft("k1")[: len(soft)]
                reference, atol = (reference[:, 3], 1e-4) if soft.ndim == 3 else (reference, atol)
                np.testing.assert_allclose(soft, reference, atol=atol)
    about = SoftDataset.find(701).about
    assert about is not None
    assert about["cases_from_hard_labels"] == ["k2"]


def test_inspect_takes_the_flags_of_every_command(trees, capsys):
    taken = {
        "--labels",
        "--raters",
        "--images",
        "--cases-csv",
        "--rater-axis",
        "--rater-names",
        "--class-axis",
    }
    taken |= {"--class-axis", "--rater-labels", "--regrid", "--rater-datasets"}
    for words in commands():
        if "--soft" in words or "--into" in words:
            continue
        kept, keeps = [], True
        for word in words[2:]:
            keeps = word in taken if word.startswith("-") else keeps
            kept += [word] if keeps else []
        capsys.readouterr()
        assert main(["inspect", *kept, "-np", "1"]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        assert "2 cases" in out
        assert "anna" in out.lower()
        assert "bob" in out.lower()

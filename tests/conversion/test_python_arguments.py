"""What Python users write: texts for paths, a mapping of labels, one instead of a list; else an error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import nnunet_softlabel as ns
from nnunet_softlabel.arguments import as_label_texts, as_path, as_texts
from nnunet_softlabel.conversion import run as conversion_run
from tests.conversion.conversion_helpers import tree


@pytest.fixture
def found(rater_folder) -> list[ns.Case]:
    return ns.find_cases(str(rater_folder.images[0]), raters=str(rater_folder.rater_pattern))


def test_texts_one_pattern_and_a_mapping_of_labels_give_the_same_bytes(
    rater_folder, nnunet_folders: SimpleNamespace
) -> None:
    lists = ns.find_cases([rater_folder.images[0]], raters=[rater_folder.rater_pattern])
    single = ns.find_cases(str(rater_folder.images[0]), raters=str(rater_folder.rater_pattern))
    ns.convert(lists, "Dataset901_Tiny", labels=["lesion=1"], channel_names=["MR"])
    expected = tree(nnunet_folders.raw)
    again = ns.Running(overwrite=True)
    ns.convert(single, "Dataset901_Tiny", labels={"lesion": 1}, channel_names="MR", running=again)
    assert tree(nnunet_folders.raw) == expected


def test_a_case_takes_texts_and_a_single_image() -> None:
    case = ns.Case("c1", "c1.nii.gz", raters={"r": "c1_r.nii.gz"}, ignore="c1_ignore.nii.gz")
    assert case.images == [Path("c1.nii.gz")]
    assert case.raters == {"r": Path("c1_r.nii.gz")}
    assert case.ignore == Path("c1_ignore.nii.gz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": [3]}, "Case c1: images: expected a file, an array or a function, got 3"),
        ({"raters": ["a.nii.gz"]}, "Case c1: raters: expected name -> file"),
        ({"rois": {"bone": 1.5}}, "Case c1: rois: expected a file"),
        ({"name": 7}, "Case: name: expected a text, got 7"),
    ],
)
def test_a_case_names_the_argument_of_the_wrong_kind(options: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ns.Case(**{"name": "c1", "images": ["c1.nii.gz"], **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"lesion": None}}, "labels: 'lesion' needs a label value"),
        ({"labels": 1}, "labels: expected a text or a list of texts, got int 1"),
        ({"channel_names": {"0": "MR"}}, "channel_names: expected a text or a list of texts"),
        ({"dataset": 901}, "dataset: expected a text, got int 901"),
        ({"running": 1.5}, "running: expected a Running or None, got float 1.5"),
        ({"priors": "bone"}, "priors: expected a Priors or None, got str 'bone'"),
        ({"fusion": 3}, "fusion: expected a Fusion or a text, got int 3"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named_and_leaves_nothing(
    found, nnunet_folders: SimpleNamespace, options: dict, message: str
) -> None:
    usual = {"dataset": "Dataset901_Tiny", "labels": {"lesion": 1}, "channel_names": ["MR"]}
    with pytest.raises(TypeError, match=message):
        ns.convert(found, **{**usual, **options})
    assert not list(nnunet_folders.raw.iterdir())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ns.Running(num_processes=1.5), "num_processes: expected a whole number, got float 1.5"),
        (lambda: ns.Fusion(min_raters=None), "min_raters: expected a whole number"),
        (lambda: ns.FileOptions(links_images="yes"), "links_images: expected True or False"),
    ],
)
def test_a_record_names_the_argument_of_the_wrong_kind(make, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("name", ["Knee", "501", "Dataset1_Knee", "Dataset501", "dataset501_Knee"])
def test_a_new_data_set_has_the_name_that_nnunet_gives_it(found, nnunet_folders, name: str) -> None:
    with pytest.raises(ns.UsageError, match=f"^dataset: '{name}' is no name of a data set; write it as"):
        ns.convert(found, name, labels={"lesion": 1}, channel_names="MR")
    with pytest.raises(ns.UsageError, match=r"^dataset 0: data set ids are 1 to 999"):
        ns.convert(found, "Dataset000_Knee", labels={"lesion": 1}, channel_names="MR")
    with pytest.raises(ns.UsageError, match=r"^dataset a b: a data set name is made of letters"):
        ns.convert(found, "Dataset501_a b", labels={"lesion": 1}, channel_names="MR")
    assert not list(nnunet_folders.raw.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": ns.Fusion(few_raters="drop")}, r"^Fusion\(few_raters='drop'\): the data set has"),
        ({"files": ns.FileOptions(links_images=True)}, r"^FileOptions\(links_images=True\): the images of"),
    ],
)
def test_soft_labels_for_a_data_set_take_its_cases_and_images(
    found, nnunet_folders, options: dict, message: str
) -> None:
    folder = ns.convert(found, "Dataset901_Tiny", labels={"lesion": 1}, channel_names="MR")
    before = tree(folder)
    with pytest.raises(ns.UsageError, match=message):
        ns.add_soft_labels(found, folder, running=ns.Running(overwrite=True), **options)
    assert tree(folder) == before


def test_what_is_no_case_is_named(nnunet_folders: SimpleNamespace) -> None:
    with pytest.raises(TypeError, match=r"cases: expected a list; each item: a Case, got str 'a\.nii\.gz'"):
        ns.convert(["a.nii.gz"], "Dataset901_T", labels={"a": 1}, channel_names=["MR"])


@pytest.mark.parametrize("error", [TypeError, RuntimeError, OSError, KeyError])
def test_any_exception_leaves_nothing_that_blocks_the_next_call(
    found, nnunet_folders: SimpleNamespace, monkeypatch, error: type[Exception]
) -> None:
    usual = {"dataset": "Dataset901_Tiny", "labels": {"lesion": 1}, "channel_names": ["MR"]}

    def fails(*args: object, **options: object) -> None:
        raise error("of no kind that a user causes")

    with monkeypatch.context() as patch:
        patch.setattr(conversion_run, "run_cases", fails)
        with pytest.raises(error):
            ns.convert(found, **usual)
    assert not list(nnunet_folders.raw.iterdir())
    assert ns.convert(found, **usual).is_dir()


def test_a_function_that_fails_leaves_nothing(nnunet_folders: SimpleNamespace) -> None:
    def source() -> np.ndarray:
        raise TypeError("not this way")

    case = ns.Case("c", [source], raters={"a": source})
    with pytest.raises(TypeError, match="not this way"):
        ns.convert(case, "Dataset901_T", labels={"a": 1}, channel_names="MR")
    assert not list(nnunet_folders.raw.iterdir())


def test_paths_texts_and_labels_by_themselves() -> None:
    assert as_path("a/b", "output") == Path("a/b")
    with pytest.raises(TypeError, match="output: expected a path, got int 3"):
        as_path(3, "output")
    assert as_texts(Path("a"), "images") == ["a"]
    with pytest.raises(TypeError, match="images: expected a list of texts, it holds int 3"):
        as_texts(["a", 3], "images")
    assert as_label_texts({"a": [1, 2], "b": 3, "ignore": 255}) == ["a=1,2", "b=3", "ignore=255"]
    assert as_label_texts("a=1") == ["a=1"]

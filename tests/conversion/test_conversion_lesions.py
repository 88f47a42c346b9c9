"""``convert --fusion lesion-wise``: rates over all training cases, as a user runs it."""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.cases.case import Adjudication, Case
from nnunet_softlabel.conversion.run import add_soft_labels, convert
from nnunet_softlabel.conversion.settings import Running
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.grid import Grid
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.fusion.detection_model import DetectionModel

SHAPE = (3, 16, 24)
GRID = Grid.upright(SHAPE, (2.0, 1.0, 1.0))
RATES = {"a": 0.8, "b": 0.6, "c": 0.4}


def _image(seed: int) -> tuple[np.ndarray, Grid]:
    return np.random.default_rng(seed).integers(0, 100, SHAPE).astype(np.int16), GRID


def cases_with_misses(n: int = 60, raters: tuple[str, ...] = ("a", "b", "c")) -> list[Case]:
    """Two lesions a case; each reader finds his share of them and nothing else."""
    rng = np.random.default_rng(0)
    cases = []
    for i in range(n):
        maps = {name: np.zeros(SHAPE, np.uint8) for name in raters}
        for column in (3, 15):
            for name, drawn in maps.items():
                drawn[1, 4:8, column : column + 4] = rng.random() < RATES[name]
        cases.append(Case(f"c{i:02d}", [partial(_image, i)], maps))
    return cases


def converted(cases: list[Case], **running) -> SoftDataset:
    folder = convert(
        cases, "Dataset902_L", labels=["lesion=1"], channel_names=["MR"], fusion="lesion-wise",
        running=Running(**running),
    )  # fmt: skip
    return SoftDataset(folder)


def test_a_lesion_that_one_reader_found_gets_more_than_a_third(nnunet_folders: SimpleNamespace) -> None:
    dataset = converted(cases_with_misses())
    model = DetectionModel.from_json(dataset.about["fusion"]["detection"]["lesion"])
    assert model.name == "misses and inventions"
    singles = [
        (c["posterior"], dataset.read_soft(case)[0][tuple(c["centre"])])
        for case, labels in json.loads((dataset.folder / "lesion_candidates.json").read_text()).items()
        for c in labels["lesion"]
        if sum(c["votes"].values()) == 1
    ]
    for posterior, value in singles:
        assert value == pytest.approx(max(posterior, 1 / 3), abs=1e-4)
    assert np.mean([p for p, _ in singles]) > 0.5


def test_few_cases_are_the_mean_of_convert_to_the_byte(nnunet_folders: SimpleNamespace) -> None:
    cases = cases_with_misses(4)
    lesion_wise = converted(cases)
    mean = SoftDataset(convert(cases, "Dataset903_M", labels=["lesion=1"], channel_names=["MR"]))
    for case in mean.cases():
        for one, two in zip(lesion_wise.soft_files(case), mean.soft_files(case), strict=True):
            assert one.read_bytes() == two.read_bytes()


def test_the_result_does_not_depend_on_the_number_of_processes(nnunet_folders: SimpleNamespace) -> None:
    one = converted(cases_with_misses(), num_processes=1).about
    two = converted(cases_with_misses(), num_processes=2, overwrite=True).about
    assert one == two


def test_one_reader_is_refused(nnunet_folders: SimpleNamespace) -> None:
    with pytest.raises(DatasetError, match="no training case has two raters"):
        converted(cases_with_misses(raters=("a",)))


def test_soft_labels_may_be_added_to_a_data_set(nnunet_folders: SimpleNamespace) -> None:
    cases = cases_with_misses()
    folder = convert(cases, "Dataset903_M", labels=["lesion=1"], channel_names=["MR"])
    add_soft_labels(cases, folder, fusion="lesion-wise", running=Running(overwrite=True))
    assert (folder / "lesion_candidates.json").is_file()
    assert converted(cases).about["fusion"] == SoftDataset(folder).about["fusion"]


def test_an_adjudicated_candidate_that_is_not_there_is_refused(nnunet_folders: SimpleNamespace) -> None:
    cases = cases_with_misses()
    cases[0] = Case(
        cases[0].name, cases[0].images, cases[0].raters, adjudicated={"lesion": {7: Adjudication(True)}}
    )
    with pytest.raises(DatasetError, match="candidate 7 of lesion was adjudicated, but there are"):
        converted(cases)


def test_an_expert_takes_a_candidate_out_and_puts_one_in(nnunet_folders: SimpleNamespace) -> None:
    cases = cases_with_misses()
    plain = converted(cases)
    found = json.loads((plain.folder / "lesion_candidates.json").read_text())
    name = next(n for n, labels in sorted(found.items()) if len(labels["lesion"]) == 2)
    index = next(i for i, c in enumerate(cases) if c.name == name)
    said = {"lesion": {1: Adjudication(False), 2: Adjudication(True)}}
    cases[index] = Case(name, cases[index].images, cases[index].raters, adjudicated=said)
    soft = converted(cases, overwrite=True).read_soft(name)[0]
    out, kept = (tuple(c["centre"]) for c in found[name]["lesion"])
    assert soft[out] == 0
    assert soft[kept] == 1

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_softlabel.conversion import Fusion
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.thresholds import rater_corrected
from nnunet_softlabel.formats.images import read_image, write_image
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.fusion import RaterVotes, estimate_rater_rates, staple
from tests.conversion.conversion_helpers import converted, in_memory_cases, run
from tests.conversion.prior_helpers import BONE, roi, votes_of

Folders = SimpleNamespace


def test_pooled_staple_is_that_of_the_estimated_rates(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments(), "--fusion", "staple", "--staple-scope", "dataset") == 0
    votes = {case: votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases}
    rates = estimate_rater_rates(votes.values())
    dataset = SoftDataset.find(901)
    for case, raters in votes.items():
        np.testing.assert_array_equal(dataset.read_soft(case), staple(raters, rates=rates))
    fusion = dataset.about["fusion"]
    assert (fusion["method"], fusion["scope"]) == ("staple", "dataset")
    assert fusion["prevalence"] == {"lesion": rates.prevalence[0]}
    for rater in rater_folder.raters:
        found = fusion["rates"][rater]["lesion"]
        assert (found["sensitivity"], found["specificity"]) == rates.of(rater, 0)


def test_anonymous_raters_share_their_rates(rater_folder, nnunet_folders: Folders) -> None:
    flags = ["--fusion", "staple", "--staple-scope", "dataset", "--anonymous-raters"]
    assert run(*rater_folder.arguments(), *flags) == 0
    votes = [votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases]
    rates = estimate_rater_rates(votes, shared=True)
    dataset = SoftDataset.find(901)
    assert list(dataset.about["fusion"]["rates"]) == ["*"]
    assert dataset.about["has_anonymous_raters"] is True
    np.testing.assert_array_equal(dataset.read_soft("case_00"), staple(votes[0], rates=rates))


def test_test_cases_do_not_change_the_rates(rater_folder, nnunet_folders: Folders) -> None:
    flags = ["--fusion", "staple", "--staple-scope", "dataset", "--test-cases", "case_03"]
    assert run(*rater_folder.arguments(), *flags) == 0
    votes = [votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases[:3]]
    found = SoftDataset.find(901).about["fusion"]["rates"]["1"]["lesion"]
    assert (found["sensitivity"], found["specificity"]) == estimate_rater_rates(votes).of("1", 0)


def test_a_rater_of_test_cases_alone_has_no_rates(nnunet_folders: Folders) -> None:
    cases = in_memory_cases([1, 0], [1, 1], [0, 1])
    cases.append(replace(cases[0], name="t", is_test=True, raters={"new": roi(0), "2": roi(1)}))
    fusion = Fusion("staple", scope="dataset")
    with pytest.raises(
        DatasetError, match=r"Case t: rater new rated no training case.*has_anonymous_raters=True"
    ):
        converted(cases, ["a=1"], fusion=fusion)
    converted(cases, ["a=1"], fusion=replace(fusion, has_anonymous_raters=True))


def test_rater_rates_are_those_of_the_pooled_votes(rater_folder, nnunet_folders: Folders) -> None:
    assert run(*rater_folder.arguments()) == 0
    votes = [votes_of(rater_folder, case, rater_folder.raters) for case in rater_folder.cases]
    sensitivity, specificity = estimate_rater_rates(votes, shared=True).of("*", 0)
    dataset = SoftDataset.find(901)
    expected = {"sensitivity": sensitivity, "false_positive_rate": 1 - specificity}
    assert dataset.about["rater_rates"] == {"lesion": expected}
    for rater, rates in dataset.about["rates_of_raters"].items():
        own = estimate_rater_rates(votes).of(rater, 0)
        assert (rates["lesion"]["sensitivity"], rates["lesion"]["specificity"]) == own
    assert rater_corrected(dataset) == {"lesion": pytest.approx((sensitivity + 1 - specificity) / 2)}


def test_rater_corrected_threshold_works_on_a_converted_data_set(
    rater_folder, nnunet_folders: Folders, tmp_path: Path
) -> None:
    assert run(*rater_folder.arguments()) == 0
    dataset = SoftDataset.find(901)
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for case in dataset.cases():
        soft = dataset.read_soft(case)
        np.savez(predictions / f"{case}.npz", probabilities=np.concatenate([1 - soft, soft]))
        hard = read_image(dataset.label_file(case))
        write_image(predictions / f"{case}.nii.gz", *hard)
    flags = ["-d", "901", "-i", str(predictions), "-o", str(tmp_path / "scores"), "-np", "1"]
    assert run("evaluate", *flags, "--threshold", "rater-corrected") == 0
    assert (tmp_path / "scores" / "soft_summary.json").is_file()


def test_two_raters_do_not_tell_their_rates(nnunet_folders: Folders) -> None:
    dataset = converted(in_memory_cases([1, 1, 0], [1, 0, 0]), ["a=1"])
    assert not {"rater_rates", "rates_of_raters"} & set(dataset.about)
    with pytest.raises(DatasetError, match=r"no rater_rates for a; .* most cases have three raters or more"):
        rater_corrected(dataset)


def test_rates_need_three_raters_in_most_cases(nnunet_folders: Folders) -> None:
    cases = in_memory_cases([1, 1, 0], [1, 0, 0], [1, 0, 1], num_cases=3)
    two = {name: cases[0].raters[name] for name in ("1", "2")}
    assert "rater_rates" in converted([*cases[:2], replace(cases[2], raters=two)], ["a=1"]).about
    few = [cases[0], *(replace(case, raters=two) for case in cases[1:])]
    assert "rater_rates" not in converted(few, ["a=1"], overwrite=True).about


@pytest.mark.parametrize(
    "options",
    [{"fusion": "majority"}, {"priors": BONE}, {"fusion": Fusion(has_anonymous_raters=True)}],
    ids=str,
)
def test_rates_are_left_out_where_they_mean_nothing(nnunet_folders: Folders, options: dict) -> None:
    cases = in_memory_cases([1, 1, 0], [1, 0, 0], [1, 0, 1], rois={"bone": roi(0, 1, 2)})
    about = converted(cases, ["a=1"], **options).about
    assert ("rater_rates" in about) == (options.get("fusion") == Fusion(has_anonymous_raters=True))
    assert "rates_of_raters" not in about


def test_ignored_voxels_do_not_count(nnunet_folders: Folders) -> None:
    raters = [[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]]
    mask = roi(3)
    dataset = converted(in_memory_cases(*raters, ignore=mask), ["a=1"])
    votes = np.zeros((3, 1, 24), bool)
    votes[:, 0, :4] = raters
    answered = np.broadcast_to(mask.ravel() == 0, (3, 24))
    rates = estimate_rater_rates([RaterVotes(votes, ("1", "2", "3"), (1.0,), answered)] * 2, shared=True)
    assert dataset.about["rater_rates"]["a"]["sensitivity"] == pytest.approx(rates.of("*", 0)[0])

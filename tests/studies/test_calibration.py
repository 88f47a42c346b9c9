"""The calibration study: its rule of choice, and maps of other folds only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from docs.studies.calibration import __main__ as study
from docs.studies.calibration import averaging, rivals, tables
from docs.studies.calibration.networks import StudyData
from docs.studies.shared.cases import CaseData
from docs.studies.shared.small_network import NetworkBudget


def screened(nll: dict[tuple[str, str], float], volume: dict[tuple[str, str], float]):
    rows = [
        {"method": "raw", "weight": "", "nll_near": "0.2", "brier_near": "0.05", "volume_error_abs": "0.2"}
    ]
    for (method, weight), value in nll.items():
        rows.append(
            {
                "method": method,
                "weight": weight,
                "nll_near": str(value),
                "brier_near": str(value / 4),
                "volume_error_abs": str(volume[method, weight]),
            }
        )
    return [{"data": "lidc", "label": "stock", **row} for row in rows]


def test_a_map_that_costs_volume_is_dropped_and_the_best_of_the_rest_is_taken():
    nll = {("isotonic", "near"): 0.1, ("isotonic", "roots"): 0.11, ("affine", "roots"): 0.12}
    volume = {("isotonic", "near"): 1.0, ("isotonic", "roots"): 0.24, ("affine", "roots"): 0.2}
    listed, chosen, foldable = tables.choice(screened(nll, volume))
    assert chosen == ("isotonic", "roots")
    assert foldable == ("affine", "roots")
    assert dict(((m, w), rise) for m, w, rise, _ in listed)["isotonic", "near"] == pytest.approx(0.8)


def test_if_all_cost_volume_the_smallest_cost_is_taken():
    nll = {("affine", "near"): 0.1, ("affine", "roots"): 0.3}
    volume = {("affine", "near"): 1.0, ("affine", "roots"): 0.4}
    assert tables.choice(screened(nll, volume))[1] == ("affine", "roots")


@pytest.fixture
def data(monkeypatch):
    """Ten small cases of two readers, and predictions that are too sure."""
    rng = np.random.default_rng(0)
    cases = []
    for k in range(10):
        votes = rng.random((2, 1, 2, 16, 16)) < 0.3
        image = np.random.default_rng(k).normal(size=(2, 16, 16))
        cases.append(CaseData(f"c{k}", f"p{k}", image, votes, None, (1.0, 1.0, 1.0)))
    found = StudyData(lambda: tuple(cases), 2, NetworkBudget())
    monkeypatch.setitem(study.DATA_SETS, "small", found)
    p = {c.name: np.clip(rng.random((1, 2, 16, 16)) ** 3, 1e-4, 1 - 1e-4) for c in cases}
    return cases, {name: np.concatenate([1 - q, q]) for name, q in p.items()}


def test_a_fold_gets_the_map_of_the_other_folds(data):
    _, found = data
    first = study.fitted("small", found, "affine", "roots")
    own = {case.name for case in study.case_parts("small")["0"]}
    changed = {name: p if name not in own else p[::-1] for name, p in found.items()}
    second = study.fitted("small", changed, "affine", "roots")
    assert second["0"] == first["0"]
    assert second["1"] != first["1"]


def test_every_case_is_scored_before_and_after(data):
    cases, found = data
    after = study.mapped("small", found, study.fitted("small", found, "isotonic", "near"))
    rows = [study.scored("small", maps) for maps in (found, after)]
    assert [row["case"] for row in rows[0]] == [case.name for case in cases]
    nll = [np.mean([row["nll_near"] for row in group]) for group in rows]
    assert nll[1] < nll[0]


@pytest.mark.parametrize("readers", [3, 4])
def test_a_reader_by_lot_is_one_of_the_readers_and_each_comes_as_often(readers):
    votes = np.random.default_rng(readers).random((readers, 1, 1, 8, 8)) < 0.5
    code = torch.from_numpy(rivals.coded(votes))  # (1, Z, H, W): a batch of one image
    batch = torch.cat([1 - code, code], dim=1).repeat(1200, 1, 1, 1)
    images, target = rivals.one_reader_by_lot(0)(torch.zeros(1200, 1, 8, 8), batch)
    assert torch.equal(target.sum(dim=1), torch.ones(1200, 8, 8))
    drawn = target[:, 1].numpy().astype(bool)
    counts = [int((drawn == own).all(axis=(1, 2)).sum()) for own in votes[:, 0, 0]]
    assert sum(counts) == 1200
    assert min(counts) > 0.8 * 1200 / readers
    assert not images.any()


def test_labels_of_one_consensus_are_smoothed_within_slices():
    votes = np.zeros((3, 1, 2, 8, 8), bool)
    votes[:2, 0, 0, 2:6, 2:6] = True  # two of three readers, on the first slice only
    smoothed = rivals.label_of(votes, "consensus smoothed", 0)
    assert smoothed.shape == (2, 1, 8, 8)
    assert sorted(np.unique(smoothed.round(6)).tolist()) == pytest.approx([0.05, 0.95])
    svls = rivals.label_of(votes, "SVLS of the consensus", 0)
    assert not svls[1].any()
    assert svls[0, 0, 3, 3] == pytest.approx(1)
    assert 0.5 < svls[0, 0, 2, 2] < 1
    assert 0 < svls[0, 0, 1, 1] < 0.5
    assert not rivals.label_of(votes, "one reader", 2).any()
    assert rivals.label_of(votes, "mean", 0).max() == pytest.approx(2 / 3)


def test_networks_of_single_readers_are_averaged_and_only_the_test_cases_are_scored(data, monkeypatch):
    small = replace(study.DATA_SETS["small"], budget=NetworkBudget(iterations=1, batch_size=2))
    for module in (study, rivals):
        monkeypatch.setitem(module.DATA_SETS, rivals.NAME, small)
    readers = []
    trained = rivals.trained
    monkeypatch.setattr(rivals, "trained", lambda *of: readers.append(of[-1]) or trained(*of))
    two = replace(rivals.RIVALS["Dice + CE, mean of three networks, one reader each"], networks=2)
    monkeypatch.setitem(rivals.RIVALS, "two", two)
    rows = study.run_rival(("two", "1", "0"))
    assert readers == [0, 1]
    assert {row["case"] for row in rows} == {case.name for case in study.case_parts("small")["1"]}
    assert {(row["rival"], row["fold"], row["seed"]) for row in rows} == {("two", "1", "0")}


def scored_rows(value: float, **about: str):
    metrics = dict.fromkeys(tables.METRICS, str(value))
    return [{"case": f"c{k}", "group": f"p{k}", "class": "1", **about, **metrics} for k in range(4)]


def test_a_rival_of_two_seeds_counts_with_their_mean_against_soft_labels_of_the_same_seeds():
    about = {"data": "lidc", "recalibration": "raw"}
    one = {"networks": tables.ONE}
    main = [
        *scored_rows(0.3, label="stock", seed="0", **one, **about),
        *scored_rows(0.3, label="stock", seed="2", **one, **about),
        *(row for seed in "01" for row in scored_rows(0.5, label="soft", seed=seed, **one, **about)),
        *scored_rows(0.8, label="soft", seed="2", **one, **about),
    ]
    for label in ("stock", "soft"):
        main += scored_rows(0.5, label=label, networks=tables.THREE, seed="", **about)
    found = scored_rows(0.6, rival="SVLS", seed="0") + scored_rows(0.8, rival="SVLS", seed="1")
    lines = tables.rivals_table(main, found).splitlines()
    assert "| SVLS | 2 | 4 | 0.700 |" in "\n".join(lines)
    assert any(line.startswith("| SVLS | +0.200") for line in lines)
    assert any(line.startswith("| stock, one | 2 | 4 | 0.300") for line in lines)
    assert any(line.startswith("| soft, one | 3 | 4 | 0.600") for line in lines)
    assert any(line.startswith("| soft, mean of three | -0.100") for line in lines)  # of all seeds


def test_one_training_is_scored_with_all_that_its_prediction_is_averaged_over(data, monkeypatch):
    small = replace(study.DATA_SETS["small"], budget=NetworkBudget(iterations=3, batch_size=2))
    for module in (study, averaging):
        monkeypatch.setitem(module.DATA_SETS, averaging.NAME, small)
    rows = study.run_averaging(("default", "1", "0"))
    own = {case.name for case in study.case_parts("small")["1"]}
    assert {(row["averaged"], row["case"]) for row in rows} == {
        (averaged, case)
        for averaged in ("nothing", "mirrored images", "late weights", "both")
        for case in own
    }
    assert {(row["learnt"], row["fold"], row["seed"]) for row in rows} == {("default", "1", "0")}


def test_late_weights_are_an_exponential_average_and_leave_the_training_alone(data, monkeypatch):
    small = replace(study.DATA_SETS["small"], budget=NetworkBudget(iterations=3, batch_size=2))
    monkeypatch.setitem(averaging.DATA_SETS, averaging.NAME, small)
    cases, steps = list(data[0]), []
    fit = averaging.fit

    def watched(*of, watch, **about):
        def both(iteration, network):
            watch(iteration, network)
            steps.append([p.detach().clone() for p in network.parameters()])

        return fit(*of, watch=both, **about)

    monkeypatch.setattr(averaging, "fit", watched)
    last, late = averaging.trained(averaging.TRAININGS["stock"], cases, 0)
    d = averaging.DECAY
    for index, p in enumerate(late.parameters()):
        first, second, third = (step[index] for step in steps)
        torch.testing.assert_close(p, d * (d * first + (1 - d) * second) + (1 - d) * third)
    labels = [rivals.label_of(case.votes, "consensus", 0) for case in cases]
    alone = fit(cases, labels, rivals.STOCK(), seed=0, budget=small.budget)
    for p, q in zip(last.parameters(), alone.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_mirrored_prediction_turns_with_its_image(data):
    network = averaging.fit(
        data[0], [rivals.label_of(c.votes, "mean", 0) for c in data[0]], rivals.DML_CE(),
        seed=0, budget=NetworkBudget(iterations=2, batch_size=2),
    )  # fmt: skip
    image = np.random.default_rng(1).normal(size=(2, 16, 16)).astype(np.float32)
    case = replace(data[0][0], image=image)
    turned = replace(case, image=image[:, ::-1].copy())
    p, q = (averaging.predicted(network, c, mirrors=True) for c in (case, turned))
    np.testing.assert_allclose(p, q[:, :, ::-1], atol=1e-6)
    assert not np.allclose(
        averaging.predicted(network, case, mirrors=False),
        averaging.predicted(network, turned, mirrors=False)[:, :, ::-1],
        atol=1e-6,
    )


def test_averages_are_compared_as_stated():
    rows = [
        row
        for learnt, averaged, value in (
            ("stock", "nothing", 0.3), ("stock", "mirrored images", 0.4), ("default", "mirrored images", 0.6)
        )
        for row in scored_rows(value, learnt=learnt, averaged=averaged, fold="3", seed="0")
    ]  # fmt: skip
    table = tables.averaging_table(rows)
    assert "| stock | mirrored images | 0 to 4 | 1 | 4 | 0.400 |" in table
    assert "| default, mirrored images - stock, mirrored images | +0.200" in table
    assert "| stock, mirrored images - stock, nothing | +0.100" in table
    assert "default, nothing" not in table  # not run yet
    assert "0 to 2" not in table  # nor any of these folds

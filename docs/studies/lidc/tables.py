"""Tables of the trainings on LIDC, from results.csv and fold0_reduced.csv into tables.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from docs.studies.lidc.trainers.fine_tuning import VARIANTS
from docs.studies.shared.numbers import Rows, markdown, ranks, select, values, write_tables
from docs.studies.shared.resumable import read_rows
from nnunet_softlabel.evaluation.case_scores import MODEL, Row
from nnunet_softlabel.evaluation.tables import read_rows as read_soft_metrics
from nnunet_softlabel.metrics.overlap import mean_of_defined
from nnunet_softlabel.metrics.registry import TITLES
from nnunet_softlabel.report.comparison import case_values, compare, home_reference
from nnunet_softlabel.report.runs import RECALIBRATED as SUFFIX

AnyRow = TypeVar("AnyRow", bound=Mapping[str, Any])
HERE = Path(__file__).parent
PAGE = HERE / "tables.md"
RECALIBRATED = HERE / "recalibrated.csv"  # of the two trainers that were trained again
OWN_PLAN = HERE / "fold0_default_plan.csv"  # two trainers
FINE_TUNED = HERE / "fine_tuned.csv"  # networks that go on from stock's, and what they are held against
ENDING = HERE / "ending.csv"  # the default with another ending
SEEDS = HERE / "seeds.csv"  # stock and the default, three trainings each, and their means
FIRST_RUN = HERE / "fold0_reduced.csv"  # a benchmark's soft_metrics.csv without rows of single raters
# at the time of the study nnUNetTrainerSoftCEFineTune had this rate, and a tenth of the iterations of stock
AS_SHIPPED = "FineTuneRate1e3Epochs6"
CHOICE_FOLDS, TEST_FOLDS = ("0",), ("1", "2")  # of the fine-tuning
NODULE, BASE, DEFAULT = "nodule", "nnUNetTrainer", "nnUNetTrainerSoftCE"
ENDS_IN_CE = "nnUNetTrainerSoftCELastFifth"
METRICS = (
    "dice", "precision", "recall", "soft_dice", "qubiq_dice", "brier_near", "nll_near", "ece_near",
    "volume_error_abs",
)  # fmt: skip
VARIANT, DICE_LOST, RANKED = "FineTune", 0.005, ("qubiq_dice", "brier_near", "nll_near")
THRESHOLDS = ("0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8")
SHARES = ("nobody", "less than half", "half", "more than half", "all")  # of the readers marked a voxel


def write(path: Path) -> None:
    """Rewrite tables.md: the five folds, and the first run."""
    rows = read_rows(path)
    scores = as_soft_metrics(rows)
    folds = against(scores, DEFAULT, left_out=("nnUNetTrainerHardBCE",))
    recalibrated = {"Recalibrated": recalibration()} if RECALIBRATED.is_file() else {}
    seeds = {"Three seeds": three_seeds(read_rows(SEEDS))} if SEEDS.is_file() else {}
    own_plan = {}
    if OWN_PLAN.is_file():
        own_plan = {"Fold 0 with nnU-Net's own plan": comparison(as_soft_metrics(read_rows(OWN_PLAN)))}
    fine_tuned = {"From a trained stock network": fine_tuning()} if FINE_TUNED.is_file() else {}
    ending = {}
    if ENDING.is_file():
        ending = {"Another ending": against(as_soft_metrics(read_rows(ENDING)), DEFAULT)}
    write_tables(
        PAGE,
        {
            "Five folds": folds,
            **recalibrated,
            **seeds,
            **fine_tuned,
            **ending,
            **own_plan,
            "What is marked, by the readers' votes": f"{votes(rows)}\n\n{same_volume(rows)}",
            "The first run: fold 0, five trainers": comparison(read_soft_metrics(FIRST_RUN)),
        },
    )


def recalibration() -> str:
    """Stock and the default, as trained and recalibrated; differences to stock, and to stock recalibrated."""
    return against(as_soft_metrics(read_rows(RECALIBRATED)), f"{BASE}{SUFFIX}")


def three_seeds(rows: Rows) -> str:
    """Each seed by itself; then the mean over seeds of each case, against stock and against the default.

    Of the folds that have every network.
    """
    names, folds = ({row[column] for row in rows} for column in ("trainer", "fold"))
    whole = {fold for fold in folds if {row["trainer"] for row in select(rows, fold=fold)} == names}
    rows = [row for row in rows if row["fold"] in whole]
    by_seed = []
    for name, seed in dict.fromkeys((row["trainer"], row["seed"]) for row in rows):
        own = as_soft_metrics(select(rows, trainer=name, seed=seed))
        by_seed.append([f"`{name}`", seed, *(f"{_mean(own, metric):.4f}" for metric in METRICS)])
    head = ["trainer", "seed", *(TITLES[metric] for metric in METRICS)]
    return f"{markdown(head, by_seed)}\n\n{against(as_soft_metrics(mean_over_seeds(rows)), DEFAULT)}"


def mean_over_seeds(rows: Rows) -> Rows:
    """One row for each trainer and case: the mean of the seeds in which a score is defined."""
    cells: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        cells.setdefault((row["trainer"], row["case"]), []).append(row)
    return [{**own[0], **{metric: _seed_mean(own, metric) for metric in METRICS}} for own in cells.values()]


def _seed_mean(rows: Rows, metric: str) -> str:
    mean = mean_of_defined(values(rows, metric))
    return "" if np.isnan(mean) else str(mean)


def fine_tuning() -> str:
    """All variants on the fold that chooses; what ships and what was chosen on the others."""
    rows = read_rows(FINE_TUNED)
    choice = [row for row in rows if row["fold"] in CHOICE_FOLDS]
    test = [row for row in rows if row["fold"] in TEST_FOLDS]
    text = f"Fold {', '.join(CHOICE_FOLDS)}, which chooses:\n\n{variant_means(choice)}"
    if not test:
        return text
    scores = as_soft_metrics(test)
    changed = [name for name in by_trainer(scores) if name.startswith(VARIANT) and name != AS_SHIPPED]
    return (
        f"{text}\n\nChosen: `{chosen_variant(FINE_TUNED)}`.\n\nFolds {', '.join(TEST_FOLDS)}, which test:\n\n"
        f"{against(scores, DEFAULT)}\n\nDifference to `{AS_SHIPPED}`, likewise:\n\n"
        f"{differences(by_trainer(scores), AS_SHIPPED, changed)}"
    )


def variant_means(rows: Rows) -> str:
    """Means over cases, and the mean rank that chooses."""
    scores, found = by_trainer(as_soft_metrics(rows)), rank_of_variants(rows)
    lines = [
        [
            f"`{name}`",
            *(f"{_mean(own, metric):.3f}" for metric in METRICS),
            f"{found[name]:.2f}" if name in found else "-",
        ]
        for name, own in scores.items()
    ]
    return markdown(["trainer", *(TITLES[m] for m in METRICS), "mean rank"], lines)


def rank_of_variants(rows: Rows) -> dict[str, float]:
    """Mean rank in `RANKED` of the variants whose Dice is at most `DICE_LOST` below stock's."""
    scores = by_trainer(as_soft_metrics(rows))
    least = _mean(scores[BASE], "dice") - DICE_LOST
    names = [n for n, own in scores.items() if n.startswith(VARIANT) and _mean(own, "dice") >= least]
    if not names:
        return {}
    table = [np.array([[_mean(scores[name], metric)] for name in names]) for metric in RANKED]
    each = [
        ranks(column, higher_is_better=metric == "qubiq_dice")
        for metric, column in zip(RANKED, table, strict=True)
    ]
    return dict(zip(names, np.mean(each, axis=0).tolist(), strict=True))


def chosen_variant(path: Path) -> str | None:
    """The variant of the best mean rank on the folds that choose; None while a variant lacks a fold."""
    rows = [row for row in read_rows(path) if row["fold"] in CHOICE_FOLDS]
    done = {(row["trainer"], row["fold"]) for row in rows}
    if not done >= {(name, fold) for name in (BASE, DEFAULT, *VARIANTS) for fold in CHOICE_FOLDS}:
        return None
    found = rank_of_variants(rows)
    return min(found, key=lambda name: found[name]) if found else None


def against(scores: Sequence[Row], rival: str, left_out: Sequence[str] = ()) -> str:
    """Means and tests against stock, and the tests of the others against another trainer."""
    of_trainer = by_trainer(scores)
    others = [name for name in of_trainer if name not in (BASE, rival, *left_out)]
    return (
        f"{comparison(scores)}\n\nDifference to `{rival}`, likewise:\n\n"
        f"{differences(of_trainer, rival, others)}"
    )


def as_soft_metrics(rows: Rows) -> list[Row]:
    """Rows as `nnunet_softlabel.evaluation` has them: a metric stands beside its home reference."""
    return [
        {
            **{name: row[name] for name in ("trainer", "case", "group")},
            "class": NODULE,
            "reference": home_reference(metric),
            "prediction": MODEL,
            metric: float(row[metric]),
        }
        for row in rows
        for metric in METRICS
        if row[metric]
    ]


def by_trainer(rows: Sequence[AnyRow]) -> dict[str, list[AnyRow]]:
    """Rows of every trainer, stock first."""
    trainers = dict.fromkeys([BASE, *(str(row["trainer"]) for row in rows)])
    return {name: [row for row in rows if row["trainer"] == name] for name in trainers}


def comparison(rows: Sequence[Row]) -> str:
    """Means of every trainer, and tests against stock."""
    of_trainer = by_trainer(rows)
    trainers = list(of_trainer)
    means = [
        [f"`{name}`", *(f"{_mean(of_trainer[name], metric):.3f}" for metric in METRICS)] for name in trainers
    ]
    return (
        f"{markdown(['trainer', *(TITLES[m] for m in METRICS)], means)}\n\n"
        f"Difference to `{BASE}`, 95 % interval, p after Holm's correction:\n\n"
        f"{differences(of_trainer, BASE, trainers[1:])}"
    )


def differences(of_trainer: Mapping[str, Sequence[Row]], base: str, trainers: Sequence[str]) -> str:
    """Tests of every trainer against one."""
    lines = [
        [
            f"`{name}`",
            TITLES[test.metric],
            f"{test.difference.mean:+.3f}",
            f"{test.difference.low:+.3f} to {test.difference.high:+.3f}",
            "< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}",
        ]
        for name in trainers
        for test in compare(of_trainer[base], of_trainer[name], names=(base, name), metrics=METRICS)
    ]
    return markdown(["trainer", "metric", "difference", "interval", "p"], lines)


def _mean(rows: Sequence[Row], metric: str) -> float:
    found = case_values(
        rows, metric=metric, class_name=NODULE, reference=home_reference(metric), prediction=MODEL
    )
    return mean_of_defined(value for value, _ in found.values())


def votes(rows: Rows) -> str:
    """Share of voxels marked by the votes, and where the surplus over stock outside the consensus lies."""
    of_trainer = by_trainer(rows)
    totals = {s: values(of_trainer[BASE], f"voxels {s}").sum() for s in SHARES}
    marked = {name: {s: values(own, f"marked {s}").sum() for s in SHARES} for name, own in of_trainer.items()}
    outside = SHARES[:3]
    lines = [["voxels", *(f"{totals[s]:.0f}" for s in SHARES), *[""] * (1 + len(outside))]]
    for name in of_trainer:
        digits = {"nobody": 2}
        shares = [f"{100 * marked[name][s] / totals[s]:.{digits.get(s, 1)}f} %" for s in SHARES]
        surplus = {s: marked[name][s] - marked[BASE][s] for s in outside}
        beyond = sum(surplus.values())
        where = [f"{100 * surplus[s] / beyond:.0f} %" if beyond > 0 else "-" for s in outside]
        lines.append([f"`{name}`", *shares, "-" if name == BASE else f"{beyond:+.0f}", *where])
    head = ["trainer", *SHARES, "outside the consensus, beyond stock", *(f"of this, {s}" for s in outside)]
    title = "Share of the voxels that a trainer marks, by how many readers marked them:"
    return f"{title}\n\n{markdown(head, lines)}"


def same_volume(rows: Rows) -> str:
    """Precision and recall over all voxels, at 0.5 and where a trainer marks about as much as stock."""
    of_trainer = by_trainer(rows)
    of_base = of_trainer[BASE]
    consensus = sum(values(of_base, f"voxels {share}").sum() for share in SHARES[3:])
    wanted = values(of_base, "marked at 0.5").sum()
    lines = []
    for name, own in of_trainer.items():
        marked = {t: values(own, f"marked at {t}").sum() for t in THRESHOLDS}
        hits = {t: values(own, f"hits at {t}").sum() for t in THRESHOLDS}
        nearest = min(THRESHOLDS, key=lambda t: abs(marked[t] - wanted))
        lines += [
            [
                f"`{name}`",
                t,
                f"{marked[t] / consensus:.3f}",
                f"{hits[t] / marked[t]:.3f}",
                f"{hits[t] / consensus:.3f}",
            ]
            for t in dict.fromkeys(("0.5", nearest))
        ]
    ratio = values(of_base, "expected voxels").sum() / consensus
    head = ["trainer", "threshold", "volume marked, of the consensus", "precision", "recall"]
    return (
        f"Over all voxels against the consensus, at 0.5 and at the threshold at which a trainer marks most "
        f"nearly as much as stock at 0.5. The readers' mean volume is {ratio:.3f} of the consensus:\n\n"
        f"{markdown(head, lines)}"
    )

"""Prints the tables of docs/benchmark.md from a CSV of a benchmark.

    python docs/experiments/benchmark_table.py docs/experiments/lidc_fold0_reduced.csv

The CSV is the benchmark's ``soft_metrics.csv``, here without the rows of single raters; ``lidc_folds_2d.csv``
keeps five digits of the metrics that its page uses.
"""

import argparse
from pathlib import Path

from nnunet_softlabel.evaluation.case_scores import MODEL
from nnunet_softlabel.evaluation.inference import mean_interval
from nnunet_softlabel.evaluation.statistics import case_values, compare, home_reference
from nnunet_softlabel.evaluation.tables import TITLES, read_rows

METRICS = (
    "dice", "precision", "recall", "soft_dice", "qubiq_dice", "brier_near", "nll_near", "ece_near",
    "volume_error_abs",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    rows = read_rows(parser.parse_args().csv)
    trainers = list(dict.fromkeys(str(row["trainer"]) for row in rows))
    of_trainer = {name: [row for row in rows if row["trainer"] == name] for name in trainers}
    (class_name,) = dict.fromkeys(str(row["class"]) for row in rows)
    print("| trainer | " + " | ".join(TITLES[m] for m in METRICS) + " |")
    print("|---" * (len(METRICS) + 1) + "|")
    for name in trainers:
        cells = [f"{mean(of_trainer[name], metric, class_name):.3f}" for metric in METRICS]
        print(f"| `{name}` | " + " | ".join(cells) + " |")
    print(f"\nDifference to `{trainers[0]}`, 95 % interval, p after Holm's correction:\n")
    print("| trainer | metric | difference | interval | p |")
    print("|---|---|---|---|---|")
    for name in trainers[1:]:
        for test in compare(of_trainer[trainers[0]], of_trainer[name], names=(trainers[0], name)):
            if test.metric in METRICS:
                low, high = test.difference.low, test.difference.high
                p = "< 0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}"
                print(
                    f"| `{name}` | {TITLES[test.metric]} | {test.difference.mean:+.3f} "
                    f"| {low:+.3f} to {high:+.3f} | {p} |"
                )


def mean(rows: list, metric: str, class_name: str) -> float:
    values = case_values(
        rows, metric=metric, class_name=class_name, reference=home_reference(metric), prediction=MODEL
    )
    numbers = [value for value, _ in values.values() if value == value]
    return mean_interval(numbers, resamples=100).mean


if __name__ == "__main__":
    main()

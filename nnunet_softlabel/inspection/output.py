"""What `inspect` found, on the terminal and on disk: ``inspection.json``, ``.csv``, ``.html``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_softlabel.arguments import LabelTexts
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.label_maps import FileOptions, Reading, labels_and_reading
from nnunet_softlabel.formats.files import check_can_be_made, refuse_existing, write_csv, write_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.staging import staged
from nnunet_softlabel.inspection.records import (
    CaseRow,
    ClassSummary,
    Inspection,
    RaterSummary,
    dice_of_pairs,
)
from nnunet_softlabel.inspection.verdict import verdict
from nnunet_softlabel.public import public

JSON_FILE, CSV_FILE, PAGE_FILE = "inspection.json", "inspection.csv", "inspection.html"
COLUMNS = (
    "case", "class", "raters", "mean_dice", "lowest_dice", "lowest_pair", "kappa", "marked_mm3",
    "disputed_share", "stands_out", "problems", "prior_before_mm3", "prior_after_mm3",
)  # fmt: skip
MOST_LINES = 12  # of each list on the terminal
MOST_COLUMNS = 10  # raters in the matrix on the terminal


@public
def write_inspection(
    output: Path,
    summary: Inspection,
    cases: Sequence[Case],
    *,
    labels: LabelTexts | Labels,
    reading: Reading | FileOptions | None = None,
    title: str,
    overwrite: bool = False,
) -> None:
    """Write all three files, or none.

    >>> cases = ns.find_cases("images/{case}.nii.gz", raters="raters/{case}_{rater}.nii.gz")
    >>> found = ns.inspect_raters(cases, labels={"lesion": 1})
    >>> ns.write_inspection("inspected", found, cases, labels={"lesion": 1}, title="Knees")
    >>> sorted(path.name for path in Path("inspected").iterdir())
    ['inspection.csv', 'inspection.html', 'inspection.json']

    Args:
        output: folder.
        summary: of `inspect_raters`.
        cases: the same cases, for the pictures.
        labels: as `inspect_raters` got it.
        reading: as `inspect_raters` got it.
        title: of the page.
        overwrite: replace what is there.

    Raises:
        UsageError: if there is an inspection already.
    """
    from nnunet_softlabel.inspection.page import write_page  # matplotlib: not for every worker

    labels, reading = labels_and_reading(labels, reading)
    with staged(output, (JSON_FILE, CSV_FILE, PAGE_FILE), overwrite=overwrite) as new:
        write_json(new / JSON_FILE, without_nan(summary))
        _write_csv(new / CSV_FILE, summary)
        write_page(new / PAGE_FILE, summary, cases, labels=labels, reading=reading, title=title)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to replace an earlier inspection, and a folder that cannot be made."""
    refuse_existing([output / name for name in (JSON_FILE, CSV_FILE, PAGE_FILE)], overwrite=overwrite)
    check_can_be_made(output / JSON_FILE)


def without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON does not know."""
    if isinstance(value, Mapping):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _write_csv(path: Path, summary: Inspection) -> None:
    rows = [
        {**row, "stands_out": "; ".join(row["stands_out"]), "problems": "; ".join(row["problems"])}
        for row in case_rows(summary)
    ]
    write_csv(path, COLUMNS, rows)


def case_rows(summary: Inspection) -> list[CaseRow]:
    """One row per case and class; a case that could not be compared has one row with its problems."""
    rows: list[CaseRow] = []
    problems: dict[str, list[str]] = {}
    for found in summary["problems"]:
        problems.setdefault(found["case"], []).append(found["problem"])
    reasons = {(found["case"], found["class"]): found["reasons"] for found in summary["stand_out"]["cases"]}
    for case, classes in summary["per_case"].items():
        for name, measured in classes.items():
            prior = summary["prior"].get(case, {}).get(name)
            rows.append(
                {
                    "case": case,
                    "class": name,
                    "raters": len(measured["volume_mm3"]),
                    "mean_dice": measured["mean_dice"],
                    "lowest_dice": measured["lowest_dice"],
                    "lowest_pair": " ".join(measured["lowest_pair"] or []),
                    "kappa": measured["kappa"],
                    "marked_mm3": measured["marked_mm3"],
                    "disputed_share": measured["disputed_share"],
                    "stands_out": reasons.get((case, name), []),
                    "problems": problems.get(case, []),
                }
            )
            if prior is not None:
                rows[-1] |= {
                    "prior_before_mm3": prior["before_mm3"],
                    "prior_after_mm3": prior["after_mm3"],
                }
    alone = [case for case in problems if case not in summary["per_case"]]
    return rows + [
        {"case": case, "class": "", "stands_out": [], "problems": problems[case]} for case in alone
    ]


def format_inspection(summary: Inspection) -> str:
    """The tables for the terminal."""
    lines = [
        f"{summary['cases_compared']} of {summary['number_of_cases']} cases have two raters or more; "
        + ("anonymous raters" if summary["is_anonymous"] else f"{len(summary['raters'])} raters")
    ]
    lines += verdict(summary)
    for name, found in summary["per_class"].items():
        lines += [
            "",
            f"{name}: mean pairwise Dice {found['mean_dice']:.3f}, Fleiss' kappa {found['kappa']:.3f}, "
            f"disputed {found['disputed_share']:.1%} of what anyone marked (mean of the cases); "
            f"{found['cases_marked']} cases with something marked",
        ]
        if found["shared_rates"]:
            rates = found["shared_rates"]
            lines.append(
                f"STAPLE, one rater like another: sensitivity {rates['sensitivity']:.3f}, "
                f"specificity {rates['specificity']:.5f}, precision {rates['precision']:.3f}"
            )
        else:
            lines += [*_rater_table(found["raters"]), "", *_matrix(found)]
    lines += _stand_out(summary)
    return "\n".join(lines)


def _rater_table(raters: Mapping[str, RaterSummary]) -> list[str]:
    width = max(len("rater"), *map(len, raters))
    lines = [
        f"{'rater':<{width}}  cases  empty  Dice with others  volume bias  "
        "sensitivity  specificity  precision"
    ]  # fmt: skip
    for rater, r in raters.items():
        lines.append(
            f"{rater:<{width}}  {r['cases']:>5}  {r['empty_where_others_marked']:>5}  "
            f"{r['dice_with_others']:>16.3f}  {r['volume_bias']:>+11.1%}  {r['sensitivity']:>11.3f}  "
            f"{r['specificity']:>11.5f}  {r['precision']:>9.3f}"
        )
    return lines


def _matrix(found: ClassSummary) -> list[str]:
    """Mean Dice of every pair, or a pointer to the page where there are many raters."""
    raters, values = list(found["raters"]), dice_of_pairs(found)
    if len(raters) > MOST_COLUMNS:
        return [f"(the Dice of {len(values)} pairs is in {JSON_FILE} and {PAGE_FILE})"]
    width = max(len("Dice"), *map(len, raters))
    lines = [f"{'Dice':<{width}}" + "".join(f"  {rater:>8}" for rater in raters)]
    for row in raters:
        cells = [values.get((row, column), values.get((column, row))) for column in raters]
        texts = ["-" if c is None else f"{c:.3f}" for c in cells]
        lines.append(
            f"{row:<{width}}"
            + "".join(f"  {text:>{max(8, len(rater))}}" for rater, text in zip(raters, texts, strict=True))
        )
    return lines


def _stand_out(summary: Inspection) -> list[str]:
    found = summary["stand_out"]
    sections = {
        "Raters with the same masks in all cases": [
            f"{', '.join(group['raters'])} ({group['cases']} cases)"
            for group in summary["identical"]["raters"]
        ],
        "Raters who stand out": [f"{f['rater']} ({f['class']}): {f['reason']}" for f in found["raters"]],
        "Cases that stand out": [
            f"{f['case']} ({f['class']}): {'; '.join(f['reasons'])}" for f in found["cases"]
        ],
        "Identical masks in a case": [
            f"{pair['case']}: {' and '.join(pair['raters'])}" for pair in summary["identical"]["pairs"]
        ],
        "Problems with files": [f"{p['case']}: {p['problem']}" for p in summary["problems"]],
    }
    lines = []
    for title, entries in sections.items():
        if entries:
            lines += ["", f"{title} ({len(entries)}):", *(f"  {entry}" for entry in entries[:MOST_LINES])]
            if len(entries) > MOST_LINES:
                lines.append(f"  ... and {len(entries) - MOST_LINES} more")
    if summary["prior"]:
        effects = [effect for case in summary["prior"].values() for effect in case.values()]
        before = sum(effect["before_mm3"] for effect in effects)
        after = sum(effect["after_mm3"] for effect in effects)
        lines += ["", f"Prior: expected volume {before:.0f} mm3 before, {after:.0f} mm3 after."]
    return lines

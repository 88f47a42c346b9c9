"""What stays when soft labels are added to a data set again: patients, and all about its test cases."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.cases.groups import check_groups_are_whole
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import visible
from nnunet_softlabel.formats.soft_dataset import soft_ending
from nnunet_softlabel.formats.soft_labels import KeptTestLabels, PriorsRecord, SoftLabels


def groups_of(content: Mapping[str, Any], cases: Sequence[Case], tests: Iterable[str]) -> dict[str, str]:
    """Case -> group (patient): what ``dataset.json`` records, and in its place what the cases say.

    Raises:
        DatasetError: if a group would be trained on and tested on.
    """
    recorded = (content.get("soft_labels") or {}).get("groups") or {}
    given = {case.name: case.group for case in cases if case.group is not None}
    check_groups_are_whole(
        [*cases, *(Case(name, [], group=recorded.get(name), is_test=True) for name in tests)]
    )
    return {str(name): str(group) for name, group in {**recorded, **given}.items() if group is not None}


def with_recorded_groups(dataset: Path, content: Mapping[str, Any], cases: Sequence[Case]) -> list[Case]:
    """Cases without a group get the one that ``dataset.json`` records.

    Raises:
        DatasetError: if it records groups, but none of a case.
    """
    recorded = (content.get("soft_labels") or {}).get("groups")
    if not recorded or any(case.group is not None for case in cases):
        return list(cases)
    for case in cases:
        if recorded.get(case.name) is None:
            raise DatasetError(
                f"Case {case.name}: {dataset / 'dataset.json'} records groups (patients), but none of this "
                f"case; give all groups in the column group of --cases-csv."
            )
    return [replace(case, group=str(recorded[case.name])) for case in cases]


def test_cases(dataset: Path, ending: str) -> list[str]:
    """Names of the test cases with soft labels, sorted."""
    end = "_0001" + soft_ending(ending)
    return sorted(path.name[: -len(end)] for path in visible(dataset / "softLabelsTs", f"*{end}"))


def keep_test_records(about: SoftLabels, before: Mapping[str, Any], tests: Iterable[str]) -> None:
    """Add to a new record what the old one says of the test cases, whose labels stay as they are."""
    digests = before.get("digests") or {}
    kept = [name for name in tests if name in digests]
    if not kept:
        return
    for key in ("raters_of_case", "moved", "disputed_share", "digests"):
        old = before.get(key) or {}
        new = cast(dict[str, object], about[key])
        new |= {name: old[name] for name in kept if name in old}
    about["raters"] = sorted({rater for raters in about["raters_of_case"].values() for rater in raters})
    in_order = "".join(about["digests"][name] for name in sorted(about["digests"]))
    about["digest"] = hashlib.sha256(in_order.encode()).hexdigest()
    prior: PriorsRecord | None = before.get("prior")
    if prior is not None:
        records = prior["records"]
        prior = {**prior, "records": {name: records[name] for name in kept if name in records}}
    made: KeptTestLabels = {
        "cases": kept,
        "made_by": str(before.get("made_by", "")),
        "fusion": before.get("fusion"),
        "prior": prior,
    }
    about["test_labels"] = before.get("test_labels", made)

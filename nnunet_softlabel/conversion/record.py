"""The key ``soft_labels`` of ``dataset.json``: what was asked for, what came of it, how good raters are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import cast

from nnunet_softlabel import __version__
from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.case_records import CaseRecord
from nnunet_softlabel.conversion.request import request_digest, values_as_text
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.conversion.sources import digest_of_sources
from nnunet_softlabel.conversion.summary import summary_of_contents
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.soft_dataset import FORMAT_VERSION
from nnunet_softlabel.formats.soft_labels import (
    FusionRecord,
    PriorsRecord,
    RatesOfRaters,
    RatesOfVotes,
    SoftLabels,
)
from nnunet_softlabel.fusion import RaterCounts, RaterRates
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.rater_rates import ANYONE, MOST_RATERS, CountsJson

CANDIDATES_FILE = "lesion_candidates.json"
# Two raters leave fewer numbers than there are rates: many rates fit their votes alike.
IDENTIFYING_RATERS = 3


def conversion_record(
    cases: Sequence[Case], records: Sequence[CaseRecord], settings: CaseSettings
) -> SoftLabels:
    """All that is known of a conversion.

    Args:
        cases: that were converted or dropped.
        records: of `case_writer.write_case`, in the same order.
        settings: with their estimates.
    """
    kept = [record for record in records if not record.get("is_dropped")]
    is_fused = any(case.raters and not case.soft for case in cases)
    about: SoftLabels = {
        "format_version": FORMAT_VERSION,
        "made_by": f"nnunet_softlabel {__version__}",
        "raters": sorted({rater for record in kept for rater in record["raters"]}),
        "raters_of_case": {record["case"]: record["raters"] for record in kept},
        "has_anonymous_raters": settings.has_anonymous_raters,
        "source": "raters" if is_fused else "probability maps",
        "fusion": _fusion(settings) if is_fused else None,
        "prior": _prior(kept, settings),
        "label_values": values_as_text(settings.reading.values),
        "label_values_of_rater": {
            rater: values_as_text(values) for rater, values in settings.reading.of_rater.items()
        },
        "regrid": settings.reading.regrid,
        "moved": {record["case"]: record["moved"] for record in kept if record.get("moved")},
        "cases_from_hard_labels": [case.name for case in cases if case.hard is not None],
        "min_raters": settings.min_raters,
        "dropped_cases": [record["case"] for record in records if record.get("is_dropped")],
        "disputed_share": {record["case"]: round(record["disputed_share"], 6) for record in kept},
        "soft_voxels": sum(record["soft_voxels"] for record in kept),
        "made_hard_labels": settings.hard_labels is None,
        "summary": summary_of_contents(kept),
        "digests": {record["case"]: record["hash"] for record in kept},
        "digest": hashlib.sha256("".join(record["hash"] for record in kept).encode()).hexdigest(),
        "request": request_digest(cases, settings),
        "sources": digest_of_sources([record["sources"] for record in records]),
    }
    if settings.counts_votes:
        votes = [record["votes"] for record in kept if not record["is_test"]]
        about |= rates_of_votes([v for v in votes if v is not None], settings)
    if cases[0].group is not None:
        about["groups"] = {case.name: case.group for case in cases}
    return about


def record_dropped(dataset: Path, names: Sequence[str]) -> None:
    """Write down cases that were left out before the conversion, for want of raters."""
    if names:
        content = read_json(dataset / "dataset.json")
        about = content["soft_labels"]
        about["dropped_cases"] = sorted({*about["dropped_cases"], *names})
        write_json(dataset / "dataset.json", content)


def write_candidates(folder: Path, records: Sequence[CaseRecord]) -> None:
    """``lesion_candidates.json``: case -> label -> candidates of lesion-wise fusion; no file of others."""
    found = {record["case"]: record["lesions"] for record in records if "lesions" in record}
    if found:
        write_json(folder / CANDIDATES_FILE, found)
    else:
        (folder / CANDIDATES_FILE).unlink(missing_ok=True)


def detection_models(dataset: Path) -> dict[str, DetectionModel]:
    """Label -> what lesion-wise fusion found; none of other fusions."""
    about = read_json(dataset / "dataset.json").get("soft_labels") or {}
    found = (about.get("fusion") or {}).get("detection") or {}
    return {label: DetectionModel.from_json(content) for label, content in found.items()}


def _fusion(settings: CaseSettings) -> FusionRecord:
    fusion = cast(FusionRecord, {"method": settings.fusion, **settings.fusion_options})
    if settings.fusion == "staple":
        fusion["scope"] = settings.staple_scope
    if settings.estimates.detection is not None:
        fusion["detection"] = {
            name: model.to_json()
            for name, model in zip(settings.labels.names, settings.estimates.detection, strict=True)
        }
    rates = settings.estimates.rates
    if rates is not None:
        fusion["rates"] = _named(rates, settings.labels.names)
        fusion["prevalence"] = dict(zip(settings.labels.names, rates.prevalence, strict=True))
    return fusion


def _prior(kept: Sequence[CaseRecord], settings: CaseSettings) -> PriorsRecord | None:
    if not settings.priors:
        return None
    return {
        "steps": settings.priors.steps(settings.estimates.lesions, settings.labels.names),
        "records": {record["case"]: record["prior"] for record in kept},
    }


def rates_of_votes(votes: Sequence[CountsJson], settings: CaseSettings) -> RatesOfVotes:
    """``rater_rates`` and ``rates_of_raters`` of the training cases; empty where votes do not tell the rates.

    They do where most cases have three raters. Rates of each rater are left out for anonymous raters, and
    beyond ``MOST_RATERS`` names, which are hardly the same people in all cases.
    """
    counts = [RaterCounts.from_json(v) for v in votes]
    if 2 * sum(len(c.names) >= IDENTIFYING_RATERS for c in counts) <= len(counts):
        return {}
    total, names = reduce(add, counts), settings.labels.names
    shared = _named(total.estimate(shared=True), names)[ANYONE]
    found: RatesOfVotes = {
        "rater_rates": {
            name: {
                "sensitivity": rates["sensitivity"],
                "false_positive_rate": 1 - rates["specificity"],
            }
            for name, rates in shared.items()
        }
    }
    if not settings.has_anonymous_raters and len(total.names) <= MOST_RATERS:
        found["rates_of_raters"] = _named(total.estimate(), names)
    return found


def _named(rates: RaterRates, names: Sequence[str]) -> RatesOfRaters:
    return {
        rater: {
            name: dict(zip(("sensitivity", "specificity"), rates.of(rater, channel), strict=True))
            for channel, name in enumerate(names)
        }
        for rater in rates.sensitivity
    }

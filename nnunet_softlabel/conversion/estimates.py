"""What is estimated over the training cases before any is written: raters' rates, and how bright lesions are.

Cases leave small records in the unfinished folder, which are added up in the order of their names: the result
hangs neither on the number of processes nor on a kill. Test cases are left out, so that no training label
hangs on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.case_records import CandidatesRecord, LesionsRecord, VotesRecord
from nnunet_softlabel.conversion.one_case.apply_priors import lesions_of
from nnunet_softlabel.conversion.one_case.fuse import (
    LESION_WISE,
    channel_of,
    fuse_case,
    known_of,
)
from nnunet_softlabel.conversion.one_case.read import load_case
from nnunet_softlabel.conversion.prior_settings import Priors
from nnunet_softlabel.conversion.settings import CaseSettings, has_too_few_raters
from nnunet_softlabel.conversion.work_folder import record_file, run_cases
from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.files import write_json
from nnunet_softlabel.fusion import RaterCounts, RaterRates, mean_vote
from nnunet_softlabel.fusion.candidate import Candidate
from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.fusion.lesion_candidates import find_candidates
from nnunet_softlabel.fusion.rater_rates import CountsJson
from nnunet_softlabel.priors.lesions import (
    LesionModel,
    LesionStatistics,
    LesionStatisticsJson,
    check_contrast,
)
from nnunet_softlabel.processes import Workers

# Of cross-fitted probabilities to the mean of the raters: what networks below say is no evidence.
LEAST_SOFT_DICE = 0.3


def estimate(cases: Sequence[Case], work: Path, settings: CaseSettings, *, workers: Workers) -> CaseSettings:
    """The settings with the estimates that they ask for.

    Raises:
        DatasetError: if the cases do not allow one.
    """
    chosen = [case for case in cases if not case.is_test and not has_too_few_raters(case, settings)]
    if settings.staple_scope == "dataset":
        fused = [case for case in chosen if case.raters and not case.soft]
        counted = run_cases(
            count_case, fused, work, settings, kind="votes", title="Counting votes", workers=workers
        )
        rates = _rates([record["votes"] for record in counted], settings)
        settings = replace(settings, estimates=replace(settings.estimates, rates=rates))
    if settings.fusion == LESION_WISE:
        fused = [case for case in chosen if not case.soft]
        found = run_cases(
            find_lesions, fused, work, settings, kind="candidates", title="Finding lesions", workers=workers
        )
        detection = _detection(fused, found, settings)
        settings = replace(settings, estimates=replace(settings.estimates, detection=detection))
    if settings.priors.intensity is not None:
        measured = run_cases(
            measure_case, chosen, work, settings, kind="lesions", title="Measuring lesions", workers=workers
        )
        lesions = _lesion_model([record["lesions"] for record in measured], settings)
        settings = replace(settings, estimates=replace(settings.estimates, lesions=lesions))
    return settings


def count_case(case: Case, work: Path, settings: CaseSettings) -> VotesRecord:
    """First pass of STAPLE over the data set: how many voxels of a case got which votes."""
    loaded = load_case(case, replace(settings, priors=Priors()))
    try:
        assert loaded.raters is not None, "a case with raters was chosen"
        counts = loaded.raters.counts(loaded.ignored)
    except ValueError as error:  # too many raters
        raise DatasetError(
            f"Case {case.name}: {error}; leave raters out, or use --staple-scope case."
        ) from error
    record: VotesRecord = {"case": case.name, "votes": counts.to_json()}
    write_json(record_file(work, case.name, "votes"), record)
    return record


def find_lesions(case: Case, work: Path, settings: CaseSettings) -> CandidatesRecord:
    """First pass of lesion-wise fusion: the candidates of a case, and who marked them."""
    loaded = load_case(case, replace(settings, priors=Priors()))
    found: list[tuple[Candidate, ...]] = []
    agreement = []
    for channel in range(len(settings.labels.names)):
        if loaded.raters is None:  # a hard label stands in
            found.append(())
            continue
        votes, probability = loaded.raters.channel(channel), channel_of(loaded, channel)
        found.append(find_candidates(votes, 0, probability).candidates)
        if probability is not None:
            (mean,) = mean_vote(votes)
            agreement.append([float(np.minimum(mean, probability).sum()), float((mean + probability).sum())])
    record: CandidatesRecord = {
        "case": case.name,
        "candidates": [[c.to_json() for c in channel] for channel in found],
    }
    if agreement:
        record["agreement"] = agreement
    write_json(record_file(work, case.name, "candidates"), record)
    return record


def measure_case(case: Case, work: Path, settings: CaseSettings) -> LesionsRecord:
    """First pass of the intensity prior: how bright a case's agreed lesions are, in units of its tissue."""
    loaded = load_case(case, settings)
    statistics = lesions_of(case, loaded, fuse_case(case, loaded, settings), settings)
    record: LesionsRecord = {"case": case.name, "lesions": statistics.to_json()}
    write_json(record_file(work, case.name, "lesions"), record)
    return record


def _rates(votes: Sequence[CountsJson], settings: CaseSettings) -> RaterRates:
    if not votes:
        raise DatasetError("--staple-scope dataset: no training case has raters to estimate rates from.")
    counts = reduce(add, map(RaterCounts.from_json, votes))
    return counts.estimate(shared=settings.has_anonymous_raters)


def _detection(
    cases: Sequence[Case], records: Sequence[CandidatesRecord], settings: CaseSettings
) -> tuple[DetectionModel, ...]:
    """Who misses and who invents, channel by channel."""
    if all(len(case.raters) < 2 for case in cases):
        raise DatasetError(
            "--fusion lesion-wise: no training case has two raters; what one reader misses nobody can tell."
        )
    models = []
    for channel, label in enumerate(settings.labels.names):
        candidates = [[Candidate.from_json(c) for c in r["candidates"][channel]] for r in records]
        known = [known_of(case, label, own) for case, own in zip(cases, candidates, strict=True)]
        model = estimate_detection(
            candidates,
            shared=settings.has_anonymous_raters,
            groups=[case.group or case.name for case in cases],
            known=known,
            doubt=_network_doubt(records, channel),
        )
        models.append(model)
    return tuple(models)


def _network_doubt(records: Sequence[CandidatesRecord], channel: int) -> str | None:
    """Why what the networks see is no evidence, or None."""
    pairs = [record["agreement"][channel] for record in records if "agreement" in record]
    if not pairs:
        return None
    overlap, total = np.sum(pairs, axis=0)
    dice = 2 * overlap / total if total else 0.0
    if dice >= LEAST_SOFT_DICE:
        return None
    return (
        f"the networks have hardly learnt (soft Dice {dice:.2f} to the mean of the raters, "
        f"{LEAST_SOFT_DICE} is needed): the label is the mean"
    )


def _lesion_model(records: Sequence[LesionStatisticsJson], settings: CaseSettings) -> LesionModel:
    intensity = settings.priors.intensity
    assert intensity is not None  # the caller asked
    refused = f"--intensity-prior {intensity.direction}: "
    if not records:
        raise DatasetError(f"{refused}no training case is left to learn from what lesions look like.")
    total = reduce(add, map(LesionStatistics.from_json, records))
    try:
        model = total.model()
    except ValueError as error:
        raise DatasetError(f"{refused}{error}; give more cases, or leave the prior out.") from error
    for name, mean in zip(settings.labels.names, model.mean, strict=True):
        try:
            check_contrast(mean, intensity.direction)
        except ValueError as error:
            raise DatasetError(f"{refused}label {name}: {error}.") from error
    return model

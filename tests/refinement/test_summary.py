"""What refine prints of raters."""

from __future__ import annotations

import pytest

from nnunet_softlabel.fusion.detection import estimate_detection
from nnunet_softlabel.refinement import summary
from nnunet_softlabel.refinement.candidates import JudgedCandidate
from tests.fusion.test_detection import draw


def test_intervals_of_rates_are_of_the_model_that_heard_the_expert(monkeypatch) -> None:
    """All cases are of one patient, so each draw is all data and each interval a point: the rate itself."""
    monkeypatch.setattr(summary, "DRAWS", 2)
    cases, _ = draw((0.8, 0.6, 0.4), n_cases=15)
    known = [[sum(c.votes.values()) >= 2 for c in case] for case in cases]
    model = estimate_detection(cases, known=known)
    judged = [
        JudgedCandidate(f"c{i:02d}", "lesion", number, candidate, float(said), said)
        for i, (case, said_of_case) in enumerate(zip(cases, known, strict=True))
        for number, (candidate, said) in enumerate(zip(case, said_of_case, strict=True), start=1)
    ]
    groups = {c.case: "one patient" for c in judged}
    found = summary.summarise(judged[::-1], {"lesion": model}, groups)["labels"]["lesion"]["rates"]
    assert list(found) == ["a", "b", "c"]
    for of_rater in found.values():
        for value, low, high in of_rater.values():
            assert low == high == pytest.approx(value, abs=1e-3)


@pytest.mark.parametrize(("patients", "is_told"), [(5, True), (6, False)])
def test_intervals_of_few_patients_come_with_a_caution(monkeypatch, patients, is_told) -> None:
    monkeypatch.setattr(summary, "DRAWS", 2)
    cases, _ = draw((0.8, 0.6, 0.4), n_cases=12)
    model = estimate_detection(cases)
    judged = [
        JudgedCandidate(f"c{i:02d}", "lesion", number, candidate, 0.5, None)
        for i, case in enumerate(cases)
        for number, candidate in enumerate(case, start=1)
    ]
    groups = {c.case: f"p{int(c.case[1:]) % patients}" for c in judged}
    text = summary.format_summary(summary.summarise(judged, {"lesion": model}, groups))
    told = "Do not rely on these intervals: they are drawn from 5 patients, and 6 are the least."
    assert (told in text) == is_told

"""Generated data: a knee as MRI shows it, and readers of a given skill who draw on it."""

from __future__ import annotations

from nnunet_softlabel.simulation.knee_files import write_knees
from nnunet_softlabel.simulation.knee_phantom import (
    KneeLesions,
    KneePhantom,
    make_knee_phantom,
    phantom_raters,
)
from nnunet_softlabel.simulation.simulated_raters import RATER_REGIMES, RaterSkill, simulate_raters

__all__ = [
    "RATER_REGIMES",
    "KneeLesions",
    "KneePhantom",
    "RaterSkill",
    "make_knee_phantom",
    "phantom_raters",
    "simulate_raters",
    "write_knees",
]

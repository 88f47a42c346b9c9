"""The settings of the study of noise: who errs, how, how often, and what each network gets to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Error = Literal["missed", "swap", "invented", "shift"]
Label = Literal["mean", "majority"]


@dataclass(frozen=True)
class Scenario:
    """Sections of knees whose readers all err in one way.

    Attributes:
        error: ``missed``: each lesion is left out with probability ``share``. ``swap``: that share of the
            sections carries another section's mask. ``shift``: that share of the masks lies `SHIFT` pixels
            away in some direction. ``invented``: that number of false lesions per section.
        share: see ``error``.
        training: sections to train on.
        readers: who err independently of each other.
        label: of several readers; of one it makes no difference.
        iterations: of each training.
        every: so many iterations between two scores.
        on_ct: on LIDC tiles. ``missed`` leaves out a nodule with probability ``share``. ``invented`` draws a
            nodule's shape on a bright place in that share of the tiles without any. The number of tiles is
            that of the patients.
    """

    error: Error
    share: float
    training: int = 40
    readers: int = 1
    label: Label = "majority"
    iterations: int = 1200
    every: int = 200
    on_ct: bool = False


MISSED_ON_CT, INVENTED_ON_CT = "ct, missed40", "ct, invented40"
SHIFT = 6  # pixels of 2 mm; a lesion is about as wide
SCENARIOS = {
    "missed20": Scenario("missed", 0.2),
    "missed40": Scenario("missed", 0.4),
    "missed60": Scenario("missed", 0.6),
    "swap20": Scenario("swap", 0.2),
    "swap40": Scenario("swap", 0.4),
    "swap60": Scenario("swap", 0.6),
    "shift20": Scenario("shift", 0.2),
    "shift40": Scenario("shift", 0.4),
    "shift60": Scenario("shift", 0.6),
    "invented50": Scenario("invented", 0.5),
    "invented100": Scenario("invented", 1.0),
    "invented200": Scenario("invented", 2.0),
    "missed40, 10 sections": Scenario("missed", 0.4, training=10),
    "missed40, 17 sections": Scenario("missed", 0.4, training=17),
    "missed40, 200 sections": Scenario("missed", 0.4, training=200),
    "missed40, mean of three": Scenario("missed", 0.4, readers=3, label="mean"),
    "missed40, majority of three": Scenario("missed", 0.4, readers=3),
    "swap40, mean of three": Scenario("swap", 0.4, readers=3, label="mean"),
    "swap40, majority of three": Scenario("swap", 0.4, readers=3),
    "missed40, 4000 iterations": Scenario("missed", 0.4, iterations=4000, every=400),
    "missed40, 20000 iterations": Scenario("missed", 0.4, iterations=20_000, every=500),
    MISSED_ON_CT: Scenario("missed", 0.4, on_ct=True),
    INVENTED_ON_CT: Scenario("invented", 0.4, on_ct=True),
    "ct, missed40, 4000 iterations": Scenario("missed", 0.4, iterations=4000, every=400, on_ct=True),
}

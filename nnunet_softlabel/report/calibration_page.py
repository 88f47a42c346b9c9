"""``calibration.html``: reliability before and after a recalibration, on one page that stands alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_softlabel.evaluation.calibration_scores import SCORES
from nnunet_softlabel.evaluation.records import CalibrationContent
from nnunet_softlabel.report import figures
from nnunet_softlabel.report.page import environment

RAW = "network"
TITLES = {"raters": "the raters' mean", "consensus": "the consensus", "soft": "the soft label"}


def calibration_page(content: CalibrationContent, *, file: Path) -> str:
    """The page of a calibration that is stored in ``file``."""
    plots, lines = [], []
    for name, tables in content["reliability_near"].items():
        both = {
            RAW: np.asarray(tables["before"], dtype=np.float64),
            RAW + figures.RECALIBRATED: np.asarray(tables["after"], dtype=np.float64),
        }
        text = f"{name}, near the object"
        plots.append((text, figures.reliability_plot(text, both)))
        scores = content["scores"][name]
        lines += [(name, title, scores[key]["before"], scores[key]["after"]) for key, title in SCORES.items()]
    return environment().get_template("calibration.html.jinja").render(
        title=f"{content['dataset']}: {content['method']} recalibration",
        cases=sum(len(part["cases"]) for part in content["parts"].values()),
        parts=len(content["parts"]),
        against=TITLES[content["against"]],
        models=content["models_averaged"],
        plots=plots,
        lines=lines,
        versions=content["versions"],
        file=file.name,
    )  # fmt: skip

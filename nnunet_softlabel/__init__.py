"""Soft labels and noise-robust losses for nnU-Net.

    import nnunet_softlabel as ns

Everything that is meant to be called from Python is named here, and nothing else is. A name is imported when
it is first used, so that the package itself needs neither torch nor nnU-Net to be imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# name -> module that has it
EXPORTED = {
    name: f"nnunet_softlabel.{module}"
    for module, names in {
        "cases": (
            "Case Channel FileOptions RaterFiles SoftFiles find_cases read_case_table read_groups "
            "read_rater_datasets with_groups with_missing_raters with_test_cases"
        ),
        "conversion": "Fusion IntensityPrior Priors RoiPrior add_soft_labels convert",
        "formats.soft_dataset": "SoftDataset",
        "inspection": "inspect_raters measure_case write_inspection",
        "preprocessing": "preprocess",
        "preprocessing.reduced_plans": "NetworkSize reduce_plans",
        "refinement": "FirstRound refine",
        "conversion.settings": "Running",
        "training.budget": "Budget",
        "training.run": "train",
        "training.stock_model": "export_stock",
        "training.trainer": "HardLabelTrainer SoftLabelTrainer",
        "evaluation.run": "Scoring evaluate",
        "evaluation.truth": "Truth",
        "evaluation.tuning": "TuningGoal tune_threshold",
        "evaluation.apply_threshold": "ImageFiles apply_threshold",
        "evaluation.thresholds": "decide",
        "evaluation.calibrate": "FitTarget calibrate",
        "evaluation.average": "apply_calibration average",
        "evaluation.maps": "write_maps",
        "report.comparison": "Bootstrap PairedDifference compare",
        "report.findings": "Findings Provenance",
        "report.page": "write_report",
        "report.runs": "RunResult",
        "errors": "DatasetError UsageError WorkerError",
    }.items()
    for name in names.split()
}
# modules: ns.losses.cross_entropy, ns.benchmark.benchmark
MODULES = {
    "benchmark": "nnunet_softlabel.benchmark",
    "fusion": "nnunet_softlabel.fusion",
    "losses": "nnunet_softlabel.losses",
    "metrics": "nnunet_softlabel.metrics",
    "priors": "nnunet_softlabel.priors",
    "recipes": "nnunet_softlabel.training.recipes",
    "simulation": "nnunet_softlabel.simulation",
}

__all__ = [*EXPORTED, *MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    """What is asked for by name, on its first use."""
    if name in EXPORTED:
        value = getattr(import_module(EXPORTED[name]), name)
    elif name in MODULES:
        value = import_module(MODULES[name])
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; see dir({__name__})")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nnunet-softlabel")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0+unknown"

"""What a process imports before its first work: a worker that needs no network starts without PyTorch."""

import pickle
import subprocess
import sys

import pytest

from nnunet_softlabel.preprocessing.case_plan import CasePlan
from nnunet_softlabel.preprocessing.one_case import Configuration, make_case
from tests.preprocessing.preparations import preparation

SLOW = ("torch", "nnunetv2", "matplotlib", "sklearn", "skimage", "pandas", "scipy.stats", "scipy.optimize")
WORKERS = (
    "conversion.one_case.write",
    "inspection.run",
    "evaluation.run",
    "evaluation.tuning",
    "evaluation.calibrate",
    "evaluation.maps",
    "evaluation.average",
    "evaluation.apply_threshold",
    "refinement.run",
)


def imported_with(modules: tuple[str, ...]) -> set[str]:
    names = ", ".join(f"nnunet_softlabel.{module}" for module in modules)
    script = f"import sys, {names}; print('\\n'.join(sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True
        ).stdout.split()
    )


def test_workers_import_nothing_that_starts_slowly():
    assert imported_with(("cli", *WORKERS)).isdisjoint(SLOW)


def test_worker_of_preprocess_reads_its_job_without_pytorch(planned_dataset):
    """nnU-Net's own modules that it needs, of readers and of data sets, import nothing that starts slowly."""
    made = preparation(planned_dataset)
    plan = CasePlan.of(made.plans, made.configuration)
    shared = Configuration(made.labels, made.images, made.dataset_class, made.folder, plan)
    script = "import pickle, sys; pickle.load(sys.stdin.buffer); print('\\n'.join(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", script],
        input=pickle.dumps((make_case, shared)),
        check=True,
        capture_output=True,
    )
    imported = set(found.stdout.decode().split())
    assert "nnunet_softlabel.preprocessing.one_case" in imported
    assert imported.isdisjoint(set(SLOW) - {"nnunetv2"})


@pytest.mark.parametrize("modules", [("cli",), ("training.supervisor",)])
def test_command_line_and_the_watcher_of_a_training_start_without_numpy(modules):
    assert imported_with(modules).isdisjoint({*SLOW, "numpy", "scipy", "SimpleITK"})

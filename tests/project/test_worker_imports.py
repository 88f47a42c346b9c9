"""What a process imports before its first work: a worker that needs no network starts without PyTorch."""

import subprocess
import sys

import pytest

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


@pytest.mark.parametrize("modules", [("cli",), ("training.supervisor",)])
def test_command_line_and_the_watcher_of_a_training_start_without_numpy(modules):
    assert imported_with(modules).isdisjoint({*SLOW, "numpy", "scipy", "SimpleITK"})

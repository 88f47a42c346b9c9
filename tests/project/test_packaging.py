"""The wheel holds what nnU-Net must find."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The built wheel, installed without dependencies into an empty folder."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    # hatchling reads the version control's ignore file, so the source is built where it is
    command = [*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, capture_output=True
    )
    return target


def test_wheel_ships_the_package_with_types_template_and_plugin_only(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names <= {"nnunet_softlabel", "bin"}
    package = installed / "nnunet_softlabel"
    assert (package / "py.typed").is_file()
    assert list(package.rglob("*.jinja"))
    plugin = package / "training" / "nnunet_plugin"
    assert [path.name for path in plugin.glob("*.py")] == ["nnunet_softlabel_trainers.py"]


def test_nnunet_finds_and_pickles_the_trainers_of_the_wheel(installed, tmp_path):
    code = (
        "import pickle\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "found = find('nnUNetTrainerAPL')\n"
        "assert find('nnUNetTrainerAPL') is found\n"
        "assert pickle.loads(pickle.dumps(found)) is found\n"
        "print(found.__module__, __import__(found.__module__, fromlist=['x']).__file__)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(installed),
        "nnUNet_extTrainer": str(installed / "nnunet_softlabel" / "training" / "nnunet_plugin"),
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    assert result.stdout.splitlines()[-1].startswith(f"nnunet_softlabel.training.recipes {installed}")

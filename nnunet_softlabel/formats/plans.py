"""nnU-Net's plans file, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import Json, expecting_shape, read_json
from nnunet_softlabel.formats.nnunet_folders import dataset_number

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

REDUCED_PLANS = "nnUNetPlansReduced"  # what reduce-plans writes if nothing else is asked for
REMEDY = "run nnUNetv2_plan_and_preprocess again"
KEYS = ("plans_name", "transpose_forward", "image_reader_writer", "configurations")
KEYS_OF_CONFIGURATION = (
    *("data_identifier", "patch_size", "spacing", "batch_size"),
    *("resampling_fn_probabilities", "resampling_fn_probabilities_kwargs", "architecture"),
)


def preprocessing_command(preprocessed: Path, plans: str, configuration: str) -> str:
    """The line that preprocesses the images of one configuration, as nnU-Net takes it.

    >>> preprocessing_command(Path("Dataset501_LIDC"), "nnUNetPlans", "2d")
    'nnUNetv2_preprocess -d 501 -plans_name nnUNetPlans -c 2d'
    """
    number = dataset_number(preprocessed.name)
    return f"nnUNetv2_preprocess -d {number} -plans_name {plans} -c {configuration}"


def missing_plans(path: Path) -> str:
    """What to say of a plans file that is not there: how to make it, or the plans of the data set."""
    there = [other.stem for other in sorted(path.parent.glob("*lans*.json"))]
    number = dataset_number(path.parent.name)
    steps = [] if there else [f"nnUNetv2_plan_and_preprocess -d {number}"]
    if path.stem == REDUCED_PLANS:
        steps.append(f"nnunet_softlabel reduce-plans -d {number}")
    what = [f"run {' and then '.join(steps)} first"] if steps else []
    if there:
        what.append(f"choose one of {', '.join(there)}")
    return f"-p {path.stem}: {path} is not there; {', or '.join(what)}."


def read_plans(folder: Path, name: str) -> Json:
    """The content of ``NAME.json`` in ``nnUNet_preprocessed/DatasetXXX_NAME``.

    Raises:
        UsageError: if there is no such plan.
        DatasetError: if it lacks something that every plan has.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise UsageError(missing_plans(path))
    content = read_json(path)
    with expecting_shape(path, REMEDY):
        for key in KEYS:
            content[key]
        for configuration in content["configurations"].values():
            if "inherits_from" not in configuration:
                for key in KEYS_OF_CONFIGURATION:
                    configuration[key]
                spacing = list(map(float, configuration["spacing"]))
                patch = list(map(int, configuration["patch_size"]))
                if not spacing or len(spacing) != len(patch) or min(spacing) <= 0 or min(patch) < 1:
                    raise ValueError(f"spacing {spacing} and patch_size {patch}")
    return content


def configuration_of(
    folder: Path, name: str, configuration: str
) -> tuple[PlansManager, ConfigurationManager]:
    """nnU-Net's managers of a plan and one of its configurations.

    Raises:
        UsageError: if there is no such plan or configuration.
        DatasetError: if the plan is broken.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(read_plans(folder, name))
    if configuration not in manager.available_configurations:
        known = ", ".join(manager.available_configurations)
        raise UsageError(f"-c {configuration}: {name} has no such configuration; it has {known}.")
    with expecting_shape(folder / f"{name}.json", REMEDY):
        return manager, manager.get_configuration(configuration)

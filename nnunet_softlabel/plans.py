"""Reduced plans: nnU-Net's own planned network, made small enough for a CPU or a quick study.

A plans file of its own is nnU-Net's documented way to change a plan; preprocessed data are shared with the original.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.soft_labels import environment_folder, find_dataset, read_json, write_json


def reduce_plans(
    dataset: int | str,
    *,
    plans: str = "nnUNetPlans",
    name: str = "nnUNetPlansReduced",
    features: int = 8,
    batch_size: int = 2,
    patch_size: Sequence[int] | None = None,
    max_stages: int = 4,
    overwrite: bool = False,
) -> Path:
    """Write a plans file with a smaller network, batch and patch for every configuration.

    Args:
        dataset: id or name, planned by nnU-Net.
        plans: identifier of the plan to reduce.
        name: identifier of the reduced plan.
        features: feature maps of the first stage; they double per stage.
        batch_size: of every configuration.
        patch_size: largest patch, in voxels along nnU-Net's axes; None keeps the plan's. Its last two numbers
            bound 2d patches.
        max_stages: most resolution stages of the network.
        overwrite: replace a reduced plan that is there.

    Returns:
        The new plans file, in ``nnUNet_preprocessed/DatasetXXX_NAME``.

    Raises:
        UsageError: if the plan is missing, or the reduced one is there already.
    """
    base = find_dataset(environment_folder("nnUNet_preprocessed"), dataset)
    source, target = base / f"{plans}.json", base / f"{name}.json"
    if not source.is_file():
        raise UsageError(f"-p {plans}: {source} is not there; run nnUNetv2_plan_and_preprocess first.")
    if name == plans or (target.exists() and not overwrite):
        raise UsageError(f"{target}: is already there; add --overwrite, or choose another name.")
    reduced = deepcopy(read_json(source))
    reduced["plans_name"] = name
    for configuration in reduced["configurations"].values():
        if "architecture" in configuration:  # others inherit from one that has it
            _reduce(configuration, features, batch_size, patch_size, max_stages)
    write_json(target, reduced)
    return target


def _reduce(
    configuration: dict[str, Any], features: int, batch_size: int, patch_size: Sequence[int] | None, max_stages: int
) -> None:
    planned = configuration["patch_size"]
    wanted = list(planned)
    if patch_size is not None:
        wanted = [min(own, limit) for own, limit in zip(planned, patch_size[-len(planned) :], strict=True)]
    # nnU-Net's own rule gives pooling and kernels that fit the smaller patch, and pads it to be divisible
    _, strides, kernels, patch, _ = get_pool_and_conv_props(configuration["spacing"], wanted, 4, max_stages - 1)
    stages = min(len(strides), max_stages)
    network = configuration["architecture"]["arch_kwargs"]
    network["n_stages"] = stages
    network["strides"] = [list(map(int, stride)) for stride in strides[:stages]]
    network["kernel_sizes"] = [list(map(int, kernel)) for kernel in kernels[:stages]]
    network["features_per_stage"] = [min(features * 2**i, 16 * features) for i in range(stages)]
    for key in ("n_conv_per_stage", "n_blocks_per_stage"):
        if key in network:
            network[key] = network[key][:1] * stages if len(network[key]) < stages else network[key][:stages]
    decoder = network["n_conv_per_stage_decoder"]
    network["n_conv_per_stage_decoder"] = (decoder + decoder[-1:] * stages)[: stages - 1]
    configuration["patch_size"] = [int(size) for size in patch]
    configuration["batch_size"] = batch_size

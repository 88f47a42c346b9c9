"""Reduced plans: nnU-Net's own planned network, made small enough for a CPU or a quick study.

A plans file of its own is nnU-Net's documented way to change a plan; the preprocessed data are those of the
original.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import Json, expecting_shape, read_json, refuse_existing, write_json
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
from nnunet_softlabel.formats.plans import REDUCED_PLANS, REMEDY, read_plans
from nnunet_softlabel.public import public

# the lowres stage of a cascade has at least this many times fewer voxels; nnU-Net makes none below 2
LOWRES_FACTOR = 4.0
# nnU-Net's loss leaves out the output of the lowest resolution; two stages have no other, and it is 0 / 0
LEAST_STAGES = 3
WHY_NOT_FEWER = f"with fewer than {LEAST_STAGES} nnU-Net's loss is not a number"
PLANNED_EDGE, LEAST_EDGE = 4, 2  # voxels of the smallest feature map: nnU-Net's rule, and ours where it fails
NAMES_OF_NNUNET = ("dataset", "dataset_fingerprint", "splits_final")


@public
@dataclass(frozen=True)
class NetworkSize:
    """How small a network is, with its batches and patches.

    >>> NetworkSize(features=4).batch_size
    2

    Attributes:
        features: feature maps of the first stage; they double per stage.
        batch_size: of every configuration.
        patch_size: largest patch, in voxels along nnU-Net's axes; None keeps the plan's. Its last two numbers
            bound 2d patches.
        max_stages: most resolution stages of the network; fewer than three become three.
    """

    features: int = 8
    batch_size: int = 2
    patch_size: Sequence[int] | None = None
    max_stages: int = 4

    def check(self) -> None:
        """Refuse a network that nnU-Net could not build, or would train into nothing."""
        given = {"--features": self.features, "--batch-size": self.batch_size}
        given |= {"--max-stages": self.max_stages}
        given |= {"--patch-size": min(self.patch_size)} if self.patch_size is not None else {}
        for flag, value in given.items():
            if value < 1:
                raise UsageError(f"{flag} {value}: takes numbers from 1.")


@public
def reduce_plans(
    dataset: int | str,
    *,
    plans: str = "nnUNetPlans",
    name: str = REDUCED_PLANS,
    network: NetworkSize | None = None,
    with_cascade: bool = False,
    overwrite: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Write a plans file with a smaller network, batch and patch for every configuration.

    nnU-Net plans a cascade for large images only; ``with_cascade`` adds ``3d_lowres`` and
    ``3d_cascade_fullres`` to small ones. The images of ``3d_lowres`` are then preprocessed with
    ``nnUNetv2_preprocess -d DATASET -plans_name NAME -c 3d_lowres``.

    >>> size = ns.NetworkSize(features=4, patch_size=[16, 24, 24])
    >>> ns.reduce_plans(911, name="SmallPlans", network=size).name
    'SmallPlans.json'

    Args:
        dataset: id or name, planned by nnU-Net.
        plans: identifier of the plan to reduce.
        name: identifier of the reduced plan.
        network: its size, and that of its batches and patches.
        with_cascade: add the configurations of a cascade if the plan has none.
        overwrite: replace a reduced plan that is there.
        log: takes one line for each thing that was decided otherwise than asked for.

    Returns:
        The new plans file, in ``nnUNet_preprocessed/DatasetXXX_NAME``.

    Raises:
        UsageError: if the plan is missing, the reduced one is there already, images are 2D and a cascade is
            asked for, or a patch is too small for a network of three stages.
    """
    base = find_dataset(environment_folder("nnUNet_preprocessed"), dataset)
    target = base / f"{name}.json"
    size = network or NetworkSize()
    size.check()
    reduced = read_plans(base, plans)
    _check_target(target, name, plans, overwrite=overwrite)
    reduced["plans_name"] = name
    if with_cascade:
        _add_cascade(reduced["configurations"], plans, name)
    with expecting_shape(base / f"{plans}.json", REMEDY):
        own = {key: value for key, value in reduced["configurations"].items() if "architecture" in value}
        found = {key: _topology(configuration, size) for key, configuration in own.items()}
    notes = [note for key, topology in found.items() for note in _notes(key, topology, size)]
    with expecting_shape(base / f"{plans}.json", REMEDY):
        for key, configuration in own.items():  # others inherit from one of these
            _reduce(configuration, found[key], size)
    write_json(target, reduced)
    for note in notes:
        log(note)
    return target


def _check_target(target: Path, name: str, plans: str, *, overwrite: bool) -> None:
    """Refuse names that are no plan's, other files of nnU-Net, and what is there already."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UsageError(f"-o {name}: a plan's name is made of letters, digits, '_', '-' and '.'.")
    if name in NAMES_OF_NNUNET:
        raise UsageError(
            f"-o {name}: {target.name} is another file of nnU-Net, no plan; choose another name."
        )
    advice = "add --overwrite, or choose another name"
    refuse_existing([target], overwrite=overwrite and name != plans, advice=advice)
    if target.exists() and "configurations" not in read_json(target):
        raise UsageError(f"-o {name}: {target.name} holds no plan; choose another name.")


def _add_cascade(configurations: Json, plans: str, name: str) -> None:
    """Add what nnU-Net's planner adds for large images, with the rules it has for spacing and batch Dice."""
    if "3d_cascade_fullres" in configurations:
        return
    if "3d_fullres" not in configurations:
        raise UsageError(f"--cascade: {plans} has no 3d_fullres, which a cascade refines.")
    fullres = configurations["3d_fullres"]
    planned = np.array(fullres["spacing"], dtype=float)
    spacing = planned.copy()
    while np.prod(spacing / planned) < LOWRES_FACTOR:
        is_finer = spacing.max() / spacing > 2  # coarsen the finer axes first
        spacing[is_finer if is_finer.any() else ...] *= 1.03
    lowres = deepcopy(fullres)
    shape = np.array(fullres["median_image_size_in_voxels"]) * planned / spacing
    lowres["spacing"] = spacing.tolist()
    lowres["median_image_size_in_voxels"] = np.round(shape).tolist()
    lowres["patch_size"] = np.minimum(fullres["patch_size"], np.round(shape)).astype(int).tolist()
    lowres["data_identifier"] = f"{name}_3d_lowres"
    lowres["next_stage"] = "3d_cascade_fullres"
    lowres["batch_dice"], fullres["batch_dice"] = False, True
    configurations["3d_lowres"] = lowres
    configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}


@dataclass(frozen=True)
class _Topology:
    """Stages of a network, as nnU-Net's own rule gives them for a patch.

    Attributes:
        asked: the patch.
        strides: of every stage.
        kernels: of every stage.
        patch: padded to be divisible.
        planned_stages: with the smallest feature maps that nnU-Net would take.
        is_of_flag: the patch is smaller than the plan's.
    """

    asked: Sequence[int]
    strides: Sequence[Sequence[int]]
    kernels: Sequence[Sequence[int]]
    patch: Sequence[int]
    planned_stages: int
    is_of_flag: bool

    @property
    def shape(self) -> str:
        """The patch, in words."""
        return " x ".join(str(int(side)) for side in self.asked)


def _topology(configuration: Json, size: NetworkSize) -> _Topology:
    planned, most = configuration["patch_size"], max(size.max_stages, LEAST_STAGES)
    asked = list(planned)
    if size.patch_size is not None:
        limits = size.patch_size[-len(planned) :]
        asked = [min(own, limit) for own, limit in zip(planned, limits, strict=True)]
    by_edge = [
        get_pool_and_conv_props(configuration["spacing"], asked, edge, most - 1)
        for edge in (PLANNED_EDGE, LEAST_EDGE)
    ]
    planned_stages = min(len(by_edge[0][1]), most)
    _, strides, kernels, patch, _ = by_edge[planned_stages < LEAST_STAGES]
    return _Topology(asked, strides[:most], kernels[:most], patch, planned_stages, asked != list(planned))


def _notes(name: str, topology: _Topology, size: NetworkSize) -> list[str]:
    """What is decided otherwise than asked for; refuses a patch that is too small for a network."""
    if len(topology.strides) < LEAST_STAGES:
        start = f"{name}: a patch of {topology.shape} voxels has no room for {LEAST_STAGES} resolution stages"
        if not topology.is_of_flag:
            raise UsageError(f"{start}; {WHY_NOT_FEWER}; pad the images before they are converted.")
        advice = "give a larger one (16 voxels along each axis are enough)"
        raise UsageError(f"--patch-size: {start}; {WHY_NOT_FEWER}; {advice}.")
    notes = []
    if size.max_stages < LEAST_STAGES:
        notes.append(f"{name}: {LEAST_STAGES} resolution stages, not {size.max_stages}; {WHY_NOT_FEWER}.")
    if topology.planned_stages < LEAST_STAGES:
        notes.append(
            f"{name}: feature maps get down to {LEAST_EDGE} voxels along an edge, not {PLANNED_EDGE}, so "
            f"that a patch of {topology.shape} has {len(topology.strides)} resolution stages, not "
            f"{topology.planned_stages}; {WHY_NOT_FEWER}."
        )
    return notes


def _reduce(configuration: Json, topology: _Topology, size: NetworkSize) -> None:
    stages = len(topology.strides)
    network = configuration["architecture"]["arch_kwargs"]
    network["n_stages"] = stages
    network["strides"] = [list(map(int, stride)) for stride in topology.strides]
    network["kernel_sizes"] = [list(map(int, kernel)) for kernel in topology.kernels]
    network["features_per_stage"] = [min(size.features * 2**i, 16 * size.features) for i in range(stages)]
    for key in ("n_conv_per_stage", "n_blocks_per_stage"):
        if key in network:
            network[key] = network[key][:1] * stages if len(network[key]) < stages else network[key][:stages]
    decoder = network["n_conv_per_stage_decoder"]
    network["n_conv_per_stage_decoder"] = (decoder + decoder[-1:] * stages)[: stages - 1]
    configuration["patch_size"] = [int(side) for side in topology.patch]
    configuration["batch_size"] = size.batch_size

"""Soft labels of a whole data set through nnU-Net's plan."""

from __future__ import annotations

from pathlib import Path

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
from nnunet_softlabel.formats.plans import configuration_of
from nnunet_softlabel.preprocessing.preparation import Preparation
from nnunet_softlabel.public import public


@public
def preprocess(
    dataset: int | str,
    configuration: str,
    *,
    plans: str = "nnUNetPlans",
    num_processes: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Path:
    """Preprocess the soft labels of a data set for one configuration of a plan.

    >>> ns.preprocess("Dataset911_Tiny", "3d_fullres").name
    'soft_labels'

    Args:
        dataset: id or name.
        configuration: such as ``3d_fullres``.
        plans: plans identifier.
        num_processes: processes that preprocess cases; few data use fewer.
        overwrite: preprocess again even if nothing changed.
        show_progress: print a progress bar on stderr.

    Returns:
        The folder ``soft_labels``.

    Raises:
        UsageError: for an unknown data set, plan or configuration.
        DatasetError: if soft labels are missing or do not fit the preprocessed images.
    """
    if num_processes < 1:
        raise UsageError(f"-np {num_processes}: takes a number from 1.")
    base = find_dataset(environment_folder("nnUNet_preprocessed"), dataset)
    preparation = Preparation(base, *configuration_of(base, plans, configuration))
    preparation.ensure(num_processes=num_processes, show_progress=show_progress, reuse=not overwrite)
    return preparation.folder

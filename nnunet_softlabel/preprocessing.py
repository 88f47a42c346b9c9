"""Soft labels through nnU-Net's own crop and resampling, into ``soft_labels/`` beside the preprocessed images.

Several trainings may start at once, and any may be killed: every case is written under a name of its own and renamed,
each file says what it was made from, and the manifest, written last, says that all are there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from time import sleep
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from filelock import FileLock, Timeout
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from tqdm import tqdm

from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.image_io import FLAT_ENDINGS, PNG_ONE
from nnunet_softlabel.soft_labels import (
    FORMAT_VERSION,
    SCALE,
    SoftDataset,
    environment_folder,
    find_dataset,
    quantise,
    read_json,
    write_json,
)

SOFT_FOLDER = "soft_labels"
MANIFEST = "manifest.json"
META_KEY = "made_from"
POLL_SECONDS = 2
MAX_LOCATIONS = 10_000  # nnU-Net's own number of voxels remembered per class
MIN_SHARE_OF_LOCATIONS = 0.01


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

    Args:
        dataset: id or name.
        configuration: such as ``3d_fullres``.
        plans: plans identifier.
        num_processes: processes that preprocess cases.
        overwrite: preprocess again even if nothing changed.
        show_progress: print a progress bar on stderr.

    Returns:
        The folder ``soft_labels``.

    Raises:
        UsageError: for an unknown data set, plan or configuration.
        DatasetError: if soft labels are missing or do not fit the preprocessed images.
    """
    base = find_dataset(environment_folder("nnUNet_preprocessed"), dataset)
    plans_file = base / f"{plans}.json"
    if not plans_file.is_file():
        raise UsageError(f"-p {plans}: {plans_file} is not there; run nnUNetv2_plan_and_preprocess first.")
    manager = PlansManager(read_json(plans_file))
    if configuration not in manager.available_configurations:
        known = ", ".join(manager.available_configurations)
        raise UsageError(f"-c {configuration}: {plans} has no such configuration; it has {known}.")
    preparation = Preparation(base, manager, manager.get_configuration(configuration))
    if overwrite:
        (preparation.folder / MANIFEST).unlink(missing_ok=True)
    preparation.ensure(num_processes=num_processes, show_progress=show_progress, reuse=not overwrite)
    return preparation.folder


class Preparation:
    """The preprocessed soft labels of one configuration: are they there, are they current, make them.

    Args:
        preprocessed: ``nnUNet_preprocessed/DatasetXXX_NAME``.
        plans_manager: nnU-Net's.
        configuration_manager: nnU-Net's.
    """

    def __init__(
        self, preprocessed: Path, plans_manager: PlansManager, configuration_manager: ConfigurationManager
    ) -> None:
        self.plans, self.configuration = plans_manager, configuration_manager
        self.name = preprocessed.name
        self.preprocessed = preprocessed
        self.images = preprocessed / configuration_manager.data_identifier
        self.folder = self.images / SOFT_FOLDER
        if not self.images.is_dir():
            raise DatasetError(f"{self.images}: is not there; run nnUNetv2_plan_and_preprocess first.")

    def ensure(
        self,
        *,
        num_processes: int = 1,
        show_progress: bool = False,
        reuse: bool = True,
        log: Callable[[str], None] = print,
    ) -> dict[str, Any]:
        """Return the manifest of complete, current soft labels; make them if they are not.

        One process works, the others poll. A lock only saves work: were it not to function on some file system, all
        would write the same files.

        Raises:
            DatasetError: if soft labels are missing and cannot be made.
        """
        self.folder.mkdir(exist_ok=True)
        lock, is_waiting = FileLock(self.folder / "preparation.lock"), False
        while True:
            manifest, reason = self.current_manifest()
            if manifest is not None and reuse:
                return manifest
            try:
                with lock.acquire(timeout=0):
                    manifest, reason = self.current_manifest()
                    if manifest is None or not reuse:
                        log(f"Preprocessing soft labels into {self.folder} ({reason})")
                        manifest = self._make(num_processes, show_progress, reuse)
                    return manifest
            except Timeout:
                if not is_waiting:
                    log(f"Waiting for another process that preprocesses soft labels into {self.folder}")
                is_waiting = True
                sleep(POLL_SECONDS)

    def current_manifest(self) -> tuple[dict[str, Any] | None, str]:
        """The manifest if it is complete and nothing it was made from has changed, else None; and the reason."""
        path = self.folder / MANIFEST
        if not path.is_file():
            return None, "not done yet"
        manifest = read_json(path)
        if manifest.get("plan") != self._plan():
            return None, "the plan changed"
        cases = self.identifiers()
        if sorted(manifest["cases"]) != cases:
            return None, "the preprocessed cases changed"
        raw = self._raw()
        for case in cases:
            entry = manifest["cases"][case]
            if not (self.folder / f"{case}.b2nd").is_file():
                return None, f"{case}.b2nd is missing"
            if entry["shape"][1:] != list(self.image_shape(case)):
                return None, f"the preprocessed image of {case} changed"
            if raw is not None and entry["source"] != _hash_files(_existing_soft_files(raw, case)):
                return None, f"the soft label of {case} changed"
        return manifest, "current"

    def identifiers(self) -> list[str]:
        """Names of the preprocessed cases, sorted."""
        return sorted(infer_dataset_class(str(self.images)).get_identifiers(str(self.images)))

    def image_shape(self, case: str) -> tuple[int, ...]:
        """Spatial shape of a preprocessed image."""
        data, *_ = infer_dataset_class(str(self.images))(str(self.images), [case]).load_case(case)
        return tuple(data.shape[1:])

    def _plan(self) -> dict[str, Any]:
        """What of the plan decides the result."""
        configuration = self.configuration.configuration
        plan = {
            "format_version": FORMAT_VERSION,
            "scale": SCALE,
            "spacing": configuration["spacing"],
            "transpose_forward": list(self.plans.transpose_forward),
            "resampling": configuration["resampling_fn_probabilities"],
            "resampling_options": configuration["resampling_fn_probabilities_kwargs"],
        }
        return json.loads(json.dumps(plan))

    def _raw(self) -> SoftDataset | None:
        """The data set in ``nnUNet_raw``, or None on a machine that has only preprocessed data.

        Raises:
            DatasetError: if it was converted again after nnU-Net preprocessed it.
        """
        folder = os.environ.get("nnUNet_raw")
        if not folder or not (Path(folder) / self.name / "dataset.json").is_file():
            return None
        raw = SoftDataset(Path(folder) / self.name)
        before = read_json(self.preprocessed / "dataset.json").get("soft_labels")
        assert raw.about is not None  # SoftDataset refuses a data set without
        if (
            before is not None
            and raw.about.get("digest") != before.get("digest")
            and raw.about["made_hard_labels"]
        ):
            raise DatasetError(
                f"{self.name}: was converted again after nnU-Net preprocessed it, so its hard labels are old; "
                f"run nnUNetv2_plan_and_preprocess again."
            )
        return raw

    def _make(self, num_processes: int, show_progress: bool, reuse: bool) -> dict[str, Any]:
        raw = self._raw()
        if raw is None:
            raise DatasetError(
                f"{self.folder}: soft labels are not preprocessed, and {self.name} is not in nnUNet_raw; "
                f"run `nnunet_softlabel preprocess` where it is, and copy the folder here."
            )
        cases = self.identifiers()
        jobs = [(self, raw, case, reuse) for case in cases]
        entries = {}
        with tqdm(total=len(cases), desc="Soft labels", disable=not show_progress) as bar:
            for case, entry in _run_jobs(_make_case, jobs, num_processes):
                entries[case] = entry
                bar.update()
        manifest = {
            "plan": self._plan(),
            "about": raw.about,
            "cases": {case: entries[case] for case in cases},
        }
        write_json(self.folder / MANIFEST, manifest)
        return manifest


def _run_jobs(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], num_processes: int) -> Any:
    """Yield the results of ``function(*job)`` as they come."""
    # starting a process costs about as much as a hundred small cases, for it imports torch
    num_processes = min(num_processes, 1 + len(jobs) // 50)
    if num_processes == 1:
        for job in jobs:
            yield function(*job)
        return
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _make_case(
    preparation: Preparation, raw: SoftDataset, case: str, reuse: bool
) -> tuple[str, dict[str, Any]]:
    """Preprocess one case unless its file says that it was made from the same."""
    files = _existing_soft_files(raw, case)
    shape = (len(files), *preparation.image_shape(case))
    entry: dict[str, Any] = {"shape": list(shape), "source": _hash_files(files)}
    made_from = json.dumps([preparation._plan(), entry])
    target = preparation.folder / f"{case}.b2nd"
    if reuse and target.is_file():
        try:
            if blosc2.open(str(target), mode="r").schunk.vlmeta[META_KEY] == made_from:
                return case, entry
        except (RuntimeError, KeyError, ValueError, OSError):
            pass  # written in part by something that does not rename, or not ours: make it again
    soft, properties = _read(preparation, files, case)
    quantised = preprocess_case(
        soft,
        properties,
        preparation.plans,
        preparation.configuration,
        shape=shape[1:],
        is_exclusive=not raw.labels.has_regions,
    )
    data_set = infer_dataset_class(str(preparation.images))(str(preparation.images), [case])
    hard = np.asarray(data_set.load_case(case)[1][:])[0]
    locations = disputed_locations(quantised, hard, [values for values in raw.labels.values.values()])
    _write(preparation, target, quantised, locations, made_from)
    return case, entry


def _read(preparation: Preparation, files: Sequence[Path], case: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Soft files through the plan's own reader, as nnU-Net reads the images: ``(C, z, y, x)``."""
    try:
        soft, _ = preparation.plans.image_reader_writer_class().read_images([str(path) for path in files])
    except (RuntimeError, OSError, ValueError) as error:
        raise DatasetError(f"Case {case}: {files[0]} cannot be read; convert the data set again.") from error
    if files[0].name.endswith(FLAT_ENDINGS):
        soft = soft / np.float32(PNG_ONE)
    return soft, load_pickle(str(preparation.images / f"{case}.pkl"))


def preprocess_case(
    soft: np.ndarray,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    *,
    shape: Sequence[int],
    is_exclusive: bool = True,
) -> np.ndarray:
    """Transpose, crop and resample foreground probabilities as nnU-Net did the image.

    Args:
        soft: ``(C, z, y, x)`` as read.
        properties: nnU-Net's, of the preprocessed image.
        plans_manager: nnU-Net's.
        configuration_manager: nnU-Net's.
        shape: spatial shape of the preprocessed image.
        is_exclusive: channels are classes and sum to at most 1.

    Returns:
        int16 ``(C, *shape)``, see `quantise`.

    Raises:
        DatasetError: if the soft label does not have the image's size.
    """
    axes = plans_manager.transpose_forward
    soft = soft.transpose([0, *(axis + 1 for axis in axes)])
    if tuple(soft.shape[1:]) != tuple(properties["shape_before_cropping"]):
        raise DatasetError(
            f"Soft label of shape {soft.shape[1:]} for an image of shape {properties['shape_before_cropping']}; "
            f"run nnUNetv2_plan_and_preprocess again."
        )
    soft = soft[(slice(None), *(slice(*bounds) for bounds in properties["bbox_used_for_cropping"]))]
    spacing = [properties["spacing"][axis] for axis in axes]
    target_spacing = list(configuration_manager.spacing)
    if len(target_spacing) < len(spacing):  # a 2d configuration leaves the distance of slices alone
        target_spacing = [spacing[0], *target_spacing]
    if tuple(soft.shape[1:]) != tuple(shape):
        resample = configuration_manager.resampling_fn_probabilities
        soft = np.asarray(resample(np.ascontiguousarray(soft), list(shape), spacing, target_spacing))
    soft = np.clip(soft, 0, 1)
    if is_exclusive and len(soft) > 1:
        soft = soft / np.maximum(soft.sum(axis=0), 1)
    return quantise(soft)


def disputed_locations(
    quantised: np.ndarray, hard: np.ndarray, values: Sequence[tuple[int, ...]]
) -> np.ndarray:
    """Voxels that some rater gave to a class and the consensus did not: what nnU-Net's oversampling would miss.

    As many are drawn per class, relative to all, as nnU-Net draws of the consensus (at most 10,000 or 1 %).

    Args:
        quantised: soft label, int16 ``(C, *spatial)``.
        hard: the preprocessed consensus ``(*spatial)``.
        values: label values of each channel.

    Returns:
        int32 ``(N, 1 + dimensions)``: channel, then position.
    """
    rows = []
    random = np.random.default_rng(1234)
    for channel, (soft, own) in enumerate(zip(quantised, values, strict=True)):
        agreed = np.isin(hard, own)
        positions = np.argwhere((soft > 0) & ~agreed & (hard >= 0))
        total = int(agreed.sum())
        drawn = max(min(MAX_LOCATIONS, total), int(np.ceil(total * MIN_SHARE_OF_LOCATIONS)))
        share = drawn / total if total else min(1.0, MAX_LOCATIONS / max(len(positions), 1))
        keep = int(np.ceil(share * len(positions)))
        if keep < len(positions):
            positions = positions[np.sort(random.choice(len(positions), keep, replace=False))]
        rows.append(np.insert(positions, 0, channel, axis=1))
    return np.concatenate(rows).astype(np.int32)


def _write(
    preparation: Preparation, target: Path, quantised: np.ndarray, locations: np.ndarray, made_from: str
) -> None:
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp")
    locations_file = locations_path(preparation.folder, target.stem)
    if len(locations):
        with temporary.open("wb") as file:
            np.save(file, locations)
        os.replace(temporary, locations_file)
    else:
        locations_file.unlink(missing_ok=True)
    blocks, chunks = comp_blosc2_params(
        quantised.shape, tuple(preparation.configuration.patch_size), quantised.itemsize
    )
    temporary = temporary.with_suffix(".b2nd")
    temporary.unlink(missing_ok=True)
    cparams = {"codec": blosc2.Codec.LZ4HC, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1, "clevel": 5}
    array = blosc2.asarray(
        np.ascontiguousarray(quantised), urlpath=str(temporary), chunks=chunks, blocks=blocks, cparams=cparams
    )
    array.schunk.vlmeta[META_KEY] = made_from
    del array
    os.replace(temporary, target)


def locations_path(folder: Path, case: str) -> Path:
    """Where the disputed locations of a case are; no file if it has none."""
    return folder / f"{case}_disputed.npy"


def _existing_soft_files(raw: SoftDataset, case: str) -> list[Path]:
    files = raw.soft_files(case)
    for path in files:
        if not path.is_file():
            raise DatasetError(f"Case {case}: has no soft label {path}; convert the data set again.")
    return files


def _hash_files(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()

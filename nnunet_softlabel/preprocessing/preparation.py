"""The preprocessed soft labels of a configuration, in ``soft_labels/`` beside nnU-Net's preprocessed images.

Several trainings may start at once, and any may be killed: every case is written under a name of its own and
renamed, each file says what it was made from, and the manifest, written last, says that all are there.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, cast

from filelock import FileLock, Timeout
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.formats.encoding import SCALE
from nnunet_softlabel.formats.files import expecting_shape, hash_files, read_json, write_json
from nnunet_softlabel.formats.images import voxels_in
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.plans import preprocessing_command
from nnunet_softlabel.formats.soft_dataset import FORMAT_VERSION, SoftDataset
from nnunet_softlabel.memory import LargestCase, largest_of, processes_that_fit
from nnunet_softlabel.preprocessing.case_file import TEMPORARY, disputed_digest, is_made_from
from nnunet_softlabel.preprocessing.case_plan import CasePlan
from nnunet_softlabel.preprocessing.one_case import CaseFiles, Configuration, image_shape, make_case
from nnunet_softlabel.preprocessing.records import CaseSource, FileProof, Manifest, PlanRecord
from nnunet_softlabel.preprocessing.sources import existing_soft_files, made_from
from nnunet_softlabel.processes import Workers, run_jobs

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

SOFT_FOLDER = "soft_labels"
MANIFEST = "manifest.json"
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 900.0
# a process starts in one or two seconds; this many voxels take several times as long
VOXELS_PER_PROCESS = 50_000_000


class Preparation:
    """The preprocessed soft labels of one configuration: are they there, are they current, make them.

    Args:
        preprocessed: ``nnUNet_preprocessed/DatasetXXX_NAME``.
        plans_manager: nnU-Net's.
        configuration_manager: nnU-Net's.

    Raises:
        DatasetError: if nnU-Net has not preprocessed this configuration.
    """

    def __init__(
        self, preprocessed: Path, plans_manager: PlansManager, configuration_manager: ConfigurationManager
    ) -> None:
        self.plans, self.configuration = plans_manager, configuration_manager
        self.name = preprocessed.name
        self.preprocessed = preprocessed
        self.images = preprocessed / configuration_manager.data_identifier
        self.folder = self.images / SOFT_FOLDER
        self.labels = Labels.from_dataset_json(read_dataset_json(preprocessed))
        if not self.images.is_dir():
            raise DatasetError(f"{self.images}: is not there; run {self._preprocessing_command()} first.")
        self.dataset_class = infer_dataset_class(str(self.images))

    def _preprocessing_command(self) -> str:
        """What makes the images: nnU-Net's line for the configuration that is missing."""
        names = self.plans.available_configurations
        folder = self.configuration.data_identifier
        name = next(n for n in names if self.plans.get_configuration(n).data_identifier == folder)
        return preprocessing_command(self.preprocessed, self.plans.plans_name, name)

    def ensure(
        self,
        *,
        num_processes: int = 1,
        show_progress: bool = False,
        reuse: bool = True,
        log: Callable[[str], None] = print,
    ) -> Manifest:
        """Return the manifest of complete, current soft labels; make them if they are not.

        One process works, the others poll. The lock only saves work: where it does not function, all write
        the same files, each complete or not there.

        Raises:
            DatasetError: if soft labels are missing and cannot be made.
        """
        waiting: _Waiting | None = None
        while True:
            manifest, reason = self.current_manifest()
            if manifest is not None and reuse:
                return manifest
            self.folder.mkdir(exist_ok=True)
            lock = FileLock(self.folder / "preparation.lock")
            is_alone = True
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting = waiting or _Waiting(self.folder, log)
                if waiting.has_hope():
                    continue
                is_alone = False
            except (NotImplementedError, OSError):
                is_alone = False  # no locks on this file system
            try:
                manifest, reason = self.current_manifest()
                if manifest is None or not reuse:
                    log(f"Preprocessing soft labels into {self.folder} ({reason})")
                    manifest = self._make(reason, Workers(num_processes, show_progress), reuse=reuse)
                    if is_alone:
                        self._remove_leftovers()
                return manifest
            finally:
                lock.release()

    def current_manifest(self) -> tuple[Manifest | None, str]:
        """The manifest if it is complete and what it was made from is the same, else None; and the reason.

        Where ``nnUNet_raw`` is absent, as on a training node, the manifest is taken for the soft labels.
        """
        path = self.folder / MANIFEST
        if not path.is_file():
            return None, "not done yet"
        manifest = cast(Manifest, read_json(path))
        with expecting_shape(path, "delete the file, and run `nnunet_softlabel preprocess`"):
            entries = {case: entry.copy() for case, entry in manifest["cases"].items()}
            sources = {case: str(entry["source"]) for case, entry in entries.items()}
        if manifest.get("plan") != self._plan():
            return None, "the plan or the labels changed"
        cases = self.identifiers()
        if sorted(entries) != cases:
            return None, "the preprocessed cases changed"
        raw = self._raw()
        for case in cases:
            files = entries[case].pop("files", None)
            if not (self.folder / f"{case}.b2nd").is_file():
                return None, f"{case}.b2nd is missing"
            if entries[case] != self._entry(case, len(self.labels.names), sources[case]):
                return None, f"the preprocessed image of {case} changed"
            if raw is not None and sources[case] != hash_files(existing_soft_files(raw, case)):
                return None, f"the soft label of {case} changed"
            # a manifest of an earlier version proves no files: where they can be made again, they are
            if files != self._files(case, manifest["plan"], entries[case]) and not (raw is files is None):
                return None, f"the preprocessed soft label of {case} is damaged or of another case"
        return manifest, "asked for"

    def _files(self, case: str, plan: PlanRecord, entry: CaseSource) -> FileProof | None:
        """What proves the files of a case: their sizes, and what they say of themselves; None if damaged."""
        target = self.folder / f"{case}.b2nd"
        if not is_made_from(target, made_from(plan, entry)):
            return None
        return {"bytes": target.stat().st_size, "disputed": disputed_digest(self.folder, case)}

    def identifiers(self) -> list[str]:
        """Names of the preprocessed cases that are trained on, sorted."""
        found = set(self.dataset_class.get_identifiers(str(self.images)))
        return sorted(found - cases_left_out(self.images))

    def _plan(self) -> PlanRecord:
        """What of the plan and of the data set decides the result."""
        configuration = self.configuration.configuration
        plan = {
            "format_version": FORMAT_VERSION,
            "scale": SCALE,
            "labels": list(self.labels.values.items()),
            "spacing": configuration["spacing"],
            "transpose_forward": list(self.plans.transpose_forward),
            "resampling": configuration["resampling_fn_probabilities"],
            "resampling_options": configuration["resampling_fn_probabilities_kwargs"],
        } | ({} if self.labels.ignore is None else {"unanswered": "filled"})
        return json.loads(json.dumps(plan))

    def _entry(self, case: str, num_channels: int, source: str) -> CaseSource:
        """What of a case decides the result: the soft label, and the preprocessed image's shape and crop."""
        return {
            "shape": [num_channels, *image_shape(self.images, case, self.dataset_class)],
            "source": source,
            "properties": hash_files([self.images / f"{case}.pkl"]),
        }

    def _raw(self) -> SoftDataset | None:
        """The data set in ``nnUNet_raw``, or None on a machine that has only preprocessed data.

        Raises:
            DatasetError: if it was converted again after nnU-Net preprocessed it.
        """
        folder = os.environ.get("nnUNet_raw")
        if not folder or not (Path(folder) / self.name / "dataset.json").is_file():
            return None
        raw = SoftDataset(Path(folder) / self.name)
        before = read_dataset_json(self.preprocessed).get("soft_labels")
        is_same = before is None or raw.about["digest"] == before.get("digest")
        if not is_same and raw.about["made_hard_labels"]:
            raise DatasetError(
                f"{self.name}: was converted again after nnU-Net preprocessed it, so its hard labels are "
                f"old; run nnUNetv2_plan_and_preprocess again."
            )
        return raw

    def _make(self, reason: str, workers: Workers, *, reuse: bool) -> Manifest:
        raw = self._raw()
        if raw is None:
            raise DatasetError(
                f"{self.folder}: soft labels are not usable ({reason}), and {self.name} is not in "
                f"nnUNet_raw; run `nnunet_softlabel preprocess` where it is, and copy the folder here."
            )
        plan, cases = self._plan(), self.identifiers()
        of_plan = CasePlan.of(self.plans, self.configuration)
        shared = Configuration(self.labels, self.images, self.dataset_class, self.folder, of_plan, reuse)
        entries: dict[str, CaseSource] = {}
        jobs = []
        for case in cases:
            files = existing_soft_files(raw, case)
            entries[case] = self._entry(case, len(files), hash_files(files))
            raw.check_digest(case, entries[case]["source"])
            own = CaseFiles(files, raw.label_file(case))
            jobs.append((case, own, made_from(plan, entries[case]), shared))
        voxels = sum(math.prod(entry["shape"]) for entry in entries.values())
        worthwhile = min(workers.number, 1 + voxels // VOXELS_PER_PROCESS)
        results = run_jobs(
            make_case,
            jobs,
            self._processes_that_fit(worthwhile, raw, entries),
            names=[f"Case {case}" for case in cases],
            title="Soft labels",
            show_progress=workers.show_progress,
        )
        for _ in results:
            pass
        manifest: Manifest = {
            "plan": plan,
            "about": raw.about,
            "cases": {
                case: {**entry, "files": self._files(case, plan, entry)} for case, entry in entries.items()
            },
        }
        write_json(self.folder / MANIFEST, manifest)
        return manifest

    def _processes_that_fit(
        self, num_processes: int, raw: SoftDataset, entries: Mapping[str, CaseSource]
    ) -> int:
        """Fewer where memory is short for the case that has most voxels, before or after resampling."""
        before = largest_of({case: raw.soft_files(case)[0] for case in entries}, voxels_in)
        after = [(case, math.prod(entry["shape"][1:])) for case, entry in entries.items()]
        name, voxels = max([before, *after], key=lambda item: item[1])
        largest = LargestCase(name, voxels, len(self.labels.names))
        return processes_that_fit(num_processes, len(entries), largest, "preprocess")

    def _remove_leftovers(self) -> None:
        """Delete what killed processes left."""
        for path in self.folder.glob(f"{TEMPORARY}*"):
            path.unlink(missing_ok=True)


def cases_left_out(images: Path) -> set[str]:
    """Cases that the data set has and that are not trained on, for they have no rater.

    Args:
        images: folder of a configuration in ``nnUNet_preprocessed/DatasetXXX_NAME``.
    """
    places = [images / SOFT_FOLDER / MANIFEST, images.parent / "dataset.json"]
    if raw := os.environ.get("nnUNet_raw"):
        places.insert(0, Path(raw) / images.parent.name / "dataset.json")
    for path in places:
        content = read_json(path) if path.is_file() else {}
        about = content.get("about" if path.name == MANIFEST else "soft_labels")
        if about:
            return set(about.get("dropped_cases", ()))
    return set()


class _Waiting:
    """Waits for another process, as long as it makes progress."""

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        self.folder = folder
        self.num_files, self.since = -1, monotonic()
        log(f"Waiting for another process that preprocesses soft labels into {folder}")

    def has_hope(self) -> bool:
        """Sleep; False if nothing has happened for `PATIENCE_SECONDS`."""
        sleep(POLL_SECONDS)
        num_files = sum(1 for _ in self.folder.iterdir())
        if num_files != self.num_files:
            self.num_files, self.since = num_files, monotonic()
        return monotonic() - self.since < PATIENCE_SECONDS

"""What scores were computed from, as one hash: scores of something else are not taken for these."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from nnunet_softlabel.errors import DatasetError
from nnunet_softlabel.evaluation.ensemble import Predictions
from nnunet_softlabel.evaluation.truth import Truth
from nnunet_softlabel.evaluation.truth_files import files_of_truth, paths_of, with_dataset
from nnunet_softlabel.formats.files import check_is_no_pipe
from nnunet_softlabel.formats.predictions import checksums_of
from nnunet_softlabel.formats.soft_dataset import SoftDataset


def digest_of_scored(
    dataset: SoftDataset,
    predictions: Predictions,
    cases: Sequence[str],
    *,
    split: str,
    truth: Path | Truth | None,
) -> str:
    """SHA-256 over predictions with their calibration, references and truth of the cases.

    Files of references are read whole. Of an ``.npz`` the checksums in its table of contents are enough.

    Raises:
        DatasetError: if a file cannot be read.
    """
    digest = hashlib.sha256(json.dumps([dataset.reader, list(dataset.labels.values.items())]).encode())
    if predictions.calibration is not None:
        digest.update(predictions.calibration.digest.encode())
    if truth is not None:
        truth = with_dataset(Truth.of(truth), dataset)
        digest.update(truth.options.encode())
    of_truth = {} if truth is None else files_of_truth(truth, dataset, cases)
    for case in cases:
        for folder in predictions.folders_of[case]:
            digest.update(f"\n{case}:{json.dumps(checksums_of(folder / f'{case}.npz'))}".encode())
        files = [dataset.label_file(case, split), *dataset.soft_files(case, split)]
        files += dataset.rater_files(case, split).values()
        files += paths_of(of_truth[case]) if case in of_truth else []
        for path in files:
            check_is_no_pipe(path)
            try:
                digest.update(hashlib.sha256(path.read_bytes()).digest())
            except OSError as error:
                raise DatasetError(
                    f"Case {case}: its reference {path} is missing or cannot be read ({error.strerror}); "
                    f"convert the data set again."
                ) from error
    return digest.hexdigest()


def digest_of_folders(
    dataset: SoftDataset, folders: Path | Sequence[Path], *, truth: Path | Truth | None = None
) -> str:
    """`digest_of_scored` over all predicted training cases of one or several folders, not recalibrated."""
    found = Predictions.find(folders, file_ending=dataset.file_ending)
    own, known = dataset.for_predictions(found.folders), set(dataset.cases("Tr"))
    cases = [case for case in found.cases if case in known]
    return digest_of_scored(own, found, cases, split="Tr", truth=truth)

"""From a first round of folds to the data set of the second: lesion-wise labels with networks' evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_softlabel.cases.case import Adjudication, Case
from nnunet_softlabel.cases.label_maps import FileOptions
from nnunet_softlabel.conversion.checks import new_dataset
from nnunet_softlabel.conversion.record import CANDIDATES_FILE, detection_models
from nnunet_softlabel.conversion.run import convert
from nnunet_softlabel.conversion.settings import Fusion, Running
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.formats.dataset_json import channel_names_of
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.labels import Labels
from nnunet_softlabel.formats.model_labels import check_labels_of_model
from nnunet_softlabel.formats.nnunet_folders import environment_folder
from nnunet_softlabel.formats.soft_dataset import SoftDataset
from nnunet_softlabel.fusion.detection_model import DetectionModel
from nnunet_softlabel.public import public
from nnunet_softlabel.refinement.candidates import (
    check_cases_known,
    judged_candidates,
    read_adjudicated,
    write_candidates_csv,
)
from nnunet_softlabel.refinement.predictions import held_out_predictions
from nnunet_softlabel.refinement.summary import RefinementSummary, summarise

FOLDER = "refinement"


@dataclass(frozen=True)
class Refinement:
    """What came of a refinement.

    Attributes:
        dataset: folder of the new data set; ``refinement/`` in it holds page, CSV and summary.
        summary: of `summarise`.
        is_mean: every label is the mean of the raters, as a model of raters was not to be had.
    """

    dataset: Path
    summary: RefinementSummary
    is_mean: bool


@public
@dataclass(frozen=True)
class FirstRound:
    """A training whose folds predicted their validation cases.

    Attributes:
        trainer: class name.
        configuration: nnU-Net's, as ``3d_fullres``.
        plans: name of the plans.
        results: folder of the results; None: nnU-Net's own.
    """

    trainer: str
    configuration: str
    plans: str = "nnUNetPlans"
    results: Path | None = None

    def folder(self, dataset: SoftDataset) -> Path:
        """Where nnU-Net puts its folds."""
        model = f"{self.trainer}__{self.plans}__{self.configuration}"
        results = environment_folder("nnUNet_results") if self.results is None else self.results
        return results / dataset.folder.name / model


@public
def refine(
    dataset: SoftDataset,
    first_round: FirstRound,
    *,
    dataset_id: int,
    name: str | None = None,
    adjudicated: Path | None = None,
    links_images: bool = False,
    running: Running | None = None,
) -> Refinement:
    """Fuse the raters of a data set again, with what the folds' networks see in cases they did not train on.

    >>> first = ns.FirstRound("nnUNetTrainerSoftCE", "3d_fullres", "nnUNetPlansReduced")
    >>> ns.refine(911, first, dataset_id=912).dataset.name
    'Dataset912_TinyRefined'

    Args:
        dataset: of the first round, with its raters' label maps.
        first_round: whose validation probabilities are used.
        dataset_id: of the new data set.
        name: of the new data set; None: the old one with ``Refined``.
        adjudicated: CSV of candidates that an expert judged.
        links_images: link the images instead of copying them.
        running: how the work is done; may replace the new data set.

    Returns:
        The new data set and what was found.

    Raises:
        UsageError: for arguments that cannot work.
        DatasetError: for files that are not what they should be, or a network that saw what it predicts.
    """
    check_can_refine(dataset)
    running = running or Running()
    training = first_round.folder(dataset)
    splits_file = environment_folder("nnUNet_preprocessed") / dataset.folder.name / "splits_final.json"
    predictions = held_out_predictions(training, splits_file, dataset.cases())
    check_labels_of_model({path.parent for path in predictions.values()}, dataset.labels)
    said = {} if adjudicated is None else read_adjudicated(adjudicated, dataset.labels.names)
    if adjudicated is not None:
        check_cases_known(said, dataset.cases(), adjudicated)
    cases = _cases(dataset, predictions, said)
    about = dataset.about
    made = convert(
        cases,
        new_dataset(dataset_id, name or default_name(dataset)),
        labels=label_texts(dataset.labels),
        channel_names=channel_names_of(dataset.dataset_json),
        fusion=Fusion("lesion-wise", has_anonymous_raters=bool(about.get("has_anonymous_raters"))),
        files=FileOptions(links_images=links_images),
        running=running,
    )
    _record_origin(made, dataset, training)
    training_cases = {case.name: case for case in cases if not case.is_test}
    summary = describe(SoftDataset(made), training_cases, made / FOLDER, said)
    is_mean = all(model.is_mean for model in detection_models(made).values())
    return Refinement(made, summary, is_mean=is_mean and not said)


def describe(
    dataset: SoftDataset,
    cases: Mapping[str, Case],
    output: Path,
    adjudicated: Mapping[str, Mapping[str, Mapping[int, Adjudication]]] | None = None,
) -> RefinementSummary:
    """Write page, CSV to fill in and summary of a data set with lesion-wise labels.

    Args:
        dataset: fused with ``lesion-wise``.
        cases: its training cases by name, with predictions if there are any.
        output: folder of the three files.
        adjudicated: what an expert said.

    Returns:
        The summary.
    """
    from nnunet_softlabel.refinement.page import write_page  # matplotlib: workers would wait for it

    content = read_json(dataset.folder / CANDIDATES_FILE)
    about = dataset.about
    groups = about.get("groups") or {}
    found = judged_candidates({c: content[c] for c in content if c in cases}, adjudicated)
    summary = summarise(
        found,
        detection_models(dataset.folder),
        {case: str(groups.get(case) or case) for case in cases},
        is_anonymous=bool(about.get("has_anonymous_raters")),
    )
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "refinement.json", summary)
    write_json(output / "rater_rates.json", {"rater_rates": mean_rates(detection_models(dataset.folder))})
    write_candidates_csv(output / "candidates.csv", found)
    write_page(output / "candidates.html", dataset, cases, candidates=found, summary=summary)
    return summary


def mean_rates(models: Mapping[str, DetectionModel]) -> dict[str, dict[str, float]]:
    """Label -> rates of marking a lesion, and what looks like one and is none; not where the mean stays."""
    found = {}
    for label, model in models.items():
        if not model.is_mean:
            sensitivity, inventions = np.mean(list(model.rates().values()), axis=0)
            found[label] = {"sensitivity": float(sensitivity), "false_positive_rate": float(inventions)}
    return found


def default_name(dataset: SoftDataset) -> str:
    """Of the data set that a refinement makes."""
    return f"{dataset.folder.name.split('_', 1)[1]}Refined"


def check_can_refine(dataset: SoftDataset) -> None:
    """Refuse a data set whose labels lesion-wise fusion cannot make again.

    Raises:
        UsageError: if it has a prior.
        DatasetError: if no case has two raters.
    """
    about = dataset.about
    if about.get("prior") not in (None, "none", {}, []):
        raise UsageError(
            f"{dataset.folder.name}: was made with a prior, which lesion-wise fusion does not know; "
            f"convert without one for the first round."
        )
    several = [case for case in dataset.cases() if len(dataset.rater_files(case)) > 1]
    if not several:
        raise DatasetError(
            f"{dataset.folder.name}: no training case has two raters; what one reader misses nobody can tell."
        )


def label_texts(labels: Labels) -> list[str]:
    """The labels as ``--labels`` takes them."""
    texts = [f"{name}={','.join(map(str, values))}" for name, values in labels.values.items()]
    return texts + ([] if labels.ignore is None else [f"ignore={labels.ignore}"])


def _cases(
    dataset: SoftDataset,
    predictions: Mapping[str, Path],
    adjudicated: Mapping[str, Mapping[str, Mapping[int, Adjudication]]],
) -> list[Case]:
    groups = dataset.about.get("groups") or {}
    cases = []
    for split in ("Tr", "Ts"):
        for name in dataset.cases(split):
            raters = dataset.rater_files(name, split)
            if not raters:
                raise DatasetError(
                    f"Case {name}: raterLabels{split} holds no label map of it; "
                    f"lesion-wise fusion needs what each rater drew."
                )
            cases.append(
                Case(
                    name, dataset.image_files(name, split), raters, group=groups.get(name),
                    is_test=split == "Ts", prediction=predictions.get(name) if split == "Tr" else None,
                    adjudicated=adjudicated.get(name, {}) if split == "Tr" else {},
                )
            )  # fmt: skip
    return cases


def _record_origin(made: Path, dataset: SoftDataset, training: Path) -> None:
    """Say in ``dataset.json`` whose predictions the labels rest on."""
    content = read_json(made / "dataset.json")
    content["soft_labels"]["refined_from"] = {"dataset": dataset.folder.name, "training": training.name}
    write_json(made / "dataset.json", content)

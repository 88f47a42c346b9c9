"""Which files a truth has of a case: in a folder, by a pattern, in a table, in an nnU-Net data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nnunet_softlabel.arguments import as_label_texts
from nnunet_softlabel.cases.case import SINGLE_RATER, Case, Source, source_name
from nnunet_softlabel.cases.patterns import CaseMatcher, Pattern
from nnunet_softlabel.cases.rater_datasets import labels_as_texts
from nnunet_softlabel.cases.raters import RaterChannels
from nnunet_softlabel.cases.table import read_case_table
from nnunet_softlabel.conversion.checks import labels_of
from nnunet_softlabel.errors import DatasetError, UsageError
from nnunet_softlabel.evaluation.truth import Truth, own_flag
from nnunet_softlabel.formats.channels import Channel
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.formats.labels import channels_of_labels
from nnunet_softlabel.formats.nnunet_folders import environment_folder, find_dataset
from nnunet_softlabel.formats.soft_dataset import SoftDataset

SEGMENT_ENDINGS = (".seg.nrrd", ".dcm")
LABEL_FOLDERS = ("labelsTr", "labelsTs")


def with_dataset(truth: Truth, dataset: SoftDataset) -> Truth:
    """The same truth; of an nnU-Net data set (its folder, id or name), labels are matched by name.

    Raises:
        UsageError: if the labels of that data set have other names.
    """
    folder = _dataset_folder(truth)
    if folder is None:
        return truth
    content = read_dataset_json(folder)
    if truth.labels is None and folder != dataset.folder:
        texts = labels_as_texts(content)
        if sorted(texts) != sorted(dataset.labels.names):
            raise UsageError(
                f"--truth {truth.place}: its labels are {', '.join(texts)}, those of {dataset.folder.name} "
                f"are {', '.join(dataset.labels.names)}; say which value is which with --truth-labels."
            )
        truth = replace(truth, labels=[f"{name}={values}" for name, values in texts.items()])
    return replace(truth, place=truth.place if truth.place.name in LABEL_FOLDERS else folder)


def _dataset_folder(truth: Truth) -> Path | None:
    place = truth.place
    if not place.exists() and re.fullmatch(r"\d{1,3}|Dataset\d{3}_.+", str(place)):
        return find_dataset(environment_folder("nnUNet_raw"), str(place))
    folder = place.parent if place.name in LABEL_FOLDERS else place
    return folder if (folder / "dataset.json").is_file() else None


def files_of_truth(truth: Truth, dataset: SoftDataset, cases: Sequence[str]) -> dict[str, Case]:
    """Case -> what the truth has of it: one rater or several, or a map per label; no images.

    Args:
        truth: as `with_dataset` gives it.
        dataset: says the ending of files in a folder.
        cases: that are wanted.

    Raises:
        DatasetError: for a case without a file, with more than one, or with several raters and no fusion.
        UsageError: for a wrong pattern.
    """
    if "{case" in str(truth.place):
        found = _of_pattern(truth, dataset, cases)
    elif truth.place.is_file():
        found = _of_table(truth, dataset)
    else:
        found = {case: _of_folder(truth, dataset, case) for case in cases}
    for case in cases:
        _check(truth, dataset, found.get(case, Case(case, [])))
    return {case: found[case] for case in cases}


def paths_of(case: Case) -> list[Path]:
    """The files of a case of a truth, each once."""
    sources = [*case.raters.values(), *case.soft.values()]
    paths = [s.path if isinstance(s, Channel) else s for s in sources if isinstance(s, Path | Channel)]
    return list(dict.fromkeys(paths))


def _of_pattern(truth: Truth, dataset: SoftDataset, cases: Sequence[str]) -> dict[str, Case]:
    pattern = Pattern(str(truth.place), "--truth", ["case", "rater", "label"])
    if pattern.has("rater") and (pattern.has("label") or truth.rater_axis is not None):
        raise UsageError(f"--truth {truth.place}: leave out {{rater}}, or {{label}} and --rater-axis.")
    if pattern.has("label") and truth.class_axis is not None:
        raise UsageError(f"--truth {truth.place}: has a file per {{label}}; leave out --class-axis.")
    matcher = CaseMatcher(pattern, cases, dataset.labels.names if pattern.has("label") else ())
    found = {case: Case(case, []) for case in cases}
    for path in pattern.files():
        match = matcher.match(path)
        if match is None or match["case"] not in found:
            continue
        case = found[match["case"]]
        if pattern.has("label"):
            soft = _joined(truth, case.name, case.soft, {match["label"]: Path(path)})
            found[case.name] = replace(case, soft=soft)
        elif pattern.has("rater"):
            raters = _joined(truth, case.name, case.raters, {match["rater"]: Path(path)})
            found[case.name] = replace(case, raters=raters)
        else:
            found[case.name] = _of_file(truth, dataset, case, Path(path))
    return found


def _of_table(truth: Truth, dataset: SoftDataset) -> dict[str, Case]:
    table = read_case_table(
        truth.place, needs_images=False, label_names=dataset.labels.names, rater_axis=truth.rater_axis
    )
    found = {}
    for case in table.cases:
        only = case.raters.get(SINGLE_RATER) if len(case.raters) == 1 and not case.soft else None
        if isinstance(only, Path) and truth.soft_scale is not None:
            case = _of_file(truth, dataset, Case(case.name, []), only)
        found[case.name] = case
    return found


def _of_folder(truth: Truth, dataset: SoftDataset, case: str) -> Case:
    folders, ending = [truth.place], dataset.file_ending
    if (truth.place / "dataset.json").is_file():
        folders = [truth.place / name for name in LABEL_FOLDERS]
        ending = read_dataset_json(truth.place)["file_ending"]
    found = Case(case, [])
    for path in [folder / f"{case}{end}" for folder in folders for end in (ending, *SEGMENT_ENDINGS)]:
        if path.is_file():
            found = _of_file(truth, dataset, found, path)
    return found


def _of_file(truth: Truth, dataset: SoftDataset, case: Case, path: Path) -> Case:
    """The case with what one file holds: a label map, maps, or channels of raters."""
    if truth.soft_scale is None:
        raters = RaterChannels(truth.rater_axis).raters_of(path)
        return replace(case, raters=_joined(truth, case.name, case.raters, raters))
    names = dataset.labels.names
    soft: dict[str, Source] = {names[0]: path}
    if truth.class_axis is not None:
        with own_flag():
            texts = None if truth.labels is None else as_label_texts(truth.labels)
            channels = channels_of_labels(*labels_of(dataset.folder, dataset.dataset_json, texts))
        soft = {name: Channel(path, channels[name] - 1, truth.class_axis) for name in names}
    elif len(names) > 1:
        raise UsageError(
            f"--truth {truth.place}: --soft-scale means probability maps, of {len(names)} labels; put "
            f"{{label}} into the pattern, or add --class-axis for a channel per label."
        )
    return replace(case, soft=_joined(truth, case.name, case.soft, soft))


def _joined(
    truth: Truth, case: str, known: Mapping[str, Source], more: Mapping[str, Source]
) -> dict[str, Source]:
    """Sources of a case and some more; two for one rater or label are refused."""
    for name in more:
        if name in known:
            raise DatasetError(
                f"Case {case}: --truth {truth.place} holds {source_name(known[name])} and "
                f"{source_name(more[name])}; keep one."
            )
    return {**known, **more}


def _check(truth: Truth, dataset: SoftDataset, case: Case) -> None:
    """A case needs one label map, or a map for each label; several raters need a fusion."""
    where = f"Case {case.name}: --truth {truth.place}"
    if not case.raters and not case.soft:
        other = "; for other names or formats give a pattern, as in 'truth/{case}.nrrd'"
        raise DatasetError(
            f"{where} holds no {case.name}{dataset.file_ending} of it{other if truth.place.is_dir() else ''}."
        )
    missing = [name for name in dataset.labels.names if case.soft and name not in case.soft]
    if missing:
        raise DatasetError(f"{where} holds no probability map of label {missing[0]}; add it.")
    if case.soft and case.raters:
        raise DatasetError(f"{where} holds probability maps and label maps; keep one kind.")
    if len(case.raters) > 1 and truth.fusion is None:
        raise DatasetError(
            f"{where} holds {len(case.raters)} raters ({', '.join(sorted(case.raters))}); name one of them, "
            f"or take their mean as the truth with --truth-fusion mean."
        )

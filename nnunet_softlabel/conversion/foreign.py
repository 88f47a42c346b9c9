"""Files of a data set that no conversion wrote: to replace the data set would delete them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnunet_softlabel.conversion.record import CANDIDATES_FILE
from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.dataset_json import read_dataset_json
from nnunet_softlabel.formats.files import visible
from nnunet_softlabel.formats.soft_dataset import soft_ending

REFINEMENT = "refinement"  # the folder of `refine`
MOST_NAMED = 3


def check_holds_own_files_only(dataset: Path) -> None:
    """Refuse to replace a data set that holds files of others.

    Raises:
        UsageError: naming some of them.
    """
    if next(_files(dataset), None) is None:
        return
    about = read_dataset_json(dataset).get("soft_labels") if (dataset / "dataset.json").is_file() else None
    if about is None or not about["made_hard_labels"]:
        raise UsageError(
            f"{dataset}: --overwrite would delete images and labels that `convert` did not write; move the "
            f"data set away, or choose another -d."
        )
    strangers = [path.relative_to(dataset).as_posix() for path in _strangers(dataset)]
    if strangers:
        more = f" and {len(strangers) - MOST_NAMED} more" if len(strangers) > MOST_NAMED else ""
        raise UsageError(
            f"{dataset}: --overwrite would delete files that `convert` did not write, "
            f"{', '.join(strangers[:MOST_NAMED])}{more}; move them away, or choose another -d."
        )


def _strangers(dataset: Path) -> Iterator[Path]:
    content = read_dataset_json(dataset)
    ending, about = content["file_ending"], content["soft_labels"]
    names = {*(about.get("raters_of_case") or {}), *_with_soft_labels(dataset, soft_ending(ending))}
    own = [
        (r"images(Tr|Ts)/(?P<case>.+)_\d{4}", ending),
        (r"softLabels(Tr|Ts)/(?P<case>.+)_\d{4}", soft_ending(ending)),
        (r"labels(Tr|Ts)/(?P<case>.+)", ending),
        (r"raterLabels(Tr|Ts)/[^/]+/(?P<case>.+)", ending),
    ]
    patterns = [re.compile(text + re.escape(end)) for text, end in own]
    for path in _files(dataset):
        name = path.relative_to(dataset).as_posix()
        if name in ("dataset.json", CANDIDATES_FILE) or name.startswith(f"{REFINEMENT}/"):
            continue
        found = [match["case"] for pattern in patterns if (match := pattern.fullmatch(name))]
        if not set(found) & names:
            yield path


def _with_soft_labels(dataset: Path, ending: str) -> Sequence[str]:
    end = f"_0001{ending}"
    folders = [dataset / f"softLabels{split}" for split in ("Tr", "Ts")]
    return [path.name[: -len(end)] for folder in folders for path in visible(folder, f"*{end}")]


def _files(folder: Path) -> Iterator[Path]:
    """All files, and links to folders; not what is hidden."""
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        yield from (Path(base) / name for name in sorted([*files, *links]) if not name.startswith("."))

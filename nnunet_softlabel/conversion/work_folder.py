"""The folder of an unfinished conversion: what makes `convert` all or nothing.

::

    .unfinished_NAME/
      lock             held by the process that works here
      settings.json    what was asked for; a resumed conversion must ask for the same
      votes/, lesions/ records of the first passes, if there are any
      cases/CASE.json  the record of a finished case, its last file
      dataset/         what becomes the data set
      replaced/        what `dataset` takes the place of, until it has
      moving.json      folders that change places inside a data set: `exchange`

The name does not begin with "Dataset", or nnU-Net would find it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from filelock import Timeout

from nnunet_softlabel.cases.case import Case
from nnunet_softlabel.conversion.case_records import StepRecord
from nnunet_softlabel.conversion.request import RequestDescription, request_description
from nnunet_softlabel.conversion.settings import CaseSettings
from nnunet_softlabel.errors import UsageError, WorkerError
from nnunet_softlabel.formats.files import read_json, write_json
from nnunet_softlabel.formats.locks import held_lock
from nnunet_softlabel.processes import Workers, run_jobs

UNFINISHED = ".unfinished_"
Record = TypeVar("Record", bound=StepRecord)


@contextmanager
def unfinished_folder(
    work: Path, cases: Sequence[Case], settings: CaseSettings, *, overwrite: bool, resume: bool
) -> Iterator[Path]:
    """Make or take up the folder of an unfinished conversion; an error removes it, a kill leaves it.

    Raises:
        UsageError: if there is one already that was not asked to be resumed, was asked for something else, or
            is being worked on.
    """
    description = request_description(cases, settings)
    is_new = not work.exists()
    work.mkdir(parents=True, exist_ok=True)
    with locked(work):
        if not is_new and not resume and not overwrite:
            raise UsageError(
                f"{work}: an earlier conversion was interrupted; "
                f"add --resume to complete it, or --overwrite to start again."
            )
        _take_up(work, description, overwrite=overwrite, resume=resume)
        try:
            yield work
        except WorkerError:
            raise
        except Exception:  # a kill or an interruption leaves it, to be resumed; nothing else does
            # once things change places it holds what the next call puts back, or completes
            if (work / "dataset").is_dir() and not (work / "replaced").exists():
                remove(work)
            raise


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Hold the lock of an unfinished folder; where the file system has no locks, go on with a warning.

    Raises:
        UsageError: if another process holds it.
    """
    try:
        with held_lock(work / "lock"):
            yield
    except Timeout as error:
        raise UsageError(f"{work}: another process is converting into it; wait until it is done.") from error


@contextmanager
def claimed_id(final: Path) -> Iterator[None]:
    """Hold the id of a data set that is made, whatever its name: of two that begin at once, one goes on.

    Raises:
        UsageError: if another process holds it.
    """
    number = final.name.partition("_")[0]
    lock = final.with_name(f".{number}.lock")
    try:
        with held_lock(lock):
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise UsageError(
            f"-d {int(number.removeprefix('Dataset'))}: another process is making a data set of this id; "
            f"wait until it is done, or choose another."
        ) from error


def _take_up(work: Path, description: RequestDescription, *, overwrite: bool, resume: bool) -> None:
    started = work / "settings.json"
    if resume and started.is_file() and (work / "dataset").is_dir():
        is_same = read_json(started) == description
        if is_same:
            return
        if not overwrite:
            raise UsageError(
                f"{work}: was started with other options or files; add --overwrite to start again."
            )
    started.unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks like a good start
    try:
        _begin(work, description)
    except OSError:
        remove(work)
        raise


def _begin(work: Path, description: RequestDescription) -> None:
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
    (work / "cases").mkdir()
    (work / "dataset").mkdir()
    write_json(work / "settings.json", description)


def remove(work: Path) -> None:
    """Delete the folder; its settings first, so that a kill leaves nothing to resume."""
    (work / "settings.json").unlink(missing_ok=True)
    shutil.rmtree(work)


def run_cases(
    function: Callable[[Case, Path, CaseSettings], Record],
    cases: Sequence[Case],
    work: Path,
    settings: CaseSettings,
    *,
    kind: str = "cases",
    title: str = "Converting",
    workers: Workers,
    is_whole: Callable[[Record, Path], bool] = lambda record, work: True,
) -> list[Record]:
    """Run a function on the cases that have no record yet; returns the records of all, in order.

    Args:
        function: gives a case's record, and writes it into ``work/kind``, last.
        cases: of the conversion, or some of them.
        work: the unfinished folder.
        settings: third argument of ``function``.
        kind: folder of the records.
        title: of the progress bar.
        workers: that run it.
        is_whole: says of a record that the files of its case are as they were written; others are made again.
    """
    (work / kind).mkdir(exist_ok=True)
    files = {case.name: record_file(work, case.name, kind) for case in cases}
    found = {name: cast(Record, read_json(path)) for name, path in files.items() if path.is_file()}
    records = {
        name: record
        for name, record in found.items()
        if record.get("case") == name and is_whole(record, work)
    }
    jobs = [(case, work, settings) for case in cases if case.name not in records]
    results = run_jobs(
        function,
        jobs,
        workers.number,
        names=[f"Case {case.name}" for case, *_ in jobs],
        title=title,
        num_done=len(records),
        show_progress=workers.show_progress,
    )
    try:
        for record in results:
            records[record["case"]] = record
    except WorkerError as error:
        raise WorkerError(f"{str(error).removesuffix('.')} and --resume.") from error
    return [records[case.name] for case in cases]


def put_in_place(work: Path, final: Path, then: Callable[[], None]) -> None:
    """Make ``work/dataset`` the data set ``final``, whatever was there; do the rest, and remove ``work``."""
    if (work / "dataset").is_dir():
        if final.exists():
            os.rename(final, work / "replaced")
        os.rename(work / "dataset", final)
    then()
    remove(work)


def bring_back(work: Path, final: Path) -> None:
    """Undo the first half of a `put_in_place` that was killed in the middle.

    Raises:
        UsageError: if another process is at it.
    """
    if (work / "replaced").is_dir() and not final.exists():
        with locked(work):
            if (work / "replaced").is_dir() and not final.exists():
                os.rename(work / "replaced", final)


def record_file(work: Path, case: str, kind: str = "cases") -> Path:
    """Where the record of a finished case is, or of one of its first passes."""
    return work / kind / f"{case}.json"

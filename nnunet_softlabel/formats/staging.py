"""Several files that belong together: all of them take their names, or none.

::

    OUTPUT/.unfinished/
      lock            held by the process that works here
      new/            what is being written
      moving.json     names of all that is in `new`; from here on things change places
      replaced/       what `new` takes the place of, until it has

First the old files go, then the new ones come: old and new never lie side by side. A process that is killed
in between leaves `moving.json`, and the next one begins by putting everything back.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree

from filelock import Timeout

from nnunet_softlabel.errors import UsageError
from nnunet_softlabel.formats.files import expecting_shape, read_json, refuse_existing, write_json
from nnunet_softlabel.formats.locks import held_lock

# folders of a data set in nnUNet_raw: nnU-Net takes what lies there for images and labels
OF_DATASETS = tuple(
    f"{kind}{split}" for kind in ("images", "labels", "softLabels", "raterLabels") for split in ("Tr", "Ts")
)
UNFINISHED = ".unfinished"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged(output: Path, names: Sequence[str], *, overwrite: bool) -> Iterator[Path]:
    """A folder to write files or folders of these names in; at the end they take their names in ``output``.

    Args:
        output: made if it is not there, and removed again on an error.
        names: what will be written; checked before the work.
        overwrite: replace what has these names.

    Raises:
        UsageError: if one is there already, if the folder cannot be made, or another process works there.
        OSError: naming ``output``, if there is no room for what is written.
    """
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: is a file; name a folder.")
    if output.name in OF_DATASETS:
        raise UsageError(f"-o {output}: nnU-Net's data sets have folders of this name; choose another.")
    if not overwrite and not (output / UNFINISHED).exists():
        refuse_existing([output / name for name in names], overwrite=False)  # before anything is made
    work = output / UNFINISHED
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be made ({error.strerror}); choose another folder.") from error
    try:
        with held_lock(work / "lock"):
            try:
                _put_back(output, work)
                if not overwrite:
                    refuse_existing([output / name for name in names], overwrite=False)
                (work / "new").mkdir()
                yield work / "new"
                _move(output, work)
            except OSError as error:
                if error.errno in NO_ROOM and error.filename is None:  # of a file that is open already
                    raise OSError(error.errno, error.strerror, str(output)) from error
                raise
            finally:
                _put_back(output, work)
                _tidy(work, made)
    except Timeout as error:
        raise UsageError(f"-o {output}: another process is writing there; wait until it is done.") from error


def _move(output: Path, work: Path) -> None:
    names = sorted(path.name for path in (work / "new").iterdir())
    write_json(work / "moving.json", {"names": names})
    (work / "replaced").mkdir()
    for name in names:
        if (output / name).exists():
            os.rename(output / name, work / "replaced" / name)
    for name in names:
        os.rename(work / "new" / name, output / name)
    (work / "moving.json").unlink()


def _put_back(output: Path, work: Path) -> None:
    """Undo what was begun and not finished; what was finished stays. The lock is held."""
    if (work / "moving.json").is_file() and (work / "replaced").is_dir():
        journal = work / "moving.json"
        with expecting_shape(journal, "put back what is in `replaced`, and remove the folder"):
            names = [str(name) for name in read_json(journal)["names"]]
        for name in names:
            old, new, final = work / "replaced" / name, work / "new" / name, output / name
            if not new.exists() and final.exists():
                os.rename(final, new)
            if old.exists():
                os.rename(old, final)
    (work / "moving.json").unlink(missing_ok=True)
    for name in ("new", "replaced"):
        if (work / name).exists():
            rmtree(work / name)


def _tidy(work: Path, made: Sequence[Path]) -> None:
    """Remove the work folder, and the folders that were made for nothing, the innermost first."""
    (work / "lock").unlink(missing_ok=True)
    try:
        work.rmdir()
        for folder in made:
            if any(folder.iterdir()):
                return
            folder.rmdir()
    except OSError:
        return  # another process has begun to work there

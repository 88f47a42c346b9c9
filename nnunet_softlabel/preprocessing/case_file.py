"""The file ``CASE.b2nd`` of a preprocessed soft label, and the disputed voxels beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from numpy.typing import NDArray

from nnunet_softlabel.formats.packed import PackedMap
from nnunet_softlabel.preprocessing.disputed import locations_path
from nnunet_softlabel.preprocessing.records import MadeFrom

META_KEY = "made_from"
DISPUTED_KEY = "disputed"  # digest of the file of disputed voxels, or "none"
TEMPORARY = ".unfinished_"


def is_made_from(target: Path, made_from: MadeFrom) -> bool:
    """True if the file says that it was made from the same, with the disputed voxels that lie beside it."""
    if not target.is_file():
        return False
    try:
        array = blosc2.open(str(target), mode="r")  # named, for its metadata must not outlive it
        meta = array.schunk.vlmeta
        return bool(
            meta[META_KEY] == json.dumps(made_from)
            and meta[DISPUTED_KEY] == disputed_digest(target.parent, target.stem)
        )
    except (RuntimeError, KeyError, ValueError, OSError):
        return False  # written in part by something that does not rename, or not ours: make it again


def disputed_digest(folder: Path, case: str) -> str:
    """One word for the disputed voxels of a case on disk; "none" if there is no file."""
    path = locations_path(folder, case)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "none"


def write_case(
    target: Path,
    quantised: Sequence[PackedMap],
    locations: NDArray[Any],
    *,
    patch_size: tuple[int, ...],
    made_from: MadeFrom,
) -> None:
    """Write the soft label of a case channel by channel, and its disputed voxels.

    Args:
        target: the file.
        quantised: int16, one map per channel.
        locations: of disputed voxels, see `disputed_locations`.
        patch_size: of the configuration: chunks of the file follow from it, as in nnU-Net's files.
        made_from: what decided the result.

    Raises:
        OSError: if it was not written whole; then no file is there.
    """
    # a name of its own on every machine that shares the folder; the case's file comes last
    temporary = target.with_name(f"{TEMPORARY}{uuid4().hex}.b2nd")
    if len(locations):
        with temporary.open("wb") as file:
            np.save(file, locations)
        os.replace(temporary, locations_path(target.parent, target.stem))
    else:
        locations_path(target.parent, target.stem).unlink(missing_ok=True)
    try:
        _write(
            temporary,
            quantised,
            patch_size,
            {META_KEY: json.dumps(made_from), DISPUTED_KEY: disputed_digest(target.parent, target.stem)},
        )
    except RuntimeError as error:  # blosc2 has no OSError
        temporary.unlink(missing_ok=True)
        raise OSError(
            errno.EIO, f"was not written whole ({error}); is the disk full?", str(target)
        ) from error
    os.replace(temporary, target)


def _write(
    path: Path, quantised: Sequence[PackedMap], patch_size: tuple[int, ...], meta: Mapping[str, str]
) -> None:
    shape = (len(quantised), *quantised[0].shape)
    blocks, chunks = comp_blosc2_params(shape, patch_size, 2)
    cparams = {"codec": blosc2.Codec.LZ4HC, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1, "clevel": 5}
    array = blosc2.empty(
        shape, dtype=np.int16, urlpath=str(path), chunks=chunks, blocks=blocks, cparams=cparams
    )
    for channel, packed in enumerate(quantised):
        array[channel] = packed.whole()
    for key, value in meta.items():
        array.schunk.vlmeta[key] = value
    del array
    written = blosc2.open(str(path), mode="r")
    for channel, packed in enumerate(quantised):
        if not np.array_equal(np.asarray(written[channel]), packed.whole()):
            raise RuntimeError("other values than were written")

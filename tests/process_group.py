"""A group of processes on the CPU, for tests of what several GPUs do together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import distributed


@contextmanager
def joined_by_gloo(folder: str | Path, rank: int, world_size: int = 2) -> Iterator[None]:
    """This process is one of a group, which meets in ``folder``.

    PyTorch 2.4 may wait for ever when a group ends: it holds Python's lock and joins a thread that wants the
    lock, to release the last tensor that was summed. So all processes are let finish first, without the lock.
    """
    store = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    yield
    distributed.barrier()
    time.sleep(0.5)
    distributed.destroy_process_group()

"""A pool of processes that gives results as they come, and ends with the process that started it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, TypeVar

from nnunet_softlabel.errors import WorkerError

Result = TypeVar("Result")


def run_jobs(
    function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], num_processes: int
) -> Iterator[Result]:
    """Yield ``function(*job)`` for every job, in any order; one process works without a pool.

    Raises:
        WorkerError: if a worker is killed.
    """
    num_processes = min(num_processes, len(jobs))
    if num_processes <= 1:
        for job in jobs:
            yield function(*job)
        return
    # spawn: a forked child of a process that has threads (torch, BLAS) can hang
    with ProcessPoolExecutor(
        num_processes, mp_context=get_context("spawn"), initializer=_end_with_parent
    ) as pool:
        futures = [pool.submit(function, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerError(
                "a worker process was killed, perhaps for lack of memory; "
                "run the same command again with a smaller -np (convert: and --resume)."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let this worker die when the process that started it is killed; it would wait for work for ever."""
    parent = parent_process()
    assert parent is not None  # only runs in workers

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()

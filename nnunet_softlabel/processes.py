"""A pool of processes that gives results as they come, and ends with the process that started it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from threading import Thread
from typing import Any, TypeVar

from tqdm import tqdm

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


Item = TypeVar("Item")


def run_in_processes(
    job: Callable[[Item], Result], items: Iterable[Item], *, num_processes: int, title: str
) -> Iterator[Result]:
    """Results in order, with a progress bar on a terminal; few items are not worth the start of processes."""
    items = list(items)
    bar = partial(tqdm, total=len(items), desc=title, disable=None, leave=False)
    if num_processes <= 1 or len(items) < 4 * num_processes:
        yield from bar(map(job, items))
        return
    with ProcessPoolExecutor(num_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from bar(pool.map(job, items, chunksize=4))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

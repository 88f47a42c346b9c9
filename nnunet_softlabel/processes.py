"""The one pool of processes: results as they come or in order; it ends with the process that started it."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, current_process, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from threading import Thread
from time import monotonic, sleep
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_softlabel.errors import UsageError, WorkerError
from nnunet_softlabel.public import is_command_line, public

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Result = TypeVar("Result")

KILLED = "a worker process was killed"
REMEDY = "run the same command again with a smaller -np."
NO_GUARD_CODE = 97  # exit code of a worker that began to run its script again
NO_GUARD = (
    "this script starts itself again in every worker process; put its calls below "
    "`if __name__ == '__main__':`, or give num_processes=1."
)
PATIENCE_SECONDS = 5.0  # for the end of the workers of a broken pool
EXIT_CODE_SECONDS = 2.0
_worker_of_job: Any = None  # in a worker: job -> process id of the worker that is at it, 0 before and after


@public
@dataclass(frozen=True)
class Workers:
    """Who works, and whether a progress bar shows it.

    Attributes:
        number: of processes; 1 works in this one.
        show_progress: print a progress bar on stderr.
    """

    number: int = 1
    show_progress: bool = False


def end_if_run_again() -> None:
    """End a worker that runs the script which started it, for the script's calls are not guarded.

    Called where work begins: the starting process then says `NO_GUARD`, see `run_jobs`.
    """
    if getattr(current_process(), "_inheriting", False):  # its main module is being imported
        os._exit(NO_GUARD_CODE)


def run_jobs(
    function: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    num_processes: int,
    *,
    names: Sequence[str],
    in_order: bool = False,
    title: str | None = None,
    num_done: int = 0,
    show_progress: bool = True,
) -> Iterator[Result]:
    """Yield ``function(*job)`` for every job; one process works without a pool.

    Args:
        function: of a module, so that a worker finds it.
        jobs: its arguments.
        num_processes: spawned workers; not more than there are jobs.
        names: what each job works on, such as "Case knee_01"; an error names it.
        in_order: yield results in the order of the jobs, else as they come.
        title: of the progress bar; None shows none.
        num_done: what the progress bar counts as done before.
        show_progress: show the bar where stderr is a terminal.

    Raises:
        WorkerError: if a worker is killed, or memory does not suffice for a job.
        UsageError: if workers run the script again that started them.
    """
    end_if_run_again()
    num_processes = min(num_processes, len(jobs))
    has_bar = title is not None and show_progress
    with tqdm(
        total=num_done + len(jobs),
        initial=num_done,
        desc=title,
        leave=False,
        disable=None if has_bar else True,
    ) as bar:
        if num_processes <= 1:
            results: Iterator[Result] = (
                _run(function, job, name) for job, name in zip(jobs, names, strict=True)
            )
        else:
            results = _run_in_pool(function, jobs, num_processes, names=names, in_order=in_order)
        for result in results:
            bar.update()
            yield result


def for_each_case(
    function: Callable[[str], Result], cases: Sequence[str], num_processes: int, *, title: str
) -> Iterator[Result]:
    """Yield ``function(case)`` for every case, in order; see `run_jobs`. Few cases need no workers."""
    return run_jobs(
        function,
        [(case,) for case in cases],
        fewer_for_few(num_processes, len(cases)),
        names=[f"Case {case}" for case in cases],
        in_order=True,
        title=title,
    )


def fewer_for_few(num_processes: int, num_jobs: int) -> int:
    """One process where short jobs are so few that they are done before workers have started."""
    return num_processes if num_jobs >= 4 * num_processes else 1


def _run_in_pool(
    function: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    num_processes: int,
    *,
    names: Sequence[str],
    in_order: bool,
) -> Iterator[Result]:
    # spawn: a forked child of a process that has threads (torch, BLAS) can hang
    context = get_context("spawn")
    worker_of_job = context.RawArray("q", len(jobs))
    before = set(active_children())
    told = (worker_of_job, is_command_line.get())
    with ProcessPoolExecutor(
        num_processes, mp_context=context, initializer=_start_worker, initargs=told
    ) as pool:
        workers: list[Any] = []
        try:
            with _deaf_to_interrupts():  # Ctrl-C is for this process, which then ends its workers
                futures = deque(
                    pool.submit(_run_job, function, i, job, name)
                    for i, (job, name) in enumerate(zip(jobs, names, strict=True))
                )
            workers = [child for child in active_children() if child not in before]
            for future in _taken(futures) if in_order else as_completed(_emptied(futures)):
                yield future.result()
        except BrokenProcessPool as error:
            for worker in workers:
                worker.join(PATIENCE_SECONDS)
            if any(worker.exitcode == NO_GUARD_CODE for worker in workers):
                raise UsageError(NO_GUARD) from None
            raise WorkerError(_who_was_killed(workers, list(worker_of_job), names)) from error
        except (KeyboardInterrupt, GeneratorExit):  # nobody waits for what they are at
            for worker in workers:
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started here never hear of Ctrl-C; this one hears of it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _taken(futures: deque[Future[Result]]) -> Iterator[Future[Result]]:
    while futures:
        yield futures.popleft()  # a result that is passed on is not kept


def _emptied(futures: deque[Future[Result]]) -> set[Future[Result]]:
    taken = set(futures)
    futures.clear()
    return taken


def _start_worker(worker_of_job: Any, knows_flags: bool) -> None:
    """Remember where this worker says what it is at, and let it end with the process that started it."""
    # Workers share the cores; threads of numerical libraries in each would fight over them. Set before numpy
    # is imported, which is with the first job.
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, "1")
    is_command_line.set(knows_flags)
    global _worker_of_job
    _worker_of_job = worker_of_job
    parent = parent_process()
    assert parent is not None  # only runs in workers

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _run_job(function: Callable[..., Result], index: int, job: tuple[Any, ...], name: str) -> Result:
    _worker_of_job[index] = os.getpid()
    try:
        return _run(function, job, name)
    finally:
        _worker_of_job[index] = 0


def _run(function: Callable[..., Result], job: tuple[Any, ...], name: str) -> Result:
    try:
        return function(*job)
    except MemoryError as error:
        raise WorkerError(f"{name}: out of memory ({str(error) or 'no more to be had'}); {REMEDY}") from error


def _killed(workers: Sequence[SpawnProcess]) -> set[int | None]:
    return {worker.pid for worker in workers if worker.exitcode not in (0, None, -signal.SIGTERM)}


def _who_was_killed(
    workers: Sequence[SpawnProcess], worker_of_job: Sequence[int], names: Sequence[str]
) -> str:
    """One line: what the killed worker was at. The pool itself ends the others, by SIGTERM."""
    end = monotonic() + EXIT_CODE_SECONDS  # the pool's own thread may be about to note the exit code
    while not (killed := _killed(workers)) and monotonic() < end:
        sleep(0.01)
    at_work = {pid: name for pid, name in zip(worker_of_job, names, strict=True) if pid}
    found = [name for pid, name in at_work.items() if pid in killed] or list(at_work.values())
    where = f"{' or '.join(found)}: " if found else ""
    return f"{where}{KILLED}, perhaps for lack of memory; {REMEDY}"

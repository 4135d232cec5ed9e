"""Cases in parallel: a function over jobs in processes of their own, or here where that is quicker."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from reg_bench.errors import ConfigError

Job = TypeVar("Job")
Result = TypeVar("Result")

# A new process imports for seconds; less work than this is done by the time it is there.
_WORTH_A_PROCESS_VOXELS = 20_000_000


def count_of(workers: int | None, jobs: int, voxels: int) -> int:
    """How many processes to use.

    Raises:
        ConfigError: fewer than one was asked for.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {workers}")
    if workers is None:
        workers = min(len(os.sched_getaffinity(0)), 1 + voxels // _WORTH_A_PROCESS_VOXELS)
    return max(1, min(workers, jobs))


def spread(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int | None, voxels: int
) -> Iterator[Result]:
    """The results in the order of the jobs.

    Args:
        function: of a module, so that another process can import it; the jobs and results go through pipes.
        voxels: of all jobs together, which decides how many processes there are if `workers` is not given.
    """
    count = count_of(workers, len(jobs), voxels)
    if count == 1:
        yield from map(function, jobs)
        return
    # Started afresh: a forked process would inherit the thread pools of torch in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(function, jobs)


def _one_thread() -> None:
    from reg_bench.protocol import set_threads

    set_threads(1)

"""A few large pieces of work side by side, each on one thread, instead of many small operations on all of them.

An operation on a small tensor takes less time than waking the threads that would share it, all the more where waiting
threads sleep (`OMP_WAIT_POLICY=PASSIVE`): two threads then take longer than one. What can be cut into pieces that are
independent runs faster with a thread for each piece.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_local = threading.local()
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def coarse_threads(device: torch.device) -> Iterator[None]:
    """Inside, operations on a CPU run on the thread that calls them, and `side_by_side` uses the others.

    Elsewhere than on a CPU nothing changes. May be nested, and entered by several threads of one process at a time,
    whose counts of threads are their own.
    """
    if device.type != "cpu" or getattr(_local, "workers", None) is not None:
        yield
        return
    _local.workers = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(_local.workers)
        _local.workers = None


def side_by_side(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """The results of `tasks`, in their order; of several that fail, the first one's error is raised.

    Within `coarse_threads` they run on as many threads as torch had outside, otherwise one after the other. The modes
    of autograd and inference are those of the caller. Nothing may need a gradient: a backward pass through tensors of
    several threads is not meant here.
    """
    workers = getattr(_local, "workers", None) or 1
    if workers == 1 or len(tasks) < 2:
        return [task() for task in tasks]
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    shared, result = iter(enumerate(tasks)), [None] * len(tasks)

    def work() -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            while True:
                with _lock:
                    index, task = next(shared, (-1, None))
                if task is None:
                    return
                result[index] = task()  # type: ignore[call-overload]

    # The caller works as well, so that one thread less has to be woken.
    others = [_pool(workers - 1).submit(work) for _ in range(min(workers, len(tasks)) - 1)]
    try:
        work()
    finally:
        errors = [other.exception() for other in others]
    for error in errors:
        if error is not None:
            raise error
    return result  # type: ignore[return-value]


def _pool(workers: int) -> ThreadPoolExecutor:
    """The threads of this process; they are made once and then wait."""
    import os

    # A forked process has none of its parent's threads.
    key = (os.getpid(), workers)
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(workers, "side by side", initializer=_one_thread)
        return _pools[key]


def _one_thread() -> None:
    """Of the operations of a thread; the number is the thread's own from its first operation on."""
    torch.set_num_threads(1)
    _local.workers = 1

"""Pieces side by side: results in order, counts of threads restored, errors raised, modes of the caller."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from reg_bench.coarse_threads import coarse_threads, side_by_side

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_come_in_order_and_from_several_threads() -> None:
    met = threading.Barrier(2, timeout=20)

    def task(k: int) -> tuple[int, int]:
        # Passed only if two tasks are under way at a time.
        met.wait()
        return k, torch.get_num_threads()

    with coarse_threads(CPU):
        found = side_by_side([lambda k=k: task(k) for k in range(4)])  # type: ignore[misc]
    assert found == [(k, 1) for k in range(4)]
    assert torch.get_num_threads() == 2


def test_outside_and_elsewhere_the_caller_does_all() -> None:
    here = threading.get_ident()
    assert side_by_side([threading.get_ident] * 3) == [here] * 3
    with coarse_threads(torch.device("meta")):
        assert torch.get_num_threads() == 2
        assert side_by_side([threading.get_ident] * 3) == [here] * 3


def test_may_be_nested_and_restores_after_an_error() -> None:
    def fails() -> None:
        with coarse_threads(CPU):
            with coarse_threads(CPU):
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 1
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fails()
    assert torch.get_num_threads() == 2


def test_errors_of_any_task_are_raised() -> None:
    def broken() -> None:
        raise ValueError("a task")

    for at in range(4):
        tasks = [broken if k == at else (lambda: None) for k in range(4)]
        with coarse_threads(CPU), pytest.raises(ValueError, match="a task"):
            side_by_side(tasks)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_modes_are_those_of_the_caller(mode: type[torch.no_grad]) -> None:
    def modes() -> tuple[bool, bool]:
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    with mode(), coarse_threads(CPU):
        assert side_by_side([modes] * 4) == [modes()] * 4

"""Optimizers of an energy per case, one per file: one loop, one stopping rule and one record for all of them."""

from reg_bench.optimization.base import LeastSquares, Objective, Optimizer, Record, State, Stopping

__all__ = ["LeastSquares", "Objective", "Optimizer", "Record", "State", "Stopping"]

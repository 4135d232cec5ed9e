"""Regularizers: energies that a smooth field keeps low. One file each; all weigh physical derivatives alike."""

from reg_bench.regularization.base import Regularizer

__all__ = ["Regularizer"]

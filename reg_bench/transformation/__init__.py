"""Transformation models: from a few parameters or a dense field to a displacement on the fixed grid."""

from reg_bench.transformation.base import Domain, Transformation
from reg_bench.transformation.dense import Dense

__all__ = [
    "Dense",
    "Domain",
    "Transformation",
]

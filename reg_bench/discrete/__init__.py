"""Discrete registration: displacements of a window compete at control points, regularised by message passing or by
coupled-convex alternation, from coarse to fine (thesis 2.4.1, equation 2.44).
"""

from reg_bench.discrete.control_grid import ControlGrid, unary_costs
from reg_bench.discrete.coupled_convex import CoupledConvex
from reg_bench.discrete.message_passing import MessagePassing, min_convolution, min_marginals
from reg_bench.discrete.regularization import Regularization
from reg_bench.discrete.search import Level, Search, coarse_to_fine, search_levels
from reg_bench.discrete.window import Window, lowest

__all__ = [
    "ControlGrid",
    "CoupledConvex",
    "Level",
    "MessagePassing",
    "Regularization",
    "Search",
    "Window",
    "coarse_to_fine",
    "lowest",
    "min_convolution",
    "min_marginals",
    "search_levels",
    "unary_costs",
]

"""Optimizers of an energy per case, one per file: one loop, one stopping rule and one record for all of them."""

from reg_bench.optimization.adam import Adam
from reg_bench.optimization.base import LeastSquares, Objective, Optimizer, Record, State, Stopping
from reg_bench.optimization.bfgs import BFGS
from reg_bench.optimization.conjugate_gradient import ConjugateGradient
from reg_bench.optimization.dfp import DFP
from reg_bench.optimization.gauss_newton import GaussNewton
from reg_bench.optimization.gradient_descent import GradientDescent
from reg_bench.optimization.jacobi import Jacobi
from reg_bench.optimization.lbfgs import LBFGS
from reg_bench.optimization.levenberg_marquardt import LevenbergMarquardt
from reg_bench.optimization.linearisation import Linearisation, linearise, through_displacement
from reg_bench.optimization.normal_equations import Preconditioner
from reg_bench.optimization.smoothing import Smoothing

__all__ = [
    "BFGS",
    "DFP",
    "LBFGS",
    "Adam",
    "ConjugateGradient",
    "GaussNewton",
    "GradientDescent",
    "Jacobi",
    "LeastSquares",
    "LevenbergMarquardt",
    "Linearisation",
    "Objective",
    "Optimizer",
    "Preconditioner",
    "Record",
    "Smoothing",
    "State",
    "Stopping",
    "linearise",
    "through_displacement",
]

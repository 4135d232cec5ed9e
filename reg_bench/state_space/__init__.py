"""The linear Gaussian state-space model in torch: batched, differentiable, with observations missing at any time
(thesis, section 3.1).

Covariances and gains of a time-invariant model depend on when something is observed, not on what: they are computed
once for all sequences with the same frames missing.
"""

from reg_bench.state_space.densities import joint_log_density, posterior_log_density
from reg_bench.state_space.expectation_maximization import Fitted, expectation_maximization, maximization
from reg_bench.state_space.filtering import Filtered, kalman_filter, kalman_step, kalman_update
from reg_bench.state_space.forecasting import forecast, observe
from reg_bench.state_space.learnable import LearnableLinearGaussian
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.sampling import sample_posterior, sample_prior
from reg_bench.state_space.smoothing import BackwardKernel, Smoothed, backward_kernel, rts_smoother

__all__ = [
    "BackwardKernel",
    "Filtered",
    "Fitted",
    "LearnableLinearGaussian",
    "LinearGaussianModel",
    "Smoothed",
    "backward_kernel",
    "expectation_maximization",
    "forecast",
    "joint_log_density",
    "kalman_filter",
    "kalman_step",
    "kalman_update",
    "maximization",
    "observe",
    "posterior_log_density",
    "rts_smoother",
    "sample_posterior",
    "sample_prior",
]

"""Covariances in single precision where that is enough, in double precision where it is not.

An observation that leaves little of a variance takes the difference of large numbers, whatever the form of the update.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from reg_bench.state_space.covariances import Covariances, NotPositiveDefiniteError, sequential_covariances
from reg_bench.state_space.groups import Groups
from reg_bench.state_space.model import LinearGaussianModel
from reg_bench.state_space.scan import parallel_covariances

#: The share of a variance that an observation may leave before double precision takes over.
LEAST_LEFT = 1e-4


def precise_covariances(model: LinearGaussianModel, groups: Groups, parallel: bool) -> Covariances:
    """Of the model's type, or in float64.

    Raises:
        NotPositiveDefiniteError: an innovation whose covariance is not positive definite in float64 either.
    """
    compute = parallel_covariances if parallel else sequential_covariances
    if model.A.dtype != torch.float64:
        try:
            found = compute(model, groups)
        except NotPositiveDefiniteError:
            pass
        else:
            if _left(found) >= LEAST_LEFT:
                return found
    wide = replace(groups, covariance=groups.covariance.double())
    return compute(model.to(torch.float64), wide)


def _left(found: Covariances) -> float:
    """The least share of a variance that an observation left."""
    before, after = (p.detach().diagonal(dim1=-2, dim2=-1) for p in (found.predicted, found.filtered))
    return float(torch.where(before > 0, after / before, torch.ones_like(before)).min())

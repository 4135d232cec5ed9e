"""Against filterpy, an independent library."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from reg_bench.state_space import kalman_filter, rts_smoother
from tests.state_space.systems import missing, observations, system

kalman = pytest.importorskip("filterpy.kalman", reason="filterpy is in the dev extra")


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_equals_filterpy(fraction: float, parallel: bool) -> None:
    n, p, batch, length = 32, 16, 2, 50
    model = system(n, p)
    y, observed = observations(model, batch, length), missing(batch, length, fraction)
    filtered = kalman_filter(model, y, observed, parallel=parallel)
    smoothed = rts_smoother(model, filtered, parallel=parallel)
    for b in range(batch):
        other = kalman.KalmanFilter(dim_x=n, dim_z=p)
        other.F, other.H, other.Q, other.R = (x.numpy() for x in (model.A, model.C, model.Q, model.R))
        other.x, other.P = model.mean.numpy()[:, None].copy(), model.covariance.numpy().copy()
        means, covariances, scores = [], [], []
        for t in range(length):
            if t:
                other.predict()
            other.update(y[b, t].numpy()[:, None] if observed[b, t] else None)
            means.append(other.x.copy())
            covariances.append(other.P.copy())
            scores.append(other.log_likelihood if observed[b, t] else 0.0)
        later = other.rts_smoother(np.array(means), np.array(covariances))
        for found, expected in (
            (filtered.mean[b], np.array(means)[..., 0]),
            (filtered.covariance[b], np.array(covariances)),
            (filtered.log_likelihood[b], np.array(scores)),
            (smoothed.mean[b], later[0][..., 0]),
            (smoothed.covariance[b], later[1]),
        ):
            torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)

"""Random state-space models, and their states and observations as one joint Gaussian, written out by hand."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reg_bench.state_space import LinearGaussianModel, sample_prior

Array = NDArray[np.float64]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def positive(size: int, g: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    root = torch.randn(size, size, generator=g, dtype=torch.float64)
    return (root @ root.mT / size + 0.1 * torch.eye(size, dtype=torch.float64)).to(dtype)


def system(
    n: int, p: int, seed: int = 0, batch: int | None = None, dtype: torch.dtype = torch.float64, radius: float = 0.95
) -> LinearGaussianModel:
    """A stable model with full covariances; with `batch` every sequence has its own first state."""
    g = generator(seed)
    A = torch.randn(n, n, generator=g, dtype=torch.float64)
    A = A * radius / torch.linalg.eigvals(A).abs().max()
    C = torch.randn(p, n, generator=g, dtype=torch.float64)
    own = () if batch is None else (batch,)
    mean = torch.randn(*own, n, generator=g, dtype=torch.float64)
    covariance = positive(n, g) if batch is None else torch.stack([positive(n, g) for _ in range(batch)])
    parts = (A, C, 0.3 * positive(n, g), 0.2 * positive(p, g), mean, covariance)
    return LinearGaussianModel(*(x.to(dtype) for x in parts))


def observations(model: LinearGaussianModel, batch: int, length: int, seed: int = 1) -> Tensor:
    y = sample_prior(model, 1 if model.sequences else batch, length, generator(seed))[1]
    return y[0] if model.sequences else y


def missing(batch: int, length: int, fraction: float, seed: int = 2) -> Tensor:
    """Observed or not: in every sequence other frames, the first frame of the first sequence among the missing."""
    observed = torch.rand(batch, length, generator=generator(seed)) >= fraction
    observed[0, 0] = False
    observed[:, length // 2] = True
    return observed


def joint(model: LinearGaussianModel, length: int, sequence: int = 0) -> tuple[Array, Array, int]:
    """Mean and covariance of `z_1 .. z_T, y_1 .. y_T` stacked, and how many of them are states.

    All of them are one matrix times independent noises, `z = (I - A shifted)^-1 w`.
    """
    A, C, Q, R = (x.double().numpy() for x in (model.A, model.C, model.Q, model.R))
    mean = (model.mean if model.mean.ndim == 1 else model.mean[sequence]).double().numpy()
    first = (model.covariance if model.covariance.ndim == 2 else model.covariance[sequence]).double().numpy()
    n, p = model.states, model.observations
    states = length * n
    difference = np.eye(states) - np.kron(np.eye(length, k=-1), A)
    roll = np.linalg.inv(difference)
    noise = np.kron(np.eye(length), Q)
    noise[:n, :n] = first
    centre = roll @ np.concatenate([mean, np.zeros(states - n)])
    emission = np.kron(np.eye(length), C)
    of_states = roll @ noise @ roll.T
    across = emission @ of_states
    of_observations = across @ emission.T + np.kron(np.eye(length), R)
    assert of_observations.shape == (length * p, length * p)
    return (
        np.concatenate([centre, emission @ centre]),
        np.block([[of_states, across.T], [across, of_observations]]),
        states,
    )


def conditioned(mean: Array, covariance: Array, given: Array, values: Array) -> tuple[Array, Array]:
    """Mean and covariance of all entries given that those at `given` equal `values`."""
    gain = np.linalg.solve(covariance[np.ix_(given, given)], covariance[given]).T
    return mean + gain @ (values - mean[given]), covariance - gain @ covariance[given]

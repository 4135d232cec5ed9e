"""Principal components of the motion of many sequences, and the autoregression that their coefficients follow."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reg_bench.autoregression import Autoregression, fit_autoregression
from reg_bench.errors import ConfigError
from reg_bench.motion_history import MotionHistory
from reg_bench.motion_models import MotionModel
from reg_bench.principal_components import PrincipalComponents


@dataclass(frozen=True, eq=False)
class LearnedComponents(MotionModel):
    """Components of the motion of many sequences and the law of their coefficients, learned before.

    Attributes:
        components: of fields `(D, *S)`.
        law: of their coefficients.
        seconds_per_frame: interval for which it holds.
    """

    components: PrincipalComponents
    law: Autoregression
    seconds_per_frame: float

    def __call__(self, history: MotionHistory, steps: float) -> Tensor:
        flat = self.components.components.flatten(1)
        series = history.coordinates @ (history.basis @ flat.mT) - self.components.mean.flatten() @ flat.mT
        # Before the first frame there was none, so the motion is taken to have rested.
        past = torch.cat([series[:1].expand(max(self.law.order - len(series), 0), -1), series])
        return self.components.reconstruct(self.law.after(past, steps)[None])[0].flatten()

    @property
    def shape(self) -> tuple[int, ...]:
        """`(D, *S)` of the fields."""
        return tuple(self.components.mean.shape)

    def to(self, device: torch.device) -> LearnedComponents:
        """The same on `device`."""
        if self.law.matrices.device == device:
            return self
        found = self.components
        tensors = (found.mean, found.components, found.variances, found.total_variance)
        law = Autoregression(self.law.matrices.to(device), self.law.noise.to(device))
        return LearnedComponents(PrincipalComponents(*(x.to(device) for x in tensors)), law, self.seconds_per_frame)

    def save(self, path: Path) -> None:
        """Writes it, components in half precision: they are no more exact."""
        found = self.components
        content = {"mean": found.mean.half(), "components": found.components.half(), "variances": found.variances}
        content |= {"total_variance": found.total_variance, "matrices": self.law.matrices, "noise": self.law.noise}
        torch.save({**content, "seconds_per_frame": self.seconds_per_frame}, path)

    @staticmethod
    def load(path: Path) -> LearnedComponents:
        """Reads what `save` wrote.

        Raises:
            ConfigError: another file.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            rows = content["components"].float()
            # Rounding took them a little off being orthonormal.
            q = torch.linalg.qr(rows.flatten(1).mT)[0].mT
            q = q * (q * rows.flatten(1)).sum(dim=1, keepdim=True).sign()
            components = PrincipalComponents(
                content["mean"].float(), q.reshape(rows.shape), content["variances"], content["total_variance"]
            )
            law = Autoregression(content["matrices"], content["noise"])
            return LearnedComponents(components, law, float(content["seconds_per_frame"]))
        except (KeyError, TypeError, AttributeError, RuntimeError, pickle.UnpicklingError) as error:
            raise ConfigError(
                f"{path}: expected components of motion, as benchmarks/fit_components.py writes"
            ) from error


def learned_components(
    components: PrincipalComponents,
    sequences: Sequence[Tensor],
    order: int,
    *,
    seconds_per_frame: float,
    ridge: float = 1e-4,
) -> LearnedComponents:
    """One coupled autoregression for the coefficients of all `sequences`, fields `(T, D, *S)` each."""
    series = [components.coefficients(x) for x in sequences]
    law = fit_autoregression(series, order, ridge=ridge, coupled=True).stable()
    return LearnedComponents(components, law, seconds_per_frame)

"""A method of sequences that hands everything on to another, which it put together of its settings."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from reg_bench.method import Estimate, SequenceModule


class ForwardedStream:
    """All that a `SequenceModule` has to have, done by `inner`; as a base it stands before `SequenceModule`."""

    inner: SequenceModule

    def accepts(self, sequence: Any) -> str | None:
        """Why `inner` cannot take `sequence`, or `None`."""
        return self.inner.accepts(sequence)

    def software(self) -> dict[str, str]:
        return self.inner.software()

    def start(
        self,
        reference: Tensor,
        *,
        seconds_per_frame: float,
        mask: Tensor | None = None,
        points: Tensor | None = None,
    ) -> Any:
        return self.inner.start(reference, seconds_per_frame=seconds_per_frame, mask=mask, points=points)

    def step(self, state: Any, frame: Tensor | None, time_s: float) -> tuple[Any, Estimate]:
        return self.inner.step(state, frame, time_s)

    def forecast(self, state: Any, horizon_s: float) -> Estimate:
        return self.inner.forecast(state, horizon_s)

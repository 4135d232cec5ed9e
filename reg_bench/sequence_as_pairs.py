"""A method of sequences on a pair: a stream of one frame."""

from __future__ import annotations

from reg_bench.method import RegistrationModule, SequenceModule
from reg_bench.types import DisplacementField, ImageSequence, RegistrationPair

#: Time between two frames, where there is no telling.
SECONDS_PER_FRAME = 1.0


class StreamOfOne(RegistrationModule):
    """Starts on the moving image, looking where its labels are, and steps once, to the fixed one.

    Args:
        stream: the method of sequences.
    """

    def __init__(self, stream: SequenceModule) -> None:
        super().__init__()
        self.stream = stream

    def accepts(self, pair: RegistrationPair) -> str | None:
        """Why the method cannot take `pair` as a sequence of two frames, or `None`."""
        if pair.moving.shape != pair.fixed.shape:
            name, shapes = type(self.stream).__name__, (tuple(pair.moving.shape[2:]), pair.spatial_shape)
            return f"{name} follows frames of one grid, not {shapes[0]} to {shapes[1]} voxels"
        return self.stream.accepts(_as_sequence(pair))

    def software(self) -> dict[str, str]:
        return self.stream.software()

    def register(self, pair: RegistrationPair) -> DisplacementField:
        """The estimate at the fixed image, on the grid of `pair`."""
        mask = None if pair.moving_labels is None else pair.moving_labels != 0
        state = self.stream.start(pair.moving, seconds_per_frame=SECONDS_PER_FRAME, mask=mask)
        estimate = self.stream.step(state, pair.fixed, SECONDS_PER_FRAME)[1]
        return DisplacementField.for_pair(estimate.field.u, pair)


def as_pairwise(method: RegistrationModule | SequenceModule) -> RegistrationModule:
    """`method` itself if it is one of pairs, else a stream of one frame."""
    return method if isinstance(method, RegistrationModule) else StreamOfOne(method)


def _as_sequence(pair: RegistrationPair) -> ImageSequence:
    """Moving and fixed image as two frames, with what is known of both."""
    import torch

    def both(moving: torch.Tensor | None, fixed: torch.Tensor | None) -> torch.Tensor | None:
        return None if moving is None or fixed is None else torch.stack([moving, fixed], dim=1)

    labels = both(pair.moving_labels, pair.fixed_labels)
    truth = pair.true_displacement
    return ImageSequence(
        case_ids=pair.case_ids,
        frames=torch.stack([pair.moving, pair.fixed], dim=1),
        seconds_per_frame=SECONDS_PER_FRAME,
        spacing_mm=pair.fixed_spacing_mm,
        affine=pair.fixed_affine,
        labels=labels,
        labelled_frames=None if labels is None else (0, 1),
        mask=both(pair.mask, pair.mask),
        true_displacement=None if truth is None else both(torch.zeros_like(truth), truth),
    )

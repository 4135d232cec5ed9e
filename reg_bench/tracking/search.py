"""One search for all points of a frame: wide and to the pixel, then around what was found and finer than pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from reg_bench.coarse_threads import side_by_side
from reg_bench.tracking.band import Band
from reg_bench.tracking.peak import find_peak
from reg_bench.tracking.samples import Sampler, blocks
from reg_bench.tracking.tracker import Tracks

# Pixels from the place of the first search within which the second looks.
_NEAR = 3


@dataclass(frozen=True)
class Found:
    """Where the trackers found their points.

    Attributes:
        points: `(M, 2)` voxels.
        ratios: `(M,)` peak-to-sidelobe ratios of the wide search.
        offsets: `(M, 2)`, where the points lie from the centres of the samples, in pixels of the sampler's maps.
        samples: of the second search, one tensor `(m, K, ...)` per block, centred on the pixels nearest to the points
            of the first; the filter can learn from them.
    """

    points: Tensor
    ratios: Tensor
    offsets: Tensor
    samples: list[Tensor]

    def tracks(self, start: Tensor, confidence: Tensor) -> Tracks:
        """The points of trackers that began at `start (B, N, 2)`; those of `confidence (M,)` 0 are lost and stay."""
        confidence = confidence.reshape(start.shape[:2])
        return Tracks(torch.where((confidence > 0)[..., None], self.points.reshape_as(start), start), confidence)


def flattened(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points `(B, N, 2)` as `(B N, 2)`, and the case `(B N,)` of each."""
    cases = torch.arange(len(points), device=points.device).repeat_interleave(points.shape[1])
    return points.flatten(0, 1), cases


def locate(
    sampler: Sampler,
    wide: Band,
    frame: Tensor,
    start: Tensor,
    radius: int,
    refinements: int,
    respond: Callable[[slice, Tensor], tuple[Tensor, Tensor]],
) -> Found:
    """Searches `frame (B, C, H, W)` around `start (B, N, 2)`.

    Args:
        sampler: makes the samples of the second search, as those of training.
        wide: the band of the first search, whose window covers all that is searched.
        radius: of the first search, in pixels along each axis.
        refinements: further searches near what was found.
        respond: from a block of trackers and their samples to the spectra `(m, ...)` of their responses and to what is
            kept of the samples.
    """
    maps = sampler.maps(frame)
    last = frame.new_tensor(frame.shape[2:]) - 1
    flat, cases = flattened(start)
    points, ratios = sampler.to_maps(torch.minimum(flat.clamp(min=0), last)), flat[:, 0]
    lowest, highest, step = sampler.to_maps(torch.zeros_like(last)), sampler.to_maps(last), 1 / sampler.decimation
    within = blocks(len(flat), flat.device)
    offsets, kept = flat, []
    for turn in range(refinements + 1):
        window, reach = (None, _NEAR * step) if turn else (wide, radius * step)

        # Blocks are sampled and answered at once, while they are in the cache.
        def answered(
            b: slice, here: Tensor = points, window: Band | None = window, reach: float = reach
        ) -> tuple[Tensor, Tensor, Tensor]:
            response, kept = respond(b, sampler.around(maps, cases[b], here[b], window))
            return *find_peak(sampler.band, response, reach, step=step), kept

        parts = side_by_side([partial(answered, b) for b in within])
        found, ratio = (torch.cat([part[k] for part in parts]) for k in (0, 1))
        centres = sampler.centres(maps, points)
        points = torch.minimum(torch.maximum(centres + found, lowest), highest)
        ratios = ratio if turn == 0 else ratios
        offsets, kept = points - centres, [sample for _, _, sample in parts]
    return Found(sampler.to_image(points), ratios, offsets, kept)

"""The strong tracker: efficient convolution operators after Danelljan et al. (CVPR 2017), all points as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reg_bench.tracking.confidence import Confidence
from reg_bench.tracking.continuous import interpolation_spectrum
from reg_bench.tracking.correlation_filter import respond
from reg_bench.tracking.features import Features, GradientFeatures
from reg_bench.tracking.filter_solver import Descent, FilterSystem, begin, descend
from reg_bench.tracking.patches import Augmentation, default_augmentations
from reg_bench.tracking.projection import FirstFrame, principal_projection, project
from reg_bench.tracking.sample_memory import SampleMemory
from reg_bench.tracking.samples import bands, blocks, scaled
from reg_bench.tracking.search import flattened, locate
from reg_bench.tracking.spatial_penalty import SpatialPenalty
from reg_bench.tracking.tracker import PointTracker, Tracks, chosen


@dataclass(frozen=True)
class EcoState:
    """What a stream of `EcoTracker` remembers of its `M = B N` trackers.

    Attributes:
        positions: `(B, N, 2)` voxels.
        projection: `(M, K, C)`.
        memory: the samples.
        system: the equations that are being solved, of the memory when their solution began.
        descent: where their solution stands.
        frames: seen since the reference.
        first_memory, first_filters: after the reference.
    """

    positions: Tensor
    projection: Tensor
    memory: SampleMemory
    system: FilterSystem
    descent: Descent
    frames: int
    first_memory: SampleMemory
    first_filters: Tensor


class EcoTracker(PointTracker):
    """Continuous correlation filters on few projected channels, with a memory of samples and a spatial penalty.

    The channels of each tracker are projected onto their principal components, refined together with the filter on the
    reference by Gauss-Newton; samples are interpolated to a continuous domain in the Fourier domain; the filter is held
    near the point by a penalty that grows with the distance and renewed by conjugate gradients over a memory of samples
    whose nearest components are merged. Peaks are found by Newton's method on the Fourier series.

    Args:
        features: the channels; `None`: intensity and gradient histograms, ten channels.
        channels: after projection.
        patch: edge of what is followed, in pixels.
        search: edge of the area that is searched, in patches.
        window: width of the cosine window of training and of the refinement, in patches.
        label_sigma: of the Gaussian that the filter should answer with, in pixels.
        penalty_least, penalty_edge: of the squared filter, at the centre and towards the edge.
        learning_rate: weight of a new sample, times its confidence.
        memory: number of components.
        update_every: frames between two updates of the filter.
        iterations: conjugate gradients of an update, spread evenly over those frames.
        first_iterations: of the first filter.
        refine: Gauss-Newton steps of projection and filter on the reference; 0 keeps the principal components.
        projection_weight: of the squared projection in them.
        radius: largest motion between two frames, in pixels along each axis.
        refinements: searches around what was found, finer than pixels, after the wide one; at least 1.
        size: pixels of the transformed square, at least `patch * search`, a multiple of `2 * decimation`.
        limit: highest frequency, in periods per `size`, below `size / (2 * decimation)`.
        decimation: pixels along each axis whose features are averaged before they are compared: frequencies that are
            not used need no pixels of their own. Points are found between the pixels as before.
        augmentations: of the reference; `None`: those of `default_augmentations`.
        confidence: from peak-to-sidelobe ratios.
    """

    def __init__(
        self,
        features: Features | None = None,
        channels: int = 5,
        patch: float = 10.0,
        search: float = 4.5,
        window: float = 2.6,
        label_sigma: float = 1.2,
        penalty_least: float = 0.01,
        penalty_edge: float = 0.1,
        learning_rate: float = 0.05,
        memory: int = 12,
        update_every: int = 2,
        iterations: int = 4,
        first_iterations: int = 40,
        refine: int = 3,
        projection_weight: float = 1e-3,
        radius: int = 16,
        refinements: int = 1,
        size: int = 48,
        limit: int = 12,
        decimation: int = 1,
        augmentations: Sequence[Augmentation] | None = None,
        confidence: Confidence | None = None,
    ) -> None:
        super().__init__()
        if not (label_sigma > 0 and projection_weight > 0 and 0 <= learning_rate <= 1):
            raise ValueError(
                "EcoTracker: label_sigma and projection_weight must be positive and learning_rate in 0..1, "
                f"got {label_sigma}, {projection_weight} and {learning_rate}"
            )
        if memory < 2 or update_every < 1 or iterations < 0 or first_iterations < 1 or refine < 0 or refinements < 1:
            raise ValueError(
                "EcoTracker: memory must be at least 2, update_every, first_iterations and refinements at least 1, "
                f"iterations and refine at least 0, got {memory}, {update_every}, {first_iterations}, {refinements}, "
                f"{iterations} and {refine}"
            )
        if not 1 <= radius < size // 2:
            raise ValueError(f"EcoTracker: radius must lie in 1..{size // 2 - 1}, got {radius}")
        self.features = GradientFeatures() if features is None else features
        self.channels = channels
        self.sampler, self.wide = bands(self.features, size, limit, decimation, patch * window, patch * search)
        self.band = self.sampler.band
        self.penalty = SpatialPenalty(self.band, penalty_least, penalty_edge)
        self.label_sigma, self.learning_rate, self.places = label_sigma, learning_rate, memory
        self.update_every, self.iterations, self.first_iterations = update_every, iterations, first_iterations
        self.refine, self.projection_weight = refine, projection_weight
        self.radius, self.refinements = radius, refinements
        self.augmentations = default_augmentations() if augmentations is None else tuple(augmentations)
        self.confidence = Confidence() if confidence is None else confidence

    def start(self, reference: Tensor, points: Tensor) -> EcoState:
        """See `PointTracker.start`: projection, memory and filter from unchanged and augmented patches."""
        maps = self.sampler.maps(reference)
        flat, cases = flattened(self.sampler.to_maps(points))
        parts = [self._learned(reference, maps, cases[b], flat[b]) for b in blocks(len(flat), flat.device)]
        projection = torch.cat([p for p, _ in parts])
        memory = _joined([m for _, m in parts])
        system = self._system(memory)
        descent = descend(
            system, self.band, begin(system, self.band, torch.zeros_like(memory.mean)), self.first_iterations
        )
        return EcoState(points, projection, memory, system, descent, 0, memory, descent.solution)

    def _learned(self, reference: Tensor, maps: Tensor, cases: Tensor, points: Tensor) -> tuple[Tensor, SampleMemory]:
        """Projection and memory of a block of trackers."""
        made = list(self.sampler.training(reference, maps, cases, points, self.augmentations))
        samples = [(weight, self._continuous(self.band.shifted(s, -offset[:, None]))) for weight, s, offset in made]
        projection = self._projection(samples[0][1])
        memory = SampleMemory.empty(project(samples[0][1], projection), self.places)
        total = 0.0
        for weight, sample in samples:
            total += weight
            share = points.new_full((len(points),), weight / total)
            memory = memory.with_sample(self.band, project(sample, projection), share)
        return projection, memory

    def _projection(self, sample: Tensor) -> Tensor:
        projection = principal_projection(self.band, sample, min(self.channels, sample.shape[1]))
        if self.refine == 0:
            return projection
        label = self._label(sample)
        first = FirstFrame(self.band, sample, label, self.penalty, self.projection_weight)
        alone = SampleMemory.empty(project(sample, projection), 2)
        alone = alone.with_sample(self.band, project(sample, projection), sample.real.new_ones(len(sample)))
        system = self._system(alone)
        filters = descend(system, self.band, begin(system, self.band, torch.zeros_like(alone.mean)), 15).solution
        return first.refined(filters, projection, self.refine, 10)[1]

    def _label(self, like: Tensor) -> Tensor:
        return self.band.gaussian(self.label_sigma / self.sampler.decimation, like)

    def _continuous(self, sample: Tensor) -> Tensor:
        return scaled(sample, interpolation_spectrum(self.band, sample))

    def _system(self, memory: SampleMemory) -> FilterSystem:
        right = scaled(memory.mean, self._label(memory.mean).real)
        return FilterSystem(memory.second_moment, right, self.penalty)

    def step(self, state: EcoState, frame: Tensor, expected: Tensor | None = None) -> tuple[EcoState, Tracks]:
        """See `PointTracker.step`: search, a new sample for the memory, and a part of the conjugate gradients."""
        start = state.positions if expected is None else expected

        def answer(block: slice, sample: Tensor) -> tuple[Tensor, Tensor]:
            projected = project(self._continuous(sample), state.projection[block])
            return respond(state.descent.solution[block], projected), projected

        found = locate(self.sampler, self.wide, frame, start, self.radius, self.refinements, answer)
        confidence = self.confidence.of(found.ratios)
        sample = self.band.shifted(torch.cat(found.samples), -found.offsets[:, None])
        memory = state.memory.with_sample(self.band, sample, self.learning_rate * confidence)
        system, descent = self._advanced(state, memory)
        tracks = found.tracks(start, confidence)
        new = replace(
            state, positions=tracks.positions, memory=memory, system=system, descent=descent, frames=state.frames + 1
        )
        return new, tracks

    def _advanced(self, state: EcoState, memory: SampleMemory) -> tuple[FilterSystem, Descent]:
        """The share of this frame of the update that is under way, or of the next."""
        turn = state.frames % self.update_every
        system, descent = state.system, state.descent
        if turn == 0:
            system = self._system(memory)
            descent = begin(system, self.band, descent.solution)
        share = (turn + 1) * self.iterations // self.update_every - turn * self.iterations // self.update_every
        return system, descend(system, self.band, descent, share)

    def moved(self, state: EcoState, which: Tensor, positions: Tensor, relearn: bool) -> EcoState:
        """See `PointTracker.moved`; what relearns begins anew from the memory of the reference."""
        moved = replace(state, positions=torch.where(which[..., None], positions, state.positions))
        if not relearn:
            return moved
        names = ("samples", "weights", "products", "second_moment", "mean")
        old, first = state.memory, state.first_memory
        memory = SampleMemory(**{n: chosen(which, getattr(old, n), getattr(first, n)) for n in names})
        system = self._system(memory)
        filters = chosen(which, state.descent.solution, state.first_filters)
        return replace(moved, memory=memory, system=system, descent=begin(system, self.band, filters))


def _joined(memories: Sequence[SampleMemory]) -> SampleMemory:
    names = ("samples", "weights", "products", "second_moment", "mean")
    return SampleMemory(**{n: torch.cat([getattr(m, n) for m in memories]) for n in names})

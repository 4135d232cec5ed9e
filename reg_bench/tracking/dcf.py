"""The lean tracker: a correlation filter of several channels in closed form, renewed with every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from reg_bench.coarse_threads import side_by_side
from reg_bench.tracking.confidence import Confidence
from reg_bench.tracking.correlation_filter import blend, energy, numerator, respond
from reg_bench.tracking.features import Features, GradientFeatures
from reg_bench.tracking.patches import Augmentation, default_augmentations
from reg_bench.tracking.samples import bands, blocks
from reg_bench.tracking.search import flattened, locate
from reg_bench.tracking.tracker import PointTracker, Tracks, chosen


@dataclass(frozen=True)
class FilterState:
    """What a stream of `CorrelationFilterTracker` remembers of its `M = B N` trackers.

    Attributes:
        positions: `(B, N, 2)` voxels.
        numerators: `(M, K, 2 m + 1, m + 1)` complex.
        energies: `(M, 2 m + 1, m + 1)`, the denominators of the filters less `lam`.
        first_numerators, first_energies: the same after the reference.
    """

    positions: Tensor
    numerators: Tensor
    energies: Tensor
    first_numerators: Tensor
    first_energies: Tensor


class CorrelationFilterTracker(PointTracker):
    """Discriminative correlation filters in closed form, all points as one batch (the class of MOSSE, DSST and KCF).

    Bolme et al., CVPR 2010; Danelljan et al., BMVC 2014; geometry of Paper I. A filter answers with a Gaussian where
    its point is; it is solved per frequency and is a running average over the frames.

    Args:
        features: the channels; `None`: intensity and gradient histograms, ten channels.
        patch: edge of what is followed, in pixels.
        search: edge of the area that is searched, in patches: the width of the cosine window of the search.
        window: width of the cosine window of training and of the last refinement, in patches: how much of the
            surroundings is learned with the point.
        label_sigma: of the Gaussian, in pixels.
        lam: weight of the squared filter; samples have a mean power of about 1 per frequency.
        learning_rate: share of a new frame in the filter, times its confidence.
        anchor: share of the filter of the reference in every response, against drift; 0 for none.
        radius: largest motion between two frames, in pixels along each axis.
        refinements: searches around what was found, finer than pixels, after the wide one; at least 1.
        size: pixels of the transformed square, at least `patch * search`, a multiple of `2 * decimation`.
        limit: highest frequency, in periods per `size`, below `size / (2 * decimation)`.
        decimation: pixels along each axis whose features are averaged before they are compared: frequencies that are
            not used need no pixels of their own. Points are found between the pixels as before.
        augmentations: of the reference, for the first filter; `None`: those of `default_augmentations`.
        augmentation_weight: of each of the latter, beside the unchanged patch.
        confidence: from peak-to-sidelobe ratios.
    """

    def __init__(
        self,
        features: Features | None = None,
        patch: float = 10.0,
        search: float = 4.5,
        window: float = 2.6,
        label_sigma: float = 1.2,
        lam: float = 0.01,
        learning_rate: float = 0.1,
        anchor: float = 0.0,
        radius: int = 16,
        refinements: int = 1,
        size: int = 48,
        limit: int = 12,
        decimation: int = 1,
        augmentations: Sequence[Augmentation] | None = None,
        augmentation_weight: float = 0.1,
        confidence: Confidence | None = None,
    ) -> None:
        if not (label_sigma > 0 and lam > 0 and 0 <= learning_rate <= 1 and 0 <= anchor <= 1):
            raise ValueError(
                "CorrelationFilterTracker: label_sigma and lam must be positive, learning_rate and anchor in 0..1, "
                f"got {label_sigma}, {lam}, {learning_rate} and {anchor}"
            )
        if not 1 <= radius < size // 2:
            raise ValueError(f"CorrelationFilterTracker: radius must lie in 1..{size // 2 - 1}, got {radius}")
        super().__init__()
        self.features = GradientFeatures() if features is None else features
        self.sampler, self.wide = bands(self.features, size, limit, decimation, patch * window, patch * search)
        self.label_sigma, self.lam = label_sigma, lam
        self.learning_rate, self.anchor = learning_rate, anchor
        self.radius, self.refinements = radius, refinements
        common = default_augmentations(augmentation_weight)
        self.augmentations = common if augmentations is None else tuple(augmentations)
        self.confidence = Confidence() if confidence is None else confidence

    def start(self, reference: Tensor, points: Tensor) -> FilterState:
        """See `PointTracker.start`: filters of unchanged and augmented patches, averaged by their weights."""
        maps = self.sampler.maps(reference)
        flat, cases = flattened(self.sampler.to_maps(points))
        within = blocks(len(flat), flat.device)
        parts = side_by_side([partial(self._first, reference, maps, cases[b], flat[b]) for b in within])
        above, below = (torch.cat(x) for x in zip(*parts, strict=True))
        return FilterState(points, above, below, above, below)

    def _first(self, reference: Tensor, maps: Tensor, cases: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        samples = list(self.sampler.training(reference, maps, cases, points, self.augmentations))
        total = sum(weight for weight, _, _ in samples)
        labelled = [(weight / total, s, self.label(s, offset)) for weight, s, offset in samples]
        above = torch.stack([weight * numerator(s, y) for weight, s, y in labelled]).sum(0)
        below = torch.stack([weight * energy(s) for weight, s, _ in labelled]).sum(0)
        return above, below

    def label(self, like: Tensor, offset: Tensor) -> Tensor:
        """The spectra `(M, 2 m + 1, m + 1)` of the wished responses, highest at `offset (M, 2)` from the centre."""
        band = self.sampler.band
        return band.shifted(band.gaussian(self.label_sigma / self.sampler.decimation, like), offset)

    def step(self, state: FilterState, frame: Tensor, expected: Tensor | None = None) -> tuple[FilterState, Tracks]:
        """See `PointTracker.step`: wide search, refinement, and an update as fast as the confidence allows."""
        start = state.positions if expected is None else expected

        def answer(block: slice, sample: Tensor) -> tuple[Tensor, Tensor]:
            return self._response(state, block, sample), sample

        found = locate(self.sampler, self.wide, frame, start, self.radius, self.refinements, answer)
        confidence = self.confidence.of(found.ratios)
        above, below = self._renewed(state, found.samples, found.offsets, self.learning_rate * confidence)
        tracks = found.tracks(start, confidence)
        return replace(state, positions=tracks.positions, numerators=above, energies=below), tracks

    def _response(self, state: FilterState, block: slice, sample: Tensor) -> Tensor:
        above, below = respond(state.numerators[block], sample), state.energies[block]
        if self.anchor > 0:
            above = torch.lerp(above, respond(state.first_numerators[block], sample), self.anchor)
            below = torch.lerp(below, state.first_energies[block], self.anchor)
        return above / (below + self.lam)

    def _renewed(
        self, state: FilterState, samples: list[Tensor], offsets: Tensor, rate: Tensor
    ) -> tuple[Tensor, Tensor]:
        above, below = torch.empty_like(state.numerators), torch.empty_like(state.energies)
        label = self.label(state.numerators, offsets)

        def renew(block: slice, sample: Tensor) -> None:
            above[block] = blend(state.numerators[block], numerator(sample, label[block]), rate[block])
            below[block] = blend(state.energies[block], energy(sample), rate[block])

        parts = blocks(len(rate), rate.device)
        side_by_side([partial(renew, block, sample) for block, sample in zip(parts, samples, strict=True)])
        return above, below

    def moved(self, state: FilterState, which: Tensor, positions: Tensor, relearn: bool) -> FilterState:
        """See `PointTracker.moved`."""
        moved = torch.where(which[..., None], positions, state.positions)
        if not relearn:
            return replace(state, positions=moved)
        above = chosen(which, state.numerators, state.first_numerators)
        below = chosen(which, state.energies, state.first_energies)
        return replace(state, positions=moved, numerators=above, energies=below)

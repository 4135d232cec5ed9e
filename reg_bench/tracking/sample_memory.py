"""A compact memory of samples for every tracker: a mixture whose nearest components are merged (Danelljan et al., CVPR
2017, section 3.2), together with the sums that learning needs of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reg_bench.tracking.band import Band
from reg_bench.tracking.samples import blocks

# Share of a component below which it is forgotten for the next sample.
_FORGOTTEN = 1e-3


@dataclass(frozen=True)
class SampleMemory:
    """`L` weighted samples for each of `M` trackers, aligned so that the points lie at the centre.

    Attributes:
        samples: `(M, L, C, 2 m + 1, m + 1)` complex.
        weights: `(M, L)`, sum 1; 0 where a place is free.
        products: `(M, L, L)`, inner products of the samples over pixels.
        second_moment: `(M, C, C, 2 m + 1, m + 1)`, `sum_l w_l z_l z_l^H` of the `C` channels for every frequency.
        mean: `(M, C, 2 m + 1, m + 1)`, `sum_l w_l z_l`.
    """

    samples: Tensor
    weights: Tensor
    products: Tensor
    second_moment: Tensor
    mean: Tensor

    @classmethod
    def empty(cls, first: Tensor, places: int) -> SampleMemory:
        """A memory of `places` for samples like `first (M, C, 2 m + 1, m + 1)`, which it does not hold yet."""
        count, channels = first.shape[:2]
        return cls(
            samples=first.new_zeros(count, places, *first.shape[1:]),
            weights=first.real.new_zeros(count, places),
            products=first.real.new_zeros(count, places, places),
            second_moment=first.new_zeros(count, channels, *first.shape[1:]),
            mean=torch.zeros_like(first),
        )

    def with_sample(self, band: Band, sample: Tensor, share: Tensor) -> SampleMemory:
        """The memory with `sample (M, C, ...)` at weight `share (M,)`; what was there loses that share.

        A free or forgotten place takes the sample. Otherwise the two nearest components are merged, the new one
        counted: `(w_a z_a + w_b z_b) / (w_a + w_b)`.
        """
        weights = torch.cat((self.weights * (1 - share)[:, None], share[:, None]), dim=1)
        products = self._products_with(band, sample)
        first, second = _pair_to_merge(weights, products)
        row = torch.arange(len(sample), device=sample.device)
        both = weights[row, first] + weights[row, second]
        part = torch.where(both > 0, weights[row, second] / both.clamp(min=1e-30), 1.0)
        change = _change(weights, first, second, part)
        samples, lost = self._replaced(sample, first, second, part)
        spread = weights[row, first] * part
        return SampleMemory(
            samples=samples,
            weights=_new_weights(weights, first, second, both),
            products=change @ products @ change.transpose(1, 2),
            second_moment=self._second_moment(sample, share, lost, spread),
            mean=self.mean + share[:, None, None, None] * (sample - self.mean),
        )

    def _products_with(self, band: Band, sample: Tensor) -> Tensor:
        """The inner products `(M, L + 1, L + 1)` of all components and the new sample."""
        weighted = sample * (band.multiplicity(sample) / band.size**2)
        flat = torch.view_as_real(weighted).flatten(1)[..., None]
        across = (torch.view_as_real(self.samples).flatten(2) @ flat)[..., 0]
        own = (torch.view_as_real(sample).flatten(1) * flat[..., 0]).sum(1)
        side = torch.cat((across, own[:, None]), dim=1)
        return torch.cat((torch.cat((self.products, across[:, None]), dim=1), side[..., None]), dim=2)

    def _replaced(self, sample: Tensor, first: Tensor, second: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """The samples after merging, and the differences `(M, C, ...)` of those that were merged."""
        places = self.samples.shape[1]
        samples, lost = self.samples.clone(), torch.empty_like(sample)
        for b in blocks(len(sample), sample.device):
            row = torch.arange(len(sample), device=sample.device)[b]
            new = (second[b] == places)[:, None, None, None]
            a, at = self.samples[row, first[b]], torch.where(second[b] == places, first[b], second[b])
            difference = torch.where(new, sample[b], self.samples[row, at]) - a
            samples[row, at] = sample[b]
            samples[row, first[b]] = a + part[b, None, None, None] * difference
            lost[b] = difference
        return samples, lost

    def _second_moment(self, sample: Tensor, share: Tensor, lost: Tensor, spread: Tensor) -> Tensor:
        """Merging takes `w_a w_b / (w_a + w_b)` times the square of the difference away, and nothing else."""
        out = torch.empty_like(self.second_moment)
        for b in blocks(len(sample), sample.device):
            old = self.second_moment[b]
            gain, loss = share[b, None, None, None], spread[b, None, None, None]
            new = (gain * sample[b])[:, :, None] * sample[b].conj()[:, None]
            merged = (loss * lost[b])[:, :, None] * lost[b].conj()[:, None]
            out[b] = old * (1 - gain)[..., None] + new - merged
        return out


def _pair_to_merge(weights: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Components `a < b` (each `(M,)`) of `weights (M, L + 1)`, the new sample being number `L`."""
    last = weights.shape[1] - 1
    norm = products.diagonal(dim1=1, dim2=2)
    distance = norm[:, :, None] + norm[:, None] - 2 * products
    upper = torch.ones_like(distance[0]).triu(1).bool()
    distance = distance.masked_fill(~upper, torch.inf)
    free = weights[:, :last] < _FORGOTTEN
    # Pairs of free places are no pairs; the first of them takes the new sample, before any two are merged.
    either = torch.cat((free, torch.zeros_like(free[:, :1])), dim=1)
    distance = distance.masked_fill(either[:, :, None] | either[:, None], torch.inf)
    order = torch.arange(last, dtype=distance.dtype, device=distance.device)
    distance[:, :last, last] = torch.where(free, order - 2.0 * last, distance[:, :last, last])
    index = distance.flatten(1).argmin(dim=1)
    return index // (last + 1), index % (last + 1)


def _change(weights: Tensor, first: Tensor, second: Tensor, part: Tensor) -> Tensor:
    """The matrix `(M, L, L + 1)` from the old components and the new sample to the components afterwards."""
    count, total = weights.shape
    row = torch.arange(count, device=weights.device)
    change = torch.eye(total, dtype=weights.dtype, device=weights.device)[:-1].repeat(count, 1, 1)
    inside = second < total - 1
    change[row[inside], second[inside]] = 0
    change[row[inside], second[inside], -1] = 1
    change[row, first] = 0
    change[row, first, first] = 1 - part
    change[row, first, second] = part
    return change


def _new_weights(weights: Tensor, first: Tensor, second: Tensor, both: Tensor) -> Tensor:
    row = torch.arange(len(weights), device=weights.device)
    last = weights.shape[1] - 1
    out = weights[:, :last].clone()
    out[row, torch.where(second == last, first, second)] = weights[:, last]
    out[row, first] = both
    return out

"""Training of the network that fills in displacements between points (Paper I)."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from reg_bench.sparse_to_dense import Interpolation, NormalizedConvolution, Observed, confident_huber, end_point_error

# The order in which `datamodules.random_fields` hands them out.
_KINDS = ("exact", "tracker")


class SparseToDense(LightningModule):
    """Trains an interpolation on observed fields with the Huber error and the confidence of the result.

    Validation logs the mean end-point error in voxels of held-out fields, `val/exact` and `val/tracker`, and as shares
    of that of a zero field, `val/exact_share` and `val/tracker_share`. Batches are `Observed`.

    Args:
        network: what is trained; with a confidence.
        rate: of Adam.
        anneal: whether the rate falls to 0 along a cosine over the training; otherwise it stays.
    """

    def __init__(self, network: Interpolation | None = None, rate: float = 0.01, anneal: bool = False) -> None:
        super().__init__()
        if not rate > 0:
            raise ValueError(f"SparseToDense: rate must be positive, got {rate}")
        self.network = NormalizedConvolution(None, trend=None) if network is None else network
        self.rate, self.anneal = rate, anneal

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([p for p in self.parameters() if p.requires_grad], self.rate)
        if not self.anneal:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Observed, batch_idx: int) -> Tensor:
        field = self.network(batch.points, batch.values, batch.confidence, batch.truth.shape[2:])
        loss = confident_huber(field.u, field.confidence, batch.truth, max(1, self.current_epoch))
        self.log("train/loss", loss, batch_size=len(batch.truth))
        return loss

    def validation_step(self, batch: Observed, batch_idx: int, dataloader_idx: int = 0) -> None:
        field = self.network(batch.points, batch.values, batch.confidence, batch.truth.shape[2:])
        error = end_point_error(field.u, batch.truth).mean()
        zero = end_point_error(torch.zeros_like(batch.truth), batch.truth).mean()
        kind = _KINDS[dataloader_idx]
        for name, value in ((f"val/{kind}", error), (f"val/{kind}_share", error / zero)):
            self.log(name, value, batch_size=len(batch.truth), add_dataloader_idx=False, sync_dist=True)

    def test_step(self, batch: Observed, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, batch_idx, dataloader_idx)

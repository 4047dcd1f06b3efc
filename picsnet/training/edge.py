"""Training of the bundled edge detector."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from picsnet.config import EdgeRunConfig
from picsnet.sketch.network import EdgeNetwork
from picsnet.training.stepped import SteppedModule

IGNORED_LABEL = 255


def class_balanced_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Class-balanced cross-entropy of one side output (HED, eq. 2; weights as in RCF, eq. 1).

    Args:
        logits: (B, 1, H, W), float32.
        labels: (B, 1, H, W), uint8: 0 no edge, 1 edge, 255 ignored.

    Returns:
        Scalar, the mean over pictures of the weighted sum over pixels, divided by the number of
        pixels that count.
    """
    edge = (labels == 1).float()
    plain = (labels == 0).float()
    edges = edge.sum(dim=(1, 2, 3), keepdim=True)
    plains = plain.sum(dim=(1, 2, 3), keepdim=True)
    total = (edges + plains).clamp(min=1)
    weights = edge * (plains / total) + plain * (1.1 * edges / total)
    loss = F.binary_cross_entropy_with_logits(logits, edge, reduction="none")
    # Normalised by edge pixels: the loss's scale does not depend on how busy the crop is.
    return ((weights * loss).sum(dim=(1, 2, 3)) / (edges.flatten() + 100)).mean()


class EdgeModule(SteppedModule):
    """Deep supervision: every side output and the fused one answer to the same labels."""

    def __init__(self, config: EdgeRunConfig) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        network = EdgeNetwork(config.model.widths, config.model.blocks, config.model.fusion)
        super().__init__(network, config)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        return self.main_optimizer(list(self.network.parameters()))

    def _logits(self, network: torch.nn.Module, images: Tensor) -> list[Tensor]:
        x = images.float().div(255).to(memory_format=self.memory_format)
        return [logits.float() for logits in network(x)]

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        outputs = self._logits(self.network, images)
        losses = [class_balanced_loss(logits, labels) for logits in outputs]
        loss = torch.stack(losses[:-1]).mean() + losses[-1]
        step = self.descend(loss, list(self.network.parameters()))
        self.count_batch()
        self.report(
            {
                "train/loss": loss,
                "train/fused": losses[-1],
                **step,
            }
        )

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        fused = self._logits(self.averaged, images)[-1]
        self.log("val/fused", class_balanced_loss(fused, labels), prog_bar=True, sync_dist=True)
        strength = fused.sigmoid()
        best = torch.stack([_f_score(strength > t, labels) for t in torch.linspace(0.3, 0.95, 14)])
        # Pixelwise, with no matching tolerance: lower than ODS, but it moves with it.
        self.log("val/pixel_f", best.max(), prog_bar=True, sync_dist=True)


def _f_score(predicted: Tensor, labels: Tensor) -> Tensor:
    counted = labels != IGNORED_LABEL
    hits = (predicted & (labels == 1)).sum()
    return 2 * hits / ((predicted & counted).sum() + (labels == 1).sum()).clamp(min=1)

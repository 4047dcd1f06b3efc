"""Training of picsnet-mini's CLIP: pictures and palette captions to the same place.

The loss is CLIP's (Radford et al., 2021, figure 3): cross-entropy of a batch's cosine similarities
both ways, with a learned temperature. Captions of one batch that are alike count as one another's
matches, which chance makes frequent here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from picsnet.config import CLIPRunConfig
from picsnet.mini.networks import IMAGE_MEAN, IMAGE_STD, make_clip
from picsnet.training.stepped import SteppedModule

MAX_LOGIT_SCALE = math.log(100)
"""As in CLIP: beyond it training becomes unstable."""


class CLIPModule(SteppedModule):
    """A small CLIPModel on photographs and their captions.

    Args:
        config: of the run.
        vocabulary: tokens of the tokenizer.
    """

    def __init__(self, config: CLIPRunConfig, vocabulary: int) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        super().__init__(make_clip(config.model, vocabulary), config)
        self._end = vocabulary - 1

    def configure_optimizers(self) -> list[Any]:  # type: ignore[override]
        return [self.main_optimizer(list(self.network.parameters()))]

    def _similarities(self, network: Any, batch: dict[str, Tensor]) -> Tensor:
        """(B, B) logits, pictures by captions."""
        pixels = (batch["photo"].float() / 255 - IMAGE_MEAN) / IMAGE_STD
        # What follows the longest caption has no part in the features: the tower is causal.
        longest = int((batch["ids"] != self._end).sum(1).max()) + 1
        out = network(input_ids=batch["ids"][:, :longest], pixel_values=pixels)
        logits: Tensor = out.logits_per_image
        return logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self._similarities(self.network, batch)
        loss = contrastive_loss(logits, batch["ids"])
        step = self.descend(loss, list(self.network.parameters()))
        network: Any = self.network
        with torch.no_grad():
            network.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        self.count_batch()
        self.report(
            {
                "train/loss": loss,
                "train/accuracy": accuracy(logits, batch["ids"]),
                "train/temperature": (-network.logit_scale.detach()).exp(),
                **step,
            }
        )

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self._similarities(self.averaged, batch)
        size = len(logits)
        loss = contrastive_loss(logits, batch["ids"])
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=size)
        right = accuracy(logits, batch["ids"])
        self.log("val/accuracy", right, prog_bar=True, sync_dist=True, batch_size=size)


def contrastive_loss(logits: Tensor, ids: Tensor) -> Tensor:
    """Mean cross-entropy of pictures to captions and back.

    Args:
        logits: (B, B), pictures by captions.
        ids: (B, T) of the captions; equal rows share the target.
    """
    alike = (ids[:, None] == ids[None]).all(-1).float()
    targets = alike / alike.sum(1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def accuracy(logits: Tensor, ids: Tensor) -> Tensor:
    """Share of pictures whose nearest caption is theirs, or one alike."""
    best = logits.detach().argmax(1)
    return (ids[best] == ids).all(1).float().mean()

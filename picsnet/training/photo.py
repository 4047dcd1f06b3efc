"""Training of a baseline on photographs: CompressAI's networks with the paper's loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from picsnet.config import PhotoNTCRunConfig
from picsnet.ntc.photo import PhotoNTC
from picsnet.training.ntc import NTCModule
from picsnet.training.stepped import SteppedModule


class PhotoNTCModule(NTCModule):
    """As `NTCModule`, on (B, 3, H, W) uint8 photographs and with a network of CompressAI's zoo."""

    def __init__(self, config: PhotoNTCRunConfig, network: nn.Module | None = None) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        model = config.model
        super().__init__(config, network or PhotoNTC(model.architecture, model.options))

    def start_from(self, spec: str) -> None:
        """As `SteppedModule.start_from` says: what is exported and shipped codes sketches."""
        SteppedModule.start_from(self, spec)

    def pictures(self, batch: Any) -> Tensor:
        x: Tensor = batch["photo"].float() / 255
        return x

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        if batch_idx == 0:
            x = self.pictures(batch)[:4]
            x_hat = self.averaged(x).x_hat
            self.panel = [
                (a.permute(1, 2, 0).cpu(), b.permute(1, 2, 0).float().cpu())
                for a, b in zip(x, x_hat, strict=True)
            ]

"""Training of HiFiC at a rate, a baseline (Mentzer et al. 2020, arXiv 2006.09965, equation 8).

    loss = lambda(R) R + k_M MSE + k_P perceptual - beta critic(x_hat)

lambda is large above the target rate and small below it. The critic joins late. Where the paper
has LPIPS, whose weights are foreign, the perceptual part looks through the edge detector that
ships; the critic is picsnet-mini's, and does not see the latents.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from picsnet.config import HificRunConfig
from picsnet.ntc.base import NTCOutput
from picsnet.ntc.hific import HificNTC
from picsnet.sketch.bundled import BundledSketcher
from picsnet.training.photo import PhotoNTCModule
from picsnet.training.vae import Critic


class HificPlayers(nn.Module):
    """Codec and critic."""

    MULTIPLE = HificNTC.MULTIPLE

    def __init__(self, codec: nn.Module) -> None:
        super().__init__()
        self.codec = codec
        self.critic = Critic()

    def forward(self, x: Tensor) -> NTCOutput:
        """Code (B, 3, H, W) photographs in 0..1."""
        output: NTCOutput = self.codec(x)
        return output

    def aux_loss(self) -> Tensor:
        """Loss of the entropy bottleneck's quantiles."""
        loss: Tensor = self.codec.aux_loss()  # type: ignore[operator]
        return loss


class HificModule(PhotoNTCModule):
    """HiFiC on (B, 3, H, W) uint8 photographs, both players trained by one backward pass."""

    def __init__(self, config: HificRunConfig) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        super().__init__(config, HificPlayers(HificNTC(config.model.options)))
        self.weights = config.loss
        # Not a part of the module: neither trained nor saved.
        self._eyes = [BundledSketcher().network]
        critic = {id(parameter) for parameter in self.network.critic.parameters()}  # type: ignore[union-attr]
        self.codec_parameters = [p for p in self.main_parameters if id(p) not in critic]

    def _features(self, x: Tensor) -> list[Tensor]:
        eyes = self._eyes[0].to(x.device)
        return eyes.features(F.avg_pool2d(x, 2), stages=2)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        w = self.weights
        net: Any = self.network
        _, aux = self.optimizers()  # type: ignore[misc,attr-defined]
        x = self.pictures(batch).to(memory_format=self.memory_format)
        output = net(x)
        rate = self.criterion(output, x)
        lmbda = w.lmbda_above if float(rate.bpp) > w.target_bpp else w.lmbda_below
        mse = 255**2 * F.mse_loss(output.x_hat, x)
        with torch.no_grad():
            seen = self._features(x)
        perceived = torch.stack(
            [F.l1_loss(a, b) for a, b in zip(self._features(output.x_hat), seen, strict=True)]
        ).mean()
        # As for the mini autoencoder: the generator sees a critic of constants.
        playing = float(self.batches_seen >= w.adversarial_after)
        real, made = 2 * x - 1, 2 * output.x_hat - 1
        constants = {name: p.detach() for name, p in net.critic.named_parameters()}
        fake = functional_call(net.critic, constants, (made,))
        duel = F.relu(1 - net.critic(real)).mean() + F.relu(1 + net.critic(made.detach())).mean()
        loss = lmbda * rate.bpp + w.mse * mse + w.perceptual * perceived
        loss = loss - playing * w.adversarial * fake.mean() + playing * duel
        aux_loss = net.aux_loss()
        aux.zero_grad()
        critic = list(net.critic.parameters())
        step = self.descend(loss + aux_loss, self.codec_parameters, critic)
        aux.optimizer.step()
        self.count_batch()
        self.report(
            {
                "train/loss": loss,
                "train/mse": mse,
                "train/bpp": rate.bpp,
                **{f"train/bpp_{k}": v for k, v in rate.streams.items()},
                "train/perceived": perceived,
                "train/duel": duel,
                "train/aux_loss": aux_loss,
                **step,
            }
        )

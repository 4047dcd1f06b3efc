"""Training of picsnet-mini's autoencoder: of its decoder, the encoder being known beforehand.

    x -> blocks' components -> z (+ noise) -> decoder -> x_hat
    loss = |x - x_hat| + edges + features of the edge detector + adversary

No foreign weights: the perceptual part looks through the edge detector that ships. The adversary is
a patch discriminator with hinge loss (as in VQGAN, Esser et al. 2021); it joins late. Both players
are trained by one backward pass: the generator's loss goes through a copy of the critic whose
weights are constants, so that neither gets the other's gradients, and DDP sees all parameters used.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from picsnet.config import VAERunConfig
from picsnet.mini.blocks import SCALING_FACTOR
from picsnet.mini.networks import make_vae
from picsnet.sketch.bundled import BundledSketcher
from picsnet.training.stepped import SteppedModule


class Critic(nn.Module):
    """Patch discriminator: (B, 3, H, W) in -1..1 to (B, 1, H / 8, W / 8), above 0 for real."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores of patches."""
        scores: Tensor = self.layers(x)
        return scores


class Players(nn.Module):
    """Autoencoder and critic."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.vae.encoder.requires_grad_(False)
        self.critic = Critic()


class VAEModule(SteppedModule):
    """An AutoencoderTiny on photographs.

    Args:
        config: of the run.
        encoder: the encoder's weights, `picsnet.mini.blocks.fit_encoder`.
    """

    def __init__(self, config: VAERunConfig, encoder: dict[str, Tensor]) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        players = Players(make_vae(config.model))
        players.vae.encoder.load_state_dict(encoder)
        super().__init__(players, config)
        self.weights = config.loss
        # Not a part of the module: neither trained nor saved.
        self._eyes = [BundledSketcher().network]
        self.panel: list[tuple[Tensor, Tensor]] = []

    def configure_optimizers(self) -> list[Any]:  # type: ignore[override]
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        return [self.main_optimizer(parameters)]

    def _features(self, x: Tensor) -> list[Tensor]:
        """What the edge detector's first two stages see, at half size."""
        eyes = self._eyes[0].to(x.device)
        return eyes.features(F.avg_pool2d(x / 2 + 0.5, 2), stages=2)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        w = self.weights
        net: Any = self.network
        x = (batch["photo"].float() / 127.5 - 1).to(memory_format=self.memory_format)
        with torch.no_grad():
            z = net.vae.encoder(x)
            noisy = z + w.latent_noise / SCALING_FACTOR * torch.randn_like(z)
        x_hat = net.vae.decoder(noisy)
        l1 = (x - x_hat).abs().mean()
        edges = edge_difference(x, x_hat)
        with torch.no_grad():
            seen = self._features(x)
        perceived = torch.stack(
            [F.l1_loss(a, b) for a, b in zip(self._features(x_hat), seen, strict=True)]
        ).mean()
        loss = l1 + w.edges * edges + w.perceptual * perceived
        # The critic's weights get a gradient from the first step on, as DDP wants; zero before.
        playing = float(self.batches_seen >= w.adversarial_after)
        fake = functional_call(
            net.critic, {k: v.detach() for k, v in net.critic.named_parameters()}, (x_hat,)
        )
        duel = F.relu(1 - net.critic(x)).mean() + F.relu(1 + net.critic(x_hat.detach())).mean()
        loss = loss - playing * w.adversarial * fake.mean() + playing * duel
        step = self.descend(loss, list(net.vae.decoder.parameters()), list(net.critic.parameters()))
        self.count_batch()
        self.report(
            {
                "train/l1": l1,
                "train/edges": edges,
                "train/perceived": perceived,
                "train/duel": duel,
                **step,
            }
        )

    def on_validation_start(self) -> None:
        self.panel = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        x = (batch["photo"].float() / 127.5 - 1).to(memory_format=self.memory_format)
        vae: Any = self.averaged.vae
        x_hat = vae.decoder(vae.encoder(x)).clamp(-1, 1).float()
        mse = (x - x_hat).square().mean(dim=(1, 2, 3)) / 4
        self.log("val/psnr", (-10 * mse.log10()).mean(), prog_bar=True, sync_dist=True)
        if batch_idx == 0:
            self.panel = [
                (a.permute(1, 2, 0).cpu() / 2 + 0.5, b.permute(1, 2, 0).cpu() / 2 + 0.5)
                for a, b in zip(x[:6], x_hat[:6], strict=True)
            ]


def edge_difference(x: Tensor, x_hat: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical differences, at three scales."""
    total = x.new_zeros(())
    for _ in range(3):
        for dim in (2, 3):
            total = total + (x.diff(dim=dim) - x_hat.diff(dim=dim)).abs().mean()
        x, x_hat = F.avg_pool2d(x, 2), F.avg_pool2d(x_hat, 2)
    return total / 6

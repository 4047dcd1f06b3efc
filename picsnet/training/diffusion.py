"""Training of picsnet-mini's U-Net and ControlNet, together.

    photo -> blocks' components -> x0;  noise n, level s in 0..1
    x = (1 - s) x0 + s n;  v_hat = U-Net(x, s, text, ControlNet(x, s, text, sketch))
    loss = |v_hat - (n - x0)|^2

Flow matching on straight paths (Lipman et al., 2023; levels drawn from a logit-normal law as by
Esser et al., 2024). Text is left out of some samples, for classifier-free guidance, and the sketch
of others, since PIC has none. The sketches are what files hold, decoded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picsnet.config import (
    CLIPModelConfig,
    DiffusionRunConfig,
    VAEModelConfig,
)
from picsnet.mini.blocks import SCALING_FACTOR, as_one_convolution
from picsnet.mini.networks import make_clip, make_diffusion, make_scheduler, make_vae
from picsnet.mini.stages import read_stage, under
from picsnet.training.stepped import SteppedModule

LEVELS = 1000
"""The U-Net's time is the noise level times this, as diffusers' schedulers have it."""

PANEL_STEPS, PANEL_GUIDANCE = 8, 2.0


class Drawer(nn.Module):
    """U-Net and ControlNet as one network."""

    def __init__(self, unet: Any, controlnet: Any) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(
        self, x: Tensor, level: Tensor, text: Tensor, sketch: Tensor, shown: Tensor
    ) -> Tensor:
        """Predicted velocity.

        Args:
            x: (B, C, h, w).
            level: (B,) 0..1.
            text: (B, T, D).
            sketch: (B, 1, 8 h, 8 w) in 0..1.
            shown: (B,) 1 where the sketch counts, else 0.
        """
        time = level * LEVELS
        down, middle = self.controlnet(
            x, time, text, sketch.expand(-1, 3, -1, -1), return_dict=False
        )
        weight = shown[:, None, None, None]
        out: Tensor = self.unet(
            x,
            time,
            text,
            down_block_additional_residuals=[d * weight for d in down],
            mid_block_additional_residual=middle * weight,
            return_dict=False,
        )[0]
        return out


class DiffusionModule(SteppedModule):
    """U-Net and ControlNet on photographs, captions and decoded sketches.

    Args:
        config: of the run; names the runs of autoencoder and CLIP.
        empty: (T,) ids of the empty prompt.

    Raises:
        CheckpointError: a run that it stands on is not there.
    """

    def __init__(self, config: DiffusionRunConfig, empty: list[int]) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        vae_weights, vae_run = read_stage(config.vae, "mini-vae")
        clip_weights, clip_run = read_stage(config.clip, "mini-clip")
        vae_model = VAEModelConfig(**vae_run["model"])
        clip_model = CLIPModelConfig(**clip_run["model"])
        networks = make_diffusion(config.model, vae_model.latent_channels, clip_model.text_width)
        super().__init__(Drawer(*networks), config)
        self.options = config.loss
        vae = make_vae(vae_model)
        vae.load_state_dict(under(vae_weights, "vae"))
        clip = make_clip(
            clip_model, len(clip_weights["text_model.embeddings.token_embedding.weight"])
        )
        clip.load_state_dict(clip_weights)
        # Frozen, and not a part of the module: neither trained nor saved.
        self._vae = [vae.eval().requires_grad_(False)]
        self._blocks = as_one_convolution(vae.encoder)
        self._text = [clip.text_model.eval().requires_grad_(False)]
        self._empty = torch.tensor(empty)
        self.panel: list[tuple[Tensor, Tensor]] = []

    def configure_optimizers(self) -> list[Any]:  # type: ignore[override]
        return [self.main_optimizer(list(self.network.parameters()))]

    def _prepared(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x0, text, text of the empty prompt, sketch."""
        photo = batch["photo"].float() / 127.5 - 1
        text = self._text[0].to(photo.device)
        weight, bias = (part.to(photo.device) for part in self._blocks)
        with torch.no_grad():
            x0 = F.conv2d(photo, weight, bias, stride=8) * SCALING_FACTOR
            both = torch.cat([batch["ids"], self._empty.to(photo.device)[None]])
            states = text(input_ids=both).last_hidden_state
        sketch = batch["sketch"].float() / 255
        return (
            x0.to(memory_format=self.memory_format),
            states[:-1],
            states[-1:],
            sketch.to(memory_format=self.memory_format),
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        o = self.options
        x0, text, empty, sketch = self._prepared(batch)
        size, device = len(x0), x0.device
        level = torch.sigmoid(torch.randn(size, device=device) * o.level_std + o.level_mean)
        without = torch.rand(size, device=device) < o.drop_text
        text = torch.where(without[:, None, None], empty, text)
        shown = (torch.rand(size, device=device) >= o.drop_sketch).float()
        loss = self._loss(self.network, x0, level, text, sketch, shown).mean()
        step = self.descend(loss, list(self.network.parameters()))
        self.count_batch()
        self.report(
            {
                "train/loss": loss,
                **step,
            }
        )

    @staticmethod
    def _loss(
        network: nn.Module, x0: Tensor, level: Tensor, text: Tensor, sketch: Tensor, shown: Tensor
    ) -> Tensor:
        """(B,) mean squared errors of the velocity."""
        noise = torch.randn_like(x0)
        at = level[:, None, None, None]
        velocity = network((1 - at) * x0 + at * noise, level, text, sketch, shown)
        return F.mse_loss(velocity.float(), noise - x0, reduction="none").mean((1, 2, 3))

    def on_validation_start(self) -> None:
        self.panel = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        x0, text, empty, sketch = self._prepared(batch)
        size, device = len(x0), x0.device
        # The same noise and levels each time, and what text and sketch are worth.
        level = (torch.arange(size, device=device) + 0.5) / size
        cases = {
            "val/loss": (text, 1.0),
            "val/loss_without_text": (empty.expand_as(text), 1.0),
            "val/loss_without_sketch": (text, 0.0),
        }
        for name, (words, weight) in cases.items():
            torch.manual_seed(batch_idx)
            shown = torch.full((size,), weight, device=device)
            loss = self._loss(self.averaged, x0, level, words, sketch, shown).mean()
            self.log(name, loss, prog_bar=True, sync_dist=True, batch_size=size)
        if batch_idx == 0:
            drawn = self._draw(text, empty, sketch, x0.shape)
            photo = batch["photo"].float() / 255
            self.panel = [
                (
                    torch.cat([a, s.expand(3, -1, -1)], dim=1).permute(1, 2, 0).cpu(),
                    b.permute(1, 2, 0).cpu(),
                )
                for a, s, b in zip(photo[:8], sketch[:8], drawn[:8], strict=True)
            ]

    @torch.no_grad()
    def _draw(self, text: Tensor, empty: Tensor, sketch: Tensor, shape: torch.Size) -> Tensor:
        """(B, 3, H, W) in 0..1, as the pipeline draws."""
        scheduler = make_scheduler()
        scheduler.set_timesteps(PANEL_STEPS, device=text.device)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(shape, generator=generator).to(text.device)
        shown = torch.ones(len(x), device=x.device)
        for time in scheduler.timesteps:
            level = (time / LEVELS).float().expand(len(x))
            plain = self.averaged(x, level, empty.expand_as(text), sketch, shown).float()
            guided = self.averaged(x, level, text, sketch, shown).float()
            velocity = plain + PANEL_GUIDANCE * (guided - plain)
            x = scheduler.step(velocity, time, x, return_dict=False)[0]
        picture: Tensor = self._vae[0].to(x.device).decoder(x / SCALING_FACTOR)
        return (picture / 2 + 0.5).clamp(0, 1)

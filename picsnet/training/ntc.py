"""Training of a sketch NTC, at one lambda or at all of a range."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from picsnet.checkpoints import in_memory_model, load_weights, table_tensors
from picsnet.codec import SketchCodec
from picsnet.config import NTCRunConfig, PhotoNTCRunConfig
from picsnet.errors import ConfigError
from picsnet.losses import RateDistortion, RateDistortionLoss
from picsnet.ntc import build
from picsnet.ntc.base import FileNTC, NTCOutput
from picsnet.ntc.context import SketchContext
from picsnet.ntc.hyperprior import SketchHyperprior
from picsnet.ntc.noise import integers_by_map
from picsnet.training.stepped import SteppedModule

QUALITY_NOISE = 2
"""Stream of draws (`picsnet.ntc.noise`), beside those of the network."""


class NTCModule(SteppedModule):
    """Rate-distortion training: lmbda * D + R, and the entropy bottleneck's quantiles beside it.

    The quantiles get no gradient from the rate-distortion loss, and nothing else gets one from the
    auxiliary loss. One backward pass of their sum therefore trains both, and every parameter has a
    gradient in it, which is what DDP needs.
    """

    def __init__(
        self, config: NTCRunConfig | PhotoNTCRunConfig, network: nn.Module | None = None
    ) -> None:
        torch.manual_seed(config.seed)  # initial weights are part of what a seed repeats
        network = network or build(config.model.architecture, config.model.options)
        super().__init__(network, config)
        edge_weight = config.edge_weight if isinstance(config, NTCRunConfig) else 0.0
        self.criterion = RateDistortionLoss(
            config.lmbda, config.distortion, config.distortion_warmup or 0, edge_weight
        )
        only = tuple(config.optim.only)
        names = [name for name, _ in self.network.named_parameters()]
        if unknown := [word for word in only if not any(name.startswith(word) for name in names)]:
            known = ", ".join(sorted({name.split(".")[0] for name in names}))
            raise ConfigError(
                f"optim.only: the network has no {', '.join(unknown)}; known are {known}"
            )
        self.main_parameters: list[nn.Parameter] = []
        self.aux_parameters: list[nn.Parameter] = []
        for name, parameter in self.network.named_parameters():
            aux = name.endswith(".quantiles")
            if only and not aux and not name.startswith(only):
                parameter.requires_grad_(False)  # held still; DDP and the optimisers pass it by
                continue
            (self.aux_parameters if aux else self.main_parameters).append(parameter)

    def start_from(self, spec: str) -> None:
        """Begin at trained weights, of a run, an exported folder or a shipped name.

        Raises:
            CheckpointError: they cannot be had, or do not fit.
            ConfigError: the run's ``init_gain`` is not for its architecture.
        """
        load_weights(self.network, spec)
        if self.config["init_gain"] != 1:
            self.scale_latents(self.config["init_gain"])
        self.restart_average()

    def scale_latents(self, gain: float) -> None:
        """Scale the latents of a network that was loaded to start from.

        Raises:
            ConfigError: the architecture has no such thing.
        """
        if not isinstance(self.network, SketchHyperprior):
            raise ConfigError(
                "init_gain scales latents of picsnet-hyperprior only; leave it at 1 for others"
            )
        self.network.scale_latents(gain)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if isinstance(self.averaged, FileNTC):
            checkpoint["tables"] = table_tensors(self.averaged)

    def configure_optimizers(self) -> tuple[dict[str, Any], dict[str, Any]]:  # type: ignore[override]
        aux = torch.optim.Adam(self.aux_parameters, lr=self.optim.aux_lr, fused=True)
        return self.main_optimizer(self.main_parameters), {"optimizer": aux}

    def pictures(self, batch: Any) -> Tensor:
        """What a batch has the network code, in 0..1."""
        x: Tensor = batch
        return x

    def code(self, x: Tensor) -> tuple[NTCOutput, Tensor | None]:
        """The network's output for a training batch, and the lambda of each map if they differ."""
        output: NTCOutput = self.network(x)
        return output, None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x = self.pictures(batch).to(memory_format=self.memory_format)
        _, aux = self.optimizers()  # type: ignore[misc,attr-defined]
        output, lmbda = self.code(x)
        result = self.criterion(output, x, step=self.batches_seen, lmbda=lmbda)
        aux_loss = self.network.aux_loss()  # type: ignore[operator]
        aux.zero_grad()
        step = self.descend(result.loss + aux_loss, self.main_parameters)
        # The inner optimiser: Lightning's global_step counts wrapped ones, and one is enough.
        aux.optimizer.step()
        self.count_batch()
        self.report(
            {
                "train/loss": result.loss,
                "train/distortion": result.distortion,
                "train/bpp": result.bpp,
                **{f"train/bpp_{k}": v for k, v in result.streams.items()},
                "train/aux_loss": aux_loss,
                **step,
            }
        )

    def on_validation_epoch_start(self) -> None:
        self.codec = None
        if isinstance(self.averaged, FileNTC):
            # Fresh tables each time: what is measured is what an export would write now.
            self.codec = SketchCodec(in_memory_model(self.averaged, self.config))
        self.panel: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x = self.pictures(batch).to(memory_format=self.memory_format)
        self.averaged.eval()
        output: NTCOutput = self.averaged(x)
        self.log_validation(x, output, self.criterion(output, x), batch_idx)

    def log_validation(
        self, x: Tensor, output: NTCOutput, result: RateDistortion, batch_idx: int
    ) -> None:
        """Log a validation batch: loss, rates, that of its files, a panel."""
        values = {
            "val/loss": result.loss,
            "val/distortion": result.distortion,
            "val/bpp": result.bpp,
            **{f"val/bpp_{k}": v for k, v in result.streams.items()},
        }
        if self.codec is not None:
            maps = (x[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
            coded = sum(len(file) for file in self.codec.encode_maps(list(maps)))
            values["val/coded_bpp"] = torch.tensor(8.0 * coded / maps.size)
        self.log_values(values, x)
        if batch_idx == 0:
            before, after = x[:4, 0].float().cpu(), output.x_hat[:4, 0].float().cpu()
            self.panel = list(zip(before, after, strict=True))

    def log_values(self, values: dict[str, Tensor], x: Tensor) -> None:
        """Log means over all validation maps."""
        self.log_dict(values, prog_bar=True, sync_dist=True, batch_size=x.shape[0])


class RangeNTCModule(NTCModule):
    """Training of one network for all rates: every map of a batch has its own lambda.

    Validation codes each map at every lambda of the network; ``val/loss`` and what else has no
    lambda in its name are those of the run's own.
    """

    network: SketchContext
    averaged: SketchContext

    def code(self, x: Tensor) -> tuple[NTCOutput, Tensor | None]:
        quality = integers_by_map(len(x), self.network.qualities, QUALITY_NOISE, x.device)
        output: NTCOutput = self.network(x, quality)
        return output, self.network.lmbda_of(quality)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x = self.pictures(batch).to(memory_format=self.memory_format)
        self.averaged.eval()
        own = self.averaged.quality_of(self.criterion.lmbda)
        points = {self.averaged.quality_of(lmbda): lmbda for lmbda in self.averaged.lambdas}
        for quality in sorted({*points, own}):
            output = self.averaged(x, torch.full((len(x),), quality, device=x.device))
            result = self.criterion(output, x)
            if quality in points:
                name = f"val/lambda{points[quality]:g}"
                self.log_values(
                    {f"{name}_distortion": result.distortion, f"{name}_bpp": result.bpp}, x
                )
            if quality == own:
                self.log_validation(x, output, result, batch_idx)

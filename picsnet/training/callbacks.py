"""What is watched during training: throughput, and maps before and after."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torch import Tensor

from picsnet.images import save_png
from picsnet.training.stepped import SteppedModule


class Throughput(Callback):
    """Logs crops a second over all devices, validation and checkpoints left out."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._since: tuple[float, int] | None = None
        self._saving: float | None = None

    def on_save_checkpoint(self, *args: Any) -> None:
        self._saving = self._saving or time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, SteppedModule)
        step, now = pl_module.batches_seen, time.monotonic()
        if self._saving is not None and self._since is not None:
            # Checkpoints of a step are written by a callback before this one.
            self._since = (self._since[0] + now - self._saving, self._since[1])
        self._saving = None
        if self._since is None:
            self._since = (now, step)
        elif step % pl_module.log_every == 0:
            rate = (
                (step - self._since[1])
                * self.batch_size
                * trainer.world_size
                / (now - self._since[0])
            )
            pl_module.log("train/crops_per_second", rate)
            self._since = (now, step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._since = None


class MapPanel(Callback):
    """After each validation: maps above, what the network makes of them below.

    Goes to ``panel.png`` in the run's folder, and to W&B and TensorBoard where they are on. Reads
    ``panel``, a list of (before, after) pairs (H, W) in 0..1, from the module.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pairs = getattr(pl_module, "panel", [])
        if not trainer.is_global_zero or not pairs:
            return
        picture = np.hstack([np.vstack([_bytes(a), _bytes(b)]) for a, b in pairs])
        save_png(picture, self.folder / "panel.png")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("maps", [picture], caption=["above: map, below: decoded"])
            elif isinstance(logger, TensorBoardLogger):
                layout = "HW" if picture.ndim == 2 else "HWC"
                step = getattr(pl_module, "batches_seen", 0)
                logger.experiment.add_image("maps", picture, step, dataformats=layout)


class RateDistortionPoints(Callback):
    """A point of the rate-distortion curve after each validation, against rate in W&B.

    The panels ``rd/*`` have ``rd/bpp`` as their axis, so runs at several lambdas draw the curve.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger) and trainer.is_global_zero:
                logger.experiment.define_metric("rd/bpp")
                logger.experiment.define_metric("rd/*", step_metric="rd/bpp")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        rate = metrics.get("val/coded_bpp", metrics.get("val/bpp"))
        # Before its first step, Lightning tries a few batches: no point of a curve.
        if rate is None or trainer.sanity_checking or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.log(
                    {"rd/bpp": float(rate), "rd/distortion": float(metrics["val/distortion"])}
                )


def _bytes(x: Tensor) -> NDArray[np.uint8]:
    return (x.clamp(0, 1) * 255).round().byte().numpy()

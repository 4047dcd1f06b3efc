"""Trains a miniature on two CPU processes and leaves each rank's weights behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
from picsnet.config import NTCRunConfig, load_config
from picsnet.training.ntc import NTCModule
from picsnet.training.run import fit


class Keep(Callback):
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sums: list[list[float]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"start{trainer.global_rank}.pt")

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.sums += [
            [crop.sum().item(), crop.square().sum().item()] for crop in batch if crop.any()
        ]

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")
        torch.save(torch.tensor(self.sums), self.folder / f"batches{trainer.global_rank}.pt")


def main(maps: Path, output: Path) -> None:
    overrides = [
        f"data.maps=[{maps}]",
        f"output={output}",
        "model.options={widths: [8, 8, 8], M: 8, N: 4, features: 8, width: 8}",
        "distortion=mse",
        "lmbda=0.002",
        "logging.wandb=disabled",
        "data.crop=64",
        "trainer.max_steps=12",
        "trainer.val_every=6",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "trainer.precision=32-true",
    ]
    config = load_config("sketch_ntc_lambda0.5.yaml", overrides)
    assert isinstance(config, NTCRunConfig)
    train, val = split_maps(list_maps(maps), 2, 1)
    settings = MapDataSettings(crop=64, batch_size=2, workers=0, seed=1, total_steps=12)
    datamodule = SketchMapDataModule(train, val, settings)
    fit(config, NTCModule(config), datamodule, [Keep(output)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

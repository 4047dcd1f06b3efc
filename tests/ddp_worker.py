"""Trains a miniature on one or two CPU processes and leaves each rank's weights behind.

python -m tests.ddp_worker MAPS OUTPUT PROCESSES CONFIG [key=value ...]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
from picsnet.config import NTCRunConfig, load_config
from picsnet.training.ntc import NTCModule, RangeNTCModule
from picsnet.training.run import fit

GLOBAL_BATCH = 4


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


def main(maps: Path, output: Path, processes: int, name: str, overrides: list[str]) -> None:
    overrides = [
        f"data.maps=[{maps}]",
        f"output={output}",
        "distortion=mse",
        "logging.wandb=disabled",
        "data.crop=64",
        "trainer.log_every=1",
        "trainer.accelerator=cpu",
        f"trainer.devices={processes}",
        "trainer.precision=32-true",
        *(["trainer.strategy=ddp"] if processes > 1 else []),
        *overrides,
    ]
    config = load_config(name, overrides)
    assert isinstance(config, NTCRunConfig)
    train, val = split_maps(list_maps(maps), 2, 1)
    settings = MapDataSettings(
        crop=64,
        batch_size=GLOBAL_BATCH // processes,
        workers=0,
        seed=1,
        total_steps=config.trainer.max_steps,
    )
    datamodule = SketchMapDataModule(train, val, settings)
    module = RangeNTCModule(config) if config.lmbdas else NTCModule(config)
    fit(config, module, datamodule, [Keep(output)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:])

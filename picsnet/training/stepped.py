"""What the trained networks share: own step count, seeding, schedule, clipping, EMA."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from picsnet.config import OptimConfig, RunConfig, to_dict
from picsnet.errors import CheckpointError, in_one_line
from picsnet.saved import averaged, read_saved
from picsnet.training.average import ExponentialAverage
from picsnet.training.environment import describe_environment


def learning_rate_factor(step: int, total: int, optim: OptimConfig) -> float:
    """Factor on the base learning rate at a step: linear warm-up, then cosine or constant."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    if optim.schedule == "constant":
        return 1.0
    progress = (step - optim.warmup_steps) / max(1, total - optim.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return optim.min_lr_ratio + (1 - optim.min_lr_ratio) * cosine


class SteppedModule(L.LightningModule):
    """A LightningModule under manual optimisation that resumes exactly.

    All that a step depends on is either in the checkpoint (weights, optimisers, schedule, EMA) or a
    function of the seed and of ``batches_seen`` (data order, noise): nothing else is carried.

    Args:
        network: what is trained.
        config: of the run.

    ``batches_seen`` counts training batches. Lightning's ``global_step`` counts optimiser steps and
    would count both optimisers of a compression network.
    """

    def __init__(self, network: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        channels_last = config.trainer.channels_last
        if channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.ema = ExponentialAverage(network, config.optim.ema_decay)
        self.config, self.optim = to_dict(config), config.optim
        self.total_steps, self.seed = config.trainer.max_steps, config.seed
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.log_every = config.trainer.log_every
        self.batches_seen = 0

    @property
    def averaged(self) -> nn.Module:
        """The network with averaged weights: what is validated and exported."""
        module = self.ema.module
        assert isinstance(module, nn.Module)
        return module

    def start_from(self, spec: str) -> None:
        """Begin at the averaged weights of another run.

        Args:
            spec: a checkpoint of the same task, and of a network like this one.

        Raises:
            CheckpointError: it is not.
        """
        saved = read_saved(Path(spec), "init_from takes the last.ckpt of a run of train.py")
        theirs, ours = saved["config"]["task"], self.config["task"]
        if theirs != ours:
            raise CheckpointError(f"init_from {spec}: is of task {theirs}, this run of {ours}")
        try:
            self.network.load_state_dict(averaged(saved))
        except RuntimeError as error:
            reason = in_one_line(error)
            raise CheckpointError(
                f"init_from {spec}: does not fit the network of this run ({reason})"
            ) from None
        self.restart_average()

    def restart_average(self) -> None:
        """Begin the average at the network's present weights, after loading some into it."""
        self.ema.module.load_state_dict(self.network.state_dict())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches_seen"] = self.batches_seen
        checkpoint["config"] = self.config
        checkpoint["environment"] = describe_environment()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen = int(checkpoint["batches_seen"])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # A seed for each step: resuming needs no generator state. And one for each sample of the
        # step, over all processes: what is drawn by map (`picsnet.ntc.noise`) is then what a single
        # process would draw.
        first = self.global_rank * len(batch) if isinstance(batch, Tensor) else self.global_rank
        step = np.random.SeedSequence([self.seed % 2**32, self.batches_seen])
        # A bit is left for what is added.
        torch.manual_seed((int(step.generate_state(1, np.uint64)[0]) >> 1) + first)

    def main_optimizer(self, parameters: list[nn.Parameter]) -> dict[str, Any]:
        """AdamW and the schedule, in the shape that ``configure_optimizers`` returns."""
        optimizer = torch.optim.AdamW(
            parameters, lr=self.optim.lr, weight_decay=self.optim.weight_decay, fused=True
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.total_steps, self.optim)
        )
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def descend(self, loss: Tensor, *groups: list[nn.Parameter]) -> dict[str, Any]:
        """A step of the main optimiser and its schedule.

        Args:
            loss: scalar.
            groups: parameters whose gradients are clipped together.

        Returns:
            What the log says of it; the norm is the first group's.
        """
        optimizers = self.optimizers()
        main: Any = optimizers[0] if isinstance(optimizers, list) else optimizers
        main.zero_grad()
        # Lightning has autocast on around the whole step. The gradients of what ran in float32 for
        # its precision (MS-SSIM, the entropy model) would be products in bf16.
        with torch.autocast(loss.device.type, enabled=False):
            self.manual_backward(loss)
        norms = [self.clip(group, self.optim.clip_norm) for group in groups]
        main.step()
        scheduler = self.lr_schedulers()
        assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
        scheduler.step()
        return {"train/grad_norm": norms[0], "train/lr": scheduler.get_last_lr()[0]}

    def report(self, values: dict[str, Any]) -> None:
        """Log a training step's values, every so many steps."""
        if self.batches_seen % self.log_every == 0:
            self.log_dict(
                {k: v.detach() if isinstance(v, Tensor) else v for k, v in values.items()},
                prog_bar=True,
                sync_dist=True,
            )

    def count_batch(self) -> None:
        """To be called once at the end of each training step, after the optimisers."""
        self.ema.follow(self.network, self.batches_seen)
        # By this Lightning numbers what it logs. Resumed where a run had been stopped, it counts a
        # step twice: curves would shift.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.batches_seen
        self.batches_seen += 1

    @staticmethod
    def clip(parameters: list[nn.Parameter], norm: float) -> Tensor:
        """Clip the gradient's norm; returns the norm before clipping."""
        return torch.nn.utils.clip_grad_norm_(parameters, norm)

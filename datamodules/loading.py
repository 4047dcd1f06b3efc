"""The loader of training samples, in an order that is a function of seed and step."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import cv2
import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.sampling import PositionSampler
from picsnet.errors import DataError

LOADER_NICENESS = 10
"""By which loader processes give way to training."""


class TrainingLoader(DataLoader[Any]):
    """A loader whose workers' errors stay one line: torch puts their traceback into the message."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except DataError as error:
            last = str(error).rstrip().splitlines()[-1]
            raise DataError(last.rpartition("DataError: ")[2]) from None


def training_loader(
    module: L.LightningDataModule,
    dataset: Dataset[Any],
    *,
    batch_size: int,
    total_steps: int,
    workers: int,
    seed: int,
) -> TrainingLoader:
    """Batches of a run, from the step that the attached LightningModule's ``batches_seen`` names.

    So a resumed run sees the batches that it would have seen.

    Args:
        module: the data module, attached to a trainer or not.
        dataset: position -> sample.
        batch_size: samples a step and process.
        total_steps: length of the run.
        workers: loader processes.
        seed: of the workers' own generators.
    """
    trainer = module.trainer
    trained: Any = None if trainer is None else trainer.lightning_module
    sampler = PositionSampler(
        batch_size=batch_size,
        total_steps=total_steps,
        start_step=int(getattr(trained, "batches_seen", 0)),
        rank=0 if trainer is None else trainer.global_rank,
        world_size=1 if trainer is None else trainer.world_size,
    )
    return TrainingLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=start_worker,
        # The workers' seeds: repeatable, and the global generator is left alone.
        generator=torch.Generator().manual_seed(seed % 2**32),
    )


def start_worker(worker: int) -> None:
    """What each loader process does first."""
    # The workers are the parallelism; OpenCV's threads would compete with training.
    cv2.setNumThreads(0)
    # Where training itself runs on the CPU, its threads wait for the slowest of them: a worker that
    # takes one's core for a moment holds up all. Batches are made ahead, so workers can wait.
    os.nice(LOADER_NICENESS)
    # Signals to the group of processes are for training, which saves and then ends its workers:
    # Ctrl-C, and what torchrun and SLURM stop runs with. Until then it needs batches.
    os.setpgid(0, 0)
    # SLURM signals all processes of a job, whatever their groups.
    _end_for_training_alone()


def _end_for_training_alone() -> None:
    """Pass over SIGTERM from others; where a system does not say who sent one, leave it."""
    training = multiprocessing.parent_process()
    if training is None or not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait(sender: int | None) -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != sender:
            pass
        os._exit(0)

    threading.Thread(target=wait, args=(training.pid,), daemon=True).start()

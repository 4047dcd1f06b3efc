"""Checkpoints of runs, as data: what resuming and starting from another run read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picsnet.errors import CheckpointError

AVERAGE = "ema.module."
"""Before the names of averaged weights."""


def read_saved(path: Path, instead: str) -> dict[str, Any]:
    """A training checkpoint.

    Args:
        path: of it.
        instead: what a user can do where it is none, for the message.

    Raises:
        CheckpointError: it is missing, damaged, or no run of this project wrote it.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        saved["state_dict"], saved["batches_seen"], saved["config"]["task"]
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint; {instead}") from None
    except Exception as error:
        # torch.load raises what the damage suggests: pickle, zip, runtime and key errors alike.
        raise CheckpointError(
            f"{path}: not a checkpoint of this project ({type(error).__name__}); {instead}"
        ) from None
    found: dict[str, Any] = saved
    return found


def averaged_weights(path: Path, task: str) -> dict[str, Tensor]:
    """The averaged weights of a run's network.

    Raises:
        CheckpointError: as `read_saved`, or the run was of another task.
    """
    saved = read_saved(path, "init_from takes the last.ckpt of a run of train.py")
    if saved["config"]["task"] != task:
        raise CheckpointError(
            f"init_from {path}: is of task {saved['config']['task']}, this run of {task}"
        )
    weights = saved["state_dict"].items()
    return {k.removeprefix(AVERAGE): v for k, v in weights if k.startswith(AVERAGE)}

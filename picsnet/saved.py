"""Checkpoints of runs, as data: what resuming, exporting and other runs read of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picsnet.errors import CheckpointError

AVERAGE = "ema.module."
"""Before the names of averaged weights."""


def read_saved(path: Path, instead: str, *more: str) -> dict[str, Any]:
    """A training checkpoint: it has a state and says its task.

    Args:
        path: of it.
        instead: what a user can do where it is none, for the message.
        more: what else must be in it.

    Raises:
        CheckpointError: it is missing, damaged, or no run of this project wrote it.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        saved["state_dict"], saved["config"]["task"], *(saved[key] for key in more)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint; {instead}") from None
    except Exception as error:
        # torch.load raises what the damage suggests: pickle, zip, runtime and key errors alike.
        raise CheckpointError(
            f"{path}: not a checkpoint of this project ({type(error).__name__}); {instead}"
        ) from None
    found: dict[str, Any] = saved
    return found


def averaged(saved: Mapping[str, Any], part: str = "") -> dict[str, Tensor]:
    """The averaged weights in a checkpoint, by their names in the network.

    Args:
        saved: as torch loads it.
        part: of the network, with a dot at its end, whose weights alone are wanted.
    """
    prefix = AVERAGE + part
    weights = saved["state_dict"].items()
    return {k.removeprefix(prefix): v for k, v in weights if k.startswith(prefix)}

"""What one stage of the mini decoder's training hands to the next: averaged weights of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from picsnet.errors import CheckpointError
from picsnet.saved import averaged


def read_stage(run: str | Path, task: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Averaged weights of a run's last checkpoint, and the run's configuration with its ``steps``.

    Args:
        run: its folder, ``runs/NAME``.
        task: that it must have been, "mini-vae" for one.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another task's.
    """
    path = Path(run) / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: not there; train that stage first (task {task}), or name its run's folder"
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        averages, config = averaged(saved), saved["config"]
        found = config["task"]
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of this project ({type(error).__name__}); train it again"
        ) from None
    if found != task:
        raise CheckpointError(f"{path}: is of task {found}, not {task}; name another run's folder")
    return averages, {**config, "steps": saved.get("batches_seen")}


def under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part, by their names in it."""
    dotted = f"{prefix}."
    return {k.removeprefix(dotted): v for k, v in weights.items() if k.startswith(dotted)}

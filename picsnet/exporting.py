"""Training checkpoints of either kind to model folders."""

from __future__ import annotations

import json
from pathlib import Path

from picsnet import checkpoints
from picsnet.errors import CheckpointError
from picsnet.ntc.base import FileNTC
from picsnet.shipped import CARD
from picsnet.sketch import bundled

_BASELINE = "evaluate.py takes the checkpoint as it is (codecs.NAME.weights)"
_STAGE = "python -m picsnet.mini.assemble makes a decoder of the three stages' runs"
NOT_EXPORTED = {
    "photo-ntc": _BASELINE,
    "hific": _BASELINE,
    "mini-vae": _STAGE,
    "mini-clip": _STAGE,
    "mini-diffusion": _STAGE,
}
"""Tasks whose checkpoints are used in another way, and in which."""


def export_checkpoint(checkpoint: Path, folder: Path) -> str:
    """Write the folder; returns the fingerprint.

    Raises:
        CheckpointError: the file is not a training checkpoint of this project, or of a task that is
            not exported.
        OutputError: the folder cannot be written.
    """
    task = checkpoints.task_of(checkpoint)
    if task in NOT_EXPORTED:
        raise CheckpointError(
            f"{checkpoint}: is of task {task}, which is not exported; {NOT_EXPORTED[task]}"
        )
    if task == "edge":
        network, card = bundled.load_training_checkpoint(checkpoint)
        bundled.export(network, card, folder)
        fingerprint = json.loads((folder / CARD).read_text())["fingerprint"]
        return str(fingerprint)
    trained, card, tables = checkpoints.load_lightning(checkpoint)
    if not isinstance(trained, FileNTC):
        raise CheckpointError(
            f"{checkpoint}: architecture {card['architecture']} has a floating-point entropy model "
            "and is not exported; files are written by picsnet-context and picsnet-hyperprior"
        )
    return checkpoints.export(trained, card, folder, tables)

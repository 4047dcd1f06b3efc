"""What a run's folder and settings say of its W&B run; trainings and evaluations alike."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from picsnet.errors import ConfigError, in_one_line
from picsnet.files import atomic_write

MODES = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
"""What W&B takes as ``WANDB_MODE``, some of it by older names."""


def wandb_mode(asked: str) -> str:
    """How W&B is run: online, offline or disabled.

    Args:
        asked: one of these, or "auto": as W&B's own ``WANDB_MODE`` says, and where it says nothing
            online with a key and offline without.
    """
    if asked != "auto":
        return asked
    told = os.environ.get("WANDB_MODE", "").lower()
    if told in MODES:
        return MODES[told]
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"


def wandb_id(folder: Path, anew: bool = False) -> str:
    """The run's id, kept in its folder: where it goes on, it does so in the same dashboard.

    Args:
        folder: the run's.
        anew: it begins at its first step, whatever was there. W&B drops steps that it has.
    """
    path = folder / "wandb_id"
    if anew or not path.is_file():
        with atomic_write(path) as part:
            part.write_text(secrets.token_hex(4))
    return path.read_text()


@contextlib.contextmanager
def mode_left_alone() -> Iterator[None]:
    """Around a run: Lightning sets ``WANDB_MODE`` for one that is offline, and leaves it so."""
    before = os.environ.get("WANDB_MODE")
    try:
        yield
    finally:
        os.environ.pop("WANDB_MODE", None)
        if before is not None:
            os.environ["WANDB_MODE"] = before


@contextlib.contextmanager
def beginning() -> Iterator[None]:
    """Around what begins a run.

    Raises:
        ConfigError: W&B begins none, for want of a key, mostly.
    """
    import wandb

    try:
        yield
    except wandb.errors.Error as error:
        raise ConfigError(
            f"logging.wandb: W&B begins no run ({in_one_line(error)}); log in "
            "(wandb login) or set WANDB_API_KEY, or set logging.wandb=offline"
        ) from None

"""Devices by name."""

from __future__ import annotations

import torch

from picsnet.errors import UsageError


def check_device(name: str) -> str:
    """The device if it is there.

    Raises:
        UsageError: it is not a device, or this machine lacks it.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: not a device; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no CUDA device here; use --device cpu")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: exact decoding needs cpu or cuda")
    return str(device)

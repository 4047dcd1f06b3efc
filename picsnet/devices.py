"""Devices by name, and what they do well."""

from __future__ import annotations

import torch

from picsnet.errors import UsageError


def check_device(name: str) -> str:
    """The device if it is there; for ``auto`` the best one that is.

    Raises:
        UsageError: it is not a device, or this machine lacks it.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(
            f"--device {name}: not a device; use auto, cpu, cuda, cuda:N or mps"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: no CUDA device here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices, "
            "numbered from 0"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError(f"--device {name}: no Metal device here; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: not supported; use auto, cpu, cuda, cuda:N or mps")
    return str(device)


def exact_device(device: str) -> str:
    """Where the exact hyper-synthesis runs: it needs float64, which Metal lacks."""
    return "cpu" if device.startswith("mps") else device


def has_amx() -> bool:
    """Whether the CPU multiplies bf16 matrices in units of their own.

    Without them bf16 convolutions measured half float32's speed (docs/training.md).
    """
    return bool(torch.cpu._is_amx_tile_supported())


def inference_dtype(device: str) -> torch.dtype:
    """The type in which a device runs large frozen networks well."""
    if device.startswith(("cuda", "mps")):
        return torch.float16
    return torch.bfloat16 if has_amx() else torch.float32

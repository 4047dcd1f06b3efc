"""Devices by name, and what they do well."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

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


one_at_a_time = threading.RLock()
"""For making networks: while diffusers or transformers load one, what other threads make would be
without memory, or of another type."""


@contextlib.contextmanager
def unseen_by_the_caller() -> Iterator[None]:
    """For making a network whose weights are then loaded, by one thread at a time.

    What chance puts into it first costs the caller's generator nothing, a caller's inference mode
    does not keep it from gradients for good, and what type the caller makes tensors of is not its.
    """
    with one_at_a_time, torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        kind = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(kind)


def has_amx() -> bool:
    """Whether the CPU multiplies bf16 matrices in units of their own."""
    return bool(torch.cpu._is_amx_tile_supported())


def is_fast_in_bf16(device: str) -> bool:
    """Whether a device takes convolutions and their gradients faster in bf16 than in float32.

    CUDA does from Ampere on; before, bf16 is emulated. A CPU does with AMX or AVX512_BF16: with the
    second, a step of training took 0.56 of float32's time; with neither, bf16 convolutions measured
    half float32's speed (docs/training.md).
    """
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.startswith("cpu") and (has_amx() or bool(torch.cpu._is_avx512_bf16_supported()))


def inference_dtype(device: str) -> torch.dtype:
    """The type in which a device runs large frozen networks well."""
    if device.startswith(("cuda", "mps")):
        return torch.float16
    return torch.bfloat16 if has_amx() else torch.float32


WORKER_BYTES = 4 * 2**30
"""Memory that a worker may need: large pictures go through the edge detector in strips."""


def share_cores(
    inputs: int, workers: int | None = None, *, device: str = "cpu", processes: int = 1
) -> int:
    """How many pictures to work on at once; torch's threads are divided among them.

    Args:
        inputs: how many pictures there are.
        workers: as the user wants it; None is one a core (as torch counts them: OMP_NUM_THREADS
            and the process's affinity hold), as far as this process's share of the machine's
            memory allows. On CUDA it is one: how many a GPU's memory holds is not known.
        device: that they work on, or "auto".
        processes: that share this machine.
    """
    threads = torch.get_num_threads()
    if workers is None:
        memory = _physical_bytes() // processes
        on_gpu = check_device(device).startswith("cuda")
        workers = 1 if on_gpu else max(1, min(threads, memory // WORKER_BYTES))
    workers = max(1, min(workers, inputs))
    torch.set_num_threads(max(1, threads // workers))
    return workers


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a Unix that tells
        return WORKER_BYTES

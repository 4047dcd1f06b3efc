"""Noise of training, by map: a batch draws the same in one process as spread over several.

What a map draws depends on the seed that was set before the step (`torch.manual_seed`) and on its
place in the batch alone. Seeds of neighbouring places are neighbours. So a process that has the
maps from place 4 on sets a seed that is 4 higher than that of the process before it, and draws what
it would have drawn for them had it had the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def generators(count: int, stream: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator for each map of a batch.

    Args:
        count: of maps.
        stream: a number for each use within a step, that must not share its draws.
        device: of what will be drawn.
    """
    generator = torch.Generator(device)
    first = torch.initial_seed()
    for place in range(count):
        # Hashed: of a seed torch's generators on the CPU take the lowest 32 bits alone.
        words = np.random.SeedSequence([first + place, stream]).generate_state(1, np.uint32)
        yield generator.manual_seed(int(words[0]))


def uniform_by_map(like: Tensor, stream: int) -> Tensor:
    """Uniform noise in -1/2..1/2, of the shape (B, ...) of ``like``: quantisation's stand-in.

    After "End-to-end Optimized Image Compression" (Balle, Laparra and Simoncelli, 2017).
    """
    noise = torch.empty_like(like, memory_format=torch.contiguous_format)
    drawn = zip(noise, generators(len(like), stream, like.device), strict=True)
    for of_map, generator in drawn:
        of_map.uniform_(-0.5, 0.5, generator=generator)
    return noise


def integers_by_map(count: int, below: int, stream: int, device: torch.device) -> Tensor:
    """(count,) int64 in 0..below - 1, one for each map."""
    # On the CPU: single numbers are not worth a device's time.
    cpu = torch.device("cpu")
    each = generators(count, stream, cpu)
    drawn = [torch.randint(below, (), generator=generator) for generator in each]
    return torch.stack(drawn).to(device, non_blocking=True)

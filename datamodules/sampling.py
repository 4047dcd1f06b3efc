"""Data order as a function of a seed and a position, so that resuming needs no state.

A position counts samples since the start of a run, over all processes. What is drawn at a position
depends on nothing else: not on workers, processes or interruptions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

_WORD = 2**32


def position_seed(seed: int, position: int) -> int:
    """The seed of ``numpy.random.default_rng`` for the sample at a position.

    Seed and position stay side by side, 32 bits and more, so that no two of them ever share a
    generator; numpy hashes what it is given. Seeds are taken modulo 2^32.
    """
    return position * _WORD + seed % _WORD


def epoch_permutation_index(seed: int, position: int, n: int) -> int:
    """Which of n items comes at a position: a fresh permutation for each pass over them."""
    epoch, place = divmod(position, n)
    return int(_permutation(seed % _WORD, epoch, n)[place])


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    # The last number keeps this stream apart from those of positions.
    return np.random.default_rng([seed, epoch, n, 0x0DE2]).permutation(n)


class PositionSampler(Sampler[int]):
    """The positions that one process trains on, from a step on.

    At step s, process r of w takes positions (s * w + r) * batch_size + i. Two processes with
    batch b thus see what one with batch 2b sees.

    Its length is that of the whole run even when it starts late: Lightning counts batches from the
    run's beginning when it resumes.

    Args:
        batch_size: samples a step and process.
        total_steps: length of the whole run.
        start_step: the first step that is still to be done.
        rank: this process, 0 to ``world_size`` - 1.
        world_size: how many there are.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        total_steps: int,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batch_size, self.total_steps, self.start_step = batch_size, total_steps, start_step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.total_steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        for step in range(self.start_step, self.total_steps):
            first = (step * self.world_size + self.rank) * self.batch_size
            yield from range(first, first + self.batch_size)

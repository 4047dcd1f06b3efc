"""Data order as a function of a seed and a position, so that resuming needs no state.

A position counts samples since the start of a run, over all processes. What is drawn at a position
depends on nothing else: not on workers, processes or interruptions.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

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


class PositionSampler(DistributedSampler[int]):
    """The positions that one process trains on, from a step on.

    At step s, process r of w takes positions (s * w + r) * batch_size + i. Two processes with
    batch b thus see what one with batch 2b sees.

    Its length is that of the whole run even when it starts late: Lightning counts batches from the
    run's beginning when it resumes. It is a `DistributedSampler` by name alone: a Trainer would
    otherwise shuffle the positions and share them out once more.

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


class Place(NamedTuple):
    """Where the sample of a position is.

    Attributes:
        window: counted from the start of the run.
        shard, item: the item's number among those of its shard.
    """

    window: int
    shard: int
    item: int


class WindowOrder:
    """Items that lie in shards, in an order that needs few shards at a time.

    For each pass over the items the shards are shuffled and divided into windows, and the items of
    a window are shuffled together. Windows follow one another through all passes without end. With
    one window for all shards the order is that of `epoch_permutation_index`, as if there were none.

    Args:
        counts: items of each shard.
        window: shards of a window, at most; 0 for all of them.
        seed: of the order; taken modulo 2^32.
    """

    def __init__(self, counts: Sequence[int], window: int, seed: int) -> None:
        self.counts = np.asarray(counts, dtype=np.int64)
        self.total = int(self.counts.sum())
        self.windows = 1 if window == 0 else -(-len(counts) // window)
        self.seed = seed
        self._ends = np.cumsum(self.counts)
        # Positions come in rising order, so one of each is enough.
        self._epoch: tuple[int, list[NDArray[np.int64]], NDArray[np.int64]] | None = None
        self._shuffled: tuple[int, NDArray[np.int64]] | None = None

    def place(self, position: int) -> Place:
        """Where the sample of a position is."""
        epoch, place = divmod(position, self.total)
        if self.windows == 1:
            index = epoch_permutation_index(self.seed, position, self.total)
            shard = int(np.searchsorted(self._ends, index, side="right"))
            return Place(epoch, shard, index - int(self._ends[shard] - self.counts[shard]))
        groups, ends = self._groups(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        shards = groups[number]
        counts = self.counts[shards]
        size = int(counts.sum())
        index = int(self._shuffle(epoch, number, size)[place - int(ends[number]) + size])
        inner = np.cumsum(counts)
        which = int(np.searchsorted(inner, index, side="right"))
        item = index - int(inner[which] - counts[which])
        return Place(epoch * self.windows + number, int(shards[which]), item)

    def shards_of(self, window: int) -> list[int]:
        """The shards of a window."""
        if self.windows == 1:
            return list(range(len(self.counts)))
        epoch, number = divmod(window, self.windows)
        return [int(shard) for shard in self._groups(epoch)[0][number]]

    def _groups(self, epoch: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
        """The windows of a pass, and where each ends in it."""
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed % _WORD, epoch, len(self.counts), 0x5A4D])
            # Windows of nearly one size: a last one of a shard or two would shuffle badly.
            groups = np.array_split(rng.permutation(len(self.counts)), self.windows)
            ends = np.cumsum([self.counts[group].sum() for group in groups])
            self._epoch = epoch, groups, ends
        return self._epoch[1:]

    def _shuffle(self, epoch: int, number: int, size: int) -> NDArray[np.int64]:
        window = epoch * self.windows + number
        if self._shuffled is None or self._shuffled[0] != window:
            rng = np.random.default_rng([self.seed % _WORD, epoch, number, size, 0x317E])
            self._shuffled = window, rng.permutation(size)
        return self._shuffled[1]

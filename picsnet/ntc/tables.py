"""Coding tables of a hyperprior: integer frequencies, made once when a model is exported.

Floats are used here and only here. The tables travel with the weights; a reader never makes them
again, so it does not matter that another machine's floats might round otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from picsnet.entropy import FrequencyTables, Table, quantise_pmf
from picsnet.ntc.base import FileNTC, Limits
from picsnet.ntc.hyperprior import (
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEP,
    Z_LIMIT,
)

if TYPE_CHECKING:
    from compressai.entropy_models import EntropyBottleneck

TAIL = 2.0**-26
"""Mass beyond a table's ends, folded into its last symbols; a sender clips what lies further."""


class CodingTables(NamedTuple):
    """Tables of one model.

    Attributes:
        z: one for each channel of the hyper-latents.
        y: one for each scale index of the latents.
        orientation: a single one; of one symbol where the sender has no choice.
    """

    z: FrequencyTables
    y: FrequencyTables
    orientation: FrequencyTables

    def limits(self) -> Limits:
        """What the tables can hold."""
        lows = torch.from_numpy(self.z.offsets.astype(np.int64))
        lengths = torch.from_numpy(self.z.lengths.astype(np.int64))
        # Tables of latents are symmetric about zero.
        reach = torch.from_numpy(-self.y.offsets.astype(np.int64))
        return Limits(lows, lows + lengths - 1, reach)


def build_tables(network: FileNTC) -> CodingTables:
    """Integer tables of a trained network."""
    return CodingTables(
        _hyper_tables(network.entropy_bottleneck),
        gaussian_tables(),
        orientation_table(network.ORIENTATIONS),
    )


def orientation_table(count: int) -> FrequencyTables:
    """A table of orientations: half of all maps are sent as they are, at no effort."""
    others = np.full(count - 1, 0.5 / max(1, count - 1))
    return FrequencyTables.from_tables([Table(0, quantise_pmf(np.array([0.5, *others])))])


def gaussian_tables() -> FrequencyTables:
    """Tables of rounded zero-mean Gaussians, one for each scale index."""
    from scipy.special import ndtr

    tables = []
    for index in range(SCALE_LEVELS):
        scale = SCALE_MIN * float(np.exp(index * SCALE_STEP))
        reach = max(1, int(np.ceil(scale * 5.6)))  # 5.6 sigma leaves less than TAIL beyond
        edges = (np.arange(-reach, reach + 2) - 0.5) / scale
        cdf = ndtr(edges)
        cdf[0], cdf[-1] = 0.0, 1.0
        tables.append(Table(-reach, quantise_pmf(np.diff(cdf))))
    return FrequencyTables.from_tables(tables)


def _hyper_tables(bottleneck: EntropyBottleneck) -> FrequencyTables:
    grid = torch.arange(-Z_LIMIT, Z_LIMIT + 1, dtype=torch.float32)
    channels = bottleneck.channels
    with torch.no_grad():
        values = grid.repeat(channels, 1, 1)
        likelihood, _, _ = bottleneck._likelihood(values)
    pmf: NDArray[np.float64] = likelihood[:, 0].double().numpy()
    tables = []
    for row in pmf:
        row = np.maximum(row, 0)
        row = row / row.sum()
        cumulative = np.cumsum(row)
        low = int(np.searchsorted(cumulative, TAIL))
        high = int(np.searchsorted(cumulative, 1 - TAIL))
        high = max(high, low)
        # Zero is what an empty map sends; every table holds it and a neighbour on each side.
        low, high = min(low, Z_LIMIT - 1), max(high, Z_LIMIT + 1)
        cut = row[low : high + 1].copy()
        cut[0] += row[:low].sum()
        cut[-1] += row[high + 1 :].sum()
        tables.append(Table(low - Z_LIMIT, quantise_pmf(cut)))
    return FrequencyTables.from_tables(tables)

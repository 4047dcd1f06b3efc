"""What is measured: rate of files, likeness of maps, and rate saved between codecs.

The heavy libraries are imported by the functions that need them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MS_SSIM_SHORTEST_SIDE = 161
"""Pixels that the short side of a map needs: an 11-tap window on the coarsest of 5 scales."""


@dataclass(frozen=True)
class BDRate:
    """Average difference in rate at equal quality.

    Attributes:
        percent: negative where less rate is needed than by the anchor; None if it has no value.
        overlap: share of the compared curve's quality range in which the two are compared, 0..1.
        reason: why there is no value; empty if there is one.
    """

    percent: float | None
    overlap: float
    reason: str = ""


def bpp(file_bytes: int, width: int, height: int) -> float:
    """Rate in bits per pixel: all bytes of the file over the original picture's pixels."""
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width}x{height} has no rate")
    return 8 * file_bytes / (width * height)


def map_ms_ssim(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """MS-SSIM (Wang et al. 2003) of two maps on their 8-bit values, 5 scales, by pytorch_msssim.

    Args:
        a, b: (H, W) uint8, of one size; sides of 161 pixels or more.

    Returns:
        0..1; 1 for identical maps.

    Raises:
        ValueError: the maps differ in size or kind, or are too small for 5 scales.
    """
    import torch
    from pytorch_msssim import ms_ssim

    for values in (a, b):
        if values.ndim != 2 or values.dtype != np.uint8:
            raise ValueError(f"a map is (H, W) uint8, not {values.shape} {values.dtype}")
    if a.shape != b.shape:
        raise ValueError(f"maps of {a.shape} and {b.shape} cannot be compared")
    if min(a.shape) < MS_SSIM_SHORTEST_SIDE:
        raise ValueError(
            f"a map of {a.shape[1]}x{a.shape[0]} is too small for MS-SSIM: its 5 scales need "
            f"sides of {MS_SSIM_SHORTEST_SIDE} pixels or more"
        )
    x, y = (torch.from_numpy(values.astype(np.float32))[None, None] for values in (a, b))
    with torch.inference_mode():
        return float(ms_ssim(x, y, data_range=255))


COLOUR_GRID = 16


def colour_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean CIELAB distance (CIE 1976) of the mean colours of a 16x16 grid.

    Args:
        a, b: (H, W, 3) uint8, sRGB; sizes may differ.

    Returns:
        0 for equal grids; 2.3 is just noticeable, black and white are 100 apart.
    """
    from PIL import Image
    from skimage.color import rgb2lab

    side = (COLOUR_GRID, COLOUR_GRID)
    grids = [
        rgb2lab(np.asarray(Image.fromarray(picture).resize(side, Image.Resampling.BOX)))
        for picture in (a, b)
    ]
    return float(np.linalg.norm(grids[0] - grids[1], axis=-1).mean())


def ms_ssim_db(value: float) -> float:
    """MS-SSIM in decibels, -10 log10(1 - value); infinite for 1."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def pareto_front(rates: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Indexes of the points that no other matches at lower or equal rate, by rising rate.

    Along them quality rises strictly: the best that a codec reaches over all its settings.
    """
    order = sorted(range(len(rates)), key=lambda i: (rates[i], -quality[i]))
    front: list[int] = []
    for i in order:
        if not front or quality[i] > quality[front[-1]]:
            front.append(i)
    return front


def upper_hull(rates: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Indexes of the Pareto points on the concave hull of quality over rate, by rising rate.

    These are the points that are best for some price of a bit. Where two families of settings
    cross, the front alone has dents: points that hardly differ in quality but much in rate.

    Args:
        rates: any unit, but not logarithms: those bend even sound curves the other way.
        quality: higher is better; a measure to be averaged (MS-SSIM itself, not its decibels).
    """
    hull: list[int] = []
    for i in pareto_front(rates, quality):
        while len(hull) >= 2 and not _turns_down(rates, quality, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return hull


def _turns_down(rates: Sequence[float], quality: Sequence[float], a: int, b: int, c: int) -> bool:
    """Whether the slope from a to b is steeper than from b to c."""
    rise_ab, rise_bc = quality[b] - quality[a], quality[c] - quality[b]
    return rise_ab * (rates[c] - rates[b]) > rise_bc * (rates[b] - rates[a])


def bd_rate(
    anchor_rates: Sequence[float],
    anchor_quality: Sequence[float],
    rates: Sequence[float],
    quality: Sequence[float],
) -> BDRate:
    """Bjontegaard-delta rate against an anchor, by the library ``bjontegaard``.

    Of both codecs the Pareto front alone is compared, since the method needs quality to rise with
    rate. The logarithm of rate over quality is interpolated piecewise (PCHIP, which adds no bumps
    of its own) and averaged over the range of quality that both curves reach.

    Args:
        anchor_rates, rates: positive, any unit, any order.
        anchor_quality, quality: finite; higher is better.

    Raises:
        ValueError: lengths differ, a rate is not positive or a quality not finite.
    """
    curves = [_front(anchor_rates, anchor_quality), _front(rates, quality)]
    if any(len(curve[0]) < 2 for curve in curves):
        return BDRate(None, 0.0, "a curve has fewer than two points at which quality rises")
    (_, anchor_q), (_, own_q) = curves
    low, high = max(anchor_q[0], own_q[0]), min(anchor_q[-1], own_q[-1])
    if low >= high:
        side = "above" if own_q[0] >= anchor_q[-1] else "below"
        return BDRate(None, 0.0, f"no common quality: all of this curve lies {side} the anchor's")

    import bjontegaard  # a development dependency: only benchmarks compare codecs

    percent = bjontegaard.bd_rate(
        *curves[0], *curves[1], method="pchip", require_matching_points=False, min_overlap=0
    )
    return BDRate(float(percent), (high - low) / (own_q[-1] - own_q[0]))


def _front(rates: Sequence[float], quality: Sequence[float]) -> tuple[list[float], list[float]]:
    if len(rates) != len(quality):
        raise ValueError(f"{len(rates)} rates but {len(quality)} qualities")
    if not all(0 < rate < math.inf for rate in rates) or not all(map(math.isfinite, quality)):
        raise ValueError("rates must be positive and qualities finite")
    front = pareto_front(rates, quality)
    return [float(rates[i]) for i in front], [float(quality[i]) for i in front]

"""Large pictures in strips, so that a network's memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def in_strips(
    rgb: Pixels, run: Callable[[Pixels], Pixels], *, limit: int, margin: int, multiple: int
) -> Pixels:
    """The map of a picture, made strip by strip where it has more pixels than a limit.

    Args:
        rgb: (H, W, 3).
        run: (h, w, 3) to (h, w), for sides that are multiples of ``multiple``.
        limit: pixels of a strip, its margins not counted.
        margin: rows seen above and below a strip, and its least height; a multiple of ``multiple``
            and at least as far as the network sees, so that strips leave no trace.
        multiple: sides are padded to it, repeating the last pixels; strips begin on it.

    Returns:
        (H, W).
    """
    height, width = rgb.shape[:2]
    rows = max(margin, limit // width // multiple * multiple)
    strips = []
    for top in range(0, height, rows):
        bottom, start = min(height, top + rows), max(0, top - margin)
        part = rgb[start : bottom + margin]
        padding = ((0, -part.shape[0] % multiple), (0, -width % multiple), (0, 0))
        strips.append(run(np.pad(part, padding, mode="edge"))[top - start : bottom - start, :width])
    return np.concatenate(strips)

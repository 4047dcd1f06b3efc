"""Maps that are black but for a stroke or two, drawn for training.

Photographs have few such maps, and a network that has never seen one answers a lone stroke with
latents all around it. People's first map may be just that: a line in emptiness.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

MOST = 3
"""Strokes of one map; each further one is half as likely."""

_SUBPIXELS = 4  # bits of a coordinate's fraction, as cv2 takes them


def lone_strokes(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A (side, side) map with 1 to `MOST` strokes on black, as a detector or a pen draws them.

    A stroke is a Bezier curve of second order: it begins anywhere, is 8 pixels to a side long and
    straight in half of the cases; 1 to 6 pixels wide, 60 to 255 bright, blurred by up to 2 pixels
    in half of them.
    """
    drawn = np.zeros((side, side), np.uint8)
    strokes = 1
    while strokes < MOST and rng.random() < 0.5:
        strokes += 1
    for _ in range(strokes):
        stroke = np.zeros_like(drawn)
        points = np.rint(_curve(side, rng) * 2**_SUBPIXELS).astype(np.int32)
        level, width = int(rng.integers(60, 256)), int(rng.integers(1, 7))
        cv2.polylines(stroke, [points[:, None]], False, (level,), width, cv2.LINE_AA, _SUBPIXELS)
        if rng.random() < 0.5:
            stroke = cv2.GaussianBlur(stroke, (0, 0), rng.uniform(0.5, 2)).astype(np.uint8)
        drawn = np.maximum(drawn, stroke)
    return drawn


def _curve(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (n, 2) along a curve, pixels; it may leave the map but does not begin outside."""
    start = rng.uniform(0, side, 2)
    length = 8 * (side / 8) ** rng.random()  # as many short ones as long ones
    angle = rng.uniform(0, 2 * np.pi)
    end = start + length * np.array([np.cos(angle), np.sin(angle)])
    middle = (start + end) / 2
    if rng.random() < 0.5:
        middle = middle + rng.normal(0, length / 3, 2)
    t = np.linspace(0, 1, max(8, int(length) // 4))[:, None]
    curve: NDArray[np.float64] = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
    return curve

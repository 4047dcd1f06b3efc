"""The size at which a picture is drawn. In whole numbers: sender and receiver must agree."""

from __future__ import annotations

MULTIPLE = 8
LEAST_SIDE = 64
MAX_ASPECT = 4


def working_size(width: int, height: int, size: int) -> tuple[int, int]:
    """(width, height) of the decoder's picture for an original's.

    The shorter side becomes ``size`` and the longer keeps the aspect, to the nearest multiple of 8;
    beyond an aspect of 4 the longer side stays at 4 x size and the shorter shrinks, to no less than
    64.

    Args:
        width, height: of the original, pixels.
        size: shorter side, a multiple of 8.
    """
    short, long = sorted((width, height))
    other = _nearest(size * long, short)
    if other > MAX_ASPECT * size:
        other = MAX_ASPECT * size
        size = max(LEAST_SIDE, _nearest(other * short, long))
    return (size, other) if width <= height else (other, size)


def _nearest(numerator: int, denominator: int) -> int:
    """The fraction's nearest multiple of 8, halves up."""
    return (2 * numerator + MULTIPLE * denominator) // (2 * MULTIPLE * denominator) * MULTIPLE

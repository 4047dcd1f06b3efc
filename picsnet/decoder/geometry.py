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


def pass_sizes(
    width: int, height: int, *, first: int, size: int, last: int
) -> list[tuple[int, int]]:
    """(width, height) of each pass in which a picture is drawn, ever larger.

    The shorter sides are ``first``, twice that and so on up to ``size``, the working size; then on
    to ``last``, as long as that is not larger than the original.

    Args:
        width, height: of the original, pixels.
        first: shorter side of the first pass, ``size`` halved some times; 0 begins at ``size``.
        size: that of the working size.
        last: the largest shorter side, ``size`` doubled some times; 0 ends at ``size``.
    """
    sides = [first or size]
    while sides[-1] < size or 2 * sides[-1] <= min(last, width, height):
        sides.append(2 * sides[-1])
    return [working_size(width, height, side) for side in sides]


def _nearest(numerator: int, denominator: int) -> int:
    """The fraction's nearest multiple of 8, halves up."""
    return (2 * numerator + MULTIPLE * denominator) // (2 * MULTIPLE * denominator) * MULTIPLE

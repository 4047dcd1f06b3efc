"""The eight ways to lay a picture.

A network does not code a picture and its mirror image alike: what is rounded up in one is rounded
down in the other. A sender may try all eight and send the one that comes out best.

An orientation is a number of three bits: 1 mirrors left and right, 2 top and bottom, 4 exchanges
rows and columns, before the two.
"""

from __future__ import annotations

from torch import Tensor

ORIENTATIONS = 8
AS_IT_IS = 0

_LEFT_RIGHT, _TOP_BOTTOM, _TRANSPOSED = 1, 2, 4


def turned(x: Tensor, orientation: int) -> Tensor:
    """A picture (..., H, W) as it is sent."""
    if orientation & _TRANSPOSED:
        x = x.transpose(-2, -1)
    return _mirrored(x, orientation)


def turned_back(x: Tensor, orientation: int) -> Tensor:
    """The inverse of `turned`."""
    x = _mirrored(x, orientation)
    return x.transpose(-2, -1) if orientation & _TRANSPOSED else x


def turned_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(rows, columns) of a picture as it is sent, or of what is sent of it."""
    rows, columns = size
    return (columns, rows) if orientation & _TRANSPOSED else (rows, columns)


def _mirrored(x: Tensor, orientation: int) -> Tensor:
    marked = ((_LEFT_RIGHT, -1), (_TOP_BOTTOM, -2))
    sides = [side for bit, side in marked if orientation & bit]
    return x.flip(sides) if sides else x  # a flip of no side is a copy

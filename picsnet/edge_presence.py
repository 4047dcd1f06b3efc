"""How far the edges of two soft edge maps disagree, in a form that can be trained on.

The measure is `picsnet.evaluation.edges.edge_agreement`: ridges above one half, matched within two
pixels. Here what is above is a slope, not a step, and matching is not one to one, so that there is
a gradient: where an edge vanishes, appears or moves, and nowhere else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLD = 0.5
SLOPE = 0.1
"""Of presence in a pixel's value: the logistic function's width."""
DISTANCE = 2
"""Pixels, in both directions, that two edges of one place may lie apart."""


def edge_disagreement(x_hat: Tensor, x: Tensor) -> Tensor:
    """Share of the edges of two maps that the other one lacks, a soft 1 - F.

    Args:
        x_hat: (B, 1, H, W), decoded maps, 0..1.
        x: like it, the originals.

    Returns:
        (B,), 0 (each edge has its counterpart, or there are none) .. 1.
    """
    found, truth = _edges(x_hat), _edges(x)
    met = torch.minimum(found, _near(truth)) + torch.minimum(truth, _near(found))
    # One pixel more on both sides: maps without edges agree.
    return 1 - (met.flatten(1).sum(1) + 1) / ((found + truth).flatten(1).sum(1) + 1)


def _edges(x: Tensor) -> Tensor:
    """Presence of an edge at each pixel that is a ridge: no smaller than its two neighbours in at
    least one of four directions, and larger than one of them."""
    presence = torch.sigmoid((x - THRESHOLD) / SLOPE)
    with torch.no_grad():
        around = F.pad(x, (1, 1, 1, 1), mode="replicate")
        height, width = x.shape[-2:]

        def shifted(down: int, right: int) -> Tensor:
            return around[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]

        ridge = torch.zeros_like(x, dtype=torch.bool)
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            before, after = shifted(-down, -right), shifted(down, right)
            ridge |= (x >= before) & (x >= after) & ((x > before) | (x > after))
    return presence * ridge


def _near(edges: Tensor) -> Tensor:
    """The strongest within the distance; along one side, then the other, which is cheaper."""
    for sides in ((1, 0), (0, 1)):
        reach = (sides[0] * DISTANCE, sides[1] * DISTANCE)
        edges = F.max_pool2d(edges, (2 * reach[0] + 1, 2 * reach[1] + 1), 1, reach)
    return edges

"""Whether the edges of two soft edge maps are in the same places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from picsnet.edge_benchmark import match_counts, nms

THRESHOLD = 0.5
"""An edge is where a thinned map is above."""
DISTANCE = 2.0
"""Pixels that two edges of one place may lie apart."""


def thinned(sketch: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Edge pixels of a soft edge map, (H, W) uint8: its ridges above the threshold."""
    edges: NDArray[np.bool_] = nms(sketch) > THRESHOLD
    return edges


def edge_agreement(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """F-measure of edge pixels matched one to one within 2 pixels; 1 if both have none."""
    right, met = match_counts(found, truth, DISTANCE)
    total = int(found.sum()) + int(truth.sum())
    return (int(right.sum()) + int(met.sum())) / total if total else 1.0

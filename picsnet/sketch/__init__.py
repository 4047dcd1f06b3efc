"""Sketchers: photographs to soft edge maps.

One interface, two extractors: ``bundled``, which ships, and ``hed``, the detector that the public
ControlNets were trained with. Only a sender needs one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from picsnet.errors import UsageError
from picsnet.sketch.extract import ExtractionReport, extract_folder

__all__ = ["ExtractionReport", "Sketcher", "extract_folder", "load_sketcher"]


class Sketcher(Protocol):
    """A soft edge detector.

    Attributes:
        name: identifies extractor and weights; part of the cache's key.
    """

    name: str

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB -> (H, W) uint8, 255 a sure edge."""
        ...


def load_sketcher(spec: str, device: str = "cpu") -> Sketcher:
    """A sketcher by its specification.

    Args:
        spec: "bundled", "hed" (hub id lllyasviel/Annotators), "hed:FOLDER" or "hed:HUB_ID".
        device: where to run it.

    Raises:
        UsageError: no such sketcher.
        SketcherError: its weights cannot be had.
    """
    kind, _, place = spec.partition(":")
    if kind == "bundled" and not place:
        from picsnet.sketch.bundled import BundledSketcher

        return BundledSketcher(device)
    if kind == "hed":
        from picsnet.sketch.hed import HED_REPOSITORY, HedSketcher

        return HedSketcher(place or HED_REPOSITORY, device)
    raise UsageError(f"no sketcher {spec!r}; use bundled, hed, hed:FOLDER or hed:HUB_ID")

"""Edge extractors behind one interface, and maps of whole folders."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from picsnet.errors import UsageError
from picsnet.sketch.extract import ExtractionReport, extract_folder

__all__ = ["ExtractionReport", "Sketcher", "extract_folder", "load_sketcher"]


class Sketcher(Protocol):
    """Photograph in, soft edge map out.

    Attributes:
        name: the kind and a fingerprint of its weights; usable as a folder's name.
    """

    name: str

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Edge strength of each pixel.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (H, W) uint8; 255 is a sure edge.
        """
        ...


def load_sketcher(spec: str, device: str = "cpu") -> Sketcher:
    """The sketcher that a specification names.

    Args:
        spec: ``bundled`` (ships with picsnet), ``hed`` (controlnet_aux's detector from the hub),
            or ``hed:FOLDER`` or ``hed:HUB_ID`` (the same from elsewhere).
        device: where it runs, as torch names it.

    Raises:
        UsageError: there is no such sketcher.
        SketcherError: its weights cannot be had.
    """
    if not isinstance(spec, str):
        raise UsageError(f"a sketcher is named by a text, not {type(spec).__name__}")
    kind, separator, source = spec.partition(":")
    # The imports bring torch, and for HED much more: only what is asked for.
    if spec == "bundled":
        from picsnet.sketch.bundled import BundledSketcher

        return BundledSketcher(device)
    if kind == "hed" and bool(separator) == bool(source):
        from picsnet.sketch.hed import DEFAULT_SOURCE, HedSketcher

        return HedSketcher(source or DEFAULT_SOURCE, device)
    raise UsageError(f"no sketcher is called {spec!r}; use bundled, hed, hed:FOLDER or hed:HUB_ID")

"""What an evaluated codec is: something that writes the bytes of a file, and reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Map = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A coded photograph.

    Attributes:
        data: the whole file. Its size on disk is the rate.
        layers: bytes by what they are for; they sum to the file's. Empty where a codec tells none.
        prompt: text in the file, for people; None where there is none.
        seed: of the drawing that the file names; None where there is none.
        sketch: (h, w) uint8, what went into the sketch code, to judge the decoded one by; or None.
    """

    data: bytes
    layers: dict[str, int] = field(default_factory=dict)
    prompt: str | None = None
    seed: int | None = None
    sketch: Map | None = None


@dataclass(frozen=True)
class Decoded:
    """What a file stands for.

    Attributes:
        picture: (H, W, 3) uint8 of the original's size; None where the codec codes sketches only.
        sketch: (h, w) uint8; None where the file holds none.
    """

    picture: Pixels | None
    sketch: Map | None = None


class Point(Protocol):
    """A codec at one setting. Models are loaded when they are first needed."""

    @property
    def codec(self) -> str:
        """The series it belongs to: a line in a chart, e.g. ``PICS (picsnet-mini)``."""
        ...

    @property
    def setting(self) -> str:
        """Names the point within its series, e.g. ``lambda 0.5``, ``q5 /4``."""
        ...

    @property
    def lmbda(self) -> float | None:
        """The rate-distortion weight, for codecs that have one."""
        ...

    @property
    def suffix(self) -> str:
        """Of its files, with the dot."""
        ...

    def encode(self, picture: Pixels) -> Encoded:
        """The file of a photograph, (H, W, 3) uint8 sRGB.

        Raises:
            PicsnetError: it cannot be coded; the message says why.
        """
        ...

    def decode(self, data: bytes) -> Decoded:
        """The photograph of a file. Nothing but the bytes and the point's own models are used.

        Raises:
            PicsnetError: the bytes cannot be decoded.
        """
        ...

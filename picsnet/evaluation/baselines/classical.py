"""AVIF, JPEG, JPEG 2000, JPEG XL and WebP on photographs, downscaled or not."""

from __future__ import annotations

from dataclasses import dataclass

from picsnet.classical import ClassicalPoint
from picsnet.evaluation.points import Decoded, Encoded, Pixels


@dataclass
class ClassicalPicturePoint:
    """A classical codec at one quality and downscale.

    Attributes:
        codec: the series that the point belongs to.
        point: codes and decodes.
    """

    codec: str
    point: ClassicalPoint
    lmbda: float | None = None

    @property
    def setting(self) -> str:
        """E.g. ``q5 /4``; for JPEG 2000 the rate that it aims at, bits per pixel."""
        scale = f" /{self.point.downscale}" if self.point.downscale > 1 else ""
        return f"q{self.point.quality:g}{scale}"

    @property
    def suffix(self) -> str:
        """Of its files: the format's, which a downscaled one precedes with its size."""
        return f".{self.point.codec.lower()}"

    def encode(self, picture: Pixels) -> Encoded:
        """The file of a photograph."""
        return Encoded(self.point.encode_picture(picture))

    def decode(self, data: bytes) -> Decoded:
        """The photograph of a file."""
        return Decoded(self.point.decode_picture(data))

"""Classical picture codecs for maps and photographs, through Pillow, at ultra-low rates.

    picture -> antialiased downscale -> codec -> bytes -> codec -> Lanczos upscale -> picture

Maps are coded as one grey channel where the format has one (WebP has none; its empty chroma costs
next to nothing), photographs with chroma at half the resolution where the format allows, both
without metadata, and with the encoder settings that gave the most MS-SSIM
for the bytes. Rates are of whole files, containers included. The containers matter here: an AVIF
file has about 270 bytes around its coded picture, so `container_bytes` tells them apart.

A downscaled file begins with 4 bytes, the original width and height (big-endian 16-bit), since no
codec here stores the size to show a picture at. They count as rate.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from picsnet.errors import DataError, UsageError

Map = NDArray[np.uint8]
Pixels = NDArray[np.uint8]

CODECS = ("AVIF", "JPEG", "JPEG2000", "JXL", "WEBP")
"""Codecs by Pillow's names."""

FEATURES = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""As Pillow tells their versions; it leaves JPEG XL to a plugin."""

DOWNSCALES = (1, 2, 4, 6, 8, 12, 16, 24, 32)

_SIZE = struct.Struct(">HH")

# Qualities by downscale. Each codec's best points on maps of 768x512 run from its lowest rate
# to an MS-SSIM of 0.97. JPEG 2000 is told a rate instead, bits per original pixel.
_J2K_RATES = (0.003, 0.004, 0.006, 0.009, 0.0125, 0.018, 0.027, 0.04, 0.06, 0.09, 0.13, 0.2)
_GRID: Mapping[str, Mapping[int, Sequence[float]]] = {
    "AVIF": {1: (0, 5), 2: (0, 2, 5, 15), 4: (0, 2, 5, 10, 20), 8: (0, 2, 5, 10, 20, 40)},
    "JPEG": {1: (1, 4, 8), 2: (1, 4, 8, 15), 4: (1, 4, 8, 15), 8: (1, 4, 8, 15, 30)},
    "JPEG2000": {1: _J2K_RATES[2:], 2: _J2K_RATES, 4: _J2K_RATES[:9], 8: _J2K_RATES[:5]},
    "JXL": {1: (0,), 2: (0, 15, 30), 4: (0, 10, 20, 30, 50), 8: (0, 10, 20, 30, 50, 70)},
    "WEBP": {1: (0, 2), 2: (0, 1, 2, 5), 4: (0, 1, 2, 5, 10), 8: (0, 1, 2, 5, 10, 25)},
}

# Quality and downscale near each codec's upper hull of MS-SSIM on photographs of 768x512, from its
# lowest rates to 0.05 bits per pixel.
_PICTURE_GRID: Mapping[str, Sequence[tuple[float, int]]] = {
    "AVIF": ((2, 16), (0, 8), (5, 8), (10, 8), (5, 4), (10, 4), (20, 4), (35, 4)),
    "JPEG": ((10, 32), (10, 16), (10, 8), (20, 8), (10, 4), (20, 4)),
    "JPEG2000": ((0.009, 16), (0.015, 8), (0.024, 8), (0.039, 8), (0.06, 4)),
    "JXL": ((0, 32), (50, 32), (30, 16), (50, 16), (30, 8), (50, 8), (30, 4)),
    "WEBP": ((2, 32), (2, 16), (10, 16), (5, 8), (20, 8), (5, 4), (20, 4)),
}


@dataclass(frozen=True)
class ClassicalPoint:
    """One codec at one setting.

    Attributes:
        codec: one of CODECS.
        quality: 0..100 as Pillow takes it, whole; for JPEG2000 the rate to aim at, in bits per
            original pixel, above 0.
        downscale: both sides are coded at 1 / downscale.
    """

    codec: str
    quality: float
    downscale: int = 1

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise ValueError(f"unknown codec {self.codec!r}")
        if self.codec == "JPEG2000" and not 0 < self.quality < math.inf:
            raise ValueError(
                f"quality {self.quality:g} of JPEG2000 is no rate above 0, in bits per pixel"
            )
        if self.codec != "JPEG2000" and not (0 <= self.quality <= 100 and self.quality % 1 == 0):
            raise ValueError(f"quality {self.quality:g} is not a whole number from 0 to 100")
        if self.downscale not in DOWNSCALES:
            raise ValueError(f"downscale {self.downscale} is not one of {DOWNSCALES}")

    @property
    def name(self) -> str:
        """E.g. ``AVIF q5 /4``."""
        scale = f" /{self.downscale}" if self.downscale > 1 else ""
        return f"{self.codec} q{self.quality:g}{scale}"

    def encode(self, sketch: Map) -> bytes:
        """The bytes that stand for a map.

        Args:
            sketch: (H, W) uint8, sides up to 65535.

        Raises:
            UsageError: Pillow lacks the codec.
        """
        return self._encode(Image.fromarray(sketch))

    def decode(self, data: bytes) -> Map:
        """The map that the bytes stand for, (H, W) uint8 of the original's size.

        Nothing but the bytes and the format (which codec, downscaled or not) is used.

        Raises:
            DataError: the bytes are not such a file.
        """
        return self._decode(data, "L")

    def encode_picture(self, rgb: Pixels) -> bytes:
        """The bytes that stand for a photograph, (H, W, 3) uint8; else as `encode`."""
        return self._encode(Image.fromarray(rgb))

    def decode_picture(self, data: bytes) -> Pixels:
        """The photograph that the bytes stand for, (H, W, 3) uint8; else as `decode`."""
        return self._decode(data, "RGB")

    def _encode(self, picture: Image.Image) -> bytes:
        _register()
        if self.codec not in Image.SAVE:
            raise UsageError(f"{self.codec}: {why_missing(self.codec)}")
        width, height = picture.size
        head = b""
        if self.downscale > 1:
            head = _SIZE.pack(width, height)
            small = (-(-width // self.downscale), -(-height // self.downscale))
            picture = picture.resize(small, Image.Resampling.LANCZOS)
        return head + _ENCODERS[self.codec](picture, self)

    def _decode(self, data: bytes, mode: str) -> Pixels:
        _register()
        try:
            size, coded = None, data
            if self.downscale > 1:
                size, coded = _SIZE.unpack_from(data), data[_SIZE.size :]
            picture = Image.open(BytesIO(coded), formats=[self.codec]).convert(mode)
            if size is not None:
                picture = picture.resize(size, Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, RuntimeError, struct.error) as error:
            raise DataError(
                f"{self.name}: the bytes cannot be decoded ({error}); encode the picture again"
            ) from None
        return np.asarray(picture)

    def container_bytes(self, data: bytes) -> int:
        """Bytes of a file that are wrapping only: boxes of AVIF, RIFF of WebP, JFIF of JPEG.

        What is left would do in a format that stores the coded picture bare, as JPEG XL and
        JPEG 2000 files here do already. The size of a downscaled map is not wrapping.
        """
        start = _SIZE.size if self.downscale > 1 else 0
        if self.codec == "WEBP":
            return 20  # "RIFF", length, "WEBP", "VP8 ", length
        if self.codec == "AVIF":
            # The coded picture is all that follows the length and name of the last box, mdat.
            return data.index(b"mdat") + 4 - start
        if self.codec == "JPEG" and data[start + 2 : start + 4] == b"\xff\xe0":
            return 2 + int.from_bytes(data[start + 4 : start + 6], "big")  # the segment APP0
        return 0


def grid(codecs: Sequence[str] = CODECS) -> list[ClassicalPoint]:
    """Points that cover ultra-low rates on maps of about 768x512, codec by codec."""
    return [
        ClassicalPoint(codec, quality, downscale)
        for codec in codecs
        for downscale, qualities in _GRID[codec].items()
        for quality in qualities
    ]


def picture_grid(codec: str) -> list[ClassicalPoint]:
    """Points of a codec that cover ultra-low rates on photographs of about 768x512."""
    return [ClassicalPoint(codec, quality, scale) for quality, scale in _PICTURE_GRID[codec]]


def available_codecs() -> list[str]:
    """Those of CODECS that this Pillow can write and read."""
    return [codec for codec in CODECS if why_missing(codec) is None]


def why_missing(codec: str) -> str | None:
    """Why a codec cannot be used, with the way to mend it; None if it can.

    A small map is coded and decoded, since a Pillow may know a format but not its encoder.
    """
    _register()
    if codec not in Image.SAVE:
        package = "pillow-jxl-plugin" if codec == "JXL" else "a Pillow built with it"
        return f"this Pillow cannot write it; install {package}"
    probe = ClassicalPoint(codec, _GRID[codec][1][0])
    try:
        probe.decode(probe.encode(np.zeros((32, 32), dtype=np.uint8)))
    except (OSError, ValueError, RuntimeError, DataError) as error:
        return f"this Pillow fails to code with it ({error}); install another build"
    return None


def made_with(codec: str) -> str:
    """The versions that a codec's files depend on, e.g. ``pillow 12.0.0, avif 1.3.0``.

    Args:
        codec: one of CODECS.
    """
    if codec == "JXL":
        of_codec = _version("pillow-jxl-plugin")
    else:
        name = FEATURES[codec]
        of_codec = f"{name} {features.version(name) or 'missing'}"
    return f"{_version('pillow')}, {of_codec}"


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} missing"


def _register() -> None:
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401  its import adds the format to Pillow


def _save(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _avif(picture: Image.Image, point: ClassicalPoint) -> bytes:
    # Tuned for SSIM, libaom reaches lower rates than with its default tuning for people's eyes.
    return _save(
        picture,
        "AVIF",
        quality=int(point.quality),
        subsampling="4:0:0" if picture.mode == "L" else "4:2:0",
        speed=0,
        codec="aom",
        max_threads=1,
        advanced={"tune": "ssim"},
    )


def _jpeg(picture: Image.Image, point: ClassicalPoint) -> bytes:
    quality = int(point.quality)
    files = (
        _save(picture, "JPEG", quality=quality, optimize=True, progressive=progressive)
        for progressive in (False, True)
    )
    return min(files, key=len)


def _jpeg2000(picture: Image.Image, point: ClassicalPoint) -> bytes:
    """The best by squared error of several depths of wavelet decomposition.

    At these rates the depth matters much, and the best one varies with map and rate. The bare
    codestream is smaller than .jp2, and its comment (OpenJPEG's own name) is cut out.
    """
    target = np.asarray(picture).astype(np.float32)
    bits = 8 * len(picture.getbands())
    ratio = bits / (point.quality * point.downscale**2)
    most = min(picture.size).bit_length()  # each halves the picture, and none may have no pixel
    best, best_error = b"", np.inf
    for depth in (4, 5, 6):
        data = _save(
            picture,
            "JPEG2000",
            quality_mode="rates",
            quality_layers=[ratio],
            num_resolutions=min(max(1, depth - point.downscale.bit_length() + 1), most),
            irreversible=True,
            no_jp2=True,
        )
        data = _without_comment(data)
        decoded = np.asarray(Image.open(BytesIO(data)).convert(picture.mode)).astype(np.float32)
        error = float(np.mean((decoded - target) ** 2))
        if error < best_error:
            best, best_error = data, error
    return best


def _without_comment(codestream: bytes) -> bytes:
    """A JPEG 2000 codestream less the comment segments (COM, FF64) of its main header."""
    kept, at = codestream[:2], 2
    while codestream[at : at + 2] != b"\xff\x90":  # SOT: the first tile ends the header
        end = at + 2 + int.from_bytes(codestream[at + 2 : at + 4], "big")
        if codestream[at : at + 2] != b"\xff\x64":
            kept += codestream[at:end]
        at = end
    return kept + codestream[at:]


def _jxl(picture: Image.Image, point: ClassicalPoint) -> bytes:
    return _save(picture, "JXL", quality=int(point.quality), effort=9, num_threads=1)


def _webp(picture: Image.Image, point: ClassicalPoint) -> bytes:
    return _save(picture, "WEBP", quality=int(point.quality), method=6)


_ENCODERS = {"AVIF": _avif, "JPEG": _jpeg, "JPEG2000": _jpeg2000, "JXL": _jxl, "WEBP": _webp}

"""Pictures from files as a person sees them, and PNG files out."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from picsnet.errors import ImageError, ImageFormatError, TooManyPixelsError, in_one_line
from picsnet.files import atomic_write

MIN_SIDE = 16
MAX_SIDE = 8192

# Pillow warns of bombs above 89 megapixels; the sides above are our stricter bound. Once for all,
# since pictures are read in several threads and what is caught around one would be lost for others.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_SAFE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Whose readers run nothing else: Pillow's others start Ghostscript, or look into more files."""

_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_WHITE_OF_INTEGERS = (2**16 - 1, 2**31 - 1)
# Floats have no agreed white: the least of these that nothing in the picture exceeds.
_WHITE_OF_FLOATS = (1, 2**8 - 1, 2**16 - 1)


def load_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 RGB: upright, 8 bits, opaque on white; the first of several.

    Colour profiles are left alone.

    Raises:
        ImageError: not a picture, damaged, or sides outside 16..8192.
    """
    return np.array(_load(path, "white", "RGB"))


def rgb_of(picture: Image.Image) -> NDArray[np.uint8]:
    """An opened picture, as `load_rgb` gives it. Its size is not checked."""
    picture.load()  # what a file says of transparency may come last in it
    return np.array(_seen(picture, "white", "RGB"))


def decode_rgb(data: bytes, name: str, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """A picture from a stranger's bytes, as `load_rgb` gives it.

    Its header is looked at first: what it names beyond the limits is refused before a pixel is
    decoded.

    Args:
        data: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM.
        name: of the picture, for messages.
        max_pixels: pictures of more are refused.

    Raises:
        ImageFormatError: another format, or none at all.
        TooManyPixelsError: more than ``max_pixels``.
        ImageError: damaged, or sides outside 16..8192.
        MemoryError: this machine's doing, not the picture's.
    """
    if not data:
        raise ImageError(f"{name}: not a picture that can be read (it is empty); send it again")
    try:
        return np.array(_decoded(io.BytesIO(data), name, "white", "RGB", max_pixels, _SAFE_FORMATS))
    except UnidentifiedImageError:
        raise _unknown(name) from None
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise TooManyPixelsError(f"{name}: has too many pixels; resize it first") from None
    except Exception as error:
        # As in `_load`. Its text may speak of the memory that the picture is in.
        reason = "" if "BytesIO" in str(error) else f" ({in_one_line(error)})"
        raise ImageError(
            f"{name}: not a picture that can be read{reason}; replace it, or convert it to PNG"
        ) from None


def check_format(data: bytes, name: str) -> None:
    """Refuse what does not begin as a picture that `decode_rgb` reads; nothing is parsed for it.

    Raises:
        ImageFormatError: it does not.
    """
    Image.init()
    accepts = [Image.OPEN[kind][1] for kind in _SAFE_FORMATS if kind in Image.OPEN]
    # Such a function may answer with a text: why it does not accept.
    if not any(accept is not None and accept(data[:16]) is True for accept in accepts):
        raise _unknown(name)


def _unknown(name: str) -> ImageFormatError:
    return ImageFormatError(
        f"{name}: its content is none of {', '.join(_SAFE_FORMATS)}; convert it to PNG"
    )


def load_grey(path: Path) -> NDArray[np.uint8]:
    """A map as (H, W) uint8 luma, read as `load_rgb` reads but opaque on black: no edge there.

    Raises:
        ImageError: as `load_rgb`.
    """
    return np.array(_load(path, "black", "L"))


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as part:
        Image.fromarray(pixels).save(part, format="PNG")


def _load(path: Path, background: str, mode: str) -> Image.Image:
    path = Path(path)
    if path.suffix.lower() == ".jxl":
        _need_jpeg_xl(path)
    try:
        return _decoded(path, str(path), background, mode)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not a picture; name a file") from None
    except PermissionError:
        raise ImageError(f"{path}: no permission to read it; change its rights") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{path}: has too many pixels; sides must be {MIN_SIDE} to {MAX_SIDE}; resize it first"
        ) from None
    except Exception as error:
        # Pillow's plugins raise what the damage suggests: OSError, SyntaxError, struct.error, ...
        raise ImageError(
            f"{path}: not a picture that can be read ({_reason(path, error)}); "
            "replace it, or convert it to PNG"
        ) from None


def _decoded(
    source: Path | io.BytesIO,
    name: str,
    background: str,
    mode: str,
    max_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> Image.Image:
    with Image.open(source, formats=formats) as picture:
        check_size(name, *picture.size, max_pixels)
        picture.load()
        return _seen(picture, background, mode)


def _seen(picture: Image.Image, background: str, mode: str) -> Image.Image:
    return _opaque(_eight_bit(_upright(picture)), background).convert(mode)


def _reason(path: Path, error: Exception) -> str:
    if os.path.isfile(path) and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "its content is no known picture format"
    return in_one_line(error)


def _need_jpeg_xl(path: Path) -> None:
    try:
        import pillow_jxl  # noqa: F401  registers the format with Pillow
    except ImportError:
        raise ImageError(
            f"{path}: JPEG XL needs a plugin; pip install pillow-jxl-plugin, or convert it to PNG"
        ) from None


def check_size(name: str, width: int, height: int, max_pixels: int | None = None) -> None:
    """Refuse a picture of a size that no file may have, or that is not allowed.

    Raises:
        TooManyPixelsError: more than ``max_pixels``.
        ImageError: a side outside 16..8192.
    """
    if max_pixels is not None and width * height > max_pixels:
        raise TooManyPixelsError(
            f"{name}: is {width}x{height}, {width * height} pixels, and at most {max_pixels} are "
            "allowed; resize it first"
        )
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        raise ImageError(
            f"{name}: is {width}x{height}; sides must be {MIN_SIDE} to {MAX_SIDE} pixels; "
            "resize it first"
        )


def _upright(picture: Image.Image) -> Image.Image:
    # Damaged EXIF data raises many things, and is no reason to refuse whole pixels.
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(picture)
    return picture


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Scaled, where Pillow's own conversion would clip."""
    if picture.mode not in _DEEP_MODES:
        return picture
    values = np.nan_to_num(np.asarray(picture).astype(np.float64))
    whites = _WHITE_OF_FLOATS if picture.mode == "F" else _WHITE_OF_INTEGERS
    white = next((level for level in whites if values.max() <= level), whites[-1])
    grey = np.clip(np.rint(values * (255 / white)), 0, 255).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))


def _opaque(picture: Image.Image, background: str) -> Image.Image:
    """Without alpha or palette."""
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer)
    return picture if picture.mode == "L" else picture.convert("RGB")

"""Pictures from files as a person sees them, and PNG files out."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from picsnet.errors import ImageError
from picsnet.files import atomic_write

MIN_SIDE = 16
MAX_SIDE = 8192
_SIXTEEN_BIT = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")


def load_rgb(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W, 3) uint8 RGB: upright, opaque on white, 8 bits.

    Raises:
        ImageError: not a picture, damaged, or sides outside 16..8192.
    """
    return np.asarray(_open(path).convert("RGB"))


def load_grey(path: Path) -> NDArray[np.uint8]:
    """A picture as (H, W) uint8 luma, for maps.

    Raises:
        ImageError: as `load_rgb`.
    """
    return np.asarray(_open(path).convert("L"))


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Write (H, W) or (H, W, 3) uint8 as PNG, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with atomic_write(path) as part:
        Image.fromarray(pixels).save(part, format="PNG")


def _open(path: Path) -> Image.Image:
    """A picture in mode L or RGB, upright."""
    try:
        with warnings.catch_warnings():
            # Pillow warns above 89 megapixels and refuses at twice that; ours go to 67.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                width, height = picture.size
                if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
                    raise ImageError(
                        f"{path}: is {width}x{height}; sides must be {MIN_SIDE} to {MAX_SIDE} "
                        "pixels; resize it first"
                    )
                picture.load()
                upright = ImageOps.exif_transpose(picture)
                return _flattened(_eight_bit(upright))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise ImageError(f"{path}: no permission to read it; change its rights") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"{path}: too many pixels; sides must be {MIN_SIDE} to {MAX_SIDE}; resize it first"
        ) from None
    except Exception as error:
        # Pillow's plugins raise what the damage suggests: OSError, SyntaxError, struct.error, ...
        empty = Path(path).is_file() and Path(path).stat().st_size == 0
        reason = "the file is empty" if empty else " ".join(str(error).split())[:120]
        raise ImageError(
            f"{path}: not a picture that can be read ({reason}); check or convert it to PNG"
        ) from None


def _eight_bit(picture: Image.Image) -> Image.Image:
    if picture.mode not in _SIXTEEN_BIT:
        return picture
    values = np.asarray(picture).astype(np.float64)
    if picture.mode == "F":
        # Floats have no agreed white: 0..1 where they fit in it, else 0..255.
        scaled = values * 255 if values.max(initial=0) <= 1 else values
    else:
        # 16 bits; Pillow gives some of them as 32-bit integers.
        scaled = values / 257
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _flattened(picture: Image.Image) -> Image.Image:
    """Without alpha or palette, in mode L or RGB."""
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")

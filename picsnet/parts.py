"""Everything that went into a file, as pictures and text for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picsnet.files import atomic_write
from picsnet.images import save_png

if TYPE_CHECKING:
    from picsnet.pics import Decoding, Encoding

_GAP = 8


def save_parts(folder: Path, encoding: Encoding, decoding: Decoding) -> None:
    """Write original, sketch, decoded sketch, prompt, candidates, reconstruction and all of the
    pictures side by side, at the working size; the reconstruction by itself as it was drawn.

    Raises:
        OutputError: they cannot be written.
    """
    named = {"original": encoding.original, "reconstruction": decoding.drawn}
    if encoding.sketch is not None and encoding.decoded_sketch is not None:
        named |= {"sketch": encoding.sketch, "decoded_sketch": encoding.decoded_sketch}
    for name, pixels in named.items():
        save_png(pixels, folder / f"{name}.png")
    for number, candidate in enumerate(encoding.candidates):
        save_png(candidate, folder / f"candidate_{number:02d}.png")
    order = ("original", "sketch", "decoded_sketch", "reconstruction")
    height, width = encoding.original.shape[:2]
    small = Image.fromarray(decoding.drawn).resize((width, height), Image.Resampling.LANCZOS)
    shown = named | {"reconstruction": np.asarray(small)}
    save_png(side_by_side([shown[n] for n in order if n in shown]), folder / "side_by_side.png")
    with atomic_write(folder / "prompt.txt") as part:
        part.write_text(_about(encoding), encoding="utf-8")


def side_by_side(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(H, W) and (H, W, 3) pictures of one height in a row, with white between."""
    height = pictures[0].shape[0]
    gap = np.full((height, _GAP, 3), 255, dtype=np.uint8)
    row: list[NDArray[np.uint8]] = []
    for picture in pictures:
        colour = picture if picture.ndim == 3 else np.repeat(picture[:, :, None], 3, axis=2)
        row += [colour, gap]
    return np.concatenate(row[:-1], axis=1)


def _about(encoding: Encoding) -> str:
    lines = [encoding.prompt, f"ids: {' '.join(map(str, encoding.ids))}"]
    for number, score in enumerate(encoding.scores):
        chosen = " (chosen)" if number == encoding.candidate else ""
        lines.append(f"candidate {number}: score {score:.4f}{chosen}")
    return "\n".join(lines) + "\n"

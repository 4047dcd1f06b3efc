"""Photographs in one file of a stated size, so that a training can be moved.

A pack is a tar archive: ``pack.json`` (what it was made with), then ``000000.jpg``,
``000000.0.pics``, ``000000.1.pics``, ...: photographs with a shorter side of some 300 pixels, each
with its sketch as coded by some models. Coded sketches are small, and what a decoder will be given.
A pack is read whole into memory. ``pack.py`` makes one.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from picsnet.errors import DataError, ImageError, UsageError
from picsnet.files import atomic_write
from picsnet.images import MIN_SIDE, load_rgb

DESCRIPTION = "pack.json"
MAX_BYTES = 45 * 2**20


SketchCoder = Callable[[NDArray[np.uint8]], Sequence[bytes]]
"""(H, W, 3) uint8 to files of its sketch, one for each model."""


@dataclass(frozen=True)
class Pack:
    """What a pack holds.

    Attributes:
        photos: JPEG data.
        sketches: of each photograph, .pics files of its sketch; of equal number, perhaps none.
    """

    photos: list[bytes]
    sketches: list[list[bytes]]


def write_pack(
    photos: Sequence[Path],
    target: Path,
    side: int = 288,
    quality: int = 85,
    coder: SketchCoder | None = None,
    about: dict[str, Any] | None = None,
    progress: bool = False,
) -> tuple[int, int]:
    """Write a pack; returns (photographs in it, bytes).

    The same photographs give the same bytes.

    Args:
        photos: files; what cannot be read, or is smaller than ``side``, is left out.
        target: the pack's path.
        side: shorter side of the packed pictures, pixels.
        quality: of their JPEG coding.
        coder: makes the sketches, from the pictures as they are packed.
        about: what ``pack.json`` should say besides.
        progress: a bar on stderr if that is a terminal.

    Raises:
        UsageError: ``side`` is below what is coded.
        DataError: nothing is left, or the pack is beyond 45 MiB.
        OutputError: it cannot be written.
    """
    if side < MIN_SIDE:
        raise UsageError(f"--side {side} is too small; give {MIN_SIDE} or more")
    members: list[tuple[str, bytes]] = []
    count = 0
    for path in tqdm(sorted(set(photos)), "packing", disable=None if progress else True):
        try:
            pixels = load_rgb(path)
        except ImageError:
            continue
        if min(pixels.shape[:2]) < side:
            continue
        packed = _jpeg(pixels, side, quality)
        members.append((f"{count:06d}.jpg", packed))
        if coder is not None:
            files = coder(decode(packed))
            members += [(f"{count:06d}.{i}.pics", data) for i, data in enumerate(files)]
        count += 1
    if not count:
        raise DataError(f"no photographs of {side} pixels and more; name other folders")
    description = {"side": side, "quality": quality, "photographs": count, **(about or {})}
    members.insert(0, (DESCRIPTION, json.dumps(description).encode()))
    size = _size(members)
    if size > MAX_BYTES:
        raise DataError(
            f"the pack would take {size / 2**20:.0f} MiB, beyond {MAX_BYTES / 2**20:.0f}; "
            "lower --side or --quality, or name fewer photographs"
        )
    with atomic_write(target) as part, tarfile.open(part, "w") as archive:
        for name, data in members:
            _add(archive, name, data)
    return count, target.stat().st_size


def read_pack(path: Path) -> Pack:
    """All of a pack, in order.

    Raises:
        DataError: it is not a pack.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            streams = {m.name: archive.extractfile(m) for m in archive if m.isfile()}
            files = {name: stream.read() for name, stream in streams.items() if stream is not None}
    except (OSError, tarfile.TarError) as error:
        raise DataError(
            f"{path}: cannot be read as a pack ({error}); make it again: python pack.py"
        ) from None
    if DESCRIPTION not in files:
        raise DataError(f"{path}: is not a pack; make one: python pack.py")
    names = sorted(name for name in files if name.endswith(".jpg"))
    by_photo: dict[str, list[bytes]] = {name.removesuffix(".jpg"): [] for name in names}
    for name in sorted(name for name in files if name.endswith(".pics")):
        by_photo.setdefault(name.split(".")[0], []).append(files[name])
    sketches = list(by_photo.values())
    if not names or len(sketches) != len(names) or len(set(map(len, sketches))) != 1:
        raise DataError(f"{path}: holds no photographs, or not all sketches; make it again")
    return Pack([files[name] for name in names], sketches)


def decode(data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a packed photograph."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _jpeg(pixels: NDArray[np.uint8], side: int, quality: int) -> bytes:
    height, width = pixels.shape[:2]
    scale = side / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    out = io.BytesIO()
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    small.save(out, format="JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _size(members: Sequence[tuple[str, bytes]]) -> int:
    """Of the archive: a small sketch takes two blocks, one for its name and one for itself."""
    blocks = 2 + sum(1 - -len(data) // tarfile.BLOCKSIZE for _, data in members)
    return -(-blocks * tarfile.BLOCKSIZE // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # no owner and no time: the same contents, the same bytes
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))

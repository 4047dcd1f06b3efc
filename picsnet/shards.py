"""Maps in shards: a few large files in place of many small ones.

A set of shards is a folder or a bucket's prefix with

- ``index.json``: litdata's index with what picsnet adds: counts, checksums, the sketcher;
- ``maps-NUMBER-CHECKSUM.bin``: shards in litdata's chunk format, each item the PNG file of a map;
- ``names-CHECKSUM.txt``: the maps' names, one a line, in the order of the shards.

``litdata.StreamingDataset`` opens the same folder. What is named by its content can be written
twice, and half a set can be gone on with; the index comes last and makes the set.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from picsnet.buckets import Store, open_store
from picsnet.errors import DataError
from picsnet.images import MAX_SIDE, MIN_SIDE

INDEX = "index.json"
VERSION = 1
_NAME = re.compile(r"maps-[0-9]+-[0-9a-f]{12,64}\.bin")
_NAMES = re.compile(r"names-([0-9a-f]{12})\.txt")
_LENGTH_BYTES = 4
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY_8 = (8, 0)
"""Bit depth and colour type, as IHDR has them."""
_PLAIN = frozenset((b"IHDR", b"IDAT", b"IEND", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs"))


@dataclass(frozen=True)
class Shard:
    """One shard of a set.

    Attributes:
        store: where it is.
        name: the file's name; it has part of the checksum in it, so no two contents share one.
        count: maps in it.
        size: bytes of the file.
        sha256: of the file, in hexadecimal.
    """

    store: Store
    name: str
    count: int
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.store.url.rstrip('/')}/{self.name}"


@dataclass(frozen=True)
class ShardSet:
    """What an index says.

    Attributes:
        shards: in their order.
        about: sketcher, revision and so on.
    """

    shards: list[Shard]
    about: dict[str, Any]

    @property
    def count(self) -> int:
        """Maps in all shards."""
        return sum(shard.count for shard in self.shards)


def read_set(url: str) -> ShardSet:
    """The shards at a path or URL.

    Raises:
        UsageError: no such kind of store.
        DataError: there is no index, or it is damaged.
    """
    return read_index(open_store(url))


def sketcher_of(urls: Sequence[str]) -> str:
    """What made the maps at some paths or URLs, by the name in their indexes.

    Raises:
        UsageError, DataError: as `read_set`.
    """
    return ", ".join(sorted({str(read_set(url).about.get("sketcher", "unknown")) for url in urls}))


def read_index(store: Store) -> ShardSet:
    """The shards in a store.

    Raises:
        DataError: as `read_set`.
    """
    where = f"{store.url.rstrip('/')}/{INDEX}"
    with tempfile.TemporaryDirectory() as scratch:
        store.fetch(INDEX, Path(scratch, INDEX))
        raw = Path(scratch, INDEX).read_bytes()
    mend = "make the shards: picsnet sketch FOLDER --shards OUT"
    try:
        index = json.loads(raw)
        about = index["picsnet"]
        if about["version"] != VERSION:
            raise DataError(
                f"{where}: of version {about['version']!r}, known is {VERSION}; update picsnet"
            )
        shards = [
            Shard(store, c["filename"], c["chunk_size"], c["chunk_bytes"], c["sha256"])
            for c in index["chunks"]
        ]
        fine = (
            len(shards) > 0
            and all(_plausible(shard) for shard in shards)
            and about["count"] == sum(shard.count for shard in shards)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: no index of maps ({type(error).__name__}); {mend}") from None
    if not fine:
        raise DataError(f"{where}: its counts, sizes or names cannot be; {mend}")
    return ShardSet(shards, about)


def names_by_shard(store: Store) -> dict[str, list[str]]:
    """What the maps of a set are called, in their order, by the names of its shards.

    Raises:
        DataError: as `read_set`; the list of names is not there, or is damaged.
    """
    found = read_index(store)
    name = str(found.about.get("names"))
    where = f"{store.url.rstrip('/')}/{name}"
    raw = b""
    if checksum := _NAMES.fullmatch(name):
        with tempfile.TemporaryDirectory() as scratch:
            store.fetch(name, Path(scratch, name))
            raw = Path(scratch, name).read_bytes()
    names = raw.decode("utf-8", "surrogateescape").split("\n")[:-1]
    whole = checksum and hashlib.sha256(raw).hexdigest().startswith(checksum[1])
    if not whole or len(names) != found.count:
        raise DataError(
            f"{where}: damaged, or not of this set; make it again: picsnet sketch FOLDER "
            "--shards OUT"
        )
    rest = iter(names)
    return {shard.name: list(islice(rest, shard.count)) for shard in found.shards}


def is_shard_name(name: str) -> bool:
    """Whether a file is called what a shard is."""
    return _NAME.fullmatch(name) is not None


def _plausible(shard: Shard) -> bool:
    return (
        isinstance(shard.name, str)
        and is_shard_name(shard.name)
        and isinstance(shard.count, int)
        and isinstance(shard.size, int)
        and isinstance(shard.sha256, str)
        and shard.count > 0
        and 4 + 4 * (shard.count + 1) < shard.size < 2**32
    )


def damaged(shard: Shard, why: str) -> DataError:
    """The error of a shard that is not what its index says."""
    # Deleted first: packing leaves alone what is there under its name.
    mend = "delete it, then make it again: picsnet sketch FOLDER --shards OUT"
    return DataError(f"{shard}: damaged ({why}); {mend}")


class ShardReader:
    """Maps of one shard, by their number in it.

    Args:
        shard: which.
        read: (offset, length) -> bytes of its file.
        where: what else to say of where it is, if it is found damaged.

    Raises:
        DataError: the shard is not in litdata's format, or not what the index says.
    """

    def __init__(self, shard: Shard, read: Callable[[int, int], bytes], where: str = "") -> None:
        self.shard, self._read, self._where = shard, read, where
        header = read(0, 4 * (shard.count + 2))
        if len(header) != 4 * (shard.count + 2):
            raise damaged(shard, f"ends after {len(header)} bytes")
        words = np.frombuffer(header, "<u4").astype(np.int64)
        self._offsets = words[1:]
        if (
            words[0] != shard.count
            or self._offsets[0] != len(header)
            or self._offsets[-1] != shard.size
            or (np.diff(self._offsets) <= _LENGTH_BYTES).any()
        ):
            raise damaged(shard, "its table of offsets cannot be")

    def length(self, item: int) -> int:
        """Bytes of a map's PNG file."""
        return int(self._offsets[item + 1] - self._offsets[item]) - _LENGTH_BYTES

    def png(self, item: int) -> bytes:
        """A map's PNG file, checksums verified.

        Args:
            item: 0 to the shard's count - 1.

        Raises:
            DataError: damaged.
        """
        # litdata puts the length of each part of an item before it; here there is one part.
        length = self.length(item)
        data = self._read(int(self._offsets[item]) + _LENGTH_BYTES, length)
        if len(data) != length or not is_grey_png(data):
            raise damaged(self.shard, f"map {item} of {self.shard.count}{self._where}")
        return data


class OpenShard(ShardReader):
    """A shard's file, held open: it can be read on even when a cache has dropped it.

    Args:
        shard: which.
        path: its file on this machine.

    Raises:
        DataError: it cannot be opened, or as `ShardReader`.
    """

    def __init__(self, shard: Shard, path: Path) -> None:
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise DataError(
                f"{shard}: cannot be read ({error.strerror or error}); check that it is there, and "
                "rights"
            ) from None
        descriptor = self._file.fileno()
        size = os.fstat(descriptor).st_size
        if size != shard.size:
            raise damaged(shard, f"has {size} bytes, not {shard.size}")
        copied = shard.store.folder is None
        super().__init__(
            shard,
            lambda offset, length: os.pread(descriptor, length, offset),
            f"; read from the copy {path}, delete that first" if copied else "",
        )

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def is_grey_png(data: bytes) -> bool:
    """Whether these are the bytes of a whole, plain 8-bit grey PNG file with all checksums right.

    Plain: nothing in it that a reader would turn, blend or rescale the pixels for, and sides that
    picsnet takes.
    """
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 33:
        return False
    width, height, *kind = struct.unpack_from(">IIBB", data, 16)
    if (
        tuple(kind) != _GREY_8
        or not MIN_SIDE <= min(width, height) <= max(width, height) <= MAX_SIDE
    ):
        return False
    place, name = 8, b""
    view = memoryview(data)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        end = place + 12 + length
        name = data[place + 4 : place + 8]
        if end > len(data) or name not in _PLAIN:
            return False
        if zlib.crc32(view[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return False
        place = end
    return name == b"IEND" and place == len(data)

"""Maps into shards: planned by their order and size alone, so that a killed run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from picsnet.buckets import FolderStore, Store, open_store
from picsnet.errors import DataError, ImageError, OutputError, UsageError
from picsnet.files import atomic_write, make_folder
from picsnet.holding import held
from picsnet.images import load_grey
from picsnet.shards import INDEX, VERSION, is_grey_png, read_index
from picsnet.terminal import shown

_BEGUN = re.compile(
    r"\.(maps-\d+-[0-9a-f]{12}|names-[0-9a-f]{12}|index)\.\d+-[0-9a-f]{8}\.(bin|txt|json)"
)
"""Names of what a killed process had begun to write into a folder (`picsnet.files.beside`)."""


@dataclass(frozen=True)
class ShardReport:
    """What came of packing.

    Attributes:
        url: where the set is.
        shards: in the set.
        written: of them, those that were not there already.
        count: maps in them.
        failed: maps left out, and why.
        stale: shards of an earlier set at the same place that this one does not use.
    """

    url: str
    shards: int
    written: int
    count: int
    failed: list[tuple[Path, str]]
    stale: list[str]


@dataclass(frozen=True)
class _Packed:
    """A shard's index entry, and whether it had to be written."""

    entry: dict[str, Any]
    config: dict[str, Any]
    written: bool


def check_output(url: str, shard_bytes: int) -> Store:
    """The store that shards go to, before hours of work.

    Raises:
        UsageError: the size makes no sense, no such store, or litdata is not installed.
    """
    if not 0 < shard_bytes < 2**31:
        raise UsageError(f"shards of {shard_bytes} bytes cannot be; give 1 to 2047 MB")
    try:
        import litdata  # noqa: F401
    except ImportError:
        raise UsageError("shards need litdata; pip install 'picsnet[shards]'") from None
    return open_store(url)


def write_shards(
    maps: Sequence[Path], store: Store, shard_bytes: int, about: dict[str, Any], progress: bool
) -> ShardReport:
    """Pack maps into shards, in the order of their paths, and write the index last.

    A map that is no 8-bit grey PNG is read and written as one; one that cannot be read is named on
    stderr and left out. A shard is whole or not there. Its name has its checksum, so that shards
    which an interrupted call wrote are not written again.

    Args:
        maps: 8-bit grey pictures.
        store: from `check_output`.
        shard_bytes: a shard is closed when its maps have this many bytes.
        about: what else the index says, such as the sketcher.
        progress: a bar on stderr if that is a terminal, else a line now and then.

    Raises:
        DataError: not one map can be read.
        OutputError: the store cannot be written, or another process packs maps there.
    """
    before = _names_of_earlier_set(store)
    failed: list[tuple[Path, str]] = []
    names: list[str] = []
    packed: list[_Packed] = []
    ordered = sorted(set(maps))
    looked_at = shown(ordered, len(ordered), "shards", "map") if progress else iter(ordered)
    with contextlib.ExitStack() as holding:
        for group in _groups(_readable(looked_at, failed), shard_bytes):
            if not packed:  # of nothing no folder is made
                holding.enter_context(_alone(store))
            names += [path.name for path, _ in group]
            packed.append(_pack(store, len(packed), [data for _, data in group]))
        for path, reason in failed:
            print(f"picsnet: skipped {path}: {reason}", file=sys.stderr)
        if not packed:
            raise DataError(f"none of {len(ordered)} maps can be read; nothing was packed")
        _write_index(store, packed, names, shard_bytes, about)
    used = {shard.entry["filename"] for shard in packed}
    return ShardReport(
        url=store.url,
        shards=len(packed),
        written=sum(shard.written for shard in packed),
        count=len(names),
        failed=failed,
        stale=sorted(before - used),
    )


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    """Hold a folder, and clear it of what killed processes had begun; buckets show only what is
    whole.

    Raises:
        OutputError: another process has it, or it cannot be written.
    """
    if not isinstance(store, FolderStore):
        yield
        return
    mend = "name another place: --shards OUT"
    make_folder(store.root, "the folder of the shards", mend)
    busy = OutputError(
        f"{store.root}: another process packs maps here; wait for its end, or {mend}"
    )
    with held(store.root / ".lock", busy, mend):
        for path in store.root.iterdir():
            if _BEGUN.fullmatch(path.name):
                with contextlib.suppress(OSError):  # what stays takes room only
                    path.unlink()
        yield


def _names_of_earlier_set(store: Store) -> set[str]:
    if not store.has(INDEX):
        return set()
    try:
        return {shard.name for shard in read_index(store).shards}
    except DataError:
        raise OutputError(
            f"{store.url.rstrip('/')}/{INDEX}: in the way, and no index of maps; name another place"
        ) from None


def _readable(maps: Iterator[Path], failed: list[tuple[Path, str]]) -> Iterator[tuple[Path, bytes]]:
    for path in maps:
        try:
            yield path, _png(path)
        except ImageError as error:
            failed.append((path, str(error).removeprefix(f"{path}: ")))


def _png(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error})") from None
    if is_grey_png(data):
        return data
    file = BytesIO()
    Image.fromarray(load_grey(path)).save(file, format="PNG")
    return file.getvalue()


def _groups(
    maps: Iterator[tuple[Path, bytes]], shard_bytes: int
) -> Iterator[list[tuple[Path, bytes]]]:
    group: list[tuple[Path, bytes]] = []
    size = 0
    for item in maps:
        group.append(item)
        size += len(item[1])
        if size >= shard_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group


def _pack(store: Store, number: int, items: list[bytes]) -> _Packed:
    from litdata.streaming.writer import BinaryWriter

    with tempfile.TemporaryDirectory(prefix="picsnet-shard-") as scratch:
        try:
            writer = BinaryWriter(scratch, chunk_size=len(items))
            for index, data in enumerate(items):
                writer[index] = data
            writer.done()
            writer.merge()
        except OSError as error:
            raise OutputError(
                f"{scratch}: a shard cannot be put together there ({error.strerror or error}); "
                "free some space, or set TMPDIR"
            ) from None
        index = json.loads(Path(scratch, INDEX).read_text())
        (entry,) = index["chunks"]
        path = Path(scratch, entry["filename"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"maps-{number:05d}-{digest[:12]}.bin"
        there = store.has(name)
        if not there:
            store.put(path, name)
    entry |= {"filename": name, "sha256": digest}
    return _Packed(entry, index["config"], written=not there)


def _write_index(
    store: Store,
    packed: list[_Packed],
    names: list[str],
    shard_bytes: int,
    about: dict[str, Any],
) -> None:
    lines = "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape")
    names_file = f"names-{hashlib.sha256(lines).hexdigest()[:12]}.txt"
    index = {
        "chunks": [shard.entry for shard in packed],
        "config": packed[0].config | {"chunk_size": None, "chunk_bytes": shard_bytes},
        "picsnet": {
            "version": VERSION,
            "count": len(names),
            "names": names_file,
            **about,
        },
    }
    with tempfile.TemporaryDirectory(prefix="picsnet-shard-") as scratch:
        for name, data in ((names_file, lines), (INDEX, _json(index))):
            with atomic_write(Path(scratch, name)) as part:
                part.write_bytes(data)
            store.put(Path(scratch, name), name)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()

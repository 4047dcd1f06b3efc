"""Shards of buckets on this machine: fetched once for all processes, up to a limit of bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from picsnet.errors import DataError
from picsnet.shards import OpenShard, Shard, damaged, is_shard_name

SECONDS_BETWEEN_LOOKS = 0.1
FETCHES_AT_ONCE = 2


class ShardCache:
    """A folder of shards that processes share.

    A shard is fetched by whoever wants it first, while others that want it wait; its checksum is
    verified before it is there under its name. Room for it is reserved beforehand, so that the
    shards in the folder never exceed the limit: those that were used longest ago go first. A file
    that is held open stays readable when it goes.

    Args:
        folder: made if it is missing; may be shared by ranks and by runs.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def open(self, shard: Shard, keep: Collection[str] = ()) -> OpenShard:
        """A shard's file, fetched if it is not on this machine.

        Args:
            shard: which.
            keep: names of shards that must not go to make room.

        Raises:
            DataError: it cannot be fetched, is damaged, or the folder cannot be written.
        """
        if shard.store.folder is not None:
            return OpenShard(shard, shard.store.folder / shard.name)
        with self._writing(), self._lock(shard.name):
            while not self._fetched(shard, keep):
                time.sleep(SECONDS_BETWEEN_LOOKS)
            return OpenShard(shard, self.folder / shard.name)

    def prefetch(self, shard: Shard, keep: Collection[str] = ()) -> None:
        """Fetch a shard if it is not here and there is room or can be made.

        Args:
            shard, keep: as `open` takes them.

        Raises:
            DataError: as `open` raises.
        """
        if shard.store.folder is None:
            with self._writing(), self._lock(shard.name):
                self._fetched(shard, keep)

    def _fetched(self, shard: Shard, keep: Collection[str]) -> bool:
        """Make sure that it is there, if there is room; the caller has its lock."""
        target = self.folder / shard.name
        if target.is_file() and target.stat().st_size == shard.size:
            os.utime(target)  # the time of its last use
            return True
        target.unlink(missing_ok=True)  # cut short: it would take room, and never be used
        room = self.folder / f"{shard.name}.room"
        if not self._reserved(room, shard.size, {*keep, shard.name}):
            return False
        part = self.folder / f".{shard.name}.part"
        try:
            self._fetch(shard, part)
            with self._lock("room"):
                os.replace(part, target)
                room.unlink()
        finally:
            part.unlink(missing_ok=True)
            room.unlink(missing_ok=True)
        return True

    def _fetch(self, shard: Shard, part: Path) -> None:
        for attempt in (1, 2):
            shard.store.fetch(shard.name, part)
            with part.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == shard.sha256:
                return
            if attempt == 2:
                raise damaged(shard, "its checksum is another, twice")

    def _reserved(self, room: Path, size: int, keep: Collection[str]) -> bool:
        """Put a file of holes in a shard's place, if there is room or can be made."""
        room.unlink(missing_ok=True)  # of a process that died
        with self._lock("room"):
            there = []
            for path in self.folder.iterdir():
                # Other files that somebody keeps there are none of ours.
                if not is_shard_name(path.name.removesuffix(".room")):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = path.stat()
                    there.append((status.st_mtime_ns, status.st_size, path))
            used = sum(entry[1] for entry in there)
            for _, its_size, path in sorted(there):
                name = path.name.removesuffix(".room")
                if path.suffix == ".bin" and (name in keep or used + size <= self.limit):
                    continue
                # What another process is fetching or opening is locked; a reservation that is not
                # locked is of a process that died.
                with contextlib.suppress(Timeout), self._lock(name, timeout=0):
                    path.unlink(missing_ok=True)
                    path.with_name(f".{name}.part").unlink(missing_ok=True)
                    used -= its_size
            if used + size > self.limit:
                return False
            with room.open("wb") as file:
                file.truncate(size)
            return True

    def _lock(self, name: str, timeout: float = -1) -> FileLock:
        return FileLock(self.folder / f".{name}.lock", timeout=timeout)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise DataError(
                f"{self.folder}: shards cannot be kept there ({error.strerror or error}); free "
                "some space, lower data.shards_cache_gb, or name another folder: data.shards_cache"
            ) from None


class Prefetcher:
    """Threads that fetch what will be wanted, in its order; they end when all of it is there.

    They are daemons: a process that ends waits for no download.

    Args:
        fetch: one shard. Its errors are left to whoever needs the shard.
    """

    def __init__(self, fetch: Callable[[Shard], None]) -> None:
        self._fetch = fetch
        self._todo: deque[Shard] = deque()
        self._running = 0
        self._lock = threading.Lock()

    def want(self, shards: list[Shard]) -> None:
        """Fetch these next, and no longer what was wanted before."""
        with self._lock:
            self._todo = deque(shards)
            while self._running < min(FETCHES_AT_ONCE, len(shards)):
                self._running += 1
                threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._todo:
                    self._running -= 1
                    return
                shard = self._todo.popleft()
            with contextlib.suppress(DataError):
                self._fetch(shard)

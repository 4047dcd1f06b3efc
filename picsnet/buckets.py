"""Folders and buckets behind one interface: whole files in and out, and parts of files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from picsnet.errors import DataError, OutputError, PicsnetError, UsageError, in_one_line
from picsnet.files import atomic_write

BUCKETS = ("s3", "gs")
"""Schemes of buckets."""
COPIED = "local"
"""Scheme of a folder that is far away, such as a network disk: what is used of it is copied."""


class Store(Protocol):
    """A folder or a bucket's prefix, with files in it.

    Attributes:
        url: what the user named it.
        folder: where its files can be opened in place, or None if they must be fetched.
    """

    url: str
    folder: Path | None

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a place on this machine.

        Raises:
            DataError: it is not there or cannot be read.
        """
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Some bytes of a file, which must have them; a folder gives fewer where it ends before.

        Raises:
            DataError: it is not there or cannot be read.
        """
        ...

    def put(self, source: Path, name: str) -> None:
        """Copy a file of this machine into the store, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file.

        Raises:
            DataError: the store cannot be asked.
        """
        ...


def open_store(url: str) -> Store:
    """The store that a path or URL names.

    Args:
        url: a folder's path, ``file://PATH``, ``local:PATH`` (a folder that is far away),
            ``s3://BUCKET/PREFIX`` or ``gs://BUCKET/PREFIX``.

    Raises:
        UsageError: no such scheme, or what it needs is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        if url.startswith(f"{COPIED}:"):
            return FolderStore(url, Path(url.removeprefix(f"{COPIED}:")), in_place=False)
        return FolderStore(url, Path(url), in_place=True)
    if scheme == "file":
        return FolderStore(url, Path(rest), in_place=True)
    if scheme in BUCKETS:
        return BucketStore(url)
    raise UsageError(
        f"{url}: no store of this kind; give a folder, file://, local:FOLDER, s3:// or gs://"
    )


class FolderStore:
    """A folder of a disk."""

    def __init__(self, url: str, root: Path, in_place: bool) -> None:
        self.url, self.root = url, root
        self.folder = root if in_place else None

    def fetch(self, name: str, target: Path) -> None:
        """See `Store`."""
        source = self.root / name
        try:
            file = source.open("rb")
        except OSError as error:
            raise _unreadable(str(source), error.strerror or str(error)) from None
        with file, target.open("wb") as copy:
            while True:
                try:
                    piece = file.read(1 << 20)
                except OSError as error:  # of the source; of the copy they are its owner's to tell
                    raise _unreadable(str(source), error.strerror or str(error)) from None
                if not piece:
                    return
                copy.write(piece)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See `Store`."""
        source = self.root / name
        try:
            with source.open("rb") as file:
                file.seek(offset)
                return file.read(length)
        except OSError as error:
            raise _unreadable(str(source), error.strerror or str(error)) from None

    def put(self, source: Path, name: str) -> None:
        """See `Store`."""
        with atomic_write(self.root / name) as part:
            shutil.copyfile(source, part)

    def has(self, name: str) -> bool:
        """See `Store`."""
        return os.path.isfile(self.root / name)


class BucketStore:
    """A prefix of a bucket, by litdata's providers: boto3 for S3 and what speaks like it.

    Credentials, region and endpoint are those that boto3 finds (``AWS_PROFILE``,
    ``AWS_ENDPOINT_URL``, ...), or Google's client.
    """

    folder: Path | None = None

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._drop_connections()
        self._client()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.url = state["url"]
        self._drop_connections()

    def _drop_connections(self) -> None:
        # They do not go to other processes, neither spawned nor forked.
        self._process = os.getpid()
        self._provider: Any = None
        self._ranges: Any = None

    def fetch(self, name: str, target: Path) -> None:
        """See `Store`."""
        with self._reading(name) as remote:
            self._client().download_file(remote, str(target))

    def read(self, name: str, offset: int, length: int) -> bytes:
        """See `Store`."""
        with self._reading(name) as remote:
            if self._ranges is None or self._process != os.getpid():
                self._drop_connections()
                from litdata.streaming.downloader import get_downloader

                self._ranges = get_downloader(self.url, "", [], self._options())
            # Ranges of these buckets go through no file: the last argument is not used.
            return bytes(self._ranges.download_bytes(remote, offset, length, ""))

    def put(self, source: Path, name: str) -> None:
        """See `Store`."""
        try:
            self._client().upload_file(str(source), f"{self.url}/{name}")
        except Exception as error:
            raise OutputError(
                f"{self.url}/{name}: cannot be written ({in_one_line(error)}); check the bucket's "
                "name, rights and credentials"
            ) from None

    def has(self, name: str) -> bool:
        """See `Store`."""
        with self._reading(name) as remote:
            return bool(self._client().exists(remote))

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[str]:
        remote = f"{self.url}/{name}"
        try:
            yield remote
        except PicsnetError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise  # of the copy on this machine
            raise _unreadable(remote, in_one_line(error)) from None
        except Exception as error:  # of boto3, of Google's client, of the network
            raise _unreadable(remote, in_one_line(error)) from None

    def _client(self) -> Any:
        if self._process != os.getpid():
            self._drop_connections()
        if self._provider is None:
            try:
                from litdata.streaming.fs_provider import _get_fs_provider
            except ImportError:
                raise UsageError(
                    f"{self.url}: buckets need litdata; pip install 'picsnet[shards]'"
                ) from None
            try:
                self._provider = _get_fs_provider(self.url, self._options())
            except ImportError as error:
                raise UsageError(
                    f"{self.url}: needs a package that is not installed ({in_one_line(error)}); "
                    "pip install google-cloud-storage"
                ) from None
        return self._provider

    def _options(self) -> dict[str, Any]:
        if not self.url.startswith("s3://"):
            return {}
        from botocore.config import Config

        # litdata's own 1000 attempts would hide for hours that a bucket is out of reach.
        return {
            "config": Config(
                retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60
            )
        }


def _unreadable(what: str, why: str) -> DataError:
    return DataError(
        f"{what}: cannot be read ({why}); check that it is there, and rights or credentials"
    )

"""Folders and buckets by URL: ``file://``, ``s3://``, ``gs://`` and whatever else fsspec knows."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from picsnet.errors import DataError, OutputError, UsageError, in_one_line
from picsnet.files import BEGUN, atomic_write, beside

T = TypeVar("T")

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "memory"})
"""Stores whose objects appear whole or not at all; elsewhere files are written beside and
renamed."""
DRIVERS = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}
TRIES = 4
_HOPELESS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")


class Store:
    """A folder or prefix; names in it are relative, with slashes.

    Args:
        url: with its scheme; a path without one is a local folder.
        options: of the fsspec file system, e.g. ``{"endpoint_url": ...}``.

    Raises:
        UsageError: no such scheme, or its driver is not installed.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        import fsspec

        scheme = url.partition("://")[0] if "://" in url else "file"
        try:
            self._files, root = fsspec.core.url_to_fs(url, **(options or {}))
        except ImportError:
            driver = DRIVERS.get(scheme, f"fsspec's driver for {scheme}")
            raise UsageError(f"{url}: needs {driver}; pip install {driver}") from None
        except ValueError as error:
            raise UsageError(f"{url}: {error}; name a folder or a bucket") from None
        self._root = root.rstrip("/")
        self.local = scheme in ("file", "local")
        self.url = f"file://{self._root}" if self.local else url.rstrip("/")
        self._whole = scheme in WHOLE

    def path(self, name: str) -> str:
        """Of a file as its file system names it; on this machine's disk an absolute path."""
        return f"{self._root}/{name}"

    def files(self) -> dict[str, tuple[int, str]]:
        """(bytes, version) of all files that are not hidden, by name; nothing where there is no
        such folder. A version changes when a file does.

        Raises:
            DataError: the store cannot be reached.
        """
        self._files.invalidate_cache()
        with _readable(self.url):
            found = _retried(lambda: self._files.find(self._root, detail=True))
        names = {
            path[len(self._root) :].lstrip("/"): self._followed(path, info)
            for path, info in found.items()
        }
        return {
            name: (int(info.get("size") or 0), _version(info))
            for name, info in names.items()
            if name and not any(part.startswith(".") for part in name.split("/"))
        }

    def _followed(self, path: str, info: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the time of what a link leads to: fsspec gives its size, but the link's own time."""
        if self.local and info.get("islink"):
            with contextlib.suppress(OSError):  # it leads nowhere; reading it will tell
                return {**info, "mtime": os.stat(path).st_mtime}
        return info

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            DataError: it cannot be read.
        """
        with _readable(f"{self.url}/{name}"):
            data: bytes = _retried(lambda: self._files.cat_file(self.path(name)))
        return data

    def read_if_there(self, name: str) -> bytes | None:
        """As `read`; None where there is no such file."""
        try:
            data: bytes = _retried(lambda: self._files.cat_file(self.path(name)))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise DataError(_sentence(f"{self.url}/{name}", "read", error)) from None
        return data

    def fetch(self, name: str, place: Path) -> Path:
        """A file on this machine's disk: where it is, or a copy at ``place``.

        Raises:
            DataError: it cannot be read.
        """
        if self.local:
            return Path(self.path(name))
        with _readable(f"{self.url}/{name}"):
            _retried(lambda: self._files.get_file(self.path(name), str(place)))
        return place

    def write(self, name: str, data: bytes) -> None:
        """A file, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        if self.local:
            with atomic_write(Path(self.path(name))) as part:
                part.write_bytes(data)
            return
        try:
            _retried(lambda: self._put(name, data))
        except Exception as error:
            raise OutputError(_sentence(f"{self.url}/{name}", "written", error)) from None

    def _put(self, name: str, data: bytes) -> None:
        path = self.path(name)
        if self._whole:
            self._files.pipe_file(path, data)
            return
        folder, _, plain = path.rpartition("/")
        self._files.makedirs(folder, exist_ok=True)
        part = f"{folder}/{beside(plain)}"
        try:
            self._files.pipe_file(part, data)
            self._files.mv(part, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(part)
            raise

    def delete(self, name: str) -> None:
        """A file, if there is such a one.

        Raises:
            OutputError: it cannot be deleted.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                _retried(lambda: self._files.rm_file(self.path(name)))
        except Exception as error:
            raise OutputError(_sentence(f"{self.url}/{name}", "deleted", error)) from None

    def tidy(self) -> None:
        """Remove what killed workers had begun to write. Nobody may be writing."""
        if self._whole:
            return
        for path in self._files.find(self._root):
            if BEGUN.fullmatch(path.rpartition("/")[2]):
                with contextlib.suppress(Exception):  # it is in nobody's way
                    self._files.rm_file(path)

    def delete_folder(self, folder: str, names: Iterable[str]) -> None:
        """Those of the named files that are in a folder, and the folder, unless it has others.

        Raises:
            OutputError: one cannot be deleted.
        """
        paths = [self.path(name) for name in names if name.startswith(f"{folder}/")]
        try:
            for start in range(0, len(paths), 1000):  # what S3 takes at once
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm(paths[start : start + 1000])
        except Exception as error:
            raise OutputError(_sentence(f"{self.url}/{folder}", "cleared", error)) from None
        with contextlib.suppress(Exception):  # a late file, or a store that has no folders
            self._files.rmdir(self.path(folder))


def _version(info: Mapping[str, Any]) -> str:
    """By the store's own checksum; where it has none, size and time."""
    for mark in _MARKS:
        if info.get(mark):
            return str(info[mark]).strip('"')
    moment = next((info[name] for name in _TIMES if info.get(name) is not None), "")
    return f"{info.get('size')} {moment}"


def _retried(call: Callable[[], T]) -> T:
    """Stores fail now and then; what cannot be mended by waiting is not tried again."""
    for tries_left in reversed(range(TRIES)):
        try:
            return call()
        except _HOPELESS:
            raise
        except (OSError, TimeoutError):
            if not tries_left:
                raise
            time.sleep(0.5 * 2 ** (TRIES - 1 - tries_left))
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _readable(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each driver has errors of its own
        raise DataError(_sentence(what, "read", error)) from None


def _sentence(what: str, verb: str, error: Exception) -> str:
    reason = in_one_line(error)
    return f"{what}: cannot be {verb} ({reason}); check the URL and your rights to it"

"""The manifest of a folder of coded pictures: one line a picture, and the journals it comes from.

    OUT/manifest.parts/RUN-NUMBER.jsonl   what a process did so far, a line when a picture is done
    OUT/manifest.jsonl                    all of it, in the outputs' order: whole, or the old one
    OUT/manifest.lock                     held by a run's first process while it lasts

Lines are JSON objects with the keys of `COLUMNS`. A process that is killed leaves its journal, and
the next run takes it up; a line that it did not end is none.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picsnet.errors import OutputError, PicsnetError, UnwritableError
from picsnet.files import atomic_write, read_file

Record = dict[str, Any]

MANIFEST = "manifest.jsonl"
PARTS = "manifest.parts"
LOCK = "manifest.lock"
SUFFIX = ".jsonl"
OK, ERROR = "ok", "error"

COLUMNS = (
    "input",  # as it was named: a path, or a URL
    "output",  # relative to the manifest's folder
    "status",  # OK or ERROR
    "error",  # one line, or null
    "width",  # of the picture, pixels; null after an error, as what is of the file
    "height",
    "bytes",  # of the file
    "bpp",  # 8 x bytes / (width x height)
    "layers",  # bytes by what they are for; they sum to `bytes`
    "sha256",  # of the file
    "key",  # of the picture's bytes, its prompt and all settings (`picsnet.scale.settings`)
    "settings",  # of all settings and weights
    "version",  # of the input as its store tells it without reading it, or null
    "seconds",  # from the picture to the file
)
"""What each record has; those of the command line have more, such as seconds by stage."""


def coded(record: Record, data: bytes, **known: Any) -> Record:
    """The record of a picture that was coded.

    Args:
        record: what the encoder tells: ``width``, ``height``, ``layers``, ``seconds`` and more.
        data: the file.
        known: ``input``, ``output``, ``key``, ``settings``, ``version``.
    """
    size = len(data)
    own = {
        "status": OK,
        "bytes": size,
        "bpp": 8 * size / (record["width"] * record["height"]),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return _ordered({**record, **own, **known})


def failed(error: str, **known: Any) -> Record:
    """The record of a picture that could not be coded, with the reason in one line."""
    return _ordered({"status": ERROR, "error": error, **known})


def lost(names: Mapping[str, str], records: Mapping[str, Record], digest: str) -> dict[str, Record]:
    """Records of pictures that nothing is known of with these settings, by output: they failed.

    Args:
        names: of the inputs, by output.
        records: what is known, by output.
        digest: of the settings.
    """
    return {
        output: failed(
            f"{name}: no record; run the same command again",
            input=name,
            output=output,
            key=None,
            settings=None,
        )
        for output, name in names.items()
        if records.get(output, {}).get("settings") != digest
    }


def _ordered(record: Record) -> Record:
    return {name: record.get(name) for name in COLUMNS} | record


def to_line(record: Record) -> str:
    """A record as it is written: ASCII, for names of files need not be UTF-8."""
    return json.dumps(record) + "\n"


def from_lines(data: bytes) -> Iterator[Record]:
    """Records of a manifest or journal; a line that was cut short is left out."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"output", "status", "key"} <= set(record):
            yield record


def latest(records: Iterable[Record]) -> dict[str, Record]:
    """By output, of each the last."""
    return {record["output"]: record for record in records}


def new_run() -> str:
    """A name for a run's journals; later ones sort behind earlier ones."""
    return f"{time.time_ns():020d}"


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        manifest: its path or URL.
        pictures: that were named.
        before: of them, done by earlier runs.
        failed: records of those that could not be coded.
        lost: of them, those that no process has told of.
    """

    manifest: str
    pictures: int
    before: int
    failed: list[Record]
    lost: list[Record] = field(default_factory=list)

    def __str__(self) -> str:
        now = self.pictures - self.before - len(self.failed)
        return (
            f"{self.manifest}: {self.pictures} pictures, {now} coded now, {self.before} before, "
            f"{len(self.failed)} failed"
        )


class Journal:
    """What one process does, line by line; locked while it lives.

    Args:
        out: the folder of the outputs.
        run: from `new_run`, the same in all processes.
        number: of the process.

    Raises:
        OutputError: it cannot be written.
    """

    def __init__(self, out: Path, run: str, number: int) -> None:
        path = out / PARTS / f"{run}-{number:05d}{SUFFIX}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("x", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); name another folder with -o"
            ) from None
        with contextlib.suppress(OSError):  # some shared disks have no locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._path = path
        self._lock = threading.Lock()  # several workers of a process note in one journal

    def write(self, record: Record) -> None:
        """Add a record; from now on it survives the process.

        Raises:
            UnwritableError: no space.
        """
        try:
            with self._lock:
                self._file.write(to_line(record))
                self._file.flush()
        except OSError as error:
            raise UnwritableError(
                f"{self._path}: cannot be written ({error.strerror}); free some space and run the "
                "same command again"
            ) from None

    def close(self) -> None:
        """No more will come."""
        with contextlib.suppress(OSError):
            self._file.close()


def read_folder(out: Path) -> dict[str, Record]:
    """All that is known of a folder's outputs, by output: its manifest, and journals after it."""
    paths = [path for path in (out / MANIFEST, *_journals(out)) if path.is_file()]
    return latest(record for path in paths for record in from_lines(read_file(path)))


def check_free(out: Path) -> None:
    """Refuse a folder where processes of a run are at work whose first one is gone.

    Raises:
        PicsnetError: one holds its journal.
    """
    for path in _journals(out):
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PicsnetError(
                f"{path}: another run is writing here; wait until it has ended, or end it"
            ) from None
        except OSError:  # no locks on this disk
            continue


def merged(
    records: Mapping[str, Record],
    names: Mapping[str, str],
    digest: str,
    is_there: Callable[[str], bool],
) -> dict[str, Record]:
    """What a manifest says when a run has ended, in its order.

    Args:
        records: all that is known, by output.
        names: of the run's inputs, by output: each has a record, if only of its loss.
        digest: of the run's settings.
        is_there: whether an output is there; records of others' that are gone, or failed, go.
    """
    known = {**records, **lost(names, records, digest)}
    return {
        name: record
        for name, record in sorted(known.items())
        if name in names or (record["status"] == OK and is_there(name))
    }


def failures(records: Mapping[str, Record], names: Container[str]) -> list[Record]:
    """Those of the named outputs that are not there as they should be."""
    return [r for name, r in records.items() if name in names and r["status"] != OK]


def merge_folder(out: Path, names: Mapping[str, str], digest: str) -> dict[str, Record]:
    """Manifest and journals to one manifest; then the journals go.

    Args:
        out: the folder.
        names: of this run's inputs, by output: each has a record, if only of its loss.
        digest: of its settings.

    Returns:
        The records, in the manifest's order.

    Raises:
        OutputError: no space.
    """
    journals = _journals(out)
    kept = merged(read_folder(out), names, digest, lambda name: (out / name).is_file())
    with atomic_write(out / MANIFEST) as part, open(part, "w", encoding="utf-8") as file:
        file.writelines(map(to_line, kept.values()))
    for path in journals:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a late journal
        (out / PARTS).rmdir()
    return kept


def _journals(out: Path) -> list[Path]:
    return sorted((out / PARTS).glob(f"*{SUFFIX}"))

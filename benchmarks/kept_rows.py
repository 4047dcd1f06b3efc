"""Rows of a long measurement, kept as they come, so that an interrupted one can go on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from picsnet.errors import OutputError, UsageError
from picsnet.files import atomic_write

REPOSITORY = Path(__file__).resolve().parent.parent


def code_stamp() -> str:
    """What changes when the code does that measures or is measured."""
    files = [p for name in ("picsnet", "benchmarks") for p in (REPOSITORY / name).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class KeptRows:
    """Measured rows by a key, in a file until all of them are there; to be used by `with`.

    Args:
        path: of the file; it is made with the first row.
        about: what every row depends on. Rows that were measured under another are not taken.

    Raises:
        UsageError: on entering, another process measures into the same folder.
        OutputError: on entering, the folder cannot be written to.
    """

    def __init__(self, path: Path, about: Any) -> None:
        self.path = path
        self._first = json.dumps(about, sort_keys=True)
        self._file: Any = None
        self._made = False
        self._rows: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            first, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError):
            return {}
        if first.rstrip("\n") != self._first:
            return {}
        rows = {}
        for line in lines:
            # One without an end was being written; others may be damaged where power was lost.
            with contextlib.suppress(ValueError, TypeError):
                key, row = json.loads(line)
                if line.endswith("\n"):
                    rows[key] = row
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str, measure: Callable[[], Any]) -> dict[str, Any]:
        """A row's fields by its key: as they were measured before, or measured now and kept.

        Args:
            key: of the row.
            measure: makes a dataclass.

        Raises:
            OutputError: the file cannot be written.
        """
        if key not in self._rows:
            row = asdict(measure())
            self._write(key, row)
            self._rows[key] = row
        return self._rows[key]

    def _write(self, key: str, row: dict[str, Any]) -> None:
        try:
            if self._file is None:
                # What there was stays until the new file has it all.
                with atomic_write(self.path) as part:
                    entries = [json.dumps(entry) + "\n" for entry in self._rows.items()]
                    part.write_text("".join([self._first + "\n", *entries]), encoding="utf-8")
                self._file = self.path.open("a", encoding="utf-8")
            self._file.write(json.dumps((key, row)) + "\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def drop(self) -> None:
        """All is measured, and in its own file; to be told while the folder is held."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        try:
            self._made = not self.path.parent.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"{self.path.parent}: another run measures into it; wait for it, or name another "
                "folder with -o"
            ) from None
        except OSError as error:
            raise _unwritable(self.path, error) from None
        self._rows = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()
        if self._made:
            with contextlib.suppress(OSError):  # it is empty where a mistake ended the run
                self.path.parent.rmdir()


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror}); free some space, or name another folder "
        "with -o"
    )

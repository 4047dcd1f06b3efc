"""Rows of a long measurement, kept as they come, so that an interrupted one can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from picsnet.errors import OutputError

REPOSITORY = Path(__file__).resolve().parent.parent


def code_stamp() -> str:
    """What changes when the code does that measures or is measured."""
    files = [p for name in ("picsnet", "benchmarks") for p in (REPOSITORY / name).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class KeptRows:
    """Measured rows by a key, in a file until all of them are there.

    Args:
        path: of the file; it is made with the first row.
        about: what every row depends on. Rows that were measured under another are not taken.
    """

    def __init__(self, path: Path, about: Any) -> None:
        self.path = path
        self._first = json.dumps(about, sort_keys=True)
        self._file: Any = None
        self._rows = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            first, *lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError):
            return {}
        if first.rstrip("\n") != self._first:
            return {}
        # A last line without an end is one that was being written.
        return dict(json.loads(line) for line in lines if line.endswith("\n"))

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
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8")
                self._file.write(self._first + "\n")
                for entry in self._rows.items():
                    self._file.write(json.dumps(entry) + "\n")
            self._file.write(json.dumps((key, row)) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); free some space, or name "
                "another folder with -o"
            ) from None

    def drop(self) -> None:
        """All is measured, and in its own file."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

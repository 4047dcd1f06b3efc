"""Runs as `picsnet evaluate` leaves them, and figures that others published."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from picsnet.errors import DataError, UsageError
from picsnet.evaluation.rows import LAYER_PREFIX, ROWS
from picsnet.evaluation.summary import SUMMARY
from picsnet.files import read_file


@dataclass(frozen=True)
class Run:
    """A finished evaluation.

    Attributes:
        name: by which it is told from others.
        folder: where its files are; paths in rows are relative to it.
        summary: ``summary.json``.
        rows: ``rows.csv``, a mapping a line: text, numbers, or None where a cell is empty.
    """

    name: str
    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """A point that somebody else published.

    Attributes:
        dataset, system: of whom on what.
        bpp: bits per pixel.
        metric: as `picsnet.evaluation.measures` calls it.
        value: of the measure.
        source: where it was read.
    """

    dataset: str
    system: str
    bpp: float
    metric: str
    value: float
    source: str


def load_runs(folders: list[Path]) -> list[Run]:
    """Runs by their folders; those of one name are told apart by their folders' names.

    Raises:
        DataError: a folder is not that of a finished run.
        UsageError: a folder is named twice.
    """
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise UsageError("a run is named twice; name each once")
    runs = [_load(folder) for folder in folders]
    names = [run.name for run in runs]
    return [
        run
        if names.count(run.name) == 1
        else Run(str(run.folder), run.folder, run.summary, run.rows)
        for run in runs
    ]


def _load(folder: Path) -> Run:
    for name in (ROWS, SUMMARY):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder}: holds no {name}, so it is no finished evaluation; make one: picsnet "
                "evaluate --config NAME"
            )
    try:
        summary = json.loads(read_file(folder / SUMMARY))
        with open(folder / ROWS, newline="", encoding="utf-8") as lines:
            rows = [_typed(line) for line in csv.DictReader(lines)]
        return Run(str(summary["name"]), folder, summary, rows)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder}: its rows or summary are damaged ({error}); run picsnet evaluate again"
        ) from None


_TEXT = frozenset(
    (
        *("dataset", "picture", "codec", "setting", "prompt"),
        *("original", "file", "decoded", "sketch", "decoded_sketch"),
    )
)


def _typed(line: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, cell in line.items():
        if cell == "":
            row[key] = None
        else:
            row[key] = cell if key in _TEXT else _number(cell)
    return row


def _number(cell: str) -> float | int | None:
    value = float(cell)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else value


def layers_of(row: dict[str, Any]) -> dict[str, int]:
    """Bytes by what they are for, of a row that tells them."""
    return {
        key.removeprefix(LAYER_PREFIX): value
        for key, value in row.items()
        if key.startswith(LAYER_PREFIX) and value is not None
    }


def load_published() -> list[Published]:
    """All published points that come with picsnet."""
    text = (resources.files("picsnet.report") / "published.csv").read_text(encoding="utf-8")
    return [
        Published(
            line["dataset"],
            line["system"],
            float(line["bpp"]),
            line["metric"],
            float(line["value"]),
            line["source"],
        )
        for line in csv.DictReader(text.splitlines())
    ]

"""Runs as `picsnet evaluate` leaves them."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from picsnet.errors import DataError, UsageError, in_one_line
from picsnet.evaluation.rows import LAYER_PREFIX
from picsnet.evaluation.tables import ROWS, SUMMARY
from picsnet.files import read_file


@dataclass(frozen=True)
class Run:
    """A finished evaluation.

    Attributes:
        name: by which it is told from others.
        folder: where its files are; paths in rows are relative to it.
        summary: ``summary.json``; measures without a finite mean are taken out of its points.
        rows: ``rows.csv``, a mapping a line: text, numbers, or None where a cell is empty.
    """

    name: str
    folder: Path
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


def load_runs(folders: Sequence[Path]) -> list[Run]:
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
        if not os.path.isfile(folder / name):
            raise DataError(
                f"{folder}: holds no {name}, so it is no finished evaluation; make one: picsnet "
                "evaluate --config NAME"
            )
    name = SUMMARY
    try:
        summary = _checked(json.loads(read_file(folder / SUMMARY), parse_constant=lambda _: None))
        name = ROWS
        lines = csv.DictReader(StringIO(read_file(folder / ROWS).decode(), newline=""))
        # Rows that were made under an earlier name of the dataset are of this one.
        rows = [{**_typed(line), "dataset": summary["dataset"]["name"]} for line in lines]
        return Run(str(summary["name"]), folder, summary, rows)
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else in_one_line(error)
        raise DataError(
            f"{folder / name}: is damaged, or of an earlier version ({what}); run picsnet evaluate "
            "again"
        ) from None


def _checked(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary, with all that is read of it there, and numbers that can be drawn."""
    lost: list[str] = []
    points = [_checked_point(point, summary["measures"], lost) for point in summary["points"]]
    for measure in summary["measures"].values():
        _need(measure, "label", "unit", "higher_is_better", "made_with")
    _need(summary["dataset"], "name", "pictures", "resize")
    for failure in summary["failures"]:
        _need(failure, "picture", "codec", "setting", "reason")
    return {
        "name": summary["name"],
        "dataset": summary["dataset"],
        "left_out": dict(summary["left_out"]),
        "warnings": [*summary["warnings"], *lost],
        "failures": summary["failures"],
        "measures": summary["measures"],
        "points": points,
    }


def _checked_point(
    point: dict[str, Any], measures: dict[str, Any], lost: list[str]
) -> dict[str, Any]:
    _need(point, "codec", "setting", "pictures", "encode_seconds", "decode_seconds")
    kept = {}
    for name, value in point["measures"].items():
        _need(measures, name)
        if value["mean"] is None:
            # PSNR of pictures that came back exactly, for one.
            lost.append(f"{name} of {point['codec']}, {point['setting']}: has no finite mean")
        else:
            kept[name] = {
                **_interval(value),
                "pictures": int(value["pictures"]),
                "bpp": float(value["bpp"]),
                "of": str(value["of"]),
            }
    return {
        **point,
        "bytes": float(point["bytes"]),
        "bpp": _interval(point["bpp"]),
        "measures": kept,
    }


def _interval(value: dict[str, Any]) -> dict[str, float | None]:
    low, high = value["low"], value["high"]
    none = low is None or high is None
    return {
        "mean": float(value["mean"]),
        "low": None if none else float(low),
        "high": None if none else float(high),
    }


def _need(mapping: dict[str, Any], *keys: str) -> None:
    for key in keys:
        mapping[key]


_TEXT = frozenset(
    (
        *("dataset", "picture", "codec", "setting", "prompt"),
        *("original", "file", "decoded", "sketch", "decoded_sketch"),
    )
)
_ALWAYS = ("dataset", "picture", "width", "height", "codec", "setting", "bytes", "bpp", "original")


def _typed(line: dict[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for key, cell in line.items():
        if cell == "":
            row[key] = None
        else:
            row[key] = cell if key in _TEXT else _number(cell)
    for key in _ALWAYS:
        if row[key] is None:
            raise ValueError(f"a line has no {key}")
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

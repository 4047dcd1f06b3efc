"""The report's folder: gathered beside its place, then put there whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from picsnet import __version__
from picsnet.errors import OutputError, UsageError
from picsnet.evaluation.measures import MEASURES
from picsnet.report.comparing import bd_rates
from picsnet.report.figures import draw_figures
from picsnet.report.gallery import copy_gallery
from picsnet.report.loading import Published, Run

PAGE = "index.html"
MARK = "picsnet-report.json"
"""Tells a report of ours from a folder of somebody's."""
FIGURES = "figures"


def write_report(
    runs: Sequence[Run],
    published: Sequence[Published],
    folder: Path,
    pictures: int | None = None,
    lossless: bool = False,
) -> list[str]:
    """Write the page, its pictures and figures.

    Args:
        runs: to report on.
        published: points of others.
        folder: to make; a report of ours there is replaced.
        pictures: photographs of each dataset in the gallery; None takes all.
        lossless: PNG in place of WebP.

    Returns:
        What is amiss, in words: pictures that are gone, a library that is missing.

    Raises:
        UsageError: the folder holds something else, or two runs have a point in common.
        OutputError: it cannot be written.
    """
    if folder.exists() and not (folder / MARK).is_file() and any(folder.iterdir()):
        raise UsageError(f"{folder}: holds something that is no report; name another: -o")
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        part.mkdir(parents=True)
        notes = _fill(runs, published, part, pictures, lossless)
        (part / MARK).write_text(json.dumps({"picsnet": __version__}) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
        return notes
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); name another place: -o"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(
    runs: Sequence[Run],
    published: Sequence[Published],
    folder: Path,
    pictures: int | None,
    lossless: bool,
) -> list[str]:
    points = _points(runs)
    measures = _measures(runs, published)
    datasets = list(dict.fromkeys(point["dataset"] for point in points))
    gallery, missing = copy_gallery(runs, folder, pictures, lossless)
    notes = [f"{path}: is gone; the gallery goes on without it" for path in missing]
    rates: list[dict[str, Any]] = []
    for dataset in datasets:
        own = [point for point in points if point["dataset"] == dataset]
        try:
            rates += [{"dataset": dataset, **one} for one in bd_rates(own, measures)]
        except ImportError:
            notes.append("no BD-rates: bjontegaard is not installed; pip install bjontegaard")
        drawn = {n: m for n, m in measures.items() if any(n in p["measures"] for p in own)}
        draw_figures(own, drawn, published, dataset, folder / FIGURES)
    data = {
        "version": __version__,
        "datasets": datasets,
        "measures": measures,
        "points": points,
        "published": [asdict(point) for point in published],
        "bd_rates": rates,
        "runs": [_about(run) for run in runs],
        "rows": [_shown(row) for run in runs for row in run.rows],
        "gallery": gallery,
        "lossless": lossless,
        "notes": notes,
    }
    (folder / PAGE).write_text(page(data), encoding="utf-8")
    return notes


def _measures(runs: Sequence[Run], published: Sequence[Published]) -> dict[str, dict[str, Any]]:
    """Those of the runs, and those that only others have figures of."""
    found = {name: one for run in runs for name, one in run.summary["measures"].items()}
    known = {point.metric for point in published} - set(found)
    found |= {name: asdict(MEASURES[name]) for name in known}
    return {name: found[name] for name in sorted(found, key=list(MEASURES).index)}


def _points(runs: Sequence[Run]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    seen: dict[tuple[str, str, str], str] = {}
    for run in runs:
        dataset = run.summary["dataset"]["name"]
        for point in run.summary["points"]:
            key = (dataset, point["codec"], point["setting"])
            if key in seen:
                raise UsageError(
                    f"{run.name} and {seen[key]} both have {point['codec']}, {point['setting']} on "
                    f"{dataset}; report one of them, or evaluate under another codec's name"
                )
            seen[key] = run.name
            points.append({"dataset": dataset, **point})
    return points


def _about(run: Run) -> dict[str, Any]:
    keys = ("dataset", "left_out", "warnings", "failures")
    return {"name": run.name, **{key: run.summary[key] for key in keys}}


_COLUMNS_LEFT_OUT = ("original", "file", "decoded", "sketch", "decoded_sketch", "lmbda")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 5) if isinstance(value, float) else value
        for key, value in row.items()
        if key not in _COLUMNS_LEFT_OUT and not key.startswith("bytes_") and value is not None
    }


def page(data: dict[str, Any]) -> str:
    """The page with style, script and data inside."""
    parts = {name: _resource(f"page.{name}") for name in ("html", "css", "js")}
    text = parts["html"].replace("/*STYLE*/", parts["css"]).replace("/*SCRIPT*/", parts["js"])
    return text.replace("/*DATA*/", embedded(data))


def embedded(data: Any) -> str:
    """JSON that cannot end the script element that it stands in, whatever its texts say."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII: \u2028 is escaped
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _resource(name: str) -> str:
    return (resources.files("picsnet.report") / name).read_text(encoding="utf-8")

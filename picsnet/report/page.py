"""The page: all its data, and HTML with style, script and data inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from picsnet import __version__
from picsnet.errors import UsageError
from picsnet.evaluation.measures import MEASURES
from picsnet.report.comparable import check_comparable
from picsnet.report.comparing import bd_rates
from picsnet.report.figures import draw_figures
from picsnet.report.gallery import copy_gallery
from picsnet.report.loading import Run
from picsnet.report.published import (
    Published,
    aspects,
    comparable_elsewhere,
    label,
    same_dataset,
)
from picsnet.report.style import Style, hollow_shapes, styles

PAGE = "index.html"
FIGURES = "figures"


def gather(
    runs: Sequence[Run],
    published: Sequence[Published],
    folder: Path,
    pictures: int | None,
    lossless: bool,
) -> dict[str, Any]:
    """What the page shows; pictures and figures are written to the folder on the way.

    Args:
        runs: to report on.
        published: points of others.
        folder: that the page will be in.
        pictures: photographs of each dataset in the gallery; None takes all.
        lossless: PNG in place of WebP.

    Raises:
        UsageError: two runs have a point in common, or cannot be compared.
    """
    check_comparable(runs)
    points = _points(runs)
    measures = _measures(runs)
    # Of the runs, not of the points: one that failed throughout has none, and says so.
    datasets = list(dict.fromkeys(run.summary["dataset"]["name"] for run in runs))
    series = styles(point["codec"] for point in points)
    hollow = hollow_shapes(point.system for point in published)
    others = [(point, _place(point, runs, datasets)) for point in published]
    gallery, missing = copy_gallery(runs, folder, pictures, lossless)
    rates, note = _rates(points, measures, datasets)
    return {
        "version": __version__,
        "datasets": datasets,
        "measures": measures,
        "styles": {codec: asdict(style) for codec, style in series.items()},
        "points": points,
        "published": [{**asdict(p), "label": label(p), **place} for p, place in others],
        "hollow": hollow,
        "bd_rates": rates,
        "bd_note": note,
        "figures": _figures(points, measures, others, datasets, folder, series, hollow),
        "runs": [_about(run) for run in runs],
        "rows": [_shown(row) for run in runs for row in run.rows],
        "gallery": gallery,
        "lossless": lossless,
        "notes": ([note] if note else [])
        + [f"{why}; the gallery goes on without it" for why in missing],
    }


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


def _measures(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Those of the runs, in the usual order."""
    found = {name: one for run in runs for name, one in run.summary["measures"].items()}
    usual = list(MEASURES)
    return {
        name: found[name]
        for name in sorted(found, key=lambda n: usual.index(n) if n in MEASURES else len(usual))
    }


def _place(point: Published, runs: Sequence[Run], datasets: Sequence[str]) -> dict[str, Any]:
    """Where a published point stands: ``on`` datasets in whose charts it is drawn, ``beside`` those
    in whose charts it is on request, being on another one; ``otherwise`` tells of those that it is
    on and not drawn with, how it was measured and how here."""
    place: dict[str, Any] = {"on": [], "beside": [], "otherwise": {}}
    for name in datasets:
        own = [run.summary for run in runs if run.summary["dataset"]["name"] == name]
        found = [aspects(point, one) for one in own if point.metric in one["measures"]]
        alike = bool(found) and all(aspect.same for one in found for aspect in one)
        if same_dataset(point.dataset, name):
            if alike:
                place["on"].append(name)
            else:
                how = [aspect.compared() for one in found for aspect in one] or [
                    "not measured here",
                    *(aspect.told() for aspect in aspects(point, own[0])),
                ]
                place["otherwise"][name] = "; ".join(dict.fromkeys(how))
        elif alike and comparable_elsewhere(point.metric):
            place["beside"].append(name)
    return place


def _rates(
    points: Sequence[dict[str, Any]], measures: dict[str, dict[str, Any]], datasets: Sequence[str]
) -> tuple[list[dict[str, Any]], str]:
    """BD-rates on each dataset; or none, and why."""
    try:
        return [
            {"dataset": dataset, **rate}
            for dataset in datasets
            for rate in bd_rates([p for p in points if p["dataset"] == dataset], measures)
        ], ""
    except ImportError:
        return [], "no BD-rates: bjontegaard is not installed; pip install bjontegaard"


def _figures(
    points: Sequence[dict[str, Any]],
    measures: dict[str, dict[str, Any]],
    published: Sequence[tuple[Published, dict[str, Any]]],
    datasets: Sequence[str],
    folder: Path,
    series: dict[str, Style],
    hollow: dict[str, str],
) -> dict[str, dict[str, list[str]]]:
    """Addresses of the still figures, by dataset and measure."""
    found: dict[str, dict[str, list[str]]] = {}
    for dataset in datasets:
        own = [point for point in points if point["dataset"] == dataset]
        drawn = {n: m for n, m in measures.items() if any(n in p["measures"] for p in own)}
        others = [point for point, place in published if dataset in place["on"]]
        files = draw_figures(own, drawn, others, dataset, folder / FIGURES, series, hollow)
        found[dataset] = {
            name: [f"{FIGURES}/{path.name}" for path in paths] for name, paths in files.items()
        }
    return found


def _about(run: Run) -> dict[str, Any]:
    keys = ("dataset", "left_out", "warnings", "failures")
    has_sets = any(MEASURES[n].scope == "set" for n in run.summary["measures"] if n in MEASURES)
    references = run.summary["dataset"].get("references") if has_sets else None
    return {"name": run.name, "references": references, **{k: run.summary[k] for k in keys}}


_COLUMNS_LEFT_OUT = ("original", "file", "decoded", "sketch", "decoded_sketch", "lmbda")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 5) if isinstance(value, float) else value
        for key, value in row.items()
        if key not in _COLUMNS_LEFT_OUT and not key.startswith("bytes_") and value is not None
    }


def render(data: dict[str, Any]) -> str:
    """The page with style, script and data inside."""
    html = _resource("page.html")
    css, script = (_resource(f"look.{kind}") + _resource(f"page.{kind}") for kind in ("css", "js"))
    text = html.replace("/*STYLE*/", css).replace("/*SCRIPT*/", script)
    return text.replace("/*DATA*/", embedded(data))


def embedded(data: Any) -> str:
    """JSON that cannot end the script element that it stands in, whatever its texts say."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)  # ASCII: \u2028 is escaped
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _resource(name: str) -> str:
    return (resources.files("picsnet.report") / name).read_text(encoding="utf-8")

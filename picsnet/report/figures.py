"""Rate against each measure as still figures, for documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from picsnet.files import atomic_write
from picsnet.report.loading import Published

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS: tuple[str, ...] = (
    "#000000",
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#777777",
)
COLOURS += ("#b58900", "#6a51a3")
MARKERS = "osD^vPX*"


def draw_figures(
    points: Sequence[dict[str, Any]],
    measures: dict[str, dict[str, Any]],
    published: Sequence[Published],
    dataset: str,
    folder: Path,
) -> list[Path]:
    """PNG and SVG of rate against each measure on one dataset.

    Args:
        points: of the dataset, as in ``summary.json``.
        measures: by name, as there.
        published: points of others; those on the dataset are drawn, hollow.
        dataset: its name.
        folder: to write to.

    Returns:
        The files, ``DATASET_MEASURE.png`` and ``.svg``.
    """
    from matplotlib.figure import Figure

    files = []
    for name, measure in measures.items():
        others = [p for p in published if p.dataset == dataset and p.metric == name]
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, points, name, others)
        unit = f" ({measure['unit']})" if measure["unit"] else ""
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("rate (bits per pixel, whole files)")
        better = "higher is better" if measure["higher_is_better"] else "lower is better"
        axes.set_ylabel(f"{measure['label']}{unit}, {better}")
        axes.set_title(dataset, loc="left")
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        for suffix in (".png", ".svg"):
            path = folder / f"{dataset}_{name}{suffix}"
            with atomic_write(path) as part:
                figure.savefig(part, dpi=130)
            files.append(path)
    return files


def _draw(
    axes: Any, points: Sequence[dict[str, Any]], name: str, published: Sequence[Published]
) -> None:
    codecs = list(dict.fromkeys(point["codec"] for point in points))
    for i, codec in enumerate(codecs):
        own = [p for p in points if p["codec"] == codec and name in p["measures"]]
        own.sort(key=lambda point: point["bpp"]["mean"])
        if not own:
            continue
        values = [point["measures"][name] for point in own]
        low = [v["mean"] - v["low"] if v["low"] is not None else 0 for v in values]
        high = [v["high"] - v["mean"] if v["high"] is not None else 0 for v in values]
        axes.errorbar(
            [point["bpp"]["mean"] for point in own],
            [v["mean"] for v in values],
            yerr=[low, high],
            label=codec,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            linewidth=1.4,
            elinewidth=0.5,
        )
    for i, system in enumerate(dict.fromkeys(point.system for point in published)):
        own_points = [point for point in published if point.system == system]
        axes.plot(
            [point.bpp for point in own_points],
            [point.value for point in own_points],
            label=f"{system}, published",
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markerfacecolor="none",
            linestyle="none",
        )

"""Rate against each measure as still figures, for documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from picsnet.files import atomic_write, slug
from picsnet.report.published import Published
from picsnet.report.style import Style, hollow_shapes, styles, visible

_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "up": "^", "down": "v", "cross": "x"}


def draw_figures(
    points: Sequence[dict[str, Any]],
    measures: Mapping[str, dict[str, Any]],
    published: Sequence[Published],
    dataset: str,
    folder: Path,
    series: Mapping[str, Style] | None = None,
    hollow: Mapping[str, str] | None = None,
) -> dict[str, list[Path]]:
    """PNG and SVG of rate against each measure on one dataset.

    Args:
        points: of the dataset, as in ``summary.json``.
        measures: by name, as there.
        published: points of others that were measured alike; they are drawn, hollow.
        dataset: its name.
        folder: to write to.
        series: of each codec; by default those of the codecs of these points.
        hollow: shapes of others' systems; by default those of these ones.

    Returns:
        The files ``DATASET_MEASURE.png`` and ``.svg`` of each measure.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    series = series or styles(point["codec"] for point in points)
    shapes = hollow or hollow_shapes(point.system for point in published)
    files = {}
    for name, measure in measures.items():
        others = [point for point in published if point.metric == name]
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.add_subplot()
        _draw_codecs(axes, points, name, series)
        _draw_published(axes, others, shapes)
        _dress(axes, measure, dataset)
        files[name] = [folder / f"{slug(dataset)}_{slug(name)}{end}" for end in (".png", ".svg")]
        for path in files[name]:
            # Without dates and random identifiers the same figures are the same files.
            dateless = {"Date": None} if path.suffix == ".svg" else None
            with rc_context({"svg.hashsalt": "picsnet"}), atomic_write(path) as part:
                figure.savefig(part, dpi=130, metadata=dateless)
    return files


def _draw_codecs(
    axes: Any, points: Sequence[dict[str, Any]], name: str, series: Mapping[str, Style]
) -> None:
    for codec, style in series.items():
        own = [p for p in points if p["codec"] == codec and name in p["measures"]]
        if not own:
            continue
        values = sorted((point["measures"][name] for point in own), key=lambda v: v["bpp"])
        # Rounding can put the mean of equal values outside of their interval.
        low = [max(0, v["mean"] - v["low"]) if v["low"] is not None else 0 for v in values]
        high = [max(0, v["high"] - v["mean"]) if v["high"] is not None else 0 for v in values]
        axes.errorbar(
            [v["bpp"] for v in values],
            [v["mean"] for v in values],
            yerr=[low, high],
            label=visible(codec),
            color=style.colour,
            marker=_MARKERS[style.shape],
            markersize=4.5,
            linestyle="--" if style.dashed else "-",
            linewidth=1.4,
            elinewidth=0.5,
        )


def _draw_published(axes: Any, published: Sequence[Published], shapes: Mapping[str, str]) -> None:
    for system in dict.fromkeys(point.system for point in published):
        own = [point for point in published if point.system == system]
        axes.plot(
            [point.bpp for point in own],
            [point.value for point in own],
            label=visible(f"{system}, published"),
            color="#555555",
            marker=_MARKERS[shapes[system]],
            markersize=7,
            markerfacecolor="none",
            linestyle="none",
        )


def _dress(axes: Any, measure: Mapping[str, Any], dataset: str) -> None:
    unit = f" ({measure['unit']})" if measure["unit"] else ""
    better = "higher is better" if measure["higher_is_better"] else "lower is better"
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("rate (bits per pixel, whole files)")
    axes.set_ylabel(f"{measure['label']}{unit}, {better}", parse_math=False)
    axes.set_title(visible(dataset), loc="left", parse_math=False)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    legend = axes.legend(
        fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar in a codec's name is a dollar

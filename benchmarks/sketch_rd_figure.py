"""The figure of benchmarks/sketch_rd.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sketch_rd import LABELS, OURS, PAPER, RATE_RANGE, by_codec, hull_of
from picsnet.classical import CODECS
from picsnet.errors import UsageError
from picsnet.files import atomic_write

# Okabe and Ito's colours, told apart by colour-blind readers too; ours is the darkest.
COLOURS = {
    OURS: "#000000",
    PAPER: "#E69F00",
    "AVIF": "#D55E00",
    "JPEG": "#999999",
    "JPEG2000": "#0072B2",
    "JXL": "#009E73",
    "WEBP": "#CC79A7",
}


def draw(report: dict[str, Any], paths: Sequence[Path]) -> None:
    """MS-SSIM over rate, plain and in decibels, and edge F, a line for each codec.

    Raises:
        OutputError: a file cannot be written.
        UsageError: matplotlib does not write files of that kind.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style: Any = {
        "svg.hashsalt": "picsnet",  # the same figure has the same bytes
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(style):
        figure, axes = plt.subplots(1, 3, figsize=(14.5, 4.4), layout="constrained")
        count = len(report["settings"]["pictures"])
        plural = "" if count == 1 else "s"
        figure.suptitle(
            f"Coding of soft edge maps ({report['settings']['maps']}; {count} picture{plural})",
            fontsize=10,
        )
        panels = (("ms_ssim", "MS-SSIM"), ("ms_ssim_db", "MS-SSIM, dB"), ("edge_f", "edge F"))
        for ax, (metric, label) in zip(axes, panels, strict=True):
            _draw_panel(ax, by_codec(report), metric)
            ax.set_ylabel(label)
        for path in paths:
            dateless = {"Date": None} if path.suffix.lower() in (".svg", ".pdf") else None
            try:
                with atomic_write(path) as part:
                    figure.savefig(part, dpi=160, metadata=dateless)
            except ValueError as error:
                raise UsageError(f"{path}: {error}; name it .png or .svg") from None
        plt.close(figure)


def _colour(codec: str) -> str:
    return COLOURS[OURS if codec.startswith(OURS) else codec]


def _draw_panel(ax: Any, groups: dict[str, list[dict[str, Any]]], metric: str) -> None:
    ends: list[tuple[float, float, str]] = []  # height, rate, codec of a line's right end
    shown: list[float] = []
    for codec, points in groups.items():
        own, learned = codec == OURS, codec not in CODECS
        colour = _colour(codec)
        averaged = "edge_f" if metric == "edge_f" else "ms_ssim"
        line = sorted(points, key=lambda p: p["bpp"]) if learned else hull_of(points, averaged)
        rates, quality = [p["bpp"] for p in line], [p[metric] for p in line]
        ax.plot(
            rates,
            quality,
            color=colour,
            lw=2.2 if own else 1.3,
            ls="-" if own or not codec.startswith(OURS) else "--",
            marker="o",
            ms=5 if own else 2.5,
            zorder=3 if own else 2,
        )
        if own:
            for point in line:
                ax.annotate(
                    f"λ {point['lmbda']:g}",
                    (point["bpp"], point[metric]),
                    xytext=(-4, 5),
                    textcoords="offset points",
                    ha="right",
                    fontsize=7.5,
                )
        end = min(rates[-1], RATE_RANGE[1])
        ends.append((float(np.interp(np.log(end), np.log(rates), quality)), end, codec))
        shown += [q for r, q in zip(rates, quality, strict=True) if r <= RATE_RANGE[1]]
    shown += [height for height, _, _ in ends]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.05
    ax.set(xscale="log", xlim=RATE_RANGE, ylim=(low - margin, high + margin))
    ticks = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("rate, bits per pixel (whole files)")
    ax.grid(True, color="#e5e5e5", lw=0.6)
    ax.set_axisbelow(True)
    _label_ends(ax, ends, gap=0.055 * (high - low + 2 * margin))


def _label_ends(ax: Any, ends: list[tuple[float, float, str]], gap: float) -> None:
    """Names at the lines' right ends, moved apart where they would overlap."""
    near = 0.7 * RATE_RANGE[1]
    at_edge = sorted((height, RATE_RANGE[1], codec) for height, rate, codec in ends if rate >= near)
    inside = [end for end in ends if end[1] < near]
    heights = [height for height, _, _ in at_edge]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    surplus = max(0.0, heights[-1] - ax.get_ylim()[1]) if heights else 0.0
    labels = [(h - surplus, end) for h, end in zip(heights, at_edge, strict=True)]
    for height, (_, rate, codec) in labels + [(end[0], end) for end in inside]:
        # Ours ends among the others: its name goes above its last lambda, to the left.
        own = codec == OURS
        ax.annotate(
            LABELS.get(codec, codec),
            (rate, height),
            xytext=(-4, 20) if own else (6, 0),
            textcoords="offset points",
            ha="right" if own else "left",
            va="center",
            color=_colour(codec),
            fontweight="bold" if own else "normal",
            annotation_clip=False,
        )

"""Rate and distortion of sketch models against classical codecs, on the same maps.

    python benchmarks/sketch_rd.py --data ../shared/data/kodak

sketches the photographs, codes the maps with every sketch model that ships and with AVIF, JPEG,
JPEG 2000, JPEG XL and WebP as far as Pillow has them (``picsnet.classical``), and writes
``sketch_rd.json``, ``.png`` and ``.svg`` to ``out/sketch_rd``. It takes 10 to 20 seconds a picture
on one core.

Rate is the size of the file on disk, over the map's pixels; quality is MS-SSIM between the original
and the decoded map, both 8-bit. A point is the mean of both over all pictures at one setting;
decibels are those of the mean. BD-rate compares our models, all of them, with the upper hull of
each classical codec: at every rate the codec gets its best setting. ``bare`` rates leave out what
AVIF and WebP wrap around the coded picture, and nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from picsnet.classical import CODECS, grid, why_missing
from picsnet.errors import DataError, PicsnetError, UsageError
from picsnet.files import IMAGE_SUFFIXES, InputFile, atomic_write, expand_inputs
from picsnet.images import load_grey, load_rgb
from picsnet.metrics import (
    MS_SSIM_SHORTEST_SIDE,
    bd_rate,
    bpp,
    map_ms_ssim,
    ms_ssim_db,
    upper_hull,
)

Map = NDArray[np.uint8]

OURS = "picsnet"
LABELS = {"JPEG2000": "JPEG 2000", "JXL": "JPEG XL", "WEBP": "WebP"}
# Okabe and Ito's colours, told apart by colour-blind readers too; ours is the darkest.
COLOURS = {
    OURS: "#000000",
    "AVIF": "#D55E00",
    "JPEG": "#999999",
    "JPEG2000": "#0072B2",
    "JXL": "#009E73",
    "WEBP": "#CC79A7",
}
RATE_RANGE = (0.002, 0.1)
"""Bits per pixel that the figure shows."""


class Point(Protocol):
    """A codec at one setting."""

    @property
    def name(self) -> str:
        """Names the point in tables."""
        ...

    @property
    def codec(self) -> str:
        """The series it belongs to."""
        ...

    def encode(self, sketch: Map) -> bytes:
        """A whole file for a map (H, W)."""
        ...

    def decode(self, data: bytes) -> Map:
        """The map in a file."""
        ...

    def container_bytes(self, data: bytes) -> int:
        """Bytes of a file that a bare format would not need."""
        ...


class ModelPoint:
    """One of our models; its lambda is the setting."""

    codec = OURS

    def __init__(self, spec: str, device: str) -> None:
        from picsnet.checkpoints import load_model
        from picsnet.codec import SketchCodec

        model = load_model(spec, device=device)
        self.name = f"{OURS} {model.name}"
        self.lmbda = float(model.card["lmbda"])
        self._codec = SketchCodec(model)

    def encode(self, sketch: Map) -> bytes:
        """A .pics file."""
        return self._codec.encode_map(sketch)

    def decode(self, data: bytes) -> Map:
        """The map in a .pics file."""
        return self._codec.decode_map(data)

    def container_bytes(self, data: bytes) -> int:
        """None is left out of ours: its header counts in full."""
        return 0


@dataclass(frozen=True)
class Row:
    """One picture at one point."""

    picture: str
    codec: str
    point: str
    bytes: int
    container_bytes: int
    bpp: float
    bare_bpp: float  # without the container
    ms_ssim: float
    encode_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Summary:
    """One point over all pictures."""

    codec: str
    point: str
    lmbda: float | None  # of our models
    bpp: float  # means
    bare_bpp: float
    bytes: float
    ms_ssim: float
    ms_ssim_db: float  # of the mean
    encode_ms: float  # medians
    decode_ms: float


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options, checked one by one."""
    parser = argparse.ArgumentParser(
        description="Rate-distortion curves of sketch models and classical codecs on the same maps."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="FOLDER", help="photographs to sketch first")
    what.add_argument("--maps", type=Path, metavar="FOLDER", help="maps made elsewhere, to code")
    parser.add_argument(
        "--sketcher",
        default="bundled",
        help="what sketches --data: bundled (default), hed, hed:FOLDER_OR_HUB_ID",
    )
    parser.add_argument(
        "--ckpt",
        nargs="+",
        metavar="CKPT",
        help="shipped names, exported folders or Lightning checkpoints (default: all shipped)",
    )
    parser.add_argument(
        "--codecs",
        nargs="*",
        choices=CODECS,
        default=list(CODECS),
        metavar="CODEC",
        help=f"classical codecs (default: {' '.join(CODECS)})",
    )
    parser.add_argument("--limit", type=_positive, help="only the first so many pictures by name")
    parser.add_argument("--device", default="cpu", help="where our models run (default: cpu)")
    parser.add_argument("--figure", type=Path, metavar="PATH", help="write the figure here too")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("out/sketch_rd"),
        metavar="FOLDER",
        help="where sketch_rd.json, .png and .svg go (default: out/sketch_rd)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write JSON and figures, print the tables; returns the exit status."""
    options = parse_arguments(arguments)
    try:
        report = measure(options)
        with atomic_write(options.output / "sketch_rd.json") as part:
            part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        figures = [options.output / "sketch_rd.png", options.output / "sketch_rd.svg"]
        draw(report, figures + ([options.figure] if options.figure else []))
    except PicsnetError as error:
        print(f"sketch_rd: error: {error}", file=sys.stderr)
        return error.exit_status
    print(tables(report))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make the maps, code them at every point, and gather everything for the JSON."""
    files = expand_inputs([options.data or options.maps], IMAGE_SUFFIXES)[: options.limit]
    skipped = {codec: why for codec in options.codecs if (why := why_missing(codec)) is not None}
    for codec, reason in skipped.items():
        print(f"sketch_rd: {codec} is left out: {reason}", file=sys.stderr)
    points: list[Point] = [
        *load_models(options.ckpt, options.device),
        *grid([codec for codec in options.codecs if codec not in skipped]),
    ]
    if not points:
        raise UsageError("there is nothing to measure; name models with --ckpt, or --codecs")
    maps, source = load_maps(files, options)
    rows = code(maps, points, options.quiet)
    summaries = summarise(rows, points)
    return {
        "name": "sketch_rd",
        "description": "sketch maps: rate of files against MS-SSIM of decoded maps",
        "settings": {
            "maps": source,
            "pictures": [name for name, _ in maps],
            "device": options.device,
            "skipped": skipped,
            "versions": versions(),
        },
        "points": [asdict(summary) for summary in summaries],
        "bd_rate": compare(summaries),
        "rows": [asdict(row) for row in rows],
    }


def load_models(specs: Sequence[str] | None, device: str) -> list[ModelPoint]:
    """Our points, by rising lambda: the models named, or all that ship."""
    if specs is None:
        from picsnet.checkpoints import shipped_models

        specs = shipped_models()
        if not specs:
            print("sketch_rd: no sketch model ships; name some with --ckpt", file=sys.stderr)
    models = [ModelPoint(spec, device) for spec in dict.fromkeys(specs)]
    return sorted(models, key=lambda model: model.lmbda)


def load_maps(
    files: Sequence[InputFile], options: argparse.Namespace
) -> tuple[list[tuple[str, Map]], str]:
    """Named maps and where they come from; photographs are sketched.

    Raises:
        DataError: one is too small for MS-SSIM.
    """
    source = (options.data or options.maps).resolve().name
    if options.maps is not None:
        maps = [(str(file.relative), load_grey(file.path)) for file in files]
    else:
        from picsnet.sketch import load_sketcher

        sketcher = load_sketcher(options.sketcher, options.device)
        source += f", sketcher {sketcher.name}"
        bar = tqdm(files, desc="sketching", unit="picture", disable=options.quiet)
        maps = [(str(file.relative), sketcher(load_rgb(file.path))) for file in bar]
    for file, (_, sketch) in zip(files, maps, strict=True):
        if min(sketch.shape) < MS_SSIM_SHORTEST_SIDE:
            raise DataError(
                f"{file.path}: {sketch.shape[1]}x{sketch.shape[0]} is too small for MS-SSIM; "
                f"leave out pictures with sides under {MS_SSIM_SHORTEST_SIDE} pixels"
            )
    return maps, source


def code(maps: Sequence[tuple[str, Map]], points: Sequence[Point], quiet: bool) -> list[Row]:
    """Code every map at every point, through files."""
    rows = []
    total = len(maps) * len(points)
    with (
        tempfile.TemporaryDirectory(prefix="sketch_rd_") as folder,
        tqdm(total=total, desc="coding", unit="file", disable=quiet) as bar,
    ):
        for picture, sketch in maps:
            for point in points:
                rows.append(code_one(picture, sketch, point, Path(folder) / "coded"))
                bar.update()
    return rows


def code_one(picture: str, sketch: Map, point: Point, path: Path) -> Row:
    """One map at one point: written to a file, measured there, and decoded from it."""
    start = time.perf_counter()
    path.write_bytes(point.encode(sketch))
    encode_seconds = time.perf_counter() - start
    size = path.stat().st_size
    start = time.perf_counter()
    decoded = point.decode(path.read_bytes())
    decode_seconds = time.perf_counter() - start
    height, width = sketch.shape
    container = point.container_bytes(path.read_bytes())
    return Row(
        picture=picture,
        codec=point.codec,
        point=point.name,
        bytes=size,
        container_bytes=container,
        bpp=bpp(size, width, height),
        bare_bpp=bpp(size - container, width, height),
        ms_ssim=map_ms_ssim(sketch, decoded),
        encode_ms=1000 * encode_seconds,
        decode_ms=1000 * decode_seconds,
    )


def summarise(rows: Sequence[Row], points: Sequence[Point]) -> list[Summary]:
    """Means over pictures, in the order of the points."""
    summaries = []
    for point in points:
        own = [row for row in rows if row.point == point.name]
        quality = statistics.fmean(row.ms_ssim for row in own)
        summaries.append(
            Summary(
                codec=point.codec,
                point=point.name,
                lmbda=point.lmbda if isinstance(point, ModelPoint) else None,
                bpp=statistics.fmean(row.bpp for row in own),
                bare_bpp=statistics.fmean(row.bare_bpp for row in own),
                bytes=statistics.fmean(row.bytes for row in own),
                ms_ssim=quality,
                # A point without any loss has no decibels; JSON has no infinity.
                ms_ssim_db=min(ms_ssim_db(quality), 100.0),
                encode_ms=statistics.median(row.encode_ms for row in own),
                decode_ms=statistics.median(row.decode_ms for row in own),
            )
        )
    return summaries


def compare(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """BD-rate of our models against the hull of each classical codec."""
    ours = [summary for summary in summaries if summary.codec == OURS]
    if not ours:
        return []
    comparisons = []
    for codec in dict.fromkeys(s.codec for s in summaries if s.codec != OURS):
        theirs = [summary for summary in summaries if summary.codec == codec]
        for metric in ("ms_ssim_db", "ms_ssim"):
            for rate in ("bpp", "bare_bpp"):
                rates = [getattr(s, rate) for s in theirs]
                quality = [getattr(s, metric) for s in theirs]
                hull = upper_hull(rates, [s.ms_ssim for s in theirs])
                result = bd_rate(
                    [rates[i] for i in hull],
                    [quality[i] for i in hull],
                    [s.bpp for s in ours],
                    [getattr(s, metric) for s in ours],
                )
                comparisons.append(
                    {"anchor": codec, "metric": metric, "anchor_rate": rate, **asdict(result)}
                )
    return comparisons


def versions() -> dict[str, str]:
    """Of Pillow and the codecs in it, and of what runs our models."""
    from importlib.metadata import PackageNotFoundError, version

    from PIL import features

    found = {"python": platform.python_version()}
    for package in ("picsnet", "pillow", "pillow-jxl-plugin", "torch", "pytorch-msssim"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    for feature in ("avif", "jpg", "jpg_2000", "webp"):
        found[feature] = str(features.version(feature))
    return found


def tables(report: dict[str, Any]) -> str:
    """Points on the hulls, then BD-rates, as Markdown."""
    lines = [
        "| point | bytes | bpp | MS-SSIM | dB | encode ms | decode ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for codec, points in by_codec(report).items():
        shown = points if codec == OURS else hull_of(points)
        lines += [
            f"| {p['point']} | {p['bytes']:.0f} | {p['bpp']:.4f} | {p['ms_ssim']:.4f} "
            f"| {p['ms_ssim_db']:.2f} | {p['encode_ms']:.0f} | {p['decode_ms']:.0f} |"
            for p in shown
            if codec == OURS or p["bpp"] <= RATE_RANGE[1]
        ]
    if report["bd_rate"]:
        lines += [
            "",
            f"BD-rate of {OURS}, per cent (negative: {OURS} needs less), and the share of "
            f"{OURS}'s quality range that both reach:",
            "",
            "| against | dB | MS-SSIM | dB, bare | MS-SSIM, bare |",
            "| --- | --- | --- | --- | --- |",
        ]
    cells: dict[str, dict[tuple[str, str], str]] = {}
    for result in report["bd_rate"]:
        text = result["reason"]
        if result["percent"] is not None:
            text = f"{result['percent']:+.1f} ({result['overlap']:.0%})"
        row = cells.setdefault(result["anchor"], {})
        row[result["anchor_rate"], result["metric"]] = text
    for anchor, row in cells.items():
        lines.append(f"| {LABELS.get(anchor, anchor)} | " + " | ".join(row[key] for key in _CELLS))
        lines[-1] += " |"
    return "\n".join(lines)


_CELLS = [(rate, metric) for rate in ("bpp", "bare_bpp") for metric in ("ms_ssim_db", "ms_ssim")]


def by_codec(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The report's points by codec, in its order."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in report["points"]:
        groups.setdefault(point["codec"], []).append(point)
    return groups


def hull_of(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of one codec's points that lie on its upper hull, by rising rate."""
    hull = upper_hull([p["bpp"] for p in points], [p["ms_ssim"] for p in points])
    return [points[i] for i in hull]


def draw(report: dict[str, Any], paths: Sequence[Path]) -> None:
    """The figure: MS-SSIM over rate, plain and in decibels, a line for each codec.

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
        figure, axes = plt.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
        count = len(report["settings"]["pictures"])
        plural = "" if count == 1 else "s"
        figure.suptitle(
            f"Coding of soft edge maps ({report['settings']['maps']}; {count} picture{plural})",
            fontsize=10,
        )
        panels = (("ms_ssim", "MS-SSIM"), ("ms_ssim_db", "MS-SSIM, dB"))
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


def _draw_panel(ax: Any, groups: dict[str, list[dict[str, Any]]], metric: str) -> None:
    ends: list[tuple[float, float, str]] = []  # height, rate, codec of a line's right end
    shown: list[float] = []
    for codec, points in groups.items():
        colour, own = COLOURS[codec], codec == OURS
        line = sorted(points, key=lambda p: p["bpp"]) if own else hull_of(points)
        rates, quality = [p["bpp"] for p in line], [p[metric] for p in line]
        ax.plot(
            rates,
            quality,
            color=colour,
            lw=2.2 if own else 1.3,
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
            color=COLOURS[codec],
            fontweight="bold" if own else "normal",
            annotation_clip=False,
        )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


if __name__ == "__main__":
    sys.exit(main())

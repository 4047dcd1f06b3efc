"""Rate and distortion of sketch models against classical codecs, on the same maps.

    python benchmarks/sketch_rd.py --data ../shared/data/kodak

sketches the photographs, codes the maps with every sketch model that ships and with AVIF, JPEG,
JPEG 2000, JPEG XL and WebP as far as Pillow has them (``picsnet.classical``), and writes
``sketch_rd.json``, ``.png`` and ``.svg`` to ``out/sketch_rd``. It takes 10 to 20 seconds a picture
on one core; ``--efforts 0 9`` adds minutes a picture, ``--paper CKPT...`` (training checkpoints of
``sketch_cheng2020_lambda*.yaml``) some ten seconds for each.

Rate is the size of the file on disk, over the map's pixels. Quality is MS-SSIM between the original
and the decoded map, both 8-bit, and the F-measure of their edges (thinned, above 0.5, within two
pixels). A point is the mean over all pictures at one setting; decibels are those of the mean.
BD-rate compares our models, all of them, with the upper hull of each classical codec, of all of
them together ("best classical"), and with the paper's network: at every rate the codec gets its
best setting. ``bare`` rates leave out what AVIF, WebP and JPEG wrap around the coded picture, and
nothing of ours. A run that was interrupted goes on where it stopped when it is started again.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from picsnet.checkpoints import SketchModel
from picsnet.classical import CODECS, FEATURES, grid, why_missing
from picsnet.errors import DataError, PicsnetError, UsageError
from picsnet.evaluation.edges import edge_agreement, thinned
from picsnet.files import IMAGE_SUFFIXES, InputFile, atomic_write, expand_inputs
from picsnet.images import load_grey, load_rgb
from picsnet.metrics import (
    MS_SSIM_SHORTEST_SIDE,
    BDRate,
    bd_rate,
    bpp,
    map_ms_ssim,
    ms_ssim_db,
    upper_hull,
)
from picsnet.stamps import stamps

if TYPE_CHECKING:
    from benchmarks.kept_rows import KeptRows

Map = NDArray[np.uint8]

OURS = "picsnet"
PAPER = "paper's network"
BEST = "best classical"
METRICS = ("ms_ssim_db", "ms_ssim", "edge_f")
PAPER_RATE = 0.0123
"""Bits per pixel of a sketch at lambda 0.5 in the paper: 403 bytes at 512x512."""
LABELS = {"JPEG2000": "JPEG 2000", "JXL": "JPEG XL", "WEBP": "WebP"}
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
    """One of our models at one operating point."""

    def __init__(self, model: SketchModel, quality: int, effort: int) -> None:
        from picsnet.codec import SketchCodec

        self.codec = OURS if effort == 0 else f"{OURS}, effort {effort}"
        self.lmbda = model.network.lmbda_at(quality) or float(model.card["lmbda"])
        self.name = f"{self.codec} {Path(model.name).name}"
        if quality != model.quality or "model" not in model.card:
            self.name += f" at {self.lmbda:g}"
        self.weights = _digest(model)
        own = None if quality == model.quality else quality / model.network.QUALITY_STEPS
        self._codec = SketchCodec(model, own, effort)

    def encode(self, sketch: Map) -> bytes:
        """A .pics file."""
        return self._codec.encode_map(sketch)

    def decode(self, data: bytes) -> Map:
        """The map in a .pics file."""
        return self._codec.decode_map(data)

    def container_bytes(self, data: bytes) -> int:
        """None is left out of ours: its header counts in full."""
        return 0

    def predicted(self, sketch: Map) -> tuple[float, int] | None:
        """Bytes of symbols by the network's likelihoods, and those that the file spends on them."""
        from picsnet.bitstream import layer_bytes

        if self._codec.effort:
            return None
        spent = layer_bytes(self._codec.encode_map(sketch))["sketch"]
        return self._codec.predicted_bits(sketch) / 8, spent


def _digest(model: SketchModel) -> str:
    """Of all weights, and of the tables: the fingerprint is of what a receiver computes with."""
    digest = hashlib.sha256(model.fingerprint)
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class PaperPoint:
    """The paper's network, from a training checkpoint."""

    codec = PAPER

    def __init__(self, spec: str) -> None:
        from benchmarks.paper import PaperCodec, load_paper

        network, self.lmbda = load_paper(spec)
        self.name = f"{PAPER} at {self.lmbda:g}"
        self.weights = " ".join(stamps([spec]))
        self._codec = PaperCodec(network)

    def encode(self, sketch: Map) -> bytes:
        """Its strings as a file."""
        return self._codec.encode(sketch)

    def decode(self, data: bytes) -> Map:
        """The map in such a file."""
        return self._codec.decode(data)

    def container_bytes(self, data: bytes) -> int:
        """Nothing is left out."""
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
    edge_f: float
    encode_ms: float
    decode_ms: float


@dataclass(frozen=True)
class Summary:
    """One point over all pictures."""

    codec: str
    point: str
    lmbda: float | None  # of learned codecs
    bpp: float  # means
    bare_bpp: float
    bytes: float
    ms_ssim: float
    ms_ssim_db: float  # of the mean
    edge_f: float
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
    parser.add_argument(
        "--efforts",
        nargs="+",
        type=int,
        default=[0],
        metavar="E",
        help="of the encoder, 0 to 9, a curve for each (default: 0)",
    )
    parser.add_argument(
        "--paper",
        nargs="+",
        default=[],
        metavar="CKPT",
        help="training checkpoints of the paper's network",
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
    from benchmarks.kept_rows import KeptRows, code_stamp

    try:
        about = {
            "code": code_stamp(),
            "data": str((options.data or options.maps).resolve()),
            "device": options.device,
            "versions": versions(),
        }
        with KeptRows(options.output / "rows.jsonl", about) as kept:
            if len(kept):
                print(f"sketch_rd: goes on; {len(kept)} files were coded before", file=sys.stderr)
            report = measure(options, kept)
            with atomic_write(options.output / "sketch_rd.json") as part:
                part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            figures = [options.output / "sketch_rd.png", options.output / "sketch_rd.svg"]
            from benchmarks.sketch_rd_figure import draw

            draw(report, figures + ([options.figure] if options.figure else []))
            kept.drop()  # while the folder is held: afterwards they may be another run's
    except PicsnetError as error:
        print(f"sketch_rd: error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("sketch_rd: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(tables(report))
    return 0


def measure(options: argparse.Namespace, kept: KeptRows) -> dict[str, Any]:
    """Make the maps, code them at every point, and gather everything for the JSON."""
    files = expand_inputs([options.data or options.maps], IMAGE_SUFFIXES)[: options.limit]
    skipped = {codec: why for codec in options.codecs if (why := why_missing(codec)) is not None}
    for codec, reason in skipped.items():
        print(f"sketch_rd: {codec} is left out: {reason}", file=sys.stderr)
    points: list[Point] = [
        *load_models(options.ckpt, options.device, options.efforts),
        *sorted((PaperPoint(spec) for spec in options.paper), key=lambda point: point.lmbda),
        *grid([codec for codec in options.codecs if codec not in skipped]),
    ]
    names = [point.name for point in points]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two models are both called {twice[0]!r}; name one of them at a time")
    if not points:
        raise UsageError("there is nothing to measure; name models with --ckpt, or --codecs")
    maps, source = load_maps(files, options)
    rows = code(maps, points, kept, options.quiet)
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
        "at_the_papers_quality": at_quality_of_paper(summaries),
        "prediction": predictions(maps, points, options.quiet),
        "rows": [asdict(row) for row in rows],
    }


def load_models(
    specs: Sequence[str] | None, device: str, efforts: Sequence[int]
) -> list[ModelPoint]:
    """Our points, by effort and rising lambda: the models named, or all that ship.

    A network for a range of lambdas gives a point at each of them.
    """
    from picsnet.checkpoints import load_model
    from picsnet.shipped import sketch_models

    if specs is None:
        specs = sketch_models()
        if not specs:
            print("sketch_rd: no sketch model ships; name some with --ckpt", file=sys.stderr)
    models = [load_model(spec, device=device) for spec in dict.fromkeys(specs)]
    points = [
        ModelPoint(model, quality, effort)
        for effort in dict.fromkeys(efforts)
        for model in models
        for quality in _qualities(model)
    ]
    return sorted(points, key=lambda point: (point.codec, point.lmbda))


def _qualities(model: SketchModel) -> Sequence[int]:
    """Those at the network's lambdas; of a shipped operating point, its own."""
    if "model" in model.card or model.network.qualities == 1:
        return [model.quality]
    return range(0, model.network.qualities, model.network.QUALITY_STEPS)


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


def code(
    maps: Sequence[tuple[str, Map]], points: Sequence[Point], kept: KeptRows, quiet: bool
) -> list[Row]:
    """Code every map at every point, through files; but those that were coded before."""
    rows = []
    total = len(maps) * len(points)
    with (
        tempfile.TemporaryDirectory(prefix="sketch_rd_") as folder,
        tqdm(total=total, desc="coding", unit="file", disable=quiet) as bar,
    ):
        for picture, sketch in maps:
            edges = thinned(sketch)
            digest = hashlib.sha256(str(sketch.shape).encode() + sketch.tobytes()).hexdigest()
            for point in points:
                weights = getattr(point, "weights", "")  # classical codecs have none
                key = json.dumps([picture, digest, point.name, weights])
                path = Path(folder) / "coded"
                measured = functools.partial(code_one, picture, sketch, edges, point, path)
                rows.append(Row(**kept.get(key, measured)))
                bar.update()
    return rows


def code_one(picture: str, sketch: Map, edges: NDArray[np.bool_], point: Point, path: Path) -> Row:
    """One map at one point: written to a file, measured there, and decoded from it.

    Args:
        picture: its name.
        sketch: the map.
        edges: of it, thinned.
        point: codec and setting.
        path: of the file.
    """
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
        edge_f=edge_agreement(edges, thinned(decoded)),
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
                lmbda=getattr(point, "lmbda", None),
                bpp=statistics.fmean(row.bpp for row in own),
                bare_bpp=statistics.fmean(row.bare_bpp for row in own),
                bytes=statistics.fmean(row.bytes for row in own),
                ms_ssim=quality,
                # A point without any loss has no decibels; JSON has no infinity.
                ms_ssim_db=min(ms_ssim_db(quality), 100.0),
                edge_f=statistics.fmean(row.edge_f for row in own),
                encode_ms=statistics.median(row.encode_ms for row in own),
                decode_ms=statistics.median(row.decode_ms for row in own),
            )
        )
    return summaries


def compare(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """BD-rate of each of our series against every other codec, and the best of the classical."""
    series = dict.fromkeys(s.codec for s in summaries)
    classical = [codec for codec in series if codec in CODECS]
    anchors = {codec: [codec] for codec in [*classical, *(c for c in series if c == PAPER)]}
    if len(classical) > 1:
        anchors[BEST] = classical
    comparisons = []
    for own in (codec for codec in series if codec.startswith(OURS)):
        ours = [summary for summary in summaries if summary.codec == own]
        for anchor, codecs in anchors.items():
            theirs = [summary for summary in summaries if summary.codec in codecs]
            for metric in METRICS:
                for rate in ("bpp", "bare_bpp"):
                    result = _bd_rate(theirs, ours, metric, rate)
                    comparisons.append(
                        {"codec": own, "anchor": anchor, "metric": metric, "anchor_rate": rate}
                        | asdict(result)
                    )
    return comparisons


def _bd_rate(theirs: Sequence[Summary], ours: Sequence[Summary], metric: str, rate: str) -> BDRate:
    rates = [getattr(s, rate) for s in theirs]
    quality = [getattr(s, metric) for s in theirs]
    # Decibels are no measure to average: the hull is that of MS-SSIM itself.
    averaged = [s.edge_f if metric == "edge_f" else s.ms_ssim for s in theirs]
    hull = upper_hull(rates, averaged)
    return bd_rate(
        [rates[i] for i in hull],
        [quality[i] for i in hull],
        [s.bpp for s in ours],
        [getattr(s, metric) for s in ours],
    )


def at_quality_of_paper(
    summaries: Sequence[Summary], rate: float = PAPER_RATE
) -> list[dict[str, Any]]:
    """What each of our series needs for the MS-SSIM that the paper's network has at a rate.

    Args:
        summaries: of all points.
        rate: in bits per pixel; the default is the paper's own at lambda 0.5.

    Returns:
        One for each, with ``bpp`` and ``bytes_at_512x512``, or, where that quality is beyond its
        range, the ``end`` of it that is nearest. None where the paper's network has no such rate.
    """
    theirs = sorted((s for s in summaries if s.codec == PAPER), key=lambda s: s.bpp)
    if len(theirs) < 2 or not theirs[0].bpp <= rate <= theirs[-1].bpp:
        return []
    logs = np.log([s.bpp for s in theirs])
    quality = float(np.interp(np.log(rate), logs, [s.ms_ssim_db for s in theirs]))
    found = []
    for own in dict.fromkeys(s.codec for s in summaries if s.codec.startswith(OURS)):
        ours = sorted((s for s in summaries if s.codec == own), key=lambda s: s.bpp)
        ours.sort(key=lambda s: s.ms_ssim_db)
        # Beyond the range the point at its end says how much is known.
        end = ours[0] if quality < ours[0].ms_ssim_db else ours[-1]
        inside = ours[0].ms_ssim_db <= quality <= ours[-1].ms_ssim_db
        needed = np.interp(quality, [s.ms_ssim_db for s in ours], np.log([s.bpp for s in ours]))
        found.append(
            {
                "codec": own,
                "ms_ssim_db": quality,
                "paper_bpp": rate,
                "bpp": float(np.exp(needed)) if inside else None,
                "bytes_at_512x512": float(np.exp(needed)) * 2**15 if inside else None,
                "end": None if inside else {"ms_ssim_db": end.ms_ssim_db, "bpp": end.bpp},
                "paper_bytes_at_512x512": rate * 2**15,
            }
        )
    return found


def predictions(
    maps: Sequence[tuple[str, Map]], points: Sequence[Point], quiet: bool
) -> dict[str, float] | None:
    """How far bytes of symbols are from what the network's likelihoods say, over all files.

    Returns:
        ``excess_bytes``: the largest difference over the 1.5 % that are allowed;
        ``mean_per_cent``: of the difference; ``files``: how many. None without models of ours.
    """
    todo = [(p, sketch) for p in points if isinstance(p, ModelPoint) for _, sketch in maps]
    bar = tqdm(todo, desc="predicting", unit="file", disable=quiet or not todo)
    pairs = [pair for point, sketch in bar if (pair := point.predicted(sketch)) is not None]
    if not pairs:
        return None
    predicted, spent = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    return {
        "excess_bytes": float((np.abs(spent - predicted) - 0.015 * predicted).max()),
        "mean_per_cent": float(100 * (spent.sum() / predicted.sum() - 1)),
        "files": len(pairs),
    }


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
    for feature in FEATURES.values():
        found[feature] = str(features.version(feature))
    return found


def tables(report: dict[str, Any]) -> str:
    """Points on the hulls, BD-rates and what else is asked of ours, as Markdown."""
    lines = [
        "| point | bytes | bpp | MS-SSIM | dB | edge F | encode ms | decode ms |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for codec, points in by_codec(report).items():
        shown = hull_of(points, "ms_ssim") if codec in CODECS else points
        lines += [
            f"| {p['point']} | {p['bytes']:.0f} | {p['bpp']:.4f} | {p['ms_ssim']:.4f} "
            f"| {p['ms_ssim_db']:.2f} | {p['edge_f']:.3f} | {p['encode_ms']:.0f} "
            f"| {p['decode_ms']:.0f} |"
            for p in shown
            if codec not in CODECS or p["bpp"] <= RATE_RANGE[1]
        ]
    for own in dict.fromkeys(result["codec"] for result in report["bd_rate"]):
        lines += [
            "",
            f"BD-rate of {own}, per cent (negative: it needs less), and the share of its quality "
            "range that both reach:",
            "",
            "| against | dB | MS-SSIM | edge F | dB, bare | MS-SSIM, bare | edge F, bare |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        cells: dict[str, dict[tuple[str, str], str]] = {}
        for result in report["bd_rate"]:
            if result["codec"] == own:
                text = result["reason"]
                if result["percent"] is not None:
                    text = f"{result['percent']:+.1f} ({result['overlap']:.0%})"
                row = cells.setdefault(result["anchor"], {})
                row[result["anchor_rate"], result["metric"]] = text
        for anchor, row in cells.items():
            values = " | ".join(row[key] for key in _CELLS)
            lines.append(f"| {LABELS.get(anchor, anchor)} | {values} |")
    for found in report["at_the_papers_quality"]:
        end = found["end"]
        text = (
            f"needs {found['bytes_at_512x512']:.0f}"
            if end is None
            else f"has {end['ms_ssim_db']:.2f} dB for {end['bpp'] * 2**15:.0f}, "
            f"its {'fewest' if end['ms_ssim_db'] > found['ms_ssim_db'] else 'most'}"
        )
        lines += [
            "",
            f"At the {found['ms_ssim_db']:.2f} dB that {PAPER} has for "
            f"{found['paper_bytes_at_512x512']:.0f} bytes of 512x512 pixels, {found['codec']} "
            f"{text}.",
        ]
    if report["prediction"] is not None:
        p = report["prediction"]
        lines += [
            "",
            f"Symbols of {p['files']} files take {p['mean_per_cent']:+.2f} % against what the "
            f"network's likelihoods say; no file is off by more than 1.5 % and "
            f"{max(0.0, p['excess_bytes']):.1f} bytes.",
        ]
    return "\n".join(lines)


_CELLS = [(rate, metric) for rate in ("bpp", "bare_bpp") for metric in METRICS]


def by_codec(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The report's points by codec, in its order."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for point in report["points"]:
        groups.setdefault(point["codec"], []).append(point)
    return groups


def hull_of(points: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Those of one codec's points that lie on its upper hull, by rising rate.

    Args:
        points: as the report has them.
        metric: a measure to be averaged: "ms_ssim" or "edge_f".
    """
    hull = upper_hull([p["bpp"] for p in points], [p[metric] for p in points])
    return [points[i] for i in hull]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


if __name__ == "__main__":
    # A file that is run has its own folder on the path, not the one that holds ``benchmarks``.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main())

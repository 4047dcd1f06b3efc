"""Score an edge extractor on BSDS500's boundary benchmark: ODS, OIS and AP.

    python benchmarks/edge_bsds.py --data ../shared/data/bsds500 -o out/edge_bsds.json

runs the bundled sketcher over the 200 test photographs and scores its maps by the standard
protocol (see ``picsnet.edge_benchmark``), in a few minutes on two cores. ``--maps FOLDER`` scores
maps made elsewhere: an 8-bit ``NAME.png`` for each photograph, before any thinning.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from picsnet.edge_benchmark import (
    MAX_DIST,
    THRESHOLDS,
    BoundaryScores,
    evaluate_folder,
    list_truths,
)
from picsnet.errors import DataError, PicsnetError
from picsnet.files import atomic_write
from picsnet.images import load_rgb, save_png


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line's options, checked one by one."""
    parser = argparse.ArgumentParser(
        description="Score an edge extractor on BSDS500: ODS, OIS and AP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="BSDS500's folder, with images/ and groundTruth/"
    )
    parser.add_argument(
        "--split", default="test", choices=("train", "val", "test"), help="pictures"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--sketcher", default="bundled", help="bundled, hed or hed:FOLDER_OR_HUB_ID: runs it first"
    )
    what.add_argument("--maps", type=Path, help="folder of NAME.png maps to score instead")
    parser.add_argument("--thresholds", type=_positive, default=THRESHOLDS, help="99 is standard")
    parser.add_argument("--limit", type=_positive, help="only the first so many pictures by name")
    parser.add_argument("--workers", type=_positive, default=2, help="processes that score")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("out/edge_bsds.json"), help="JSON to write"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the JSON and print the table; returns the exit status."""
    options = parse_arguments(arguments)
    try:
        report = measure(options)
        with atomic_write(options.output) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except PicsnetError as error:
        print(f"edge_bsds: error: {error}", file=sys.stderr)
        return error.exit_status
    print(table(report))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make the maps if need be, score them, and gather everything for the JSON."""
    truth_dir = options.data / "groundTruth" / options.split
    names = [path.stem for path in list_truths(truth_dir)][: options.limit]
    with ExitStack() as stack:
        if options.maps is None:
            maps_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge_bsds_")))
            images_dir = options.data / "images" / options.split
            source = extract_maps(images_dir, names, maps_dir, options.sketcher, options.quiet)
        else:
            maps_dir, source = options.maps, f"maps {options.maps.name}"
        start = time.perf_counter()
        scores = evaluate_folder(
            maps_dir,
            truth_dir,
            thresholds=options.thresholds,
            limit=options.limit,
            workers=options.workers,
            progress=not options.quiet,
        )
        seconds = time.perf_counter() - start
    return describe(scores, source, options, seconds)


def extract_maps(images_dir: Path, names: list[str], maps_dir: Path, spec: str, quiet: bool) -> str:
    """Sketch each photograph into ``maps_dir``; returns the sketcher's name.

    Raises:
        DataError: a photograph is missing.
        SketcherError: the sketcher cannot be had.
    """
    from picsnet.sketch import load_sketcher  # imports torch: not for --maps or --help

    photos = [images_dir / f"{name}.jpg" for name in names]
    missing = [path for path in photos if not path.is_file()]
    if missing:
        raise DataError(
            f"{missing[0]}: no such photograph ({len(missing)} of {len(photos)} are missing); "
            "--data must hold BSDS500's images/ and groundTruth/"
        )
    sketcher = load_sketcher(spec)
    for photo in tqdm(photos, desc="sketching", unit="image", disable=quiet):
        save_png(sketcher(load_rgb(photo)), maps_dir / f"{photo.stem}.png")
    return f"sketcher {sketcher.name}"


def describe(
    scores: BoundaryScores, source: str, options: argparse.Namespace, seconds: float
) -> dict[str, Any]:
    """The report that is written as JSON."""
    return {
        "name": source,
        "description": f"BSDS500 {options.split}, boundary benchmark",
        "settings": {
            "split": options.split,
            "thresholds": options.thresholds,
            "max_dist": MAX_DIST,
            "non_maximum_suppression": True,
            "thinning": True,
        },
        "results": {
            "images": scores.images,
            "ods": scores.ods,
            "ods_threshold": scores.ods_threshold,
            "ois": scores.ois,
            "ap": scores.ap,
            "scoring_seconds": seconds,
        },
        "curve": {
            "threshold": scores.thresholds.tolist(),
            "precision": scores.precision.tolist(),
            "recall": scores.recall.tolist(),
        },
    }


def table(report: dict[str, Any]) -> str:
    """The scores as a small Markdown table."""
    results = report["results"]
    return (
        "| edge maps | images | ODS | at threshold | OIS | AP |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        f"| {report['name']} | {results['images']} | {results['ods']:.4f} "
        f"| {results['ods_threshold']:.3f} | {results['ois']:.4f} | {results['ap']:.4f} |"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


if __name__ == "__main__":
    sys.exit(main())

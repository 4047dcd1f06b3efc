"""``picsnet sketch``: soft edge maps of a folder of photographs, as files or in shards."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from picsnet.sketch import ExtractionReport

NAME = "sketch"
HELP = "extract edge maps of a folder of photographs"
MAPS = "map"
"""The sketcher that stands for none: the folder holds maps already."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("photos", metavar="FOLDER", help="photographs; subfolders are included")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="folder of the maps (default with --shards: .cache/maps)",
    )
    parser.add_argument(
        "--sketcher",
        default="bundled",
        help="bundled, hed, hed:FOLDER, or map (FOLDER holds maps already; with --shards)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--max-side", type=int, default=None, help="downscale larger pictures first (default: no)"
    )
    parser.add_argument(
        "--shards",
        metavar="OUT",
        help="pack the maps into shards for training: a folder, s3://BUCKET/PREFIX or gs://...",
    )
    parser.add_argument(
        "--shard-mb",
        type=float,
        default=64.0,
        metavar="N",
        help="megabytes of a shard (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Extract, pack; what is there already is kept, a broken picture is named and skipped."""
    from picsnet.errors import UsageError

    if args.shards is None:
        if args.output is None:
            raise UsageError("nowhere to put the maps; give -o OUT, --shards OUT, or both")
        if args.sketcher == MAPS:
            raise UsageError("--sketcher map makes no maps; give --shards OUT to pack those there")
        return 1 if _extract(args, Path(args.output)).failed else 0
    return _pack(args)


def _pack(args: argparse.Namespace) -> int:
    from picsnet import __version__
    from picsnet.errors import UsageError
    from picsnet.sketch.shards import check_output, write_shards
    from picsnet.training.environment import git_revision

    if not math.isfinite(args.shard_mb):
        raise UsageError(f"--shard-mb {args.shard_mb:g}: must be a number of megabytes")
    shard_bytes = int(args.shard_mb * 2**20)
    store = check_output(args.shards, shard_bytes)
    about = {"sketcher": MAPS, "package": __version__, "revision": git_revision()}
    broken = False
    if args.sketcher == MAPS:
        maps = _maps_in(Path(args.photos))
    else:
        extracted = _extract(args, Path(args.output or ".cache/maps"))
        maps, broken = extracted.maps, bool(extracted.failed)
        about |= {"sketcher": extracted.maps_dir.name, "max_side": args.max_side}
    report = write_shards(maps, store, shard_bytes, about, progress=True)
    print(
        f"{report.url}: {report.count} maps in {report.shards} shards, "
        f"{report.shards - report.written} of them there already, {len(report.failed)} maps skipped"
    )
    if report.stale:
        some = " ".join(report.stale[:3]) + (" ..." if len(report.stale) > 3 else "")
        print(
            f"{report.url}: {len(report.stale)} shards of an earlier set are no longer used; once "
            f"no training reads them they can go: {some}"
        )
    return 1 if broken or report.failed else 0


def _maps_in(folder: Path) -> list[Path]:
    from picsnet.errors import DataError
    from picsnet.files import IMAGE_SUFFIXES, expand_inputs

    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder of maps; check the path")
    return [item.path for item in expand_inputs([folder], IMAGE_SUFFIXES)]


def _extract(args: argparse.Namespace, cache: Path) -> ExtractionReport:
    from picsnet.sketch import extract_folder

    report = extract_folder(
        Path(args.photos),
        args.sketcher,
        cache,
        workers=args.workers,
        progress=True,
        max_side=args.max_side,
    )
    print(
        f"{report.maps_dir}: {report.done} maps made, {report.reused} there already, "
        f"{len(report.failed)} pictures skipped"
    )
    return report

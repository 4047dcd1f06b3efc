"""``picsnet sketch``: soft edge maps of a folder of photographs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

NAME = "sketch"
HELP = "extract edge maps of a folder of photographs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("photos", metavar="FOLDER", help="photographs; subfolders are included")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the maps")
    parser.add_argument("--sketcher", default="bundled", help="bundled, hed or hed:FOLDER")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--max-side", type=int, default=None, help="downscale larger pictures first (default: no)"
    )


def run(args: argparse.Namespace) -> int:
    """Extract; what is there already is kept, a broken picture is named and skipped."""
    from picsnet.sketch import extract_folder

    report = extract_folder(
        Path(args.photos),
        args.sketcher,
        Path(args.output),
        workers=args.workers,
        progress=True,
        max_side=args.max_side,
    )
    print(
        f"{report.maps_dir}: {report.done} maps made, {report.reused} there already, "
        f"{len(report.failed)} pictures skipped"
    )
    return 1 if report.failed else 0

"""``picsnet report``: a folder with charts, tables and pictures of evaluations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from picsnet.errors import UsageError

NAME = "report"
HELP = "write a page of charts, tables and pictures from evaluations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that picsnet evaluate made")
    parser.add_argument(
        "-o", "--output", default="report", metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument(
        "--pictures", type=int, metavar="N", help="photographs in the gallery (default: all)"
    )
    parser.add_argument(
        "--lossless", action="store_true", help="pictures as PNG in place of WebP, quality 90"
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    if args.pictures is not None and args.pictures < 0:
        raise UsageError(f"--pictures {args.pictures}: must be 0 or more")
    from picsnet.report.loading import load_published, load_runs
    from picsnet.report.writing import PAGE, write_report

    runs = load_runs([Path(folder) for folder in args.runs])
    folder = Path(args.output)
    notes = write_report(runs, load_published(), folder, args.pictures, args.lossless)
    for note in notes:
        print(f"picsnet: note: {note}", file=sys.stderr)
    print(f"look at {(folder / PAGE).resolve()}")
    return 0

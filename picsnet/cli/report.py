"""``picsnet report``: a folder with charts, tables and pictures of evaluations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from picsnet.errors import UsageError

NAME = "report"
HELP = "write a page of charts, tables and pictures from evaluations"
_NOTES_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders that picsnet evaluate made")
    parser.add_argument(
        "-o",
        "--output",
        default="report",
        metavar="FOLDER",
        help="to make; a report that is there is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        metavar="N",
        help="photographs of each dataset in the gallery (default: all)",
    )
    parser.add_argument(
        "--lossless", action="store_true", help="pictures as PNG in place of WebP, quality 90"
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    if args.pictures is not None and args.pictures < 0:
        raise UsageError(f"--pictures {args.pictures}: must be 0 or more")
    from picsnet.report.loading import load_runs
    from picsnet.report.page import PAGE
    from picsnet.report.published import load_published
    from picsnet.report.writing import write_report

    runs = load_runs([Path(folder) for folder in args.runs])
    folder = Path(args.output)
    notes = write_report(runs, load_published(), folder, args.pictures, args.lossless)
    for note in notes[:_NOTES_SHOWN]:
        print(f"picsnet: note: {note}", file=sys.stderr)
    if len(notes) > _NOTES_SHOWN:
        more = len(notes) - _NOTES_SHOWN
        print(f"picsnet: note: {more} more of these, all on the page", file=sys.stderr)
    print(f"look at {(folder / PAGE).resolve()}")
    return 0

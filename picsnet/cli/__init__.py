"""The command line. Each verb lives in its own module and imports what is heavy when it runs."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from picsnet import __version__
from picsnet.cli import (
    decode,
    encode,
    evaluate,
    export,
    info,
    models,
    report,
    serve,
    sketch,
    wandb_workspace,
)
from picsnet.ending import ended
from picsnet.errors import PicsnetError
from picsnet.terminal import escape_what_cannot_be_written

VERBS = (encode, decode, info, sketch, models, export, evaluate, report, serve, wandb_workspace)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; importing and building it stays free of torch."""
    parser = argparse.ArgumentParser(
        prog="picsnet", description="Text and sketch image codec for ultra-low rates."
    )
    parser.add_argument("-V", "--version", action="version", version=f"picsnet {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in VERBS:
        verb = verbs.add_parser(module.NAME, help=module.HELP, description=module.HELP)
        module.add_arguments(verb)
        verb.add_argument("--debug", action="store_true", help="show tracebacks of errors")
        verb.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status: 0, 1 for failures, 2 for usage."""
    args = build_parser().parse_args(arguments)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except (PicsnetError, KeyboardInterrupt) as error:
        return ended(error, args.debug)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def process(*verb: str) -> NoReturn:
    """A whole process: ``verb`` with the arguments that it was started with, and its status.

    Before a process ends, Python looks for garbage among all that it holds. That took a fifth of
    the time of a cold decode, for the 190,000 objects that are torch's modules and none of them
    garbage: they are set aside first. What counts on being closed at the end is closed as ever.
    """
    atexit.register(_set_aside)
    escape_what_cannot_be_written()
    sys.exit(main([*verb, *sys.argv[1:]]))


def _set_aside() -> None:
    # Triton, which drawing loads, complains at length of all that is not taken apart at the end.
    if "triton" not in sys.modules:
        gc.freeze()

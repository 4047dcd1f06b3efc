"""``picsnet export``: a training checkpoint to a model folder."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "export"
HELP = "turn a training checkpoint into a model folder (safetensors and a card)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("checkpoint", metavar="CKPT", help="the last.ckpt of a run of train.py")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="model folder")


def run(args: argparse.Namespace) -> int:
    """Export averaged weights, with coding tables if it is a sketch NTC."""
    from picsnet.exporting import export_checkpoint

    fingerprint = export_checkpoint(Path(args.checkpoint), Path(args.output))
    print(f"{args.output}: fingerprint {fingerprint}")
    return 0

"""``picsnet models``: what ships."""

from __future__ import annotations

import argparse
import json

from picsnet import shipped

NAME = "models"
HELP = "list the models that ship"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object a model")


def run(args: argparse.Namespace) -> int:
    """Print a line for each card."""
    for name, card in shipped.cards().items():
        size = sum(path.stat().st_size for path in (shipped.FOLDER / name).iterdir())
        if args.json:
            print(json.dumps({"name": name, "bytes": size, **card}))
            continue
        about = f"lambda {card['lmbda']} on {card['distortion']}" if "lmbda" in card else "edges"
        print(
            f"{name:<24} {size / 2**20:5.1f} MiB  {card['architecture']}, "
            f"{about}, fingerprint {card['fingerprint']}"
        )
    return 0

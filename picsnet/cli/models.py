"""``picsnet models``: what ships."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

NAME = "models"
HELP = "list the models that ship"
SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object a model")


def run(args: argparse.Namespace) -> int:
    """Print a line for each card."""
    for card_path in sorted(SHIPPED.glob("*/card.json")):
        card = json.loads(card_path.read_text())
        size = sum(path.stat().st_size for path in card_path.parent.iterdir())
        if args.json:
            print(json.dumps({"name": card_path.parent.name, "bytes": size, **card}))
            continue
        about = f"lambda {card['lmbda']} on {card['distortion']}" if "lmbda" in card else "edges"
        print(
            f"{card_path.parent.name:<24} {size / 2**20:5.1f} MiB  {card['architecture']}, {about}, "
            f"fingerprint {card['fingerprint']}"
        )
    return 0

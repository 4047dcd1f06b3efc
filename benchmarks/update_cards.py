"""Write what sketch_rd.py measured into the cards of the models that ship.

python benchmarks/update_cards.py out/sketch_rd/sketch_rd.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from picsnet import shipped
from picsnet.files import atomic_write


def main(arguments: list[str] | None = None) -> int:
    """Add ``measured`` to each card that the report has a point for."""
    parser = argparse.ArgumentParser(description="Write measured figures into model cards.")
    parser.add_argument("report", type=Path, help="sketch_rd.json")
    report = json.loads(parser.parse_args(arguments).report.read_text(encoding="utf-8"))
    points = {point["point"].removeprefix("picsnet "): point for point in report["points"]}
    cards = shipped.cards()
    # A network for several lambdas is measured at its operating points; its own card has that of
    # the lambda at which it codes where none is asked for.
    own = {
        card["model"]: name
        for name, card in cards.items()
        if "model" in card and card["lmbda"] == cards[card["model"]]["lmbda"]
    }
    for name in cards:
        point = points.get(own.get(name, name))
        if point is None:
            continue
        card = json.loads((shipped.FOLDER / name / shipped.CARD).read_text(encoding="utf-8"))
        card["measured"] = {
            "maps": report["settings"]["maps"],
            "pictures": len(report["settings"]["pictures"]),
            "bpp": round(point["bpp"], 6),
            "bytes": round(point["bytes"], 1),
            "ms_ssim": round(point["ms_ssim"], 5),
        }
        with atomic_write(shipped.FOLDER / name / shipped.CARD) as part:
            part.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {point['bpp']:.5f} bpp, MS-SSIM {point['ms_ssim']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

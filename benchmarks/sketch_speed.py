"""Time that a sketch takes with our network and with the paper's, on the same maps and cores.

    python benchmarks/sketch_speed.py ../shared/data/kodak

Maps of 512x512 (the middle of photographs, sketched) are coded to files and decoded from them by
both, taking turns; medians count. Neither network's time depends on what its weights are: each
goes through as many layers, and as many symbols, whatever they say. So the paper's network
(Cheng2020Attention, N=192) stands in with random weights where ``--paper CKPT`` names none.

Writes ``out/sketch_speed.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from picsnet.checkpoints import load_model
from picsnet.errors import DataError, PicsnetError, UsageError
from picsnet.files import IMAGE_SUFFIXES, atomic_write, expand_inputs
from picsnet.images import load_rgb
from picsnet.ntc.cheng2020 import Cheng2020Sketch
from picsnet.shipped import DEFAULT
from picsnet.sketch import load_sketcher

Map = NDArray[np.uint8]

TARGET = 20
"""Times the paper's network that ours is to be as fast as."""


def main(arguments: list[str] | None = None) -> int:
    """Time, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="folder of photographs")
    parser.add_argument("-n", "--pictures", type=int, default=3, help="of the folder, the first")
    parser.add_argument("--side", type=int, default=512, help="of the maps, pixels")
    parser.add_argument("--ckpt", default=DEFAULT, help="our model (default: the one that ships)")
    parser.add_argument(
        "--paper", metavar="CKPT", help="training checkpoint of the paper's network"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("-o", "--output", default="out/sketch_speed.json")
    args = parser.parse_args(arguments)
    try:
        if min(args.pictures, args.repeat) < 1 or args.side < 64:
            raise UsageError("--pictures and --repeat must be at least 1, --side at least 64")
        result = measure(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"sketch_speed.py: error: {error}", file=sys.stderr)
        return error.exit_status
    _print(result)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures.

    Raises:
        PicsnetError: a picture is too small, or a model cannot be loaded.
    """
    from benchmarks.paper import PaperCodec, load_paper
    from benchmarks.sketch_rd import ModelPoint

    maps = load_maps(args.photos, args.pictures, args.side)
    torch.manual_seed(0)
    paper = load_paper(args.paper)[0] if args.paper else Cheng2020Sketch()
    model = load_model(args.ckpt, prior=False)
    codecs: dict[str, ModelPoint | PaperCodec] = {
        "ours": ModelPoint(model, model.quality, effort=0),
        "paper": PaperCodec(paper),
    }
    spent: dict[str, dict[str, list[float]]] = {
        name: {"encode": [], "decode": []} for name in codecs
    }
    for sketch in tqdm(maps * args.repeat, unit="map"):
        for name, codec in codecs.items():
            start = time.perf_counter()
            data = codec.encode(sketch)
            middle = time.perf_counter()
            codec.decode(data)
            spent[name]["encode"].append(middle - start)
            spent[name]["decode"].append(time.perf_counter() - middle)
    medians = {
        name: {verb: statistics.median(times) for verb, times in verbs.items()}
        for name, verbs in spent.items()
    }
    return {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "ckpt": args.ckpt,
        "paper": args.paper or "random weights",
        "maps": len(maps),
        "side": args.side,
        "seconds": medians,
        "times": {verb: medians["paper"][verb] / medians["ours"][verb] for verb in spent["ours"]},
        "target": TARGET,
    }


def load_maps(photos: str, count: int, side: int) -> list[Map]:
    """Maps of the middles of the first photographs.

    Raises:
        DataError: one is smaller than that.
    """
    sketcher = load_sketcher("bundled")
    maps = []
    for file in expand_inputs([photos], IMAGE_SUFFIXES)[:count]:
        picture = load_rgb(file.path)
        height, width = picture.shape[:2]
        if min(height, width) < side:
            raise DataError(f"{file.path}: {width}x{height} is smaller than --side {side}")
        top, left = (height - side) // 2, (width - side) // 2
        maps.append(sketcher(picture[top : top + side, left : left + side]))
    return maps


def _print(result: dict[str, Any]) -> None:
    print(
        f"{result['maps']} maps of {result['side']}x{result['side']}, {result['threads']} threads, "
        f"torch {result['torch']}; the paper's network: {result['paper']}"
    )
    for verb, times in result["times"].items():
        ours, paper = (result["seconds"][name][verb] for name in ("ours", "paper"))
        print(
            f"{verb:<8}{1000 * ours:7.0f} ms, the paper's network {1000 * paper:7.0f} ms: "
            f"{times:.0f} times as long (target: {result['target']})"
        )


if __name__ == "__main__":
    # A file that is run has its own folder on the path, not the one that holds ``benchmarks``.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    sys.exit(main())

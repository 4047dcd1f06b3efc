"""``picsnet encode``: photographs to .pics files."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from picsnet.cli.batch import Record, output_paths, run_all
from picsnet.files import IMAGE_SUFFIXES, atomic_write, expand_inputs

NAME = "encode"
HELP = "code photographs to .pics files"
DEFAULT_CKPT = "sketch_ntc_lambda0.5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, folders or globs")
    parser.add_argument(
        "--ckpt",
        default=DEFAULT_CKPT,
        help="a shipped model, an exported folder or a Lightning checkpoint (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="a .pics file or a folder")
    parser.add_argument(
        "--mode", choices=["sketch"], default="sketch", help="what the file holds (default: sketch)"
    )
    parser.add_argument(
        "--sketcher",
        default="bundled",
        help="edge extractor: bundled, hed, hed:FOLDER, or map if inputs are maps already",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", action="store_true", help="one JSON object a file on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    """Code all inputs; a broken one is named and the others go on."""
    pairs = output_paths(expand_inputs(args.images, IMAGE_SUFFIXES), args.output, ".pics")
    from picsnet.bitstream import layer_bytes
    from picsnet.checkpoints import load_model
    from picsnet.codec import SketchCodec
    from picsnet.devices import check_device
    from picsnet.images import load_grey, load_rgb
    from picsnet.sketch import load_sketcher

    device = check_device(args.device)
    codec = SketchCodec(load_model(args.ckpt, device))
    sketcher = None if args.sketcher == "map" else load_sketcher(args.sketcher, device)

    def work(source: Path, target: Path) -> Record:
        start = time.perf_counter()
        sketch = load_grey(source) if sketcher is None else sketcher(load_rgb(source))
        data = codec.encode_map(sketch)
        with atomic_write(target) as part:
            part.write_bytes(data)
        height, width = sketch.shape
        size = target.stat().st_size
        return {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            "bytes": size,
            "bpp": 8 * size / (width * height),
            "layers": layer_bytes(data),
            "seconds": round(time.perf_counter() - start, 3),
        }

    def describe(record: Record) -> str:
        return (
            f"{record['output']}: {record['width']}x{record['height']}, {record['bytes']} bytes, "
            f"{record['bpp']:.5f} bpp, {record['seconds']:.2f} s"
        )

    return run_all(pairs, work, describe, args.json, args.quiet)

"""``picsnet decode``: .pics files to pictures."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from picsnet.cli.batch import Record, output_paths, run_all
from picsnet.errors import PicsnetError
from picsnet.files import expand_inputs, read_file

if TYPE_CHECKING:
    from picsnet.codec import SketchCodec

NAME = "decode"
HELP = "decode .pics files to PNG pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".pics files, folders or globs")
    parser.add_argument("-o", "--output", metavar="OUT", help="a .png file or a folder")
    parser.add_argument(
        "--ckpt",
        help="the model that the file was written with, where it is not one of those that ship",
    )
    parser.add_argument(
        "--sketch-only",
        action="store_true",
        help="write the decoded sketch (all that a sketch file holds)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", action="store_true", help="one JSON object a file on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def run(args: argparse.Namespace) -> int:
    """Decode all inputs; a broken one is named and the others go on."""
    pairs = output_paths(expand_inputs(args.files, frozenset({".pics"})), args.output, ".png")
    from picsnet.bitstream import read

    # Files are parsed before torch is loaded: a damaged one is reported at once.
    codecs: dict[bytes, SketchCodec] = {}

    def work(source: Path, target: Path) -> Record:
        file = read(read_file(source), name=str(source))
        from picsnet.images import save_png

        codec = _codec_for(file.sketch.fingerprint if file.sketch else b"", args, codecs, source)
        # Loading a model is paid once, not by the file that comes first.
        start = time.perf_counter()
        sketch = codec.decode_file(file, str(source))
        save_png(sketch, target)
        return {
            "input": str(source),
            "output": str(target),
            "width": file.width,
            "height": file.height,
            "model": codec.model.name,
            "seconds": round(time.perf_counter() - start, 3),
        }

    def describe(record: Record) -> str:
        return (
            f"{record['output']}: {record['width']}x{record['height']}, by {record['model']}, "
            f"{record['seconds']:.2f} s"
        )

    return run_all(pairs, work, describe, args.json, args.quiet)


def _codec_for(
    fingerprint: bytes,
    args: argparse.Namespace,
    codecs: dict[bytes, SketchCodec],
    source: Path,
) -> SketchCodec:
    if fingerprint not in codecs:
        from picsnet.checkpoints import find_by_fingerprint, load_model
        from picsnet.codec import SketchCodec
        from picsnet.devices import check_device
        from picsnet.errors import FingerprintError

        device = check_device(args.device)
        if args.ckpt:
            codecs[fingerprint] = SketchCodec(load_model(args.ckpt, device))
        else:
            try:
                codecs[fingerprint] = SketchCodec(find_by_fingerprint(fingerprint, device))
            except PicsnetError as error:
                raise FingerprintError(f"{source}: {error}") from None
    return codecs[fingerprint]

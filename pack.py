#!/usr/bin/env python3
"""``python pack.py photos/ -o out/photos.tar`` makes what the mini decoder is trained on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from picsnet.ending import ended
from picsnet.errors import PicsnetError
from picsnet.terminal import escape_what_cannot_be_written

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from datamodules.pack import SketchCoder

MODELS = [f"sketch_ntc_lambda{lmbda}" for lmbda in ("0.25", "0.5", "1.0", "2.0")]


def main(arguments: list[str] | None = None) -> int:
    """Pack photographs and their coded sketches; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", help="pictures, folders or globs")
    parser.add_argument("-o", "--output", required=True, help="the pack, a .tar file")
    parser.add_argument("--side", type=int, default=288, help="shorter side (default: 288)")
    parser.add_argument("--quality", type=int, default=85, help="of JPEG (default: 85)")
    parser.add_argument("--sketcher", default="bundled", help="default: %(default)s")
    parser.add_argument(
        "--ckpt",
        nargs="*",
        default=MODELS,
        help="models that code the sketches (default: lambdas 0.25 to 2.0)",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    args = parser.parse_args(arguments)
    try:
        from datamodules.pack import write_pack
        from picsnet.files import IMAGE_SUFFIXES, expand_inputs

        photos = [item.path for item in expand_inputs(args.photos, IMAGE_SUFFIXES)]
        count, size = write_pack(
            photos,
            Path(args.output),
            args.side,
            args.quality,
            coder(args.sketcher, args.ckpt) if args.ckpt else None,
            {"sketcher": args.sketcher, "models": args.ckpt},
            progress=True,
        )
    except (PicsnetError, KeyboardInterrupt) as error:
        return ended(error, args.debug)
    print(f"{args.output}: {count} photographs, {size / 2**20:.1f} MiB")
    return 0


def coder(sketcher: str, models: list[str]) -> SketchCoder:
    """Codes a photograph's sketch with each of some models."""
    from picsnet.checkpoints import load_model
    from picsnet.codec import SketchCodec
    from picsnet.sketch import load_sketcher

    draw = load_sketcher(sketcher, "cpu")
    codecs = [SketchCodec(load_model(name, "cpu")) for name in models]

    def code(photo: NDArray[np.uint8]) -> list[bytes]:
        sketch = draw(photo)
        return [codec.encode_map(sketch) for codec in codecs]

    return code


if __name__ == "__main__":
    escape_what_cannot_be_written()
    sys.exit(main())

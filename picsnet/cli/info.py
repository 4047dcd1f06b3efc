"""``picsnet info``: what is in a .pics file, byte by byte, without decoding it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from picsnet.bitstream import layer_bytes, read
from picsnet.errors import PicsnetError
from picsnet.files import expand_inputs, read_file

NAME = "info"
HELP = "say what is in .pics files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".pics files, folders or globs")
    parser.add_argument("--json", action="store_true", help="one JSON object a file on stdout")


def run(args: argparse.Namespace) -> int:
    """Describe all inputs; a broken one is named and the others go on."""
    status = 0
    for item in expand_inputs(args.files, frozenset({".pics"})):
        try:
            record = describe(item.path)
        except PicsnetError as error:
            print(f"picsnet: error: {error}", file=sys.stderr)
            status = error.exit_status
            continue
        if args.json:
            print(json.dumps(record))
            continue
        print(f"{record['file']}: {record['width']}x{record['height']}, {record['bytes']} bytes, ")
        print(f"  {record['bpp']:.5f} bpp including the container")
        layers = record["layers"]
        assert isinstance(layers, dict)
        for name, size in layers.items():
            print(f"  {name:<12} {size:>6} bytes")
        if record["model"]:
            print(f"  sketch model {record['model']}")
    return status


def describe(path: Path) -> dict[str, object]:
    """One file's contents.

    Raises:
        PicsnetError: it cannot be read, or is not whole.
    """
    data = read_file(path)
    file = read(data, name=str(path))
    return {
        "file": str(path),
        "width": file.width,
        "height": file.height,
        "bytes": len(data),
        "bpp": 8 * len(data) / (file.width * file.height),
        "layers": layer_bytes(data),
        "model": file.sketch.fingerprint.hex() if file.sketch else None,
    }

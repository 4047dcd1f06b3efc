"""``picsnet info``: what is in a .pics file, byte by byte, without decoding it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from picsnet.contents import contents
from picsnet.errors import PicsnetError
from picsnet.files import expand_inputs, read_file
from picsnet.terminal import print_error, printable

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
            print_error(error)
            status = error.exit_status
            continue
        if args.json:
            print(json.dumps(record))
            continue
        _print(record)
    return status


def _print(record: dict[str, Any]) -> None:
    name, size = printable(record["file"]), f"{record['width']}x{record['height']}"
    print(f"{name}: {size}, {record['bytes']} bytes,")
    print(f"  {record['bpp']:.5f} bpp including the container")
    for name, size in record["layers"].items():
        if size:
            print(f"  {name:<12} {size:>6} bytes")
    print(f"  {record['overhead_bytes']} bytes beside prompt and sketch")
    if record["decoder"]:
        print(
            f"  decoder {record['decoder']}, drawn at {record['size']} pixels, candidate "
            f"{record['candidate']} (in {record['candidate_bits']} bits)"
        )
    if record["model"]:
        print(f"  sketch model {record['model']}")


def describe(path: Path) -> dict[str, Any]:
    """One file's contents.

    Raises:
        PicsnetError: it cannot be read, or is not whole.
    """
    return {"file": str(path), **contents(read_file(path), str(path))}

"""Pictures a second of one process, of two that share a folder, and of Ray's actors.

    python benchmarks/many_pictures.py --data ../shared/data/photos

The first ``--pictures`` photographs of the folder are coded (mode sketch, or another with
``--mode``) on the CPU by ``picsnet encode --resume`` and by ``python -m picsnet.scale.ray``, each a
fresh process into a fresh folder, in turn, ``--repeat`` times. Where there are several processes
each has one thread. The rate is of files as they appear: from the first to the last of them, so
that it is without what starts and loads; ``whole`` is with it. Medians count. Writes
``out/many_pictures.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picsnet.errors import DataError, PicsnetError
from picsnet.files import IMAGE_SUFFIXES, atomic_write, expand_inputs
from picsnet.scale.manifest import MANIFEST, OK, from_lines

UNIT = 2
"""Of Ray: files appear so many at once."""


@dataclass(frozen=True)
class Way:
    """How pictures are coded."""

    name: str
    command: list[str]
    threads: int
    together: int = 1  # files that appear at once


def main(arguments: list[str] | None = None) -> int:
    """Time, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of photographs")
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--mode", default="sketch", choices=["sketch", "pics", "pic"])
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("-o", "--output", default="out/many_pictures.json")
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"many_pictures.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{args.pictures} pictures, mode {args.mode}, {result['cores']} cores")
    for row in result["rows"]:
        print(
            f"{row['name']:<24} {row['rate']:6.2f} pictures/s  {row['relative']:5.2f}  "
            f"whole {row['whole']:6.1f} s"
        )
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All ways in turn.

    Raises:
        DataError: too few photographs, or a way that failed.
    """
    found = expand_inputs([args.data], IMAGE_SUFFIXES)[: args.pictures]
    if len(found) < args.pictures:
        raise DataError(f"{args.data}: has {len(found)} pictures, not {args.pictures}")
    ways = _ways(args)
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    wholes: dict[str, list[float]] = {way.name: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        photos.mkdir()
        for item in found:
            shutil.copy(item.path, photos / item.path.name)
        for round_ in range(args.repeat):
            for number, way in enumerate(ways):
                out = Path(folder, f"{round_}-{number}")
                rate, whole = _time(way, photos, out)
                rates[way.name].append(rate)
                wholes[way.name].append(whole)
    base = statistics.median(rates[ways[0].name])
    return {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "pictures": args.pictures,
        "mode": args.mode,
        "rows": [
            {
                "name": way.name,
                "rate": statistics.median(rates[way.name]),
                "relative": statistics.median(rates[way.name]) / base,
                "whole": statistics.median(wholes[way.name]),
            }
            for way in ways
        ],
    }


def _ways(args: argparse.Namespace) -> list[Way]:
    encode = [sys.executable, "-m", "picsnet", "encode", "{photos}", "-o", "{out}", "-q"]
    encode += ["--resume", "--mode", args.mode, "--device", "cpu", "--devices"]
    ray = [sys.executable, "-m", "picsnet.scale.ray", "{photos}", "{out}", "-q"]
    ray += ["--mode", args.mode, "--workers", "2", "--unit", str(UNIT)]
    ways = [
        Way("1 process, 1 thread", [*encode, "1"], 1),
        Way("1 process, 2 threads", [*encode, "1"], 2),
        Way("2 processes", [*encode, "2"], 1),
        Way("Ray, 2 actors", ray, 1, UNIT),
    ]
    return ways[:3] if args.without_ray else ways


def _time(way: Way, photos: Path, out: Path) -> tuple[float, float]:
    """(pictures a second, seconds of the whole command)."""
    command = [part.format(photos=photos, out=out) for part in way.command]
    start = time.perf_counter()
    ended = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": str(way.threads)},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    whole = time.perf_counter() - start
    if ended.returncode:
        raise DataError(f"{way.name}: failed ({ended.stderr.strip().splitlines()[-1:]})")
    records = list(from_lines((out / MANIFEST).read_bytes()))
    assert all(record["status"] == OK for record in records)
    moments = sorted((out / record["output"]).stat().st_mtime for record in records)
    return (len(moments) - way.together) / (moments[-1] - moments[0]), whole


if __name__ == "__main__":
    sys.exit(main())

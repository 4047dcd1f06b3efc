"""Crops a second of the data loader alone: maps as files, and in shards near and far.

    python benchmarks/loader.py MAPS

MAPS is a folder of maps (``picsnet sketch PHOTOS -o MAPS``); it is packed into shards in a scratch
folder. ``decoded`` maps come from memory, as in a run whose maps all fit there; in the other rows
nothing is kept and each crop reads and decodes its map. Far shards are copied through a cache that
is empty (cold) or full (warm) at first, windows of ``--window`` shards at a time. A rate is crops
over the time from the second batch to the last; the time to the first batch stands beside it. All
are timed in turn within a round, and the medians of ``--repeat`` rounds count. Writes
``out/loader.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
from datamodules.shards import ShardMapDataModule, ShardSettings, list_shards, split_shards
from picsnet.errors import PicsnetError, UsageError
from picsnet.files import atomic_write
from picsnet.sketch.shards import check_output, write_shards

SEED = 1
DECODED_BYTES = 2**30
WARM_UP = 60
"""Batches after which each worker has seen nearly all maps of a small folder."""


def main(arguments: list[str] | None = None) -> int:
    """Time, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", metavar="MAPS")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--shard-mb", type=float, default=0.5)
    parser.add_argument("--window", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--output", default="out/loader.json")
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"loader.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{result['maps']} maps in {result['shards']} shards, crops of {args.crop}")
    print(f"{'':<26} {'workers':>7} {'crops/s':>9} {'of files':>9} {'first batch':>12}")
    for row in result["rows"]:
        print(
            f"{row['name']:<26} {row['workers']:>7} {row['crops_per_second']:>9.0f} "
            f"{row['relative']:>9.2f} {row['first_batch_seconds']:>10.2f} s"
        )
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time all in turn.

    Raises:
        UsageError: a number that makes no loader.
        DataError: no maps.
    """
    if min(args.steps, args.repeat, args.batch_size) < 1 or min(args.workers) < 0 or args.steps < 2:
        raise UsageError("give two steps, one round, one crop a batch and no fewer than 0 workers")
    # What a training has: its own thread, and workers beside it.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(args, Path(scratch))
        timings: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for _ in range(args.repeat):
            for workers in args.workers:
                for name, run in bench.sources.items():
                    timings.setdefault((name, workers), []).append(run(workers))
        rows = [_row(key, values, args) for key, values in timings.items()]
    for row in rows:
        files = next(r for r in rows if r["name"] == "files" and r["workers"] == row["workers"])
        row["relative"] = row["crops_per_second"] / files["crops_per_second"]
    return {
        "machine": platform.machine(),
        "torch": torch.__version__,
        "maps": bench.maps,
        "shards": bench.shards,
        "crop": args.crop,
        "batch_size": args.batch_size,
        "window": args.window,
        "rows": rows,
    }


class _Bench:
    """Each source of crops, by its name: workers -> (seconds to the first batch, of the rest)."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        self.args, self.scratch = args, scratch
        paths = list_maps(Path(args.maps))
        near = str(scratch / "shards")
        shard_bytes = int(args.shard_mb * 2**20)
        report = write_shards(paths, check_output(near, shard_bytes), shard_bytes, {}, False)
        self.maps, self.shards = report.count, report.shards
        val_count = max(1, len(paths) // 10)
        split = split_maps(paths, val_count, SEED)
        splits = {
            url: split_shards(list_shards([url]), val_count, SEED)
            for url in (near, f"local:{near}")
        }
        cache = scratch / "cache"

        def files(workers: int, decoded: bool) -> SketchMapDataModule:
            return SketchMapDataModule(*split, self._settings(workers, decoded))

        def shards(workers: int, decoded: bool, url: str, window: int) -> ShardMapDataModule:
            how = ShardSettings(cache, sum(s.size for s in splits[url].shards), window)
            return ShardMapDataModule(splits[url], self._settings(workers, decoded), how)

        def far(workers: int, keep: bool) -> tuple[float, float]:
            if not keep:
                shutil.rmtree(cache, ignore_errors=True)
            return self._time(shards(workers, False, f"local:{near}", args.window), 0)

        self.sources: dict[str, Callable[[int], tuple[float, float]]] = {
            "files": lambda w: self._time(files(w, False), 0),
            "shards": lambda w: self._time(shards(w, False, near, 0), 0),
            "shards, far, cold": lambda w: far(w, keep=False),
            "shards, far, warm": lambda w: far(w, keep=True),
            "files, decoded": lambda w: self._time(files(w, True), WARM_UP),
            "shards, decoded": lambda w: self._time(shards(w, True, near, 0), WARM_UP),
        }

    def _settings(self, workers: int, decoded: bool) -> MapDataSettings:
        return MapDataSettings(
            crop=self.args.crop,
            batch_size=self.args.batch_size,
            workers=workers,
            seed=SEED,
            total_steps=self.args.steps + (WARM_UP if decoded else 0),
            cache_bytes=DECODED_BYTES if decoded else 0,
        )

    def _time(
        self, module: SketchMapDataModule | ShardMapDataModule, warm_up: int
    ) -> tuple[float, float]:
        start = time.perf_counter()
        moments = [time.perf_counter() - start for _ in module.train_dataloader()]
        return moments[0], moments[-1] - moments[warm_up]


def _row(
    key: tuple[str, int], values: list[tuple[float, float]], args: argparse.Namespace
) -> dict[str, Any]:
    crops = (args.steps - 1) * args.batch_size
    rates = [crops / rest for _, rest in values]
    return {
        "name": key[0],
        "workers": key[1],
        "crops_per_second": statistics.median(rates),
        "crops_per_second_of_rounds": rates,
        "first_batch_seconds": statistics.median(first for first, _ in values),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Loss curves of training from files, from shards, and from windows of few shards.

    python benchmarks/shard_curve.py MAPS

MAPS is a folder of maps (``picsnet sketch PHOTOS -o MAPS``). A miniature network is trained for a
few hundred steps, as ``train.py`` trains it, with each seed from files, from shards shuffled whole
(which gives the same crops) and from far shards of which few are shuffled together (another order).
Runs of one seed have the same held-out maps; those of other seeds do not. Writes
``out/shard_curve.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import importlib.util
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from picsnet.errors import DataError, PicsnetError
from picsnet.files import atomic_write
from picsnet.shards import read_set
from picsnet.sketch.shards import check_output, write_shards

REPOSITORY = Path(__file__).resolve().parent.parent
RUN = "sketch_ntc_lambda0.5"
MINIATURE = [
    "model.options={widths: [8, 8, 8], M: 8, N: 4, features: 8, width: 8}",
    "distortion=mse",
    "lmbda=0.01",
    "data.crop=64",
    "data.batch_size=4",
    "data.val_count=16",
    "data.workers=0",
    "optim.warmup_steps=20",
    "optim.ema_decay=0.98",
    "logging.wandb=disabled",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]


def main(arguments: list[str] | None = None) -> int:
    """Train, compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", metavar="MAPS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--shard-mb", type=float, default=0.5)
    parser.add_argument("--window", type=int, default=2)
    parser.add_argument("-o", "--output", default="out/shard_curve.json")
    args = parser.parse_args(arguments)
    try:
        result = compare(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"shard_curve.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"validation loss, {result['maps']} maps in {result['shards']} shards")
    print(f"{'step':>6}" + "".join(f"{name:>22}" for name in result["curves"]))
    for index, step in enumerate(result["steps"]):
        row = f"{step:>6}"
        for curves in result["curves"].values():
            values = [curve[index] for curve in curves]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row += f"{statistics.mean(values):>13.4f} ± {spread:.4f}"
        print(row)
    return 0


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Train with each seed from each source.

    Raises:
        DataError: no maps, or a training failed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        near = f"{scratch}/shards"
        shard_bytes = int(args.shard_mb * 2**20)
        paths = sorted(Path(args.maps).rglob("*.png"))
        write_shards(paths, check_output(near, shard_bytes), shard_bytes, {}, False)
        cache = f"data.shards_cache={scratch}/cache"
        sources = {
            "files": [f"data.maps=[{args.maps}]"],
            "shards": [f"data.shards=[{near}]", "data.shards_window=0"],
            f"windows of {args.window}": [
                *(f"data.shards=[local:{near}]", f"data.shards_window={args.window}", cache)
            ],
        }
        curves: dict[str, list[list[float]]] = {name: [] for name in sources}
        steps: list[int] = []
        for seed in args.seeds:
            for number, (name, data) in enumerate(sources.items()):
                steps, losses = _train(Path(scratch, f"{seed}-{number}"), seed, args.steps, data)
                curves[name].append(losses)
        return {
            "maps": len(paths),
            "shards": len(read_set(near).shards),
            "window": args.window,
            "seeds": args.seeds,
            "steps": steps,
            "curves": curves,
        }


def _train(output: Path, seed: int, steps: int, data: list[str]) -> tuple[list[int], list[float]]:
    overrides = [
        *(*MINIATURE, *data, f"seed={seed}", f"output={output}"),
        *(f"trainer.max_steps={steps}", f"trainer.val_every={max(1, steps // 4)}", "resume=never"),
    ]
    config = str(REPOSITORY / "configs" / f"{RUN}.yaml")
    with contextlib.redirect_stdout(sys.stderr):
        status = _program().main(["--config", config, *overrides])
    if status:
        raise DataError("a training failed; what it said is above")
    with next((output / RUN).rglob("metrics.csv")).open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
    done = [int(row["step"]) + 1 for row in rows]
    if not done or done[-1] != steps:
        raise DataError(f"a training was stopped before step {steps}; start again")
    return done, [float(row["val/loss"]) for row in rows]


@functools.cache
def _program() -> Any:
    """``train.py``, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("train", REPOSITORY / "train.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())

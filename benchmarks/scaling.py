"""What several processes would gain, worked out on paper from one process's measured step.

    python benchmarks/training.py --maps MAPS -o out/training.json
    python benchmarks/scaling.py out/training.json -o out/scaling.json

Nothing is timed here. DDP sums gradients by a ring: each of n processes sends and receives
2 (n - 1) / n of their bytes in 2 (n - 1) turns (Patarasuk and Yuan, 2009). So a step takes

    step + 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * buckets * latency

where nothing of the exchange is hidden behind the backward pass, though DDP hides most: what is
printed is a floor. What is left out: loaders that cannot keep up, machines of different speed, and
validation, which every process does in full.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picsnet.errors import DataError, PicsnetError, UsageError
from picsnet.files import atomic_write, read_file
from picsnet.ntc import build

BUCKET = 25 * 2**20
"""Bytes that DDP exchanges together, by default."""

PROCESSES = (1, 2, 4, 8, 16, 64)


@dataclass(frozen=True)
class Link:
    """Between processes: bytes a second each way, and seconds until the first arrives."""

    name: str
    bandwidth: float
    latency: float


LINKS = (
    Link("Ethernet, 1 Gbit/s", 0.125e9, 50e-6),
    Link("Ethernet, 10 Gbit/s", 1.25e9, 30e-6),
    Link("InfiniBand, 200 Gbit/s", 25e9, 5e-6),
    Link("NVLink, 200 GB/s", 200e9, 3e-6),
)


def main(arguments: list[str] | None = None) -> int:
    """Work out, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("training", help="JSON of benchmarks/training.py")
    parser.add_argument(
        "--step-ms", type=float, help="of one process, in place of the measured one: what if"
    )
    parser.add_argument("-o", "--output", default="out/scaling.json")
    args = parser.parse_args(arguments)
    try:
        result = work_out(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"scaling.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(
        f"worked out, not measured: a step of {1000 * result['step_seconds']:.1f} ms "
        f"({result['step_from']}), gradients of {result['gradient_bytes'] / 1e6:.2f} MB"
    )
    print(f"{'crops a second, times one process':<36}" + "".join(f"{n:>9}" for n in PROCESSES[1:]))
    for row in result["rows"]:
        gains = "".join(f"{gain:9.2f}" for gain in row["gains"][1:])
        print(f"{row['link']:<36}{gains}")
    return 0


def work_out(args: argparse.Namespace) -> dict[str, Any]:
    """The table, for the network and batch that were timed.

    Raises:
        DataError: the JSON is not the training benchmark's.
        UsageError: a step that takes no time, or for ever.
    """
    given: float | None = args.step_ms
    if given is not None and not 0 < given < math.inf:  # NaN neither
        raise UsageError(
            f"--step-ms {given:g}: must be above 0, and finite; leave it out to take the measured "
            "step"
        )
    try:
        measured = json.loads(read_file(Path(args.training)))
        rate = float(measured["crops_per_second"]["ours"])
        batch, device = int(measured["batch_size"]), str(measured["device"])
        architecture = str(measured["architecture"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{args.training}: not the JSON of benchmarks/training.py ({error}); make it anew"
        ) from None
    step = given / 1000 if given is not None else batch / rate
    # At one lambda: further ones add vectors of a few hundred numbers.
    options = {"lambdas": [0.5]} if architecture == "picsnet-context" else {}
    gradients = 4 * sum(p.numel() for p in build(architecture, options).parameters())
    return {
        "architecture": architecture,
        "step_seconds": step,
        "step_from": f"measured on {device}, batches of {batch}" if given is None else "as given",
        "gradient_bytes": gradients,
        "processes": PROCESSES,
        "rows": [
            {
                "link": link.name,
                "gains": [n * step / step_seconds(step, gradients, n, link) for n in PROCESSES],
            }
            for link in LINKS
        ],
    }


def step_seconds(step: float, gradients: int, processes: int, link: Link) -> float:
    """Seconds of a step of so many processes: one process's, and a ring over their gradients."""
    turns = 2 * (processes - 1)
    buckets = math.ceil(gradients / BUCKET)
    return step + turns / processes * gradients / link.bandwidth + turns * buckets * link.latency


if __name__ == "__main__":
    sys.exit(main())

"""Speed of coding sketches, and of starting up.

    python benchmarks/coding.py PHOTOS -n 12

* Pictures a second, encoding (reading, edge detector, network, entropy coding, writing) and
  decoding: one by one with one thread, one by one with all threads, and by workers with the threads
  shared among them. Rounds of the three take turns within one process, so that what else the
  machine does hits all alike; medians of rounds count. Files and pictures must be the same.
  Processes that know nothing of each other, as many as workers, take turns with them too: what
  they reach is what the machine's cores give at most.
* Where the time of one picture goes, in a cold process and in a warm one.
* Wall and processor time of cold processes: --help, info, decode --sketch-only, and an empty one
  that imports torch, for comparison.

Writes ``out/coding.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from picsnet.checkpoints import load_model
from picsnet.cli.batch import Pair, Record, output_paths, run_all
from picsnet.codec import SketchCodec
from picsnet.errors import PicsnetError, UsageError
from picsnet.files import IMAGE_SUFFIXES, atomic_write, expand_inputs
from picsnet.images import load_rgb, save_png
from picsnet.sketch import load_sketcher
from picsnet.stages import Stages

CKPT = "sketch_ntc_lambda0.5"
Work = Callable[[Path, Path], Record]


def main(arguments: list[str] | None = None) -> int:
    """Time, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="folder of photographs")
    parser.add_argument("-n", "--pictures", type=int, default=12, help="of the folder, the first")
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3, help="rounds of coding")
    parser.add_argument("--runs", type=int, default=5, help="cold processes of each kind")
    parser.add_argument("-o", "--output", default="out/coding.json")
    args = parser.parse_args(arguments)
    try:
        if min(args.workers, args.repeat, args.runs) < 1 or args.pictures < args.workers:
            raise UsageError(
                "--workers, --repeat and --runs must be at least 1, --pictures at least as many as "
                "workers"
            )
        with tempfile.TemporaryDirectory() as folder:
            result = measure(args, Path(folder))
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"coding.py: error: {error}", file=sys.stderr)
        return error.exit_status
    _print(result)
    return 0


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures.

    Raises:
        PicsnetError: a picture cannot be coded, or files depend on how they were made.
    """
    photos = expand_inputs([args.photos], IMAGE_SUFFIXES)[: args.pictures]
    if len(photos) < args.workers:
        raise UsageError(
            f"--workers {args.workers}: {args.photos} has too few photographs ({len(photos)}): "
            f"each worker needs one; ask for at most {len(photos)}, or name a larger folder"
        )
    threads = torch.get_num_threads()
    codec, work = _codec_and_encoder()
    files = output_paths(photos, str(folder / "pics"), ".pics")
    first, coded = str(files[0][0].path), str(files[0][1])
    encoding = throughput(work, files, args)
    pictures = output_paths(
        expand_inputs([folder / "pics"], frozenset({".pics"})), str(folder / "maps"), ".png"
    )
    decoding = throughput(functools.partial(_decode, codec), pictures, args)
    torch.set_num_threads(threads)
    encode = ["encode", "--mode", "sketch", "--ckpt", CKPT, first]
    decode = ["decode", "--sketch-only", coded]
    commands = {
        "--help": ["-m", "picsnet", "--help"],
        "info": ["-m", "picsnet", "info", coded],
        "decode --sketch-only": ["-m", "picsnet", *decode, "-o", str(folder / "cold.png")],
        "import torch": ["-c", "import torch"],
    }
    warm_encoding = [work(*paths).pop("stages") for paths in [_paths(files[0])] * args.repeat]
    warm_decoding = [_decode(codec, *_paths(pictures[0])).pop("stages") for _ in range(args.repeat)]
    return {
        "machine": platform.machine(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "ckpt": CKPT,
        "pictures": len(photos),
        "encode": encoding,
        "decode": decoding,
        "latency": {
            "encode": {
                "cold": cold_stages([*encode, "-o", str(folder / "cold.pics")], args.runs),
                "warm": _medians(warm_encoding),
            },
            "decode": {
                "cold": cold_stages([*decode, "-o", str(folder / "cold.png")], args.runs),
                "warm": _medians(warm_decoding),
            },
        },
        "cold": cold_times(commands, args.runs),
    }


def _codec_and_encoder() -> tuple[SketchCodec, Work]:
    codec = SketchCodec(load_model(CKPT, prior=False))
    return codec, functools.partial(_encode, codec, load_sketcher("bundled"))


def _paths(pair: Pair) -> tuple[Path, Path]:
    return pair[0].path, pair[1]


def _encode(codec: SketchCodec, sketcher: Any, source: Path, target: Path) -> Record:
    """As ``picsnet encode --mode sketch`` does."""
    stages = Stages()
    with stages("load"):
        picture = load_rgb(source)
    with stages("sketch"):
        sketch = sketcher(picture)
    data = codec.encode_map(sketch, stages)
    with stages("write"), atomic_write(target) as part:
        part.write_bytes(data)
    return {"stages": stages.seconds}


def _decode(codec: SketchCodec, source: Path, target: Path) -> Record:
    """As ``picsnet decode --sketch-only`` does."""
    stages = Stages()
    with stages("load"):
        data = source.read_bytes()
    pixels = codec.decode_map(data, str(source), stages)
    with stages("write"):
        save_png(pixels, target)
    return {"stages": stages.seconds}


def throughput(work: Work, pairs: list[Pair], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Pictures a second of each way of working.

    Raises:
        PicsnetError: what is written depends on the way.
    """
    threads, workers = torch.get_num_threads(), args.workers
    apart = f"{workers} processes apart"
    ways = {
        "one by one, 1 thread": (1, 1),
        f"one by one, {threads} threads": (1, threads),
        f"{workers} workers": (workers, max(1, threads // workers)),
    }
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in [*ways, apart]}
    written = set()
    for pair in pairs:
        work(*_paths(pair))  # to warm up, and to see that all can be coded
    others = _Apart(pairs, workers)
    for _ in range(args.repeat):
        for name, (at_once, each) in ways.items():
            torch.set_num_threads(each)
            wall, processor = time.perf_counter(), time.process_time()
            run_all(pairs, work, lambda record: [], False, True, at_once)
            spent = (time.perf_counter() - wall, time.process_time() - processor)
            rounds[name].append(spent)
            written.add(_digest([target for _, target in pairs]))
        rounds[apart].append(others.round())
    others.end()
    torch.set_num_threads(threads)
    if len(written) != 1:
        raise PicsnetError("what is written depends on threads or workers; this is a fault")
    walls = {name: statistics.median(wall for wall, _ in spent) for name, spent in rounds.items()}
    first = walls["one by one, 1 thread"]
    return [
        {
            "way": name,
            "pictures_a_second": len(pairs) / walls[name],
            "times": first / walls[name],
            "processor_seconds_a_picture": statistics.median(c for _, c in spent) / len(pairs),
            "seconds_of_rounds": [wall for wall, _ in spent],
        }
        for name, spent in rounds.items()
    ]


class _Apart:
    """Processes that each code a share of the pictures, one by one, when told to."""

    def __init__(self, pairs: list[Pair], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for i in range(count):
            here, there = context.Pipe()
            share = [_paths(pair) for pair in pairs[i::count]]
            process = context.Process(target=_code_when_told, args=(there, share), daemon=True)
            process.start()
            there.close()
            self._pipes.append(here)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def round(self) -> tuple[float, float]:
        """(wall seconds until the last is done, their processor seconds)."""
        wall = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        processor = sum(pipe.recv() for pipe in self._pipes)
        return time.perf_counter() - wall, processor

    def end(self) -> None:
        """Let them go."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()


def _code_when_told(pipe: Connection, share: list[tuple[Path, Path]]) -> None:
    torch.set_num_threads(1)
    codec, encode = _codec_and_encoder()
    work = functools.partial(_decode, codec) if share[0][0].suffix == ".pics" else encode
    work(*share[0])
    pipe.send(0.0)
    while pipe.recv():
        processor = time.process_time()
        for paths in share:
            work(*paths)
        pipe.send(time.process_time() - processor)


def _digest(paths: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def cold_stages(command: list[str], runs: int) -> dict[str, float]:
    """Median seconds by stage of a verb in processes of its own; "start-up" is what is left."""
    found = []
    for _ in range(runs):
        wall, _, output = _process(["-m", "picsnet", *command, "--json"])
        stages = json.loads(output)["stages"]
        found.append({"start-up": wall - sum(stages.values()), **stages})
    return _medians(found)


def cold_times(commands: dict[str, list[str]], runs: int) -> dict[str, dict[str, float]]:
    """Seconds of processes, taking turns."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            spent[name].append(_process(command)[:2])
    return {
        name: {
            "min": min(wall for wall, _ in times),
            "median": statistics.median(wall for wall, _ in times),
            "processor": statistics.median(processor for _, processor in times),
        }
        for name, times in spent.items()
    }


def _process(command: list[str]) -> tuple[float, float, str]:
    """(wall seconds, processor seconds, output) of a Python process."""
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise PicsnetError(f"{' '.join(command)}: failed: {result.stderr.strip()}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, result.stdout


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def _print(result: dict[str, Any]) -> None:
    print(f"{result['pictures']} pictures, {result['threads']} threads, torch {result['torch']}")
    for verb in ("encode", "decode"):
        for row in result[verb]:
            print(
                f"{verb:<8}{row['way']:<24}{row['pictures_a_second']:7.2f} pictures/s "
                f"{row['times']:6.2f} x {1000 * row['processor_seconds_a_picture']:8.0f} ms of "
                "processor a picture"
            )
    for verb, kinds in result["latency"].items():
        for kind, stages in kinds.items():
            parts = ", ".join(f"{name} {1000 * s:.0f}" for name, s in stages.items())
            print(f"{verb:<8}one picture, {kind}: {1000 * sum(stages.values()):.0f} ms ({parts})")
    for name, row in result["cold"].items():
        print(
            f"{name:<24}{row['min']:6.2f} s at best, {row['median']:6.2f} s median, "
            f"{row['processor']:6.2f} s of processor"
        )


if __name__ == "__main__":
    sys.exit(main())

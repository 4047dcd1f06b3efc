"""Folders and buckets of millions of pictures, on a Ray cluster.

    python -m picsnet.scale.ray SRC_URL DST_URL --workers 8 --gpus-per-worker 1

    SRC listed -> what is done left out -> units -> actors that hold models -> files and parts
               -> DST/manifest.jsonl

Ray Data hands the units out: each actor has two, so nothing piles up before or behind it, and the
units of an actor that dies go to another. Only names travel; actors read and write the stores.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from tqdm import tqdm

from picsnet.errors import DataError, PicsnetError, UsageError, in_one_line
from picsnet.files import IMAGE_SUFFIXES
from picsnet.scale.manifest import (
    MANIFEST,
    OK,
    PARTS,
    SUFFIX,
    Outcome,
    Record,
    failures,
    from_lines,
    latest,
    merged,
    new_run,
    to_line,
)
from picsnet.scale.settings import EncodeSettings
from picsnet.scale.stores import Store
from picsnet.scale.units import Job, Picture, UnitCoder
from picsnet.terminal import escape_what_cannot_be_written, print_error, printable

Files = Mapping[str, tuple[int, str]]
"""(bytes, version) by name, as `Store.files` gives them."""

MOST_BLOCKS = 4096
"""Units are tasks of their own up to so many; beyond, a task has several."""
STORE_BYTES = 128 * 2**20
"""Ray's shared memory on one machine: only names travel."""
SECONDS_BETWEEN_LINES = 30.0


@dataclasses.dataclass(frozen=True)
class Workers:
    """Actors that code.

    Attributes:
        count: of them.
        cpus, gpus: that Ray keeps for each; parts of a GPU are allowed (0.5).
        address: of a Ray cluster ("auto": the one that this machine is in); None is this machine,
            or ``RAY_ADDRESS``.
    """

    count: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    address: str | None = None


def encode_pictures(
    source: str,
    destination: str,
    settings: EncodeSettings,
    workers: Workers | None = None,
    *,
    unit: int = 16,
    batch: int = 8,
    source_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Outcome:
    """Code all pictures under a URL that are not coded yet.

    A picture is done if the manifest, or a part that a run left, has it with these settings and its
    file is there with the bytes that it had. It is coded again if its source has another version;
    where that is only another time, its bytes decide.

    Args:
        source, destination: URLs of folders or prefixes that all machines see. Ray's nodes read and
            write them with rights of their own.
        settings: how they are coded; files that they name must be at the same place on every node.
        workers: how many, with what, where.
        unit: pictures that are written and noted together; so many are coded again when a worker
            dies.
        batch: pictures whose prompts are found together.
        source_options, destination_options: of the fsspec file systems.
        progress: a bar on stderr if that is a terminal, else a line now and then.

    Returns:
        What came of it.

    Raises:
        UsageError, DataError, PicsnetError: nothing can be coded, or the cluster fails. What is
            done stays done.
    """
    workers = workers or Workers()
    if min(unit, batch, workers.count) < 1:
        raise UsageError("unit, batch and workers must each be 1 or more")
    if not all(0 <= share < math.inf for share in (workers.cpus, workers.gpus)):
        raise UsageError("CPUs and GPUs of a worker must be 0 or more")
    if "memory://" in source + destination:
        raise UsageError("memory:// is each worker's own; name a folder or a bucket")
    ray = _ray()
    settings = _resolved(settings)
    src, dst = Store(source, source_options), Store(destination, destination_options)
    targets = _targets(src)
    there = dst.files()
    records = _records(dst, there)
    digest = settings.digest()
    pending, before = _pending(targets, records, there, digest)
    job = Job(
        settings,
        digest,
        src.url,
        dst.url,
        new_run(),
        batch,
        "cuda" if workers.gpus else "cpu",
        dict(source_options or {}),
        dict(destination_options or {}),
    )
    if pending:
        with _cluster(ray, workers):
            _watch(_coded(ray, job, pending, unit, workers), len(pending), progress)
    named = {target: f"{src.url}/{name}" for target, name, _ in targets}
    wrong = failures(_finish(dst, named, digest), named)
    return Outcome(f"{dst.url}/{MANIFEST}", len(targets), before, wrong)


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:  # Ray, or what Ray Data needs
        raise UsageError(f"Ray Data cannot be used ({error}); pip install 'picsnet[ray]'") from None
    return ray


def _resolved(settings: EncodeSettings) -> EncodeSettings:
    """With names in place of what this machine would choose, and seen to work.

    Raises:
        PicsnetError: they cannot work.
    """
    is_sketch = settings.mode == "sketch"
    if is_sketch and (settings.decoder is not None or settings.prompt_from is not None):
        raise UsageError(
            "a sketch file holds no prompt: leave out decoder and prompts, or the mode"
        )
    if not is_sketch and settings.sketcher == "map":
        raise UsageError(f"sketcher map: mode {settings.mode} needs photographs; use mode sketch")
    settings = settings.resolved()
    from picsnet.scale.encoding import Encoder

    Encoder(settings, "cpu")
    return settings


def _targets(source: Store) -> list[tuple[str, str, str]]:
    """(target, source, version) of each picture, in order."""
    found: dict[str, tuple[str, str]] = {}
    for name, (_, version) in sorted(source.files().items()):
        path = PurePosixPath(name)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        target = str(path.with_suffix(".pics"))
        if target in found:
            raise UsageError(
                f"{found[target][0]} and {name} would both be written to {target}; "
                "rename one or code them apart"
            )
        found[target] = (name, version)
    if not found:
        raise DataError(f"{source.url}: no pictures there; check the URL")
    return [(target, *rest) for target, rest in sorted(found.items())]


def _records(destination: Store, there: Files) -> dict[str, Record]:
    parts = sorted(name for name in there if _is_part(name))
    paths = [*([MANIFEST] if MANIFEST in there else []), *parts]
    return latest(record for path in paths for record in from_lines(destination.read(path)))


def _is_part(name: str) -> bool:
    return name.startswith(f"{PARTS}/") and name.endswith(SUFFIX)


def _pending(
    targets: Sequence[tuple[str, str, str]],
    records: Mapping[str, Record],
    there: Files,
    digest: str,
) -> tuple[list[Picture], int]:
    """(pictures to look at, how many are done)."""
    pending = []
    for target, source, version in targets:
        record = records.get(target)
        if record is not None and not (
            record["status"] == OK
            and record.get("settings") == digest
            and there.get(target, (None, ""))[0] == record["bytes"]
        ):
            record = None
        if record is None or record.get("version") != version:
            pending.append(Picture(source, target, version, record))
    return pending, len(targets) - len(pending)


@contextlib.contextmanager
def _cluster(ray: Any, workers: Workers) -> Iterator[None]:
    """The caller's connection, or one of our own for a while, with room for a worker."""
    if ray.is_initialized():
        _check_room(workers, _nodes(ray), "this session's cluster")
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = workers.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        # Ray's own 15 leaves workers nothing where others use the machine too.
        os.environ.setdefault("RAY_worker_niceness", "0")
        cores = max(os.cpu_count() or 1, math.ceil(workers.count * workers.cpus))
        options |= {
            "num_cpus": cores,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    else:
        # How stores are reached; what names people and their keys is each machine's own.
        own = {key: value for key, value in os.environ.items() if key.startswith("FSSPEC_")}
        options |= {"address": address, "runtime_env": {"env_vars": own}}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = in_one_line(error)
        raise PicsnetError(
            f"Ray cannot be reached at {address or 'this machine'} ({reason}); check --address"
        ) from None
    try:
        _check_room(workers, _nodes(ray), address)
        yield
    finally:
        ray.shutdown()


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _check_room(
    workers: Workers, nodes: Sequence[Mapping[str, float]], address: str | None
) -> None:
    """Ray waits without a word for a node that is large enough.

    Args:
        workers: what each needs.
        nodes: what each has, by Ray's names.
        address: of the cluster, which may yet grow: then a line says that it waits.

    Raises:
        UsageError: a worker fits on no node of a cluster that cannot grow.
    """
    if any(
        workers.cpus <= node.get("CPU", 0) and workers.gpus <= node.get("GPU", 0) for node in nodes
    ):
        return
    largest = [max((node.get(kind, 0) for node in nodes), default=0) for kind in ("CPU", "GPU")]
    where = address or "this machine"
    lack = (
        f"a worker needs {workers.cpus:g} CPUs and {workers.gpus:g} GPUs, and no node of {where} "
        f"has both (at most {largest[0]:g} and {largest[1]:g})"
    )
    if address is None:
        raise UsageError(f"{lack}; lower --cpus-per-worker or --gpus-per-worker")
    print(printable(f"picsnet: {lack}; waiting for one that has"), file=sys.stderr, flush=True)


def _coded(
    ray: Any, job: Job, pictures: Sequence[Picture], unit: int, workers: Workers
) -> Iterator[int]:
    """Code, and tell of each unit how many pictures it had."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    units = [
        {
            "number": number,
            "pictures": json.dumps([dataclasses.asdict(p) for p in pictures[start : start + unit]]),
        }
        for number, start in enumerate(range(0, len(pictures), unit))
    ]
    try:
        dataset = ray.data.from_items(units, override_num_blocks=min(len(units), MOST_BLOCKS))
        results = dataset.map_batches(
            UnitCoder,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(
                size=min(workers.count, len(units)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=workers.cpus,
            num_gpus=workers.gpus or None,
        )
        for rows in results.iter_batches(batch_size=None, batch_format="numpy"):
            yield int(rows["pictures"].sum())
    except Exception as error:
        raise _readable(error) from None


def _readable(error: BaseException) -> PicsnetError:
    """Ray wraps what a worker raises, several times."""
    last: BaseException = error
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, PicsnetError):
            return seen
        last = seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    reason = " ".join(str(last).split())[-300:]  # a traceback, it may be: its end says what it was
    return PicsnetError(
        f"the workers failed ({type(last).__name__}: {reason}); what is done stays done, "
        "run the same command again"
    )


def _watch(done: Iterator[int], total: int, progress: bool) -> None:
    """Go through what is done, with progress on stderr."""
    count, begun = 0, time.monotonic()
    last = begun
    with tqdm(
        total=total, unit="picture", file=sys.stderr, disable=not (progress and sys.stderr.isatty())
    ) as bar:
        for some in done:
            count += some
            bar.update(some)
            now = time.monotonic()
            if progress and bar.disable and now - last > SECONDS_BETWEEN_LINES:
                last = now
                rate = count / (now - begun)
                print(f"{count} of {total}  {rate:.1f} pictures/s", file=sys.stderr, flush=True)


def _finish(destination: Store, named: Mapping[str, str], digest: str) -> dict[str, Record]:
    """One manifest of all that is known, then the parts go.

    Args:
        destination: of the outputs.
        named: inputs by output; each has a record, if only of its loss.
        digest: of the settings.
    """
    there = destination.files()
    kept = merged(_records(destination, there), named, digest, there.__contains__)
    destination.write(MANIFEST, "".join(map(to_line, kept.values())).encode())
    destination.tidy()
    destination.delete_folder(PARTS, there)
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """The recipe by the command line; returns the exit status: 1 if a picture failed."""
    args = _parser().parse_args(arguments)
    try:
        given = {f.name: getattr(args, f.name) for f in dataclasses.fields(EncodeSettings)}
        given["decoder_set"] = tuple(args.decoder_set)
        outcome = encode_pictures(
            args.source,
            args.destination,
            EncodeSettings(**given),
            Workers(args.workers, args.cpus_per_worker, args.gpus_per_worker, args.address),
            unit=args.unit,
            batch=args.batch,
            progress=not args.quiet,
        )
    except PicsnetError as error:
        if args.debug:
            raise
        print_error(error)
        return error.exit_status
    except KeyboardInterrupt:
        print("picsnet: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    for record in outcome.failed:
        print_error(record["error"])
    if not args.quiet:
        print(printable(str(outcome)))
    return 1 if outcome.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m picsnet.scale.ray",
        description="Code a folder or bucket of pictures with Ray.",
    )
    default = EncodeSettings()
    add = parser.add_argument
    add("source", metavar="SRC_URL", help="file://, s3://, gs:// ..., or a local folder")
    add("destination", metavar="DST_URL", help="likewise; files keep their places")
    add("--workers", type=int, default=1, metavar="N", help="actors (default: %(default)s)")
    add("--cpus-per-worker", type=float, default=1.0, metavar="N", help="(default: %(default)s)")
    add("--gpus-per-worker", type=float, default=0.0, metavar="N", help="e.g. 1, or 0.5")
    add("--address", help="of a Ray cluster: auto, HOST:PORT (default: RAY_ADDRESS, or none: here)")
    add("--unit", type=int, default=16, metavar="N", help="pictures noted together (%(default)s)")
    add("--mode", choices=["pics", "pic", "sketch"], default="pics", help="(default: %(default)s)")
    add("--ckpt", default=default.ckpt, help="sketch model (default: %(default)s)")
    add("--quality", type=float, metavar="Q")
    add("--effort", type=int, default=0, metavar="E")
    add("--sketcher", default=default.sketcher, help="bundled, hed, hed:FOLDER, or map")
    add("--decoder", metavar="ID_OR_PATH")
    add("--decoder-set", action="append", default=[], metavar="KEY=VALUE")
    add("--prompt-from", choices=["inversion", "caption", "palette", "none"])
    add("--candidates", type=int, metavar="N")
    add("--judge", choices=["clip", "colour"])
    for name in ("--clip", "--captioner"):
        add(name, metavar="ID_OR_PATH")
    for name in ("--tokens", "--inversion-steps", "--restarts", "--seed"):
        add(name, type=int, metavar="N")
    add("--batch", type=int, default=8, metavar="N", help="prompts found together (%(default)s)")
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("--debug", action="store_true", help="show tracebacks of errors")
    return parser


if __name__ == "__main__":
    escape_what_cannot_be_written()
    sys.exit(main())

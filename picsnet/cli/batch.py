"""Work over many inputs: output names, progress, and failures that do not stop the rest."""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from picsnet.errors import PicsnetError, UsageError
from picsnet.files import IMAGE_SUFFIXES, InputFile
from picsnet.terminal import print_error, printable

if TYPE_CHECKING:
    from concurrent.futures import Future

Record = dict[str, Any]
Pair = tuple[InputFile, Path]
T = TypeVar("T")
R = TypeVar("R")

AHEAD = 32
"""Inputs a worker may be ahead of the first that is not done: one large picture holds up no other,
and what waits in order is records, not pictures."""


def output_paths(inputs: list[InputFile], out: str | None, suffix: str) -> list[Pair]:
    """Where each input's result goes.

    Args:
        inputs: expanded inputs.
        out: a file (for one input; it must end in ``suffix``), a folder, or None: beside the input.
        suffix: of the results, with its dot.

    Raises:
        UsageError: one file was named for several inputs or one of another kind, two inputs would
            write one file, or one would be written over.
    """
    if out is None:
        pairs = [(item, item.path.with_suffix(suffix)) for item in inputs]
    elif names_file(out, suffix):
        if len(inputs) != 1:
            raise UsageError(f"-o {out}: names one file for {len(inputs)} inputs; name a folder")
        pairs = [(inputs[0], Path(out))]
    else:
        pairs = [(item, (Path(out) / item.relative).with_suffix(suffix)) for item in inputs]
    if both := written_twice(pairs):
        one, other, target = both
        raise UsageError(
            f"{one} and {other} would both be written to {target}; rename one or code them apart"
        )
    if lost := overwritten(pairs):
        raise UsageError(f"{lost}: is an input, and would be written over; name another place: -o")
    return pairs


def names_file(out: str, suffix: str) -> bool:
    """Whether ``-o`` names a file for a result, and not a folder for results.

    Args:
        out: as it was given.
        suffix: of the results, with its dot; capitals do as well.

    Raises:
        UsageError: a file of another kind, or stdout.
    """
    if out == "-":
        raise UsageError(f"-o -: nothing is written to stdout; name a {suffix} file or a folder")
    if os.path.isdir(out):
        return False
    if out.lower().endswith(suffix):
        return True
    other = os.path.splitext(out)[1].lower()
    if other in IMAGE_SUFFIXES | {".pics"}:
        raise UsageError(
            f"-o {out}: results are {suffix} files, not {other}; name one of those, or a folder: "
            f"-o {out}/"
        )
    return False


def overwritten(pairs: list[Pair]) -> Path | None:
    """A target that is an input, by whatever name; None where there is none."""
    there = [(target, known) for _, target in pairs if (known := _known_as(target))]
    # Inputs are looked at only then: mostly nothing is there yet, and there may be millions.
    inputs = {_known_as(item.path) for item, _ in pairs} if there else set()
    return next((target for target, known in there if known in inputs), None)


def _known_as(path: Path) -> tuple[int, int] | None:
    """By what the system knows a file; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def written_twice(pairs: Iterable[Pair]) -> tuple[Path, Path, Path] | None:
    """Two inputs that would be written to one place, and the place; None where there are none."""
    taken: dict[Path, Path] = {}
    for item, target in pairs:
        other = taken.setdefault(target, item.path)
        if other != item.path:
            return other, item.path, target
    return None


def run_all(
    pairs: list[Pair],
    work: Callable[[Path, Path], Record],
    describe: Callable[[Record], list[str]],
    as_json: bool,
    quiet: bool,
    workers: int = 1,
) -> int:
    """Do ``work(source, target)`` for each pair; returns the exit status.

    Results go to stdout, one line (or JSON object) each; the progress bar and errors to stderr. A
    failing input is named and the others go on; the status is then that of the last failure.

    Several workers are threads: what takes long in coding a sketch lets go of Python's lock. Lines
    come in the order of the inputs all the same.
    """
    return run_chunks(
        pairs,
        1,
        lambda chunk: [work(chunk[0][0].path, chunk[0][1])],
        describe,
        as_json,
        quiet,
        workers,
    )


def run_chunks(
    pairs: list[Pair],
    size: int,
    work: Callable[[list[Pair]], list[Record]],
    describe: Callable[[Record], list[str]],
    as_json: bool,
    quiet: bool,
    workers: int = 1,
) -> int:
    """As `run_all`, for work that is done on several inputs together.

    A chunk that fails is done again one by one, so that the failing input is named and the others
    are not lost.
    """
    status = 0
    chunks = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    with closing(_in_order(chunks, work, workers)) as results:
        for chunk, result in _progress(results, len(chunks), quiet or as_json):
            pending = [(chunk, result)]
            while pending:
                some, finish = pending.pop(0)
                try:
                    records = finish()
                except PicsnetError as error:
                    if len(some) > 1:
                        pending += [([pair], functools.partial(work, [pair])) for pair in some]
                        continue
                    print_error(error)
                    status = error.exit_status
                    continue
                for record in records:
                    if as_json:
                        print(json.dumps(record), flush=True)
                    elif not quiet:
                        print("\n".join(map(printable, describe(record))), flush=True)
    return status


def _in_order(
    items: list[T], work: Callable[[T], R], workers: int
) -> Generator[tuple[T, Callable[[], R]], None, None]:
    """Each item with a call that gives its result or raises its error, in order.

    With several workers results are made ahead of the calls. Where the generator is closed early,
    by Ctrl-C or an error that is not the input's, what is in hand is finished and nothing else is
    begun: outputs are whole.
    """
    if workers == 1:
        yield from ((item, functools.partial(work, item)) for item in items)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers)
    ahead: deque[tuple[T, Future[R]]] = deque()
    rest = iter(items)
    try:
        while True:
            for item in itertools.islice(rest, AHEAD * workers - len(ahead)):
                ahead.append((item, pool.submit(work, item)))
            if not ahead:
                return
            item, future = ahead.popleft()
            yield item, future.result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _progress(items: Iterable[T], count: int, silent: bool) -> Iterable[T]:
    if silent or count == 1 or not sys.stderr.isatty():
        return items
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, total=count, file=sys.stderr)
    return bar

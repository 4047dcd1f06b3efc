"""Edge maps of all pictures in a folder: in parallel, cached, resumable."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picsnet.errors import (
    DataError,
    ImageError,
    OutputError,
    SketcherError,
    UsageError,
    in_one_line,
)
from picsnet.files import IMAGE_SUFFIXES, InputFile, expand_inputs
from picsnet.images import MIN_SIDE, load_rgb, save_png
from picsnet.terminal import shown

if TYPE_CHECKING:
    from picsnet.sketch import Sketcher


_BEGUN = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.png")
"""Names of maps that a killed process had begun (`picsnet.files.beside`)."""


@dataclass(frozen=True)
class ExtractionReport:
    """What came of a folder of photographs.

    Attributes:
        maps_dir: where the maps of this sketcher lie.
        maps: the maps of this folder's pictures, in the order of the pictures' paths.
        done: maps made now.
        reused: maps that were there already.
        failed: pictures left out, and why.
    """

    maps_dir: Path
    maps: list[Path]
    done: int
    reused: int
    failed: list[tuple[Path, str]]


@dataclass
class _Tally:
    """Which pictures have a map, as work goes on. Keys are pictures."""

    maps: dict[Path, Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)


def extract_folder(
    photos: Path,
    sketcher_spec: str,
    cache: Path,
    workers: int,
    progress: bool,
    max_side: int | None = None,
) -> ExtractionReport:
    """Make the edge map of every picture under a folder, or take it from the cache.

    A map is an 8-bit grey PNG at ``cache/SKETCHER/RELATIVE_PATH--KEY.png``; the key is made of the
    picture's content and ``max_side``, so that a changed picture gets a new map. Maps appear whole
    or not at all: after an interruption the same call goes on. A broken picture is named on stderr
    and left out.

    Worker processes import the running script anew: a script that calls this with several workers
    must do so under ``if __name__ == "__main__"``.

    Args:
        photos: folder; hidden files and folders in it, and the cache if it is there, are left out.
        sketcher_spec: as `picsnet.sketch.load_sketcher` takes it.
        cache: folder, made if it is missing.
        workers: processes; 1 works in this one.
        progress: a bar on stderr if that is a terminal, else a line now and then.
        max_side: pictures with a longer side are downscaled to it first (but no side below 16).

    Raises:
        UsageError: ``workers`` or ``max_side`` make no sense, or there is no such sketcher.
        DataError: no such folder, no pictures in it, or not one that can be read.
        SketcherError: the sketcher cannot be had or a worker died.
        OutputError: a map cannot be written.
    """
    if workers < 1:
        raise UsageError(f"{workers} workers cannot make maps; give 1 or more")
    if max_side is not None and max_side < MIN_SIDE:
        raise UsageError(f"a longest side of {max_side} is too small; give {MIN_SIDE} or more")
    pictures = _list_pictures(photos, cache)
    sketcher = _load(sketcher_spec)
    maps_dir = cache / sketcher.name

    tally = _Tally()
    missing: list[tuple[Path, Path]] = []
    for picture, target in _targets(pictures, maps_dir, max_side, tally):
        if target.is_file():
            tally.maps[picture] = target
        else:
            missing.append((picture, target))
    reused = len(tally.maps)
    if missing:
        with _alone(maps_dir):
            _tidy(maps_dir)
            still = []
            for picture, target in missing:
                if target.is_file():  # made by another process since
                    tally.maps[picture] = target
                else:
                    still.append((picture, target))
            reused = len(tally.maps)
            workers = min(workers, len(still))
            made = (
                _in_this_process(still, sketcher, max_side)
                if workers <= 1
                else _in_processes(still, sketcher_spec, max_side, workers)
            )
            with closing(made):  # Whatever happens, no worker is left behind.
                watched = progress and still
                results = shown(made, len(still), sketcher.name, "map") if watched else made
                for picture, target, reason in results:
                    if reason is None:
                        tally.maps[picture] = target
                    else:
                        tally.failed[picture] = reason
    return _report(photos, maps_dir, tally, reused)


@contextmanager
def _alone(maps_dir: Path) -> Iterator[None]:
    """The processes of a training start together: the first makes maps, the others find them.

    Raises:
        OutputError: the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(maps_dir / ".lock")
    try:
        maps_dir.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"picsnet: {maps_dir}: another process makes maps; waiting", file=sys.stderr)
            lock.acquire()
    except OSError as error:
        raise OutputError(
            f"{maps_dir}: cannot be written to ({error.strerror or error}); choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _tidy(maps_dir: Path) -> None:
    """Remove what killed processes had begun; whoever is at work holds the folder."""
    for folder, _, names in os.walk(maps_dir):
        for name in filter(_BEGUN.fullmatch, names):
            with suppress(OSError):  # what stays takes room only
                Path(folder, name).unlink()


def _report(photos: Path, maps_dir: Path, tally: _Tally, reused: int) -> ExtractionReport:
    failed = sorted(tally.failed.items())
    if not tally.maps:
        picture, reason = failed[0]
        raise DataError(
            f"{photos}: none of its {len(failed)} pictures can be used, for one {picture.name}: "
            f"{reason}"
        )
    for picture, reason in failed:
        print(f"picsnet: skipped {picture}: {reason}", file=sys.stderr)
    return ExtractionReport(
        maps_dir=maps_dir,
        maps=[tally.maps[picture] for picture in sorted(tally.maps)],
        done=len(tally.maps) - reused,
        reused=reused,
        failed=failed,
    )


def _list_pictures(photos: Path, cache: Path) -> list[InputFile]:
    if not os.path.isdir(photos):
        raise DataError(f"{photos}: no such folder of pictures; check the path")
    own = cache.resolve()
    found = [
        item
        for item in expand_inputs([photos], IMAGE_SUFFIXES)
        if own not in item.path.resolve().parents
    ]
    if not found:
        raise DataError(f"{photos}: holds only cached maps, no pictures; name another folder")
    return found


def _load(spec: str) -> Sketcher:
    # Not above: picsnet.sketch imports this module, and torch is not needed to import it.
    from picsnet.sketch import load_sketcher

    return load_sketcher(spec)


def _targets(
    pictures: list[InputFile], maps_dir: Path, max_side: int | None, tally: _Tally
) -> Iterator[tuple[Path, Path]]:
    """(picture, where its map belongs); what cannot be read is put down as failed."""
    with ThreadPoolExecutor() as pool:
        keys = [pool.submit(_key, item.path, max_side) for item in pictures]
        for item, key in zip(pictures, keys, strict=True):
            try:
                name = f"{item.relative.name}--{key.result()}.png"
            except OSError as error:
                tally.failed[item.path] = f"cannot be read ({error.strerror or error})"
                continue
            yield item.path, maps_dir / item.relative.with_name(name)


def _key(path: Path, max_side: int | None) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(f"max_side={max_side}".encode())
    return digest.hexdigest()[:12]


_Made = tuple[Path, Path, str | None]
"""A picture, its map, and the reason if it could not be made."""


def _make(picture: Path, target: Path, sketcher: Sketcher, max_side: int | None) -> _Made:
    try:
        rgb = load_rgb(picture)
    except ImageError as error:
        return picture, target, str(error).removeprefix(f"{picture}: ")
    try:
        edges = sketcher(_limited(rgb, max_side))
    except (RuntimeError, MemoryError) as error:
        # Out of memory, as torch and numpy say it.
        return picture, target, f"cannot be sketched ({in_one_line(error)})"
    save_png(edges, target)
    return picture, target, None


def _limited(rgb: NDArray[np.uint8], max_side: int | None) -> NDArray[np.uint8]:
    height, width = rgb.shape[:2]
    if max_side is None or max(height, width) <= max_side:
        return rgb
    scale = max(max_side / max(height, width), MIN_SIDE / min(height, width))
    size = (round(width * scale), round(height * scale))
    # Lanczos in Pillow widens with the reduction: it does not alias.
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def _in_this_process(
    todo: list[tuple[Path, Path]], sketcher: Sketcher, max_side: int | None
) -> Generator[_Made, None, None]:
    for picture, target in todo:
        yield _make(picture, target, sketcher, max_side)


def _in_processes(
    todo: list[tuple[Path, Path]], spec: str, max_side: int | None, workers: int
) -> Generator[_Made, None, None]:
    pool = ProcessPoolExecutor(
        workers,
        # Forking a process whose torch has threads can hang.
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(spec, max_side, max(1, _cores() // workers)),
    )
    try:
        futures: list[Future[_Made]] = [pool.submit(_make_in_worker, *pair) for pair in todo]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        raise SketcherError(
            "a worker process of the sketcher died, perhaps for want of memory; use fewer workers "
            "or a smaller max_side; maps made so far are kept"
        ) from None
    finally:
        # On Ctrl-C too: pictures in hand are finished, the others are not begun.
        pool.shutdown(wait=True, cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Worker:
    """A worker process's own sketcher, loaded with its first picture so that errors come back as
    they are and not as a broken pool."""

    spec: str
    max_side: int | None
    threads: int
    sketcher: Sketcher | None = None


def _start_worker(spec: str, max_side: int | None, threads: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one ends the others in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _Worker.spec, _Worker.max_side, _Worker.threads = spec, max_side, threads


def _make_in_worker(picture: Path, target: Path) -> _Made:
    if _Worker.sketcher is None:
        import torch

        torch.set_num_threads(_Worker.threads)
        _Worker.sketcher = _load(_Worker.spec)
    return _make(picture, target, _Worker.sketcher, _Worker.max_side)

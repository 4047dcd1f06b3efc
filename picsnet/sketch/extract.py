"""Edge maps of a folder of photographs, extracted once and cached."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picsnet.errors import DataError
from picsnet.files import IMAGE_SUFFIXES, InputFile, expand_inputs
from picsnet.images import load_rgb, save_png


@dataclass(frozen=True)
class ExtractionReport:
    """What became of a folder.

    Attributes:
        maps_dir: where the maps are.
        maps: those of this folder's pictures, in the order of the pictures.
        done: how many were made now.
        reused: how many were there already.
        failed: pictures that were skipped, and why.
    """

    maps_dir: Path
    maps: list[Path]
    done: int
    reused: int
    failed: list[tuple[Path, str]] = field(default_factory=list)


def extract_folder(
    photos: Path,
    sketcher_spec: str,
    cache: Path,
    *,
    workers: int = 1,
    progress: bool = True,
    max_side: int | None = None,
) -> ExtractionReport:
    """Maps of all pictures under a folder, as 8-bit PNG.

    A map's file is named by extractor, picture and content, ``CACHE/SKETCHER/PICTURE--KEY.png``: a
    changed picture or another extractor gets a map of its own, and an interrupted run goes on.

    Args:
        photos: folder of pictures; subfolders are included.
        sketcher_spec: as `picsnet.sketch.load_sketcher` takes it.
        cache: where maps are kept.
        workers: processes.
        progress: show a bar on a terminal, or a line now and then elsewhere.
        max_side: larger pictures are downscaled to this first.

    Raises:
        DataError: no such folder, nothing in it, or no picture in it could be read.
        SketcherError: the extractor cannot be had.
        OutputError: the cache cannot be written.
    """
    if not photos.is_dir():
        raise DataError(f"{photos}: no such folder of photographs; check the path")
    pictures = expand_inputs([photos], IMAGE_SUFFIXES)
    from picsnet.sketch import load_sketcher

    maps_dir = cache / load_sketcher(sketcher_spec).name
    targets = [(item, map_path(item, maps_dir, max_side)) for item in pictures]
    todo = [(item, target) for item, target in targets if not target.is_file()]
    failed = _extract(todo, sketcher_spec, max_side, workers, progress)
    broken = {path for path, _ in failed}
    maps = [target for item, target in targets if item.path not in broken]
    if not maps:
        raise DataError(f"{photos}: none of its {len(pictures)} pictures can be read: {failed[0][1]}")
    return ExtractionReport(
        maps_dir, maps, len(todo) - len(failed), len(targets) - len(todo), failed
    )


def map_path(item: InputFile, maps_dir: Path, max_side: int | None) -> Path:
    """Where a picture's map is kept."""
    digest = hashlib.sha256(f"{max_side} ".encode())
    try:
        digest.update(item.path.read_bytes())
    except OSError as error:
        raise DataError(f"{item.path}: cannot be read ({error.strerror})") from None
    name = f"{item.relative.name}--{digest.hexdigest()[:12]}.png"
    return maps_dir / item.relative.parent / name


def _extract(
    todo: list[tuple[InputFile, Path]],
    spec: str,
    max_side: int | None,
    workers: int,
    progress: bool,
) -> list[tuple[Path, str]]:
    if not todo:
        return []
    failed: list[tuple[Path, str]] = []
    workers = max(1, min(workers, len(todo)))
    threads = max(1, (os.cpu_count() or 1) // workers)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(spec, max_side, threads),
    )
    bar = _progress(len(todo), progress)
    try:
        waiting: dict[Future[str | None], Path] = {
            pool.submit(_work, item.path, target): item.path for item, target in todo
        }
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                path = waiting.pop(future)
                reason = future.result()
                bar.update()
                if reason is not None:
                    failed.append((path, reason))
                    print(f"picsnet: skipped: {reason}", file=sys.stderr)
    finally:
        # Interrupted or failed: what is not begun is dropped, maps in hand are written or not at all.
        pool.shutdown(wait=True, cancel_futures=True)
        bar.close()
    return sorted(failed)


class _progress:
    """tqdm on a terminal, a line each tenth elsewhere."""

    def __init__(self, total: int, shown: bool) -> None:
        self.total, self.count = total, 0
        self.shown = shown
        self.bar = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="map", desc="sketches", file=sys.stderr)

    def update(self) -> None:
        self.count += 1
        if self.bar is not None:
            self.bar.update()
        elif self.shown and (self.count * 10) // self.total > ((self.count - 1) * 10) // self.total:
            print(f"sketches: {self.count} of {self.total}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


_worker: dict[str, object] = {}


def _start_worker(spec: str, max_side: int | None, threads: int) -> None:
    import torch

    from picsnet.sketch import load_sketcher

    torch.set_num_threads(threads)
    _worker["sketcher"], _worker["max_side"] = load_sketcher(spec), max_side


def _work(source: Path, target: Path) -> str | None:
    """Make one map; returns the reason if the picture is broken."""
    from picsnet.errors import ImageError

    try:
        rgb = load_rgb(source)
    except ImageError as error:
        return str(error)
    sketcher = _worker["sketcher"]
    assert callable(sketcher)
    save_png(sketcher(downscaled(rgb, _worker["max_side"])), target)
    return None


def downscaled(rgb: NDArray[np.uint8], max_side: object) -> NDArray[np.uint8]:
    """A picture whose longer side is at most ``max_side``."""
    height, width = rgb.shape[:2]
    if not isinstance(max_side, int) or max(height, width) <= max_side:
        return rgb
    factor = max_side / max(height, width)
    size = (max(16, round(width * factor)), max(16, round(height * factor)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))



"""Originals of a run: every photograph as it is coded, once, as PNG."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from picsnet.errors import DataError, ImageError, OutputError
from picsnet.evaluation.config import DatasetConfig
from picsnet.evaluation.datasets import find_dataset, resized
from picsnet.evaluation.jobs import Picture
from picsnet.evaluation.tables import withdraw_tables
from picsnet.images import load_rgb, save_png
from picsnet.terminal import print_error

ORIGINALS = "originals"


@dataclass(frozen=True)
class Failure:
    """What could not be done.

    Attributes:
        picture: its name, or ``*`` where it is all of a point's.
        codec, setting: empty where the picture itself cannot be read.
        reason: one line.
        measures: that could not be taken of what was coded; none where it could not be coded.
    """

    picture: str
    codec: str
    setting: str
    reason: str
    measures: tuple[str, ...] = ()


@contextlib.contextmanager
def alone(run: Path) -> Iterator[None]:
    """Hold a run's folder, made where it is not there yet.

    A second start in it, with another ``resize``, would put its originals under the first one's
    rows. The lock is the system's: that of a process that was killed is gone with it.

    Raises:
        OutputError: another evaluation holds it, or it cannot be written to.
    """
    from filelock import FileLock, Timeout

    path = run / ".lock"
    lock = FileLock(path)
    try:
        run.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputError(
            f"{run}: another evaluation is at work in it; wait for its end, or give this one "
            "another name: name=NAME"
        ) from None
    except OSError as error:
        raise OutputError(
            f"{run}: cannot make the run's folder ({error.strerror or error}); set output=FOLDER"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        lock.release()


def prepare(config: DatasetConfig, run: Path) -> tuple[list[Picture], list[Failure]]:
    """The photographs of a dataset, resized and kept in the run's folder; broken ones apart.

    The run's tables go before one is written, since they may tell of what was there.

    Raises:
        DataError: the dataset is not here, or none of its pictures can be read.
        OutputError: the run's folder cannot be written to.
    """
    dataset = find_dataset(config.name, config.folder)
    pictures, failures = [], []
    bar = tqdm(
        dataset.pictures[: config.limit], "preparing", unit="picture", disable=None, leave=False
    )
    for name, path in bar:
        try:
            original = resized(load_rgb(path), config.resize)
        except ImageError as error:
            print_error(error)
            failures.append(Failure(name, "", "", str(error)))
            continue
        kept = f"{ORIGINALS}/{name}.png"
        digest = hashlib.sha256(original.tobytes() + repr(original.shape).encode()).hexdigest()
        if not _holds(run / kept, original):
            withdraw_tables(run)
            save_png(original, run / kept)
        pictures.append(Picture(name, kept, digest))
    if not pictures:
        raise DataError(f"dataset {config.name}: none of its pictures can be read; name others")
    return pictures, failures


def _holds(path: Path, picture: NDArray[np.uint8]) -> bool:
    """Whether a file of an earlier start has these pixels: reading is quicker than writing."""
    if not path.is_file():
        return False
    try:
        return np.array_equal(load_rgb(path), picture)
    except ImageError:
        return False

"""One job: a picture by a point, from the picture to the row on disk.

    original.png -> encode -> file on disk -> decode -> decoded.png -> row.json -> measures in it

The row goes first and is written after the pictures, so a job is coded or was never begun, whenever
a run is killed; measures that it lacks are taken at the next start.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from picsnet import __version__
from picsnet.errors import DataError
from picsnet.evaluation.config import CodecConfig
from picsnet.evaluation.likeness import Likeness
from picsnet.evaluation.points import Decoded, Encoded, Point
from picsnet.evaluation.rows import Record, Row, load_record
from picsnet.files import atomic_write, read_file, slug
from picsnet.images import load_grey, load_rgb, save_png
from picsnet.metrics import bpp

Pixels = NDArray[np.uint8]

POINTS = "points"
ROW = "row.json"


@dataclass(frozen=True)
class Picture:
    """A photograph as it is coded.

    Attributes:
        name: its path in the dataset, without suffix.
        path: of the PNG in the run's folder, relative to that.
        digest: of its pixels.
    """

    name: str
    path: str
    digest: str


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        dataset: its name.
        picture: to code.
        codec, setting: by which point.
        folder: of its results, relative to the run's.
        key: of everything that its file and decoded picture depend on.
    """

    dataset: str
    picture: Picture
    codec: str
    setting: str
    folder: str
    key: str


def make_jobs(
    dataset: str, pictures: Sequence[Picture], point: Point, config: CodecConfig
) -> list[Job]:
    """The jobs of a point, which came of ``config``, on pictures.

    Made once a run, by one process: another machine may have its weights at other times.
    """
    depends = {
        "picsnet": __version__,
        "codec": asdict(config),
        "files": config.stamps(),
        "setting": point.setting,
    }

    def job(picture: Picture) -> Job:
        text = json.dumps({**depends, "picture": picture.digest}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        folder = f"{POINTS}/{slug(point.codec)}/{slug(point.setting)}/{picture.name}"
        return Job(dataset, picture, point.codec, point.setting, folder, key)

    return [job(picture) for picture in pictures]


def done(job: Job, run: Path) -> Record | None:
    """The record of a job that was done before and whose files are there, or None."""
    path = run / job.folder / ROW
    if not path.is_file():
        return None
    try:
        record = load_record(path)
    except DataError:  # of another version, or damaged: it is made again
        return None
    if record.key != job.key:
        return None
    row = record.row
    files = (row.file, row.decoded, row.sketch, row.decoded_sketch)
    if not all((run / file).is_file() for file in files if file):
        return None
    return record if (run / row.file).stat().st_size == row.bytes else None


def clear_parts(job: Job, run: Path) -> None:
    """Remove what a process that was killed had half written of a job."""
    for left in (run / job.folder).glob(".*"):
        left.unlink(missing_ok=True)


def code(job: Job, point: Point, run: Path) -> Record:
    """Code a picture, write file and pictures, and give the row without measures.

    Raises:
        PicsnetError: the codec fails.
        OutputError: no space.
    """
    (run / job.folder / ROW).unlink(missing_ok=True)  # of other files than those that come now
    original = load_rgb(run / job.picture.path)
    height, width = original.shape[:2]
    start = time.perf_counter()
    encoded = point.encode(original)
    encode_seconds = time.perf_counter() - start
    file = f"{job.folder}/coded{point.suffix}"
    with atomic_write(run / file) as part:
        part.write_bytes(encoded.data)
    data = read_file(run / file)
    start = time.perf_counter()
    decoded = point.decode(data)
    decode_seconds = time.perf_counter() - start
    size = (run / file).stat().st_size
    _check(job, encoded, decoded, original, size)
    kept = {"decoded": decoded.picture, "sketch": encoded.sketch, "decoded_sketch": decoded.sketch}
    paths = {
        name: f"{job.folder}/{name}.png" for name, pixels in kept.items() if pixels is not None
    }
    for name, path in paths.items():
        pixels = kept[name]
        assert pixels is not None
        save_png(pixels, run / path)
    row = Row(
        dataset=job.dataset,
        picture=job.picture.name,
        width=width,
        height=height,
        codec=job.codec,
        setting=job.setting,
        lmbda=point.lmbda,
        bytes=size,
        bpp=bpp(size, width, height),
        original=job.picture.path,
        file=file,
        decoded=paths.get("decoded"),
        sketch=paths.get("sketch"),
        decoded_sketch=paths.get("decoded_sketch"),
        prompt=encoded.prompt,
        seed=encoded.seed,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        layers=encoded.layers,
    )
    return Record(job.key, {}, row)


def _check(job: Job, encoded: Encoded, decoded: Decoded, original: Pixels, size: int) -> None:
    where = f"{job.codec}, {job.setting}, {job.picture.name}"
    if encoded.layers and sum(encoded.layers.values()) != size:
        raise DataError(
            f"{where}: its layers sum to {sum(encoded.layers.values())} bytes but the file has "
            f"{size}; mend the codec"
        )
    if decoded.picture is not None and decoded.picture.shape != original.shape:
        raise DataError(
            f"{where}: decoded to {decoded.picture.shape}, not {original.shape}; mend the codec"
        )


def measure(
    record: Record, run: Path, of_pictures: Sequence[Likeness], of_sketches: Sequence[Likeness]
) -> tuple[Record, dict[str, Exception]]:
    """The record with all measures, of which those that it has already are kept.

    Pictures are read back from the run's folder, so a measure may come years after the coding.

    Returns:
        The record, and why a measure could not be taken, by its name: others' libraries raise what
        they like. What the record has of such a one is as it was.
    """
    row = record.row
    pairs = (
        (of_pictures, row.original, row.decoded, load_rgb),
        (of_sketches, row.sketch, row.decoded_sketch, load_grey),
    )
    measures, made_with = dict(row.measures), dict(record.made_with)
    failed: dict[str, Exception] = {}
    for likenesses, before, after, load in pairs:
        missing = [one for one in likenesses if made_with.get(one.name) != one.made_with]
        if not missing or before is None or after is None:
            continue
        try:
            a, b = load(run / before), load(run / after)
        except Exception as error:
            failed |= {likeness.name: error for likeness in missing}
            continue
        for likeness in missing:
            try:
                value = likeness.compare(a, b)
            except Exception as error:
                failed[likeness.name] = error
                continue
            measures.pop(likeness.name, None)
            if value is not None:
                measures[likeness.name] = value
            made_with[likeness.name] = likeness.made_with
    return Record(record.key, made_with, replace(row, measures=measures)), failed

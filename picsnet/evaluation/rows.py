"""The rows of an evaluation: one a picture and point.

``rows.csv`` has a column for each field of `Row`; ``layers`` become ``bytes_NAME`` and ``measures``
columns of their own names (`picsnet.evaluation.measures`). A measure that a row lacks is empty.
Paths are relative to the run's folder; so a run can be moved.
"""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from picsnet.errors import DataError
from picsnet.evaluation.tables import ROWS
from picsnet.files import atomic_write, read_file

LAYER_PREFIX = "bytes_"


@dataclass(frozen=True)
class Row:
    """One picture by one codec at one setting.

    Attributes:
        dataset, picture: the picture's name is its path in the dataset, without suffix.
        width, height: of the picture that was coded, pixels.
        codec, setting, lmbda: the point.
        bytes: of the file on disk.
        bpp: 8 x bytes / (width x height).
        original, file: the picture that was coded (PNG), and the coded file.
        decoded: the decoded picture (PNG), or None for codecs of sketches.
        sketch, decoded_sketch: what the sketch code was given and gave (PNG), or None.
        prompt, seed: in the file, where it has them.
        encode_seconds, decode_seconds: without loading models or pictures.
        layers: bytes by what they are for; they sum to ``bytes`` where a codec tells them.
        measures: by name; picture measures and sketch measures.
    """

    dataset: str
    picture: str
    width: int
    height: int
    codec: str
    setting: str
    lmbda: float | None
    bytes: int
    bpp: float
    original: str
    file: str
    decoded: str | None
    sketch: str | None
    decoded_sketch: str | None
    prompt: str | None
    seed: int | None
    encode_seconds: float
    decode_seconds: float
    layers: dict[str, int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """A row on disk, and what it hangs on.

    Attributes:
        key: of the job: codec, options, weights and picture. Another key makes the row void.
        made_with: what each measure that was tried was made with; another one makes it void. A
            measure that is here but not in the row has no value for this picture.
        row: the row.
    """

    key: str
    made_with: dict[str, str]
    row: Row

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        with atomic_write(path) as part:
            part.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def load_record(path: Path) -> Record:
    """A record that was saved.

    Raises:
        DataError: it cannot be read, or is none.
    """
    try:
        plain = json.loads(read_file(path))
        return Record(plain["key"], plain["made_with"], Row(**plain["row"]))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: is no row of an evaluation ({error}); delete it") from None


def to_frame(rows: list[Row]) -> pd.DataFrame:
    """A table with one line a row."""
    return pd.DataFrame([_flat(row) for row in rows])


def save_rows(rows: list[Row], folder: Path) -> Path:
    """``rows.csv`` of a run; returns its path."""
    path = folder / ROWS
    with atomic_write(path) as part:
        # All texts in quotes: one with a carriage return would end its line otherwise.
        to_frame(rows).to_csv(part, index=False, quoting=csv.QUOTE_NONNUMERIC)
    return path


def _flat(row: Row) -> dict[str, Any]:
    columns: dict[str, Any] = asdict(row)
    layers, measures = columns.pop("layers"), columns.pop("measures")
    columns |= {f"{LAYER_PREFIX}{name}": size for name, size in layers.items()}
    return {**columns, **measures}

"""Whether runs can share a report: what stands on one page must be of the same things."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from picsnet.errors import ImageError, UsageError
from picsnet.images import load_rgb
from picsnet.report.loading import Run


def check_comparable(runs: Sequence[Run]) -> None:
    """That runs on datasets of one name coded the same pictures and measured them alike.

    Raises:
        UsageError: two did not.
    """
    for one, other in combinations(runs, 2):
        for what in _differences(one, other):
            raise UsageError(
                f"{one.name} and {other.name} cannot share a report: {what}; report them apart, or "
                "evaluate one anew, with the other's options or another dataset.name="
            )


def _differences(one: Run, other: Run) -> Iterator[str]:
    dataset, another = one.summary["dataset"], other.summary["dataset"]
    same_name = dataset["name"] == another["name"]
    if same_name:
        sizes = [_size(dataset["resize"]), _size(another["resize"])]
        if sizes[0] != sizes[1]:
            yield f"both are on {dataset['name']}, of other sizes ({'; '.join(sizes)})"
        originals, another_originals = _originals(one), _originals(other)
        for picture, path in originals.items():
            if picture in another_originals and not _same_picture(path, another_originals[picture]):
                yield f"both are on {dataset['name']}, where {picture} is another picture"
        if originals.keys() != another_originals.keys():
            for codec in sorted(_codecs(one) & _codecs(other)):
                yield (
                    f"both have {codec} on {dataset['name']}, of other pictures "
                    f"({len(originals)}; {len(another_originals)})"
                )
    for name, measure in one.summary["measures"].items():
        another_measure = other.summary["measures"].get(name, measure)
        how = [measure["made_with"], another_measure["made_with"]]
        labels = [measure["label"], another_measure["label"]]
        if None in how:  # who knows
            continue
        if labels[0] != labels[1]:  # a page has one for all datasets, which may differ in `how`
            yield f"{name} is measured otherwise ({'; '.join(labels)})"
        if same_name and how[0] != how[1]:
            yield f"{name} is measured otherwise ({'; '.join(how)})"


def _codecs(run: Run) -> set[str]:
    return {point["codec"] for point in run.summary["points"]}


def _size(resize: int | None) -> str:
    return f"at most {resize} pixels on the shorter side" if resize else "as they are"


def _originals(run: Run) -> dict[str, Path]:
    return {row["picture"]: run.folder / row["original"] for row in run.rows}


def _same_picture(one: Path, other: Path) -> bool:
    """By pixels: another Pillow writes other files of them."""
    try:
        if one.read_bytes() == other.read_bytes():
            return True
        return np.array_equal(load_rgb(one), load_rgb(other))
    except (OSError, ImageError):
        return True  # of one that is gone or damaged nothing is known; the gallery tells of it

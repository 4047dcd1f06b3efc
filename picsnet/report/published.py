"""Figures that others published, each with its source."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Published:
    """A point that somebody else published.

    Attributes:
        dataset, system: of whom on what.
        bpp: bits per pixel.
        metric: as `picsnet.evaluation.measures` calls it.
        value: of the measure.
        source: where it was read.
    """

    dataset: str
    system: str
    bpp: float
    metric: str
    value: float
    source: str


def load_published() -> list[Published]:
    """All published points that come with picsnet."""
    text = (resources.files("picsnet.report") / "published.csv").read_text(encoding="utf-8")
    return [
        Published(
            line["dataset"],
            line["system"],
            float(line["bpp"]),
            line["metric"],
            float(line["value"]),
            line["source"],
        )
        for line in csv.DictReader(text.splitlines())
    ]


def same_dataset(one: str, other: str) -> bool:
    """Whether two names mean one dataset: letters and digits count, so ``CLIC 2021`` does."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())

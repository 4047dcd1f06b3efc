"""Figures that others published, each with its source and with how it was measured.

A figure stands in a chart beside a run's own only where both are known to be measured alike.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

from picsnet.evaluation.measures import MEASURES, OPTIONS, with_lpips_network

TRAINING = "training set"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Published:
    """A point that somebody else published.

    Attributes:
        dataset, system: of whom on what.
        bpp: bits per pixel.
        metric: as `picsnet.evaluation.measures` calls it.
        value: of the measure.
        source: where it was read.
        pictures: how many it is the mean of, or of; this and what follows is empty where the source
            does not state it, or the measure has no such thing.
        resize: pixels that the shorter side has at most.
        references: what FID and KID compare with, `TRAINING` of the dataset.
        kid_subset: pictures in each of KID's subsets.
        network: of CLIP or LPIPS, as runs name it.
    """

    dataset: str
    system: str
    bpp: float
    metric: str
    value: float
    source: str
    pictures: str = ""
    resize: str = ""
    references: str = ""
    kid_subset: str = ""
    network: str = ""


class Aspect(NamedTuple):
    """One thing that a figure depends on.

    Attributes:
        what: it is, in words.
        theirs: empty where it is not stated.
        ours: of a run; empty where it is not known.
    """

    what: str
    theirs: str
    ours: str

    @property
    def same(self) -> bool:
        """Whether both are known, and alike."""
        return self.theirs == self.ours != ""

    def told(self) -> str:
        """Theirs in words."""
        return f"{self.what}: {self.theirs or NOT_STATED}"

    def compared(self) -> str:
        """Both in words, or one where they are the same."""
        return self.told() + ("" if self.same else f" (here {self.ours or NOT_STATED})")


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
            line["pictures"],
            line["resize"],
            line["references"],
            line["kid_subset"],
            line["network"],
        )
        for line in csv.DictReader(text.splitlines())
    ]


def same_dataset(one: str, other: str) -> bool:
    """Whether two names mean one dataset: letters and digits count, so ``CLIC 2021`` does."""
    return _plain(one) == _plain(other)


def aspects(point: Published, summary: Mapping[str, Any]) -> list[Aspect]:
    """How a point was measured, beside how a run measured the same.

    On another dataset the number of pictures is none of them.

    Args:
        point: any.
        summary: ``summary.json`` of a run.
    """
    return list(_aspects(point, summary))


def _aspects(point: Published, summary: Mapping[str, Any]) -> Iterator[Aspect]:
    dataset = summary["dataset"]
    made_with = summary["measures"].get(point.metric, {}).get("made_with") or ""
    if same_dataset(point.dataset, dataset["name"]):
        yield Aspect("pictures", point.pictures, str(dataset["pictures"]))
    yield Aspect("shorter side", _side(point.resize), _side(dataset["resize"] or "none"))
    for option in OPTIONS.get(point.metric, ()):
        if option == "references":
            ours = _references(made_with, dataset, point.dataset)
            yield Aspect("against", point.references, ours)
        elif option == "kid_subset":
            yield Aspect("KID's subsets", point.kid_subset, _option(made_with, option))
        else:
            yield Aspect("network", point.network, _option(made_with, option))


def label(point: Published) -> str:
    """Of a point's measure, for people; LPIPS is of a network where the source says of which."""
    return with_lpips_network(MEASURES[point.metric], point.network or None).label


def comparable_elsewhere(metric: str) -> bool:
    """Whether figures of a measure on two datasets can stand in one chart: of sets they cannot,
    since they are against other references."""
    return MEASURES[metric].scope != "set"


def _side(resize: str | int) -> str:
    if resize == "none":
        return "as it is"
    return f"at most {resize} pixels" if resize else ""


def _option(made_with: str, name: str) -> str:
    found = re.search(rf"measures\.{name}=([^,]*)", made_with)
    return found[1].strip() if found else ""


def _references(made_with: str, dataset: Mapping[str, Any], name: str) -> str:
    """What a run's FID and KID compare with, in the words of `Published`: folders whose paths say
    so are the training set of the dataset that they name."""
    if "measures.references=" not in made_with:
        return ""
    if "measures.references=[]" in made_with:
        return "the originals"
    folders = str(dataset.get("references", "")).split(", ")
    return TRAINING if all(_is_training(one, name) for one in folders) else ", ".join(folders)


def _is_training(folder: str, name: str) -> bool:
    words = set(re.findall(r"[a-z0-9]+", folder.casefold()))
    return (
        _plain(name) in _plain(folder)
        and not words.isdisjoint({"train", "training"})
        and words.isdisjoint({"test", "val", "valid", "validation"})
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())

"""How a series is drawn: the same in the page and in the still figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's, told apart by colour-blind readers too; their yellow is too pale for lines."""

SHAPES = ("circle", "square", "diamond", "up", "down", "cross")
"""As many as have no divisor in common with the colours: 42 pairs before one comes again."""


@dataclass(frozen=True)
class Style:
    """Of a codec's line and marks.

    Attributes:
        colour: as in HTML. Black stands for the ink of the page, which is white on a dark one.
        shape: of marks, one of `SHAPES`.
        dashed: whether its line is; those that have an earlier one's colour are.
    """

    colour: str
    shape: str
    dashed: bool


def styles(codecs: Iterable[str]) -> dict[str, Style]:
    """A style for each codec, by its place among all of a report."""
    return {
        codec: Style(COLOURS[i % len(COLOURS)], SHAPES[i % len(SHAPES)], i // len(COLOURS) % 2 == 1)
        for i, codec in enumerate(dict.fromkeys(codecs))
    }


def hollow_shapes(systems: Iterable[str]) -> dict[str, str]:
    """Shapes of systems that others measured. They are drawn hollow, which a cross cannot be."""
    closed = SHAPES[:-1]
    return {system: closed[i % len(closed)] for i, system in enumerate(dict.fromkeys(systems))}


def visible(text: str) -> str:
    """A text from a file, with characters that would not show, or turn others round, as numbers."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)

"""What a sketch cannot carry, in plain words: colours by place, light, contrast.

    picture -> 48x48 -> CIELAB -> k-means -> dominant colour of each cell of a 3x3 grid -> words

A deterministic captioner without weights: "bright, warm, vivid; pale blue above, white and dark
green in the middle, grey below". Rows are read from left to right.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 3
_SIDE = 48  # a multiple of GRID
_CLUSTERS = 6
_ITERATIONS = 12

_GREYS = ((15, "black"), (35, "dark grey"), (62, "grey"), (85, "light grey"), (101, "white"))
_GREY_CHROMA = 7.0
# Upper ends of hue in degrees of CIELAB; dark orange is brown and dark yellow olive to everybody.
_HUES = (
    (18, "pink", "maroon"),
    (45, "red", "dark red"),
    (72, "orange", "brown"),
    (115, "yellow", "olive"),
    (155, "green", "dark green"),
    (215, "teal", "dark teal"),
    (245, "light blue", "dark blue"),
    (295, "blue", "navy"),
    (330, "purple", "dark purple"),
    (361, "pink", "maroon"),
)
# Pale orange and yellow have names of their own.
_SANDS = ((55, "khaki"), (80, "beige"), (101, "cream"))
_PLACES = ("above", "in the middle", "below")


def describe(rgb: NDArray[np.uint8]) -> str:
    """A picture in words.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        some 8 to 24 words: light, warmth, colourfulness, then the colours of each third from the
        top, each from left to right.
    """
    lab = _lab(rgb)
    cells = _dominant(lab)
    rows = []
    for row, place in zip(cells, _PLACES, strict=True):
        names = [name for name, _ in itertools.groupby(map(name_colour, row))]
        rows.append(f"{' and '.join(names)} {place}")
    return f"{', '.join(_mood(lab))}; {', '.join(rows)}"


def name_colour(lab: NDArray[np.float64]) -> str:
    """A colour's name: one of some 50.

    Args:
        lab: (3,) CIELAB, L in 0..100.
    """
    lightness, a, b = (float(v) for v in lab)
    chroma = float(np.hypot(a, b))
    if chroma < _GREY_CHROMA:
        return next(name for end, name in _GREYS if lightness < end)
    hue = float(np.degrees(np.arctan2(b, a))) % 360
    light, dark = next((light, dark) for end, light, dark in _HUES if hue < end)
    if lightness < 12:
        return "black"
    if lightness < 40:
        return dark
    if chroma < 30 and light in ("orange", "yellow"):
        return next(name for end, name in _SANDS if lightness < end)
    if chroma < 20:
        return f"pale {light}" if lightness > 65 else f"dull {light}"
    return f"bright {light}" if chroma > 60 else light


def _mood(lab: NDArray[np.float64]) -> Sequence[str]:
    lightness, chroma = lab[..., 0], np.hypot(lab[..., 1], lab[..., 2])
    words = [_graded(lightness.mean(), (30, "dark"), (45, "dim"), (60, "light"), (101, "bright"))]
    words.append(_graded(lab[..., 2].mean(), (-4, "cold"), (6, ""), (200, "warm")))
    words.append(
        _graded(chroma.mean(), (7, "monochrome"), (18, "pastel"), (32, "colourful"), (200, "vivid"))
    )
    words.append(_graded(lightness.std(), (12, "flat"), (22, "soft"), (200, "dramatic")))
    return [word for word in words if word]


def _graded(value: float, *grades: tuple[float, str]) -> str:
    return next(word for end, word in grades if value < end)


def _lab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(48, 48, 3) CIELAB of area means."""
    from skimage.color import rgb2lab

    small = Image.fromarray(rgb).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    lab: NDArray[np.float64] = rgb2lab(np.asarray(small))
    return lab


def _dominant(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3, 3): in each cell the mean of the pixels of its most frequent cluster."""
    labels = _k_means(lab.reshape(-1, 3)).reshape(_SIDE, _SIDE)
    size = _SIDE // GRID
    cells = np.zeros((GRID, GRID, 3))
    for i, j in itertools.product(range(GRID), repeat=2):
        window = np.s_[i * size : (i + 1) * size, j * size : (j + 1) * size]
        inside = labels[window]
        cells[i, j] = lab[window][inside == np.bincount(inside.ravel()).argmax()].mean(axis=0)
    return cells


def _k_means(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Lloyd's iterations from centres that are farthest from one another: no chance in it."""
    axes = np.ascontiguousarray(points.T)
    means = np.empty((_CLUSTERS, 3))
    means[0] = axes.mean(axis=1)
    nearest = _squared_distances(axes, means[:1])[0]
    for k in range(1, _CLUSTERS):
        means[k] = axes[:, nearest.argmax()]
        nearest = np.minimum(nearest, _squared_distances(axes, means[k : k + 1])[0])
    labels: NDArray[np.intp] = np.zeros(len(points), dtype=np.intp)
    for _ in range(_ITERATIONS):
        labels = _squared_distances(axes, means).argmin(axis=0)
        counts = np.bincount(labels, minlength=_CLUSTERS)
        sums = [np.bincount(labels, axis, minlength=_CLUSTERS) for axis in axes]
        found = counts > 0
        means[found] = (np.array(sums) / np.maximum(counts, 1)).T[found]
    return labels


def _squared_distances(
    axes: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(K, N) of (3, N) points and (K, 3) centres."""
    total: NDArray[np.float64] = sum(
        np.square(axis - centre[:, None]) for axis, centre in zip(axes, centres.T, strict=True)
    )
    return total

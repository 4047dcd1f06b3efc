"""BD-rates of all codecs against all others, on one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

from picsnet.metrics import bd_rate, ms_ssim_db, upper_hull

FEWEST_POINTS = 2
OTHER_PICTURES = "not of the same pictures, or of sketches of other sizes"
_NEARLY_ONE = 1 - 1e-9  # so that identical pictures have decibels too

Curve = tuple[list[float], list[float]]


def bd_rates(
    points: Sequence[dict[str, Any]], measures: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """BD-rate of each codec against each other by each measure that both have.

    Of every codec the upper hull is compared: at every rate its best setting. MS-SSIM is compared
    on its values and in decibels; the two weigh qualities differently. Measures of which less is
    better are turned round. Codecs with fewer than two settings have no curve and no entry. Curves
    that are not of the same pictures throughout have no BD-rate: one hard picture more or less
    moves a curve further than codecs differ.

    Args:
        points: of one dataset, as in ``summary.json``.
        measures: by name, as there.

    Returns:
        ``measure``, ``scale`` ("values" or "dB"), ``anchor``, ``codec``, ``percent`` (None where
        there is none), ``overlap`` (0..1), ``reason``.

    Raises:
        ImportError: the library ``bjontegaard`` is not installed.
    """
    codecs = list(dict.fromkeys(point["codec"] for point in points))
    found = []
    for name, measure in measures.items():
        owns = {codec: _with_measure(points, codec, name) for codec in codecs}
        owns = {codec: own for codec, own in owns.items() if len(own) >= FEWEST_POINTS}
        of = {codec: {p["measures"][name]["of"] for p in own} for codec, own in owns.items()}
        for scale in ("values", "dB") if name.endswith("ms_ssim") else ("values",):
            curves = {
                codec: _curve(own, name, measure["higher_is_better"], scale)
                for codec, own in owns.items()
            }
            found += [
                {
                    "measure": name,
                    "scale": scale,
                    **_compared(anchor, codec, curves, alike=len(of[anchor] | of[codec]) == 1),
                }
                for anchor, codec in permutations(curves, 2)
            ]
    return found


def _with_measure(points: Sequence[dict[str, Any]], codec: str, name: str) -> list[dict[str, Any]]:
    return [
        point
        for point in points
        if point["codec"] == codec
        and name in point["measures"]
        and point["measures"][name]["bpp"] > 0
    ]


def _curve(
    points: Sequence[dict[str, Any]], name: str, higher_is_better: bool, scale: str
) -> Curve:
    rates = [point["measures"][name]["bpp"] for point in points]
    values = [point["measures"][name]["mean"] for point in points]
    quality = values if higher_is_better else [-value for value in values]
    hull = upper_hull(rates, quality)
    if scale == "dB":
        quality = [ms_ssim_db(min(value, _NEARLY_ONE)) for value in quality]
    return [rates[i] for i in hull], [quality[i] for i in hull]


def _compared(anchor: str, codec: str, curves: dict[str, Curve], alike: bool) -> dict[str, Any]:
    result = bd_rate(*curves[anchor], *curves[codec])
    return {
        "anchor": anchor,
        "codec": codec,
        "percent": result.percent if alike else None,
        "overlap": result.overlap,
        "reason": result.reason if alike else OTHER_PICTURES,
    }

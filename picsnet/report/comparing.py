"""BD-rates of all codecs against all others, on one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from picsnet.metrics import bd_rate, ms_ssim_db, upper_hull

FEWEST_POINTS = 2


def bd_rates(
    points: Sequence[dict[str, Any]], measures: dict[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """BD-rate of each codec against each other by each measure that both have.

    Of every codec the upper hull is compared: at every rate its best setting. MS-SSIM is compared
    in decibels, as is usual. Measures of which less is better are turned round.

    Args:
        points: of one dataset, as in ``summary.json``.
        measures: by name, as there.

    Returns:
        ``measure``, ``anchor``, ``codec``, ``percent`` (None where there is none), ``overlap``
        (0..1), ``reason``.

    Raises:
        ImportError: the library ``bjontegaard`` is not installed.
    """
    codecs = list(dict.fromkeys(point["codec"] for point in points))
    curves: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for name, measure in measures.items():
        for codec in codecs:
            own = [p for p in points if p["codec"] == codec and name in p["measures"]]
            if len(own) >= FEWEST_POINTS:
                curves[name, codec] = _curve(own, name, measure["higher_is_better"])
    return [
        _compared(name, anchor, codec, curves)
        for name in measures
        for anchor in codecs
        for codec in codecs
        if anchor != codec and (name, anchor) in curves and (name, codec) in curves
    ]


def _curve(
    points: Sequence[dict[str, Any]], name: str, higher_is_better: bool
) -> tuple[list[float], list[float]]:
    rates = [point["bpp"]["mean"] for point in points]
    values = [point["measures"][name]["mean"] for point in points]
    quality = values if higher_is_better else [-value for value in values]
    hull = upper_hull(rates, quality)
    shown = [ms_ssim_db(min(q, 1 - 1e-9)) if name.endswith("ms_ssim") else q for q in quality]
    return [rates[i] for i in hull], [shown[i] for i in hull]


def _compared(
    name: str,
    anchor: str,
    codec: str,
    curves: dict[tuple[str, str], tuple[list[float], list[float]]],
) -> dict[str, Any]:
    result = bd_rate(*curves[name, anchor], *curves[name, codec])
    return {
        "measure": name,
        "anchor": anchor,
        "codec": codec,
        "percent": result.percent,
        "overlap": result.overlap,
        "reason": result.reason,
    }

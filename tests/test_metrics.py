"""Rate, likeness and rate saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from picsnet.metrics import (
    bd_rate,
    bpp,
    colour_error,
    map_ms_ssim,
    ms_ssim_db,
    pareto_front,
    upper_hull,
)
from tests.conftest import drawn_map

RATES = [0.004, 0.008, 0.016, 0.032]
QUALITY = [5.0, 7.0, 8.5, 9.5]


def test_bpp_counts_every_byte_over_the_pictures_pixels() -> None:
    assert bpp(403, 512, 512) == pytest.approx(403 * 8 / 512**2)
    with pytest.raises(ValueError, match="0x5"):
        bpp(1, 0, 5)


def test_ms_ssim_of_identical_maps_is_one_and_falls_with_noise() -> None:
    sketch = drawn_map(176, 200, seed=1)
    noise = np.random.default_rng(0).normal(size=sketch.shape)
    little, much = (np.clip(sketch + amount * noise, 0, 255).astype(np.uint8) for amount in (4, 30))
    assert map_ms_ssim(sketch, sketch.copy()) == pytest.approx(1, abs=1e-6)
    assert 1 > map_ms_ssim(sketch, little) > map_ms_ssim(sketch, much) > 0


@pytest.mark.parametrize("size", [(160, 300), (300, 160)])
def test_ms_ssim_refuses_maps_too_small_for_five_scales(size: tuple[int, int]) -> None:
    sketch = drawn_map(*size, seed=1)
    with pytest.raises(ValueError, match="161 pixels or more"):
        map_ms_ssim(sketch, sketch)


def test_ms_ssim_takes_the_smallest_map_that_five_scales_allow() -> None:
    sketch = drawn_map(161, 161, seed=1)
    assert map_ms_ssim(sketch, sketch) == pytest.approx(1, abs=1e-6)


def test_ms_ssim_refuses_what_is_not_two_maps_of_a_size() -> None:
    sketch = drawn_map(176, 176, seed=1)
    with pytest.raises(ValueError, match="cannot be compared"):
        map_ms_ssim(sketch, drawn_map(176, 177, seed=1))
    with pytest.raises(ValueError, match="float64"):
        map_ms_ssim(sketch, sketch / 255)  # type: ignore[arg-type]


def test_ms_ssim_in_decibels() -> None:
    assert ms_ssim_db(0.9) == pytest.approx(10)
    assert ms_ssim_db(0.99) == pytest.approx(20)
    assert ms_ssim_db(1.0) == math.inf


def test_half_the_rate_at_the_same_quality_is_minus_fifty_per_cent() -> None:
    result = bd_rate(RATES, QUALITY, [rate / 2 for rate in RATES], QUALITY)
    assert result.percent == pytest.approx(-50)
    assert result.overlap == 1 and not result.reason


def test_bd_rate_does_not_depend_on_order_or_on_worse_points() -> None:
    rates, quality = [rate / 2 for rate in RATES], list(QUALITY)
    # 0.0045 lies between two points and is worse than the cheaper of them.
    result = bd_rate(RATES[::-1], QUALITY[::-1], [*rates[::-1], 0.0045], [*quality[::-1], 4.0])
    assert result.percent == pytest.approx(-50)


def test_bd_rate_states_how_much_of_the_curve_was_compared() -> None:
    result = bd_rate(RATES, QUALITY, [0.004, 0.008, 0.016], [7.5, 9.5, 11.5])
    assert result.overlap == pytest.approx(0.5)
    assert result.percent is not None and result.percent < 0


def test_bd_rate_without_common_quality_has_a_reason_and_no_value() -> None:
    above = bd_rate(RATES, QUALITY, RATES, [q + 10 for q in QUALITY])
    below = bd_rate(RATES, QUALITY, RATES, [q - 10 for q in QUALITY])
    assert above.percent is None and "above" in above.reason
    assert below.percent is None and "below" in below.reason


def test_bd_rate_needs_two_points_and_sound_numbers() -> None:
    assert "fewer than two" in bd_rate(RATES, QUALITY, [0.01], [8.0]).reason
    with pytest.raises(ValueError, match="positive"):
        bd_rate(RATES, QUALITY, [0.0, 0.1], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        bd_rate(RATES, QUALITY, [0.01, 0.1], [1.0, math.inf])
    with pytest.raises(ValueError, match="4 rates but 3"):
        bd_rate(RATES, QUALITY[:3], RATES, QUALITY)


def test_pareto_front_rises_strictly_in_both() -> None:
    rates = [0.03, 0.01, 0.02, 0.02, 0.04, 0.01]
    quality = [7.0, 5.0, 6.0, 7.0, 6.5, 5.0]
    assert [(rates[i], quality[i]) for i in pareto_front(rates, quality)] == [
        (0.01, 5.0),
        (0.02, 7.0),
    ]


def test_upper_hull_passes_over_dents_of_the_front() -> None:
    rates, quality = [0.01, 0.02, 0.03, 0.05], [0.5, 0.51, 0.7, 0.8]
    assert pareto_front(rates, quality) == [0, 1, 2, 3]
    assert upper_hull(rates, quality) == [0, 2, 3]


def test_upper_hull_keeps_every_point_of_a_curve_that_flattens() -> None:
    """Over the logarithm of rate such a curve rises ever faster, and would lose its middle."""
    rates, quality = [0.01, 0.02, 0.04, 0.08], [0.50, 0.60, 0.72, 0.86]
    assert upper_hull(rates, quality) == [0, 1, 2, 3]


def test_colour_error_is_a_distance_of_colours() -> None:
    blocks = np.random.default_rng(2).integers(0, 255, (5, 7, 3), np.uint8)
    photo = np.asarray(Image.fromarray(blocks).resize((160, 160), Image.Resampling.BICUBIC))
    assert colour_error(photo, photo) == 0
    grey, lighter = (np.full((160, 160, 3), value, np.uint8) for value in (119, 145))
    assert colour_error(grey, lighter) == pytest.approx(10, abs=0.5)  # L* of 50 and 60
    # Details do not count, places do.
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 12, photo.shape), 0, 255)
    assert colour_error(photo, noisy.astype(np.uint8)) < 3
    assert colour_error(photo, photo[::-1]) > 10

"""Soft rounding, which descent on one picture's latents goes by."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from picsnet.ntc.rounded import softly_rounded

HARDNESSES = st.floats(min_value=0.1, max_value=30)


@given(st.integers(-1000, 1000), HARDNESSES)
def test_whole_numbers_and_halves_stay(whole: int, hardness: float) -> None:
    values = torch.tensor([whole, whole + 0.5], dtype=torch.float64)
    assert softly_rounded(values, hardness).tolist() == pytest.approx(values.tolist(), abs=1e-9)


@given(st.floats(-100, 100), HARDNESSES)
def test_it_draws_to_the_nearest_whole_number_and_never_past_it(
    value: float, hardness: float
) -> None:
    values = torch.tensor([value], dtype=torch.float64)
    softly, nearest = softly_rounded(values, hardness), values.round()
    assert (softly - nearest).abs() <= (values - nearest).abs() + 1e-9
    assert ((softly - nearest) * (values - nearest) >= -1e-9).all()


@given(HARDNESSES)
def test_it_rises(hardness: float) -> None:
    softly = softly_rounded(torch.linspace(-3, 3, 601, dtype=torch.float64), hardness)
    assert (softly.diff() >= 0).all()


def test_the_harder_the_nearer_to_rounding() -> None:
    values = torch.tensor([-1.7, -0.2, 0.1, 0.4, 0.6, 2.3], dtype=torch.float64)
    off = [
        (softly_rounded(values, h) - values.round()).abs().max() for h in (0.01, 3.0, 12.0, 99.0)
    ]
    assert off == sorted(off, reverse=True)
    assert off[0] == pytest.approx(0.4, abs=1e-3)  # not rounded at all
    assert off[-1] < 1e-6

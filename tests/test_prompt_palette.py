"""Pictures described in plain words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from picsnet.prompt.palette import describe


def bands(*colours: tuple[int, int, int]) -> NDArray[np.uint8]:
    rows = [np.full((40, 120, 3), colour, np.uint8) for colour in colours]
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("colours", "words"),
    [
        (
            ((120, 180, 240), (20, 80, 30), (120, 120, 120)),
            "; blue above, dark green in the middle, grey below",
        ),
        (
            ((255, 255, 255), (200, 30, 30), (5, 5, 5)),
            "; white above, bright red in the middle, black below",
        ),
        (
            ((240, 220, 30), (240, 220, 30), (90, 50, 20)),
            "; bright yellow above, bright yellow in the middle, brown below",
        ),
    ],
)
def test_colours_are_where_they_are(colours: tuple[tuple[int, int, int], ...], words: str) -> None:
    assert describe(bands(*colours)).endswith(words)


def test_rows_are_read_from_left_to_right() -> None:
    picture = bands((255, 255, 255), (255, 255, 255), (255, 255, 255))
    picture[:40, 80:] = (200, 30, 30)
    assert "; white and bright red above, white in the middle" in describe(picture)
    assert "; bright red and white above" in describe(picture[:, ::-1])


def test_light_warmth_and_contrast() -> None:
    assert describe(bands((20, 20, 20))).startswith("dark, monochrome, flat;")
    assert describe(bands((255, 240, 200))).startswith("bright, warm, ")
    assert describe(bands((90, 110, 160))).split(", ")[1] == "cold"
    assert describe(bands((0, 0, 0), (255, 255, 255))).split("; ")[0].endswith("dramatic")


def test_a_small_change_leaves_the_words() -> None:
    picture = bands((120, 180, 240), (30, 110, 40), (120, 120, 120))
    noisy = picture.astype(int) + np.random.default_rng(0).integers(-6, 7, picture.shape)
    assert describe(np.clip(noisy, 0, 255).astype(np.uint8)) == describe(picture)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(16, 90), st.integers(16, 90))
def test_any_picture_has_a_description(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    picture[: height // 2] = rng.integers(0, 256, 3)
    text = describe(picture)
    assert describe(picture) == text
    assert 8 <= len(text.split()) <= 45
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ,;")

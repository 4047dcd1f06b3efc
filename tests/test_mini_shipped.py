"""picsnet-mini as it ships: what is in its folder, and that it draws what it is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from picsnet import shipped
from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.spec import MINI, load_spec

FOLDER = shipped.FOLDER / MINI
SIZES = [(128, 128)]
BLANK = np.zeros((128, 128), np.uint8)


@pytest.fixture(scope="module")
def mini() -> DiffusionDecoder:
    return DiffusionDecoder(load_spec(MINI))


def test_it_is_small_and_in_half_precision() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 24 * 2**20
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert {path.parent.name for path in weights} == {
        *("clip", "controlnet", "text_encoder", "unet", "vae")
    }
    for path in weights:
        assert path.stat().st_size < 15e6
        assert _types(path) <= {"F16", "I64"}  # I64: CLIP's position ids
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def _types(path: Path) -> set[str]:
    with safe_open(path, framework="pt") as tensors:
        return {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118


def _drawn(
    mini: DiffusionDecoder, prompt: str, sketch: NDArray[np.uint8]
) -> list[NDArray[np.uint8]]:
    ids = mini.tokenize(prompt)
    return mini.draw([Drawing(ids, sketch, candidate) for candidate in range(4)], SIZES)


def _everywhere(mood: str, colour: str) -> str:
    return f"{mood}; {colour} above, {colour} in the middle, {colour} below"


def test_words_decide_colours(mini: DiffusionDecoder) -> None:
    red, blue, dark, white = (
        np.mean(_drawn(mini, _everywhere(mood, colour), BLANK), axis=(0, 1, 2))
        for mood, colour in (
            ("dim, warm, vivid, soft", "red"),
            ("dim, cold, vivid, soft", "blue"),
            ("dark, monochrome, flat", "black"),
            ("bright, monochrome, flat", "white"),
        )
    )
    assert red[0] - red[2] > 20 > -20 > blue[0] - blue[2]
    assert white.mean() - dark.mean() > 80


def test_words_decide_places(mini: DiffusionDecoder) -> None:
    over = "light, cold, colourful, dramatic; blue above, green in the middle, dark green below"
    under = "light, cold, colourful, dramatic; dark green above, green in the middle, blue below"
    above, below = (
        np.mean([p[:43].mean((0, 1)) - p[-43:].mean((0, 1)) for p in _drawn(mini, text, BLANK)], 0)
        for text in (over, under)
    )
    assert above[2] > below[2]  # there is more blue where it was said to be


def test_lines_of_the_sketch_become_edges(mini: DiffusionDecoder) -> None:
    upright = BLANK.copy()
    upright[:, 62:66] = 255
    prompt = "light, warm, colourful, dramatic; grey and brown above, grey and brown below"
    with_line, without = (
        np.mean([_step_across_the_middle(p) for p in _drawn(mini, prompt, sketch)])
        for sketch in (upright, BLANK)
    )
    assert with_line > 1.5 * without


def _step_across_the_middle(picture: NDArray[np.uint8]) -> float:
    """How much grey levels differ between the two sides of the vertical line in the middle."""
    grey = picture.astype(float).mean(2)
    return float(np.abs(grey[:, 68:74].mean(1) - grey[:, 54:60].mean(1)).mean())


def test_a_picture_beyond_a_megapixel_is_drawn_without_tiles(mini: DiffusionDecoder) -> None:
    # diffusers' tiled AutoencoderTiny knows four latent channels only, and mini has sixteen.
    prompt = mini.tokenize(_everywhere("light, warm, muted, soft", "grey"))
    (picture,) = mini.draw([Drawing(prompt, BLANK, 0)], [(128, 128), (1056, 1024)])
    assert picture.shape == (1024, 1056, 3)

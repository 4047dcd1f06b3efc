"""The edge term of training follows the edge measure of evaluation, and can be trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from picsnet.edge_presence import edge_disagreement
from picsnet.evaluation.edges import edge_agreement, thinned
from picsnet.losses import RateDistortionLoss
from picsnet.ntc.base import NTCOutput
from tests.conftest import drawn_map

Map = NDArray[np.uint8]


def tensor(sketch: Map) -> Tensor:
    return torch.from_numpy(sketch.astype(np.float32))[None, None] / 255


def soft(decoded: Map, sketch: Map) -> float:
    return float(edge_disagreement(tensor(decoded), tensor(sketch)))


def hard(decoded: Map, sketch: Map) -> float:
    return 1 - edge_agreement(thinned(sketch), thinned(decoded))


def moved(sketch: Map, pixels: int) -> Map:
    return np.roll(sketch, (pixels, pixels), axis=(0, 1))


def faded(sketch: Map, share: float) -> Map:
    """With that share of its columns at a third of their strength."""
    result = sketch.copy()
    result[:, : round(share * sketch.shape[1])] //= 3
    return result


def test_maps_that_agree() -> None:
    sketch = drawn_map(120, 150, 3)
    black = np.zeros_like(sketch)
    assert soft(sketch, sketch) == 0
    assert soft(black, black) == pytest.approx(0, abs=1e-6)
    assert soft(moved(sketch, 1), sketch) < 0.05
    # A grey level above the threshold is no edge by itself.
    assert soft(np.full_like(sketch, 200), black) == pytest.approx(0, abs=1e-6)


def test_maps_that_do_not() -> None:
    sketch = drawn_map(120, 150, 3)
    black = np.zeros_like(sketch)
    assert soft(black, sketch) > 0.95 < soft(sketch, black)
    assert soft(sketch, black) == pytest.approx(soft(black, sketch), abs=1e-6)
    line = np.zeros((60, 60), dtype=np.uint8)
    line[:, 30] = 255
    assert soft(moved(line, 2), line) < 0.02
    assert soft(moved(line, 3), line) > 0.9


@pytest.mark.parametrize("change", ["faded", "moved", "noise"])
def test_it_rises_as_the_measure_does(change: str) -> None:
    sketch = drawn_map(160, 200, 5)
    noise = np.random.default_rng(0).normal(size=sketch.shape)
    changes = {
        "faded": [faded(sketch, share) for share in (0.0, 0.3, 0.6, 1.0)],
        "moved": [moved(sketch, pixels) for pixels in (0, 2, 4, 8)],
        "noise": [
            np.clip(sketch + level * noise, 0, 255).astype(np.uint8) for level in (0, 30, 60, 120)
        ],
    }[change]
    expected = [hard(decoded, sketch) for decoded in changes]
    found = [soft(decoded, sketch) for decoded in changes]
    assert expected == sorted(expected) and expected[-1] > expected[0] + 0.2
    assert found == sorted(found) and found[-1] > found[0] + 0.2


def test_each_map_of_a_batch_has_its_own() -> None:
    sketches = [drawn_map(100, 100, seed) for seed in range(3)]
    x = torch.cat([tensor(sketch) for sketch in sketches])
    x_hat = torch.cat([tensor(faded(sketch, 0.5)) for sketch in sketches])
    alone = [soft(faded(sketch, 0.5), sketch) for sketch in sketches]
    assert edge_disagreement(x_hat, x).tolist() == pytest.approx(alone)


def test_descent_brings_a_faded_edge_back() -> None:
    sketch = drawn_map(96, 96, 2)
    x, x_hat = tensor(sketch), tensor(faded(sketch, 1.0)).requires_grad_()
    before = hard(faded(sketch, 1.0), sketch)
    optimiser = torch.optim.Adam([x_hat], lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        edge_disagreement(x_hat, x).sum().backward()
        optimiser.step()
    after = (x_hat.detach()[0, 0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    assert before > 0.9
    assert hard(after, sketch) < before / 3


def test_it_is_added_to_the_distortion_by_its_weight() -> None:
    sketch = drawn_map(192, 192, 1)
    x, x_hat = tensor(sketch), tensor(faded(sketch, 0.5))
    output = NTCOutput(x_hat, {"y": torch.full((1, 8), 0.5)})
    plain = RateDistortionLoss(0.5, "ms-ssim")(output, x)
    edges = RateDistortionLoss(0.5, "ms-ssim", edge_weight=0.4)(output, x)
    more = 0.4 * soft(faded(sketch, 0.5), sketch)
    assert more > 0.05
    assert edges.distortion.item() == pytest.approx(plain.distortion.item() + more)
    assert edges.loss.item() == pytest.approx(plain.loss.item() + 0.5 * more)

"""Efforts of the encoder: better latents for a picture, for any decoder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from picsnet.bitstream import read
from picsnet.checkpoints import SketchModel, load_model
from picsnet.codec import SketchCodec
from picsnet.entropy import PRECISION
from picsnet.errors import UsageError
from picsnet.ms_ssim import ms_ssim
from picsnet.ntc.context import SketchContext
from picsnet.ntc.hyperprior import SketchHyperprior
from picsnet.orientation import turned
from picsnet.refining import STEPS, Refined, refine
from tests.conftest import drawn_map
from tests.vectors import models


@pytest.fixture(scope="module")
def model() -> SketchModel:
    return next(m for m in models().values() if isinstance(m.network, SketchContext))


def _refined(model: SketchModel, sketch: np.ndarray, effort: int) -> Refined:
    network = model.network
    assert isinstance(network, SketchContext)
    x = torch.from_numpy(sketch.astype(np.float32) / 255)[None, None]
    return refine(network, x, model.quality, effort)


def _loss(model: SketchModel, sketch: np.ndarray, effort: int) -> tuple[float, float]:
    found = _refined(model, sketch, effort)
    return found.before, found.after


def test_more_effort_finds_better_latents(model: SketchModel) -> None:
    sketch = drawn_map(180, 200, 3)
    before, little = _loss(model, sketch, 2)
    again, much = _loss(model, sketch, 5)
    assert again == pytest.approx(before)
    assert much < little < before


def test_directions_in_bf16_find_latents_as_good(
    model: SketchModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketch = drawn_map(180, 200, 3)
    before, after = _loss(model, sketch, 5)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    again, coarse = _loss(model, sketch, 5)
    assert again == before  # what counts is looked at in float32
    assert coarse != after
    assert before - coarse > 0.7 * (before - after)


def test_latents_serve_the_loss_that_the_network_was_trained_on() -> None:
    """By MS-SSIM, where the lambda is of MSE, files would shrink and their error grow."""
    model = load_model("sketch_ntc_lambda0.5")
    sketches = [drawn_map(192, 192, seed) for seed in (3, 5)]

    def error(distortion: str) -> float:
        card = {**model.card, "distortion": distortion}
        codec = SketchCodec(replace(model, card=card), quality=0, effort=3)
        decoded = [codec.decode_map(codec.encode_map(sketch)) for sketch in sketches]
        return float(np.square(np.stack(decoded) - np.stack(sketches) * 1.0).mean())

    # Squares of 0..255 are large: at the same lambda, bits count for nothing beside them.
    assert error("mse") < 0.97 * error("ms-ssim")


def test_weights_are_left_as_they_were(model: SketchModel) -> None:
    state = {key: value.clone() for key, value in model.network.state_dict().items()}
    _loss(model, drawn_map(176, 176, 1), 1)
    assert all(torch.equal(value, state[key]) for key, value in model.network.state_dict().items())
    assert not any(p.requires_grad for p in model.network.parameters())


@pytest.mark.parametrize("size", [(16, 16), (100, 40), (170, 190)])
def test_files_of_any_effort_are_read_as_usual(model: SketchModel, size: tuple[int, int]) -> None:
    """Also of maps that are too small for MS-SSIM."""
    sketch = drawn_map(*size, seed=4)
    data = SketchCodec(model, effort=3).encode_map(sketch)
    assert SketchCodec(model).decode_map(data).shape == size
    assert data == SketchCodec(model, effort=3).encode_map(sketch)


def test_what_effort_finds_in_two_phases_is_what_the_file_decodes_to() -> None:
    """With the network that ships: vectors' random ones have symbols beyond their tables."""
    model = load_model("sketch_ntc_lambda0.5")
    network = model.network
    assert isinstance(network, SketchContext) and network.context.phases == 2
    sketch = drawn_map(180, 200, 3)
    x = torch.from_numpy(sketch.astype(np.float32) / 255)[None, None]
    ways = model.tables.orientation
    bits = PRECISION - np.log2(ways.freqs[0, : ways.lengths[0]])
    found = refine(network, x, model.quality, 2, bits.tolist())
    points = torch.tensor([model.quality])
    with torch.no_grad():
        latents, _ = network.coded(found.y, found.z, points, relaxed=False)
        expected = network.g_s(latents.float()).clamp(0, 1)
    data = SketchCodec(model, effort=2).encode_map(sketch)
    decoded = torch.from_numpy(SketchCodec(model).decode_map(data).astype(np.float32) / 255)
    sent, whole = (turned(each, found.orientation) for each in (decoded[None, None], x))
    rows, columns = sent.shape[-2:]
    assert (expected[..., :rows, :columns] - sent).abs().max() < 1 / 255
    # And its loss is what was descended on, which is that of the map as it is turned.
    layer = read(data).sketch
    assert layer is not None
    bpp = 8 * len(layer.stream) / sketch.size
    loss = network.lmbda_at(model.quality) * (1 - float(ms_ssim(sent, whole))) + bpp
    # Streams are whole bytes and name an operating point; maps are whole levels.
    assert loss == pytest.approx(found.after, abs=32 / sketch.size)
    assert found.before - found.after > 3 * 32 / sketch.size


def test_pictures_side_by_side_do_not_take_each_others_noise(model: SketchModel) -> None:
    sketch = drawn_map(100, 120, 3)
    alone = _refined(model, sketch, 3)
    assert alone.after < alone.before
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: _refined(model, sketch, 3), range(3)):
            assert torch.equal(found.z, alone.z) and torch.equal(found.y, alone.y)


def test_files_do_not_depend_on_what_came_before(model: SketchModel) -> None:
    sketch, other = drawn_map(170, 170, seed=4), drawn_map(170, 200, seed=5)
    codec = SketchCodec(model, effort=3)
    torch.manual_seed(1)
    first, before = codec.encode_map(sketch), _refined(model, sketch, 3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    codec.encode_map(other)
    assert torch.equal(torch.get_rng_state(), state)
    assert codec.encode_map(sketch) == first
    # Symbols may be alike by chance; what they were rounded from is not.
    after = _refined(model, sketch, 3)
    assert torch.equal(before.y, after.y) and torch.equal(before.z, after.z)
    with torch.inference_mode():
        assert codec.encode_map(sketch) == first


def test_too_large_a_map_is_refused(model: SketchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picsnet.refining.MAX_PIXELS", 64 * 64 - 1)
    with pytest.raises(UsageError, match="64x64 would take too much memory"):
        SketchCodec(model, effort=1).encode_map(drawn_map(64, 64, 1))


@pytest.mark.parametrize("quality", [-0.5, 2.5, float("nan"), float("inf")])
def test_qualities_that_there_are_not_are_refused(model: SketchModel, quality: float) -> None:
    with pytest.raises(UsageError, match="must be 0 to 2"):
        SketchCodec(model, quality)


@pytest.mark.parametrize("wrong", ["1", True, [1], torch.tensor(1.0)])
def test_quality_and_effort_are_numbers(model: SketchModel, wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"--quality .* must be a number"):
        SketchCodec(model, wrong)
    for effort in (wrong, 2.5, None):
        with pytest.raises(UsageError, match=r"--effort .* a whole number"):
            SketchCodec(model, effort=effort)


def test_quality_may_be_one_of_numpys(model: SketchModel) -> None:
    assert SketchCodec(model, np.float32(1.5)).point == 12
    with pytest.raises(UsageError, match="must be 0 to 2"):
        SketchCodec(model, np.uint8(32))  # eight times that is 0 in its own type


def test_quality_is_continuous(model: SketchModel) -> None:
    sketch = drawn_map(128, 128, 2)
    files = {q: SketchCodec(model, q).encode_map(sketch) for q in (0, 0.125, 1, 1.5, 2)}
    assert len(set(files.values())) == len(files)
    for data in files.values():
        assert SketchCodec(model).decode_map(data).shape == (128, 128)
    # Nearer than an eighth is the same.
    assert SketchCodec(model, 1.01).encode_map(sketch) == files[1]


@pytest.mark.parametrize("quality", [-0.1, 2.1, 40])
def test_qualities_there_are_not(model: SketchModel, quality: float) -> None:
    with pytest.raises(UsageError, match=r"--quality .* must be 0 to 2"):
        SketchCodec(model, quality)


def test_networks_for_one_lambda_have_neither(model: SketchModel) -> None:
    fixed = next(m for m in models().values() if isinstance(m.network, SketchHyperprior))
    with pytest.raises(UsageError, match="has one quality"):
        SketchCodec(fixed, 1)
    with pytest.raises(UsageError, match="effort 0 only"):
        SketchCodec(fixed, effort=1)
    with pytest.raises(UsageError, match=f"0 to {len(STEPS) - 1}"):
        SketchCodec(model, effort=10)


def test_efforts_need_the_prior() -> None:
    codec = SketchCodec(load_model("sketch_ntc_lambda0.5", prior=False))
    with pytest.raises(UsageError, match=r"without its prior \(prior=False\)"):
        SketchCodec(codec.model, effort=1)

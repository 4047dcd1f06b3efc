"""Maps to files and back with a shipped model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from picsnet.bitstream import layer_bytes, read
from picsnet.checkpoints import load_model
from picsnet.codec import SketchCodec, stream_bits
from picsnet.entropy import PRECISION
from picsnet.errors import BitstreamError, FingerprintError, UsageError
from picsnet.metrics import map_ms_ssim
from picsnet.orientation import AS_IT_IS
from picsnet.shipped import sketch_models
from tests.conftest import drawn_map


@pytest.fixture(scope="module")
def codec() -> SketchCodec:
    return SketchCodec(load_model("sketch_ntc_lambda0.5"))


def test_shipped_models_are_six_by_rising_lambda() -> None:
    lambdas = ("0.0625", "0.125", "0.25", "0.5", "1.0", "2.0")
    assert sketch_models() == [f"sketch_ntc_lambda{x}" for x in lambdas]


@pytest.mark.parametrize("size", [(16, 16), (16, 200), (321, 481), (17, 33), (64, 64), (250, 16)])
def test_any_size_round_trips(codec: SketchCodec, size: tuple[int, int]) -> None:
    sketch = drawn_map(*size, seed=3)
    data = codec.encode_map(sketch)
    file = read(data)
    assert (file.height, file.width) == size
    decoded = codec.decode_map(data)
    assert decoded.shape == size and decoded.dtype == np.uint8


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_another_kind_decode_alike(codec: SketchCodec, kind: type) -> None:
    data = codec.encode_map(drawn_map(64, 64, 0))
    assert np.array_equal(codec.decode_map(kind(data)), codec.decode_map(data))


def test_decoded_map_resembles_the_original(codec: SketchCodec) -> None:
    sketch = drawn_map(384, 384, seed=9)
    other = drawn_map(384, 384, seed=10)
    decoded = codec.decode_map(codec.encode_map(sketch))
    assert map_ms_ssim(sketch, decoded) > map_ms_ssim(other, decoded) + 0.2


def test_higher_lambda_spends_more_and_keeps_more() -> None:
    sketches = [drawn_map(256, 256, seed) for seed in range(6)]
    rates, qualities = [], []
    for name in sketch_models():
        codec = SketchCodec(load_model(name))
        files = [codec.encode_map(sketch) for sketch in sketches]
        rates.append(sum(map(len, files)))
        qualities.append(
            np.mean(
                [map_ms_ssim(s, codec.decode_map(f)) for s, f in zip(sketches, files, strict=True)]
            )
        )
    assert rates == sorted(rates)
    assert qualities == sorted(qualities)


def test_black_map_costs_the_container_only(codec: SketchCodec) -> None:
    data = codec.encode_map(np.zeros((512, 768), np.uint8))
    assert len(data) <= 11
    assert not codec.decode_map(data).any()


def test_nearly_black_map_is_cheap(codec: SketchCodec) -> None:
    sketch = np.zeros((512, 768), np.uint8)
    sketch[200:203, 100:130] = 120
    # 162 bytes with the models of 2026-11: blank areas still cost 0.003 bpp. Less is welcome.
    assert len(codec.encode_map(sketch)) < 200


def test_container_overhead_is_small(codec: SketchCodec) -> None:
    parts = layer_bytes(codec.encode_map(drawn_map(300, 400, 1)))
    assert sum(parts.values()) - parts["sketch"] <= 11


def test_stream_is_as_long_as_the_model_says(codec: SketchCodec) -> None:
    sketch = drawn_map(300, 400, 1)
    ideal = stream_bits(codec.analyse([sketch]), 0, codec.model) / 8
    actual = len(codec.encode_streams([sketch])[0])
    assert ideal - 1 < actual <= ideal + 1.5


@pytest.mark.parametrize("seed", range(5))
def test_files_are_as_long_as_training_is_told(codec: SketchCodec, seed: int) -> None:
    """The rate that the loss is made of is the rate that the file has."""
    sketch = drawn_map(256, 320, seed, lines=10 + 10 * seed)
    predicted = codec.predicted_bits(sketch) / 8
    actual = len(codec.encode_streams([sketch])[0])
    assert abs(actual - predicted) <= 0.015 * predicted + 4


@pytest.mark.parametrize("size", [(16, 16), (112, 80), (176, 144)])
def test_what_sticks_out_of_a_picture_is_predicted_as_it_is_coded(
    codec: SketchCodec, size: tuple[int, int]
) -> None:
    """Cells of 2x2 latents cover an odd number of them: what has no latent is its mean."""
    sketch = drawn_map(*size, seed=3)
    first = np.log2(codec.model.network.qualities) + PRECISION
    first -= np.log2(float(codec.model.tables.orientation.freqs[0, AS_IT_IS]))
    ideal = stream_bits(codec.analyse([sketch]), 0, codec.model)
    assert codec.predicted_bits(sketch) + first == pytest.approx(ideal, abs=0.5)


def test_batches_decode_as_single_maps_do(codec: SketchCodec) -> None:
    sketches = [drawn_map(96, 128, seed) for seed in range(5)]
    for sketch, data in zip(sketches, codec.encode_maps(sketches), strict=True):
        # Symbols may differ by the sender's rounding; what was sent decodes to a like map.
        alone = codec.decode_map(codec.encode_map(sketch)).astype(int)
        assert np.abs(codec.decode_map(data) - alone).mean() < 1


def test_another_model_refuses_the_file(codec: SketchCodec) -> None:
    data = codec.encode_map(drawn_map(64, 64, 0))
    with pytest.raises(FingerprintError, match="--ckpt"):
        SketchCodec(load_model("sketch_hyperprior_lambda0.5")).decode_map(data)


@pytest.mark.parametrize("name", ["sketch_ntc_lambda0.0625", "sketch_ntc_lambda2.0"])
def test_files_are_as_large_as_predicted(name: str) -> None:
    """Also where latents lie beyond the ends of their tables, and are clipped."""
    codec = SketchCodec(load_model(name))
    noise = np.random.default_rng(1).integers(0, 256, (128, 128), dtype=np.uint8)
    block = np.zeros((256, 256), np.uint8)
    block[64:200, 64:200] = 255
    for sketch in (noise, block, *(drawn_map(256, 256, seed) for seed in range(4))):
        spent = layer_bytes(codec.encode_map(sketch))["sketch"]
        predicted = codec.predicted_bits(sketch) / 8
        assert abs(spent - predicted) <= 0.015 * predicted + 4


def test_a_network_reads_what_any_of_its_operating_points_wrote(codec: SketchCodec) -> None:
    sketch = drawn_map(64, 64, 0)
    other = SketchCodec(load_model("sketch_ntc_lambda2.0"))
    data = other.encode_map(sketch)
    assert data != codec.encode_map(sketch)
    assert np.array_equal(codec.decode_map(data), other.decode_map(data))


@settings(max_examples=60, deadline=None)
@given(flip=st.integers(0, 10**6), cut=st.integers(0, 10**6), junk=st.binary(max_size=40))
def test_damaged_files_end_in_a_picsnet_error(
    codec: SketchCodec, flip: int, cut: int, junk: bytes
) -> None:
    data = codec.encode_map(drawn_map(64, 80, 2))
    damaged = bytearray(data)
    damaged[flip // 8 % len(data)] ^= 1 << flip % 8
    with pytest.raises(BitstreamError):
        codec.decode_map(bytes(damaged))
    with pytest.raises(BitstreamError):
        codec.decode_map(data[: cut % len(data)])
    with pytest.raises(BitstreamError):
        codec.decode_map(junk)


@settings(max_examples=40, deadline=None)
@given(stream=st.binary(min_size=1, max_size=200))
def test_any_payload_behind_a_valid_checksum_is_safe(codec: SketchCodec, stream: bytes) -> None:
    try:
        decoded = codec.decode_stream(stream, 40, 56)
    except BitstreamError:
        return
    assert decoded.shape == (40, 56)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((64, 64)),
        np.full((64, 64), 0.5, np.float32),
        np.ones((64, 64), bool),
        np.full((64, 64), 300),
        np.zeros((64, 64, 3), np.uint8),
        torch.ones(64, 64, dtype=torch.uint8),
        "map.png",
    ],
    ids=["float64", "float32", "bool", "int64", "colour", "tensor", "path"],
)
def test_what_is_no_map_of_bytes_is_refused_not_coded_as_another(
    codec: SketchCodec, wrong: Any
) -> None:
    """Levels of 0..1 went into a file of a nearly black map."""
    uses: list[Any] = [codec.encode_map, codec.predicted_bits, lambda x: codec.analyse([x])]
    for use in uses:
        with pytest.raises(UsageError, match="a map is"):
            use(wrong)


def test_batches_are_of_one_size_and_may_be_any_iterable(codec: SketchCodec) -> None:
    sketch = drawn_map(64, 96, 1)
    with pytest.raises(UsageError, match="one size, not 96x32, 96x64"):
        codec.encode_maps([sketch, sketch[:32]])
    assert codec.encode_maps([]) == []
    assert codec.encode_maps(x for x in [sketch]) == [codec.encode_map(sketch)]


def test_maps_may_lie_anyhow_in_memory(codec: SketchCodec) -> None:
    whole = drawn_map(128, 96, 1)
    for view in (whole[::-1], whole[::2, ::2], whole.T):
        assert codec.encode_map(view) == codec.encode_map(view.copy())


def test_a_path_is_not_taken_for_a_file_nor_a_name_for_a_model(codec: SketchCodec) -> None:
    for wrong in ("sketch.pics", Path("sketch.pics"), 3):
        with pytest.raises(UsageError, match=r"read_bytes\(\)"):
            codec.decode_map(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="load_model"):
        SketchCodec("sketch_ntc_lambda0.5")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not SketchModel"):
        load_model(codec.model)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a device"):
        load_model("sketch_ntc_lambda0.5", "gpu")

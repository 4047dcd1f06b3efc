"""A file decodes to the same symbols whatever the decoder runs on: threads, batch, memory format,
compilation, autocast. With a trained model, since in an untrained one every index is alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from picsnet.bitstream import read
from picsnet.checkpoints import SketchModel, load_model
from picsnet.codec import SketchCodec, decode_latents
from picsnet.entropy import FrequencyTables, StreamDecoder
from picsnet.ntc.fixedpoint import FixedPointConv2d
from picsnet.ntc.hyperprior import EntropyParameters, HyperSynthesis
from tests.conftest import drawn_map

MODEL = "sketch_ntc_lambda1.0"
SIZE = 128
COUNT = 200
BATCH = 8

Coded = tuple[list[bytes], Tensor, list[NDArray[np.int32]]]


@pytest.fixture(scope="module")
def model() -> SketchModel:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def coded(model: SketchModel) -> Coded:
    """Streams of 200 maps, with the sender's hyper-latents and all its symbols in order."""
    codec = SketchCodec(model)
    streams: list[bytes] = []
    z: list[Tensor] = []
    symbols: list[NDArray[np.int32]] = []
    for start in range(0, COUNT, BATCH):
        maps = [
            drawn_map(SIZE, SIZE, seed, lines=6 + seed % 20) for seed in range(start, start + BATCH)
        ]
        parts = codec.analyse(maps)
        streams += [read(data).sketch.stream for data in codec.encode_maps(maps)]  # type: ignore[union-attr]
        z.append(parts[0].symbols.view(len(maps), model.network.N, SIZE // 64, SIZE // 64))
        symbols += list(torch.cat([part.symbols for part in parts], dim=1).numpy())
    return streams, torch.cat(z), symbols


def test_maps_put_the_model_to_work(coded: Coded) -> None:
    streams, z, symbols = coded
    assert sum(map(len, streams)) / COUNT > 20
    assert (z != 0).flatten(1).any(dim=1).float().mean() > 0.5, "hyper-latents carry nothing"
    assert sum((one != 0).sum() for one in symbols) > 20 * COUNT


def decoded_symbols(stream: bytes, model: SketchModel) -> NDArray[np.int32]:
    """All that a receiver reads from a stream, in order, less the operating point."""
    taken: list[NDArray[np.int32]] = []

    class Recorder(StreamDecoder):
        def decode(self, indexes: NDArray[np.int32], tables: FrequencyTables) -> NDArray[np.int32]:
            taken.append(super().decode(indexes, tables))
            return taken[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picsnet.codec.StreamDecoder", Recorder)
        decode_latents(stream, (SIZE // 16, SIZE // 16), model)
    return np.concatenate(taken[1:])


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _bf16() -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16)


SETTINGS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "1 thread": lambda: threads(1),
    "2 threads": lambda: threads(2),
    "bf16 autocast": _bf16,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_all_streams_decode_alike(model: SketchModel, coded: Coded, setting: str) -> None:
    streams, _, symbols = coded
    with SETTINGS[setting]():
        for stream, expected in zip(streams, symbols, strict=True):
            assert np.array_equal(decoded_symbols(stream, model), expected)


def _parameters(h_s: nn.Module, z: Tensor) -> EntropyParameters:
    result = h_s(z)
    return EntropyParameters(*result)


def _outputs(h_s: nn.Module, z: Tensor) -> dict[str, EntropyParameters]:
    """Entropy parameters of all maps under every condition that a decoder may meet."""
    size = z.shape[0]
    batched = [
        torch.cat(parts)
        for parts in zip(
            *(_parameters(h_s, z[i : i + BATCH]) for i in range(0, size, BATCH)), strict=True
        )
    ]
    single = [
        torch.cat(parts)
        for parts in zip(*(_parameters(h_s, z[i : i + 1]) for i in range(size)), strict=True)
    ]
    results = {
        "batch 8": EntropyParameters(*batched),
        "batch 1": EntropyParameters(*single),
        "whole": _parameters(h_s, z),
        "channels last": _parameters(
            h_s.to(memory_format=torch.channels_last),
            z.contiguous(memory_format=torch.channels_last),
        ),
    }
    h_s.to(memory_format=torch.contiguous_format)
    with threads(2):
        results["2 threads"] = _parameters(h_s, z)
    with _bf16():
        results["bf16 autocast"] = _parameters(h_s, z)
    with torch.backends.mkldnn.flags(enabled=False):
        results["without oneDNN"] = _parameters(h_s, z)
    return results


def test_entropy_parameters_do_not_depend_on_how_they_are_computed(
    model: SketchModel, coded: Coded
) -> None:
    results = _outputs(model.network.h_s, coded[1])
    reference = results.pop("batch 1")
    for name, result in results.items():
        assert torch.equal(result.indexes, reference.indexes), name
        assert torch.equal(result.means, reference.means), name


@pytest.mark.skipif(shutil.which("cc") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_decoder_agrees(model: SketchModel, coded: Coded) -> None:
    z = coded[1]
    compiled = torch.compile(model.network.h_s)
    expected, result = model.network.h_s(z), compiled(z)
    assert torch.equal(result.indexes, expected.indexes)
    assert torch.equal(result.means, expected.means)


class FloatHyperSynthesis(nn.Module):
    """The same weights in the usual arithmetic: float32, no rounding between layers."""

    def __init__(self, exact: HyperSynthesis) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for layer in (exact.conv1, exact.conv2, exact.conv3):
            assert isinstance(layer, FixedPointConv2d)
            conv = nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)
            conv.load_state_dict(layer.state_dict())
            self.convs.append(conv)

    def forward(self, z: Tensor) -> EntropyParameters:
        x = z.float()
        for conv in list(self.convs)[:2]:
            x = torch.relu(torch.nn.functional.pixel_shuffle(conv(x), 2))
        means, s = self.convs[2](x).float().chunk(2, dim=1)
        return EntropyParameters(means, (s * 4 + 16).clamp(0, 63).round().int())


def test_float_entropy_parameters_do_fail(model: SketchModel, coded: Coded) -> None:
    """The conditions above are hard enough: the same network in floats meets one it fails under."""
    with torch.no_grad():
        results = _outputs(FloatHyperSynthesis(model.network.h_s), coded[1])
    reference = results.pop("batch 1")
    wrong_index = {k for k, r in results.items() if not torch.equal(r.indexes, reference.indexes)}
    wrong_mean = {k for k, r in results.items() if not torch.equal(r.means, reference.means)}
    assert wrong_index, "no table index moved: the conditions prove nothing"
    assert len(wrong_mean) >= 2


def test_float64_sums_cannot_overflow_the_integers(model: SketchModel) -> None:
    layers = [m for m in model.network.modules() if isinstance(m, FixedPointConv2d)]
    assert len(layers) == 3
    for layer in layers:
        layer.check_exact()
    layer = FixedPointConv2d(4096, 1)
    nn.init.constant_(layer.weight, 1e9)
    layer.check_exact()  # weights are cut off at their grid's limit, so even these are safe


def test_repeatable_from_bytes_alone(model: SketchModel) -> None:
    codec = SketchCodec(model)
    sketch = drawn_map(100, 77, 5)
    data = codec.encode_map(sketch)
    first, again = codec.decode_map(data), SketchCodec(load_model(MODEL)).decode_map(data)
    assert first.shape == sketch.shape
    assert np.array_equal(first, again)

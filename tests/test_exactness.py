"""A file decodes to the same symbols whatever the decoder runs on: threads, batch, memory format,
compilation, autocast. With models whose symbols vary, since in an untrained one every index is
alike: trained ones that ship, of both architectures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from picsnet.bitstream import read
from picsnet.checkpoints import SketchModel, load_model
from picsnet.codec import SketchCodec, decode_latents
from picsnet.entropy import FrequencyTables, StreamDecoder
from picsnet.ntc import context
from picsnet.ntc.context import ContextModel, SketchContext
from picsnet.ntc.fixedpoint import FixedPointConv2d
from picsnet.ntc.hyperprior import EntropyParameters, HyperSynthesis, SketchHyperprior
from picsnet.orientation import AS_IT_IS
from tests.conftest import drawn_map

MODELS = {
    "picsnet-hyperprior": "sketch_hyperprior_lambda0.5",
    "picsnet-context": "sketch_ntc_lambda1.0",
}
SIZE = 128
COUNT = 200
BATCH = 8


class Coded(NamedTuple):
    """200 maps as their sender sees them.

    Attributes:
        streams: of the files.
        symbols: all symbols of each stream in order.
        sent: what entropy parameters are made from: hyper-latents (200, N, hz, wz), and for a
            context the symbols of each of its steps (200, M, hc, wc).
    """

    streams: list[bytes]
    symbols: list[NDArray[np.int32]]
    sent: list[Tensor]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> SketchModel:
    return load_model(MODELS[request.param])


@pytest.fixture(scope="module")
def coded(model: SketchModel) -> Coded:
    codec = SketchCodec(model)
    streams: list[bytes] = []
    found: list[list[Tensor]] = []
    symbols: list[NDArray[np.int32]] = []
    for start in range(0, COUNT, BATCH):
        maps = [
            drawn_map(SIZE, SIZE, seed, lines=6 + seed % 20) for seed in range(start, start + BATCH)
        ]
        parts = codec.analyse(maps)
        streams += [read(data).sketch.stream for data in codec.encode_maps(maps)]  # type: ignore[union-attr]
        found.append([part.symbols for part in parts])
        symbols += list(torch.cat(found[-1], dim=1).numpy())
    sent = [torch.cat(part) for part in zip(*found, strict=True)]
    network = model.network
    assert isinstance(network, SketchHyperprior | SketchContext)
    views = [sent[0].view(COUNT, network.N, SIZE // 64, SIZE // 64)]
    if isinstance(network, SketchContext):  # in a hyperprior, parameters do not depend on latents
        phases = network.context.phases
        masks = [mask.expand(network.M, -1, -1) > 0 for mask in chessboard(phases, SIZE // 32)]
        for step in range(context.STEPS):
            view = sent[0].new_zeros(COUNT, network.M, SIZE // 32, SIZE // 32)
            for phase, mask in enumerate(masks):
                view[:, mask] = sent[1 + step * phases + phase]
            views.append(view)
    return Coded(streams, symbols, views)


def chessboard(phases: int, side: int) -> list[Tensor]:
    """The cells of each phase, (side, side), as docs/format.md has them."""
    row = torch.arange(side)
    odd = (row[:, None] + row) % 2
    return [torch.ones_like(odd)] if phases == 1 else [1 - odd, odd]


def test_maps_put_the_model_to_work(coded: Coded) -> None:
    z = coded.sent[0]
    assert sum(map(len, coded.streams)) / COUNT > 20
    assert (z != 0).flatten(1).any(dim=1).float().mean() > 0.5, "hyper-latents carry nothing"
    assert sum((one != 0).sum() for one in coded.symbols) > 20 * COUNT


def decoded_symbols(stream: bytes, model: SketchModel) -> NDArray[np.int32]:
    """All that a receiver reads from a stream, in order, less operating point and orientation."""
    taken: list[NDArray[np.int32]] = []

    class Recorder(StreamDecoder):
        def decode(self, indexes: NDArray[np.int32], tables: FrequencyTables) -> NDArray[np.int32]:
            taken.append(super().decode(indexes, tables))
            return taken[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picsnet.codec.StreamDecoder", Recorder)
        decode_latents(stream, (SIZE // 16, SIZE // 16), model)
    assert taken[1] == AS_IT_IS
    return np.concatenate(taken[2:])


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
    with SETTINGS[setting]():
        for stream, expected in zip(coded.streams, coded.symbols, strict=True):
            assert np.array_equal(decoded_symbols(stream, model), expected)


class ContextParameters(nn.Module):
    """Entropy parameters of all steps, as a receiver comes by them."""

    def __init__(self, model: ContextModel, kind: torch.dtype) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, z: Tensor, *symbols: Tensor) -> EntropyParameters:
        quality = torch.full((len(z),), 11)  # between two lambdas
        grid = (symbols[0].shape[-2], symbols[0].shape[-1])
        features = self.model.features(z.to(self.kind), grid, quality)
        masks = chessboard(self.model.phases, grid[0])
        found: list[EntropyParameters] = []

        def code(step: int, phase: int, parameters: EntropyParameters) -> Tensor:
            found.append(parameters)
            return symbols[step] + parameters.means

        self.model.walk(features, masks, quality, True, code)
        return EntropyParameters(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)))


def exact_parameters(model: SketchModel) -> nn.Module:
    """The exact half of a network: what was sent to entropy parameters."""
    network = model.network
    if isinstance(network, SketchContext):
        return ContextParameters(network.context, torch.float64)
    assert isinstance(network, SketchHyperprior)
    return network.h_s


def _outputs(module: nn.Module, sent: list[Tensor]) -> dict[str, EntropyParameters]:
    """Entropy parameters of all maps under every condition that a decoder may meet."""

    @torch.no_grad()
    def run(*inputs: Tensor) -> EntropyParameters:
        return EntropyParameters(*module(*inputs))

    def in_batches(size: int) -> EntropyParameters:
        results = [run(*(part[i : i + size] for part in sent)) for i in range(0, COUNT, size)]
        return EntropyParameters(*(torch.cat(parts) for parts in zip(*results, strict=True)))

    results = {"batch 1": in_batches(1), "batch 8": in_batches(BATCH), "whole": run(*sent)}
    module.to(memory_format=torch.channels_last)
    results["channels last"] = run(
        *(part.contiguous(memory_format=torch.channels_last) for part in sent)
    )
    module.to(memory_format=torch.contiguous_format)
    with threads(2):
        results["2 threads"] = run(*sent)
    with _bf16():
        results["bf16 autocast"] = run(*sent)
    with torch.backends.mkldnn.flags(enabled=False):
        results["without oneDNN"] = run(*sent)
    return results


def test_entropy_parameters_do_not_depend_on_how_they_are_computed(
    model: SketchModel, coded: Coded
) -> None:
    results = _outputs(exact_parameters(model), coded.sent)
    reference = results.pop("batch 1")
    assert len(torch.unique(reference.indexes)) > 10
    for name, result in results.items():
        assert torch.equal(result.indexes, reference.indexes), name
        assert torch.equal(result.means, reference.means), name


@pytest.mark.skipif(shutil.which("cc") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_decoder_agrees(model: SketchModel, coded: Coded) -> None:
    module = exact_parameters(model)
    with torch.no_grad():
        expected, result = module(*coded.sent), torch.compile(module)(*coded.sent)
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
        return _float_parameters(self.convs[2](x))


def _float_parameters(sums: Tensor, *rest: object) -> EntropyParameters:
    means, s = sums.float().chunk(2, dim=1)
    return EntropyParameters(means, (s * 4 + 16).clamp(0, 63).round().int())


def _in_floats(patch: pytest.MonkeyPatch, model: SketchModel) -> nn.Module:
    """The exact half of a network in the usual arithmetic, with the same weights."""
    network = model.network
    if isinstance(network, SketchHyperprior):
        return FloatHyperSynthesis(network.h_s)
    assert isinstance(network, SketchContext)
    patch.setattr(FixedPointConv2d, "forward", nn.Conv2d.forward)
    patch.setattr(context, "fixed_point_relu", torch.relu)
    patch.setattr(context, "entropy_parameters", _float_parameters)
    patch.setattr(ContextModel, "as_seen", staticmethod(lambda y_hat: y_hat))
    return ContextParameters(network.context, torch.float32)


def test_float_entropy_parameters_do_fail(
    model: SketchModel, coded: Coded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conditions above are hard enough: the same network in floats meets one it fails under."""
    results = _outputs(_in_floats(monkeypatch, model), coded.sent)
    reference = results.pop("batch 1")
    wrong_index = {k for k, r in results.items() if not torch.equal(r.indexes, reference.indexes)}
    wrong_mean = {k for k, r in results.items() if not torch.equal(r.means, reference.means)}
    assert wrong_index, "no table index moved: the conditions prove nothing"
    assert len(wrong_mean) >= 2


def test_float64_sums_cannot_overflow_the_integers(model: SketchModel) -> None:
    layers = [m for m in model.network.modules() if isinstance(m, FixedPointConv2d)]
    assert len(layers) == {SketchHyperprior: 3, SketchContext: 18}[type(model.network)]
    for layer in layers:
        layer.check_exact()
    layer = FixedPointConv2d(4096, 1)
    nn.init.constant_(layer.weight, 1e9)
    layer.check_exact()  # weights are cut off at their grid's limit, so even these are safe


def test_repeatable_from_bytes_alone(model: SketchModel) -> None:
    codec = SketchCodec(model)
    sketch = drawn_map(100, 77, 5)
    data = codec.encode_map(sketch)
    first, again = codec.decode_map(data), SketchCodec(load_model(model.name)).decode_map(data)
    assert first.shape == sketch.shape
    assert np.array_equal(first, again)

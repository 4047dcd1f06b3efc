"""docs/format.md is enough to write another decoder: here is one, in integers up to the synthesis.

It knows nothing of picsnet's networks, reads the models' tensors as they are stored, and must find
the same latents in the test vectors as picsnet does, and the same maps to a level.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from picsnet.bitstream import read
from picsnet.codec import decode_latents
from tests.vectors import FOLDER, index, models

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
MASK = 2**64 - 1


class Stream:
    """The range decoder of the page, one symbol at a time."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data + bytes(8), 8
        self.point = int.from_bytes(self.data[:8], "big")
        self.lower, self.span = 0, MASK

    def symbol(self, frequencies: list[int]) -> int:
        """The next one, counted from 0."""
        if len(frequencies) == 1:
            return 0
        scale = self.span >> 24
        quantile = ((self.point - self.lower) & MASK) // scale
        assert quantile < 2**24
        cumulative = found = 0
        while quantile >= cumulative + frequencies[found]:
            cumulative += frequencies[found]
            found += 1
        self.lower = (self.lower + scale * cumulative) & MASK
        self.span = scale * frequencies[found]
        while self.span < 2**32:
            self.lower, self.span = (self.lower << 32) & MASK, self.span << 32
            word = self.data[self.position : self.position + 4].ljust(4, b"\0")
            self.point = (self.point << 32 | int.from_bytes(word, "big")) & MASK
            self.position += 4
        return found


class Tensors:
    """A stored model, and the page's arithmetic on it."""

    def __init__(self, folder: Path) -> None:
        self.of = load_file(folder / "model.safetensors")
        self.card = json.loads((folder / "card.json").read_text())
        self.N, self.M = self.card["options"]["N"], self.card["options"]["M"]

    def table(self, kind: str, row: int) -> tuple[list[int], int]:
        """Frequencies, and the symbol of the first."""
        length = int(self.of[f"tables.{kind}.lengths"][row])
        frequencies = self.of[f"tables.{kind}.freqs"][row, :length].tolist()
        return frequencies, int(self.of[f"tables.{kind}.offsets"][row])

    def convolution(self, x: Ints, name: str) -> Ints:
        """(C, h, w) activations to (O, h, w) sums."""
        weight = self.of[f"{name}.weight"].astype(np.int64)
        bias = self.of[f"{name}.bias"].astype(np.int64)
        size = weight.shape[-1]
        around = size // 2
        x = np.pad(x, ((0, 0), (around, around), (around, around)))
        h, w = x.shape[1] - size + 1, x.shape[2] - size + 1
        sums = np.zeros((len(weight), h, w), np.int64)
        for i in range(size):
            for j in range(size):
                sums += np.einsum("oc,chw->ohw", weight[:, :, i, j], x[:, i : i + h, j : j + w])
        return sums + bias[:, None, None]

    def levelled(self, sums: Ints, name: str, q: int) -> Ints:
        """Sums in units of 1/524288."""
        vectors = self.of[f"{name}.level.vectors"].astype(np.int64)
        level, share = divmod(q, 8)
        after = vectors[min(level + 1, len(vectors) - 1)]
        return 8 * sums + ((8 - share) * vectors[level] + share * after)[:, None, None]

    @staticmethod
    def parameters(sums: Ints) -> tuple[Ints, Ints]:
        """Means in units of 1/64, and table indexes."""
        means, s = np.split(sums, 2)
        indexes = halves_to_even(np.clip(4 * s + 16 * 2**16, 0, 63 * 2**16), 2**16)
        return np.clip(halves_to_even(means, 1024), -16383, 16383), indexes


def halves_to_even(values: Ints, unit: int) -> Ints:
    """Divide and round, in integers."""
    floor, rest = np.divmod(values, unit)
    up = (2 * rest > unit) | ((2 * rest == unit) & (floor % 2 == 1))
    return floor + up


def relu(sums: Ints, unit: int = 1024) -> Ints:
    """Sums to activations."""
    return np.clip(halves_to_even(sums, unit), 0, 16383)


def shuffle(x: NDArray[Any], by: int = 2) -> NDArray[Any]:
    """Pixel shuffle."""
    c, h, w = x.shape
    c //= by * by
    return x.reshape(c, by, by, h, w).transpose(0, 3, 1, 4, 2).reshape(c, by * h, by * w)


def read_sorted(stream: Stream, tables: Tensors, indexes: Ints) -> Ints:
    """Symbols of latents, sent by rising table index."""
    flat = indexes.ravel()
    symbols = np.zeros(len(flat), np.int64)
    for place in np.argsort(flat, kind="stable").tolist():
        frequencies, offset = tables.table("y", int(flat[place]))
        symbols[place] = stream.symbol(frequencies) + offset
    return symbols.reshape(indexes.shape)


def read_z(stream: Stream, model: Tensors, h: int, w: int) -> Ints:
    """Hyper-latents, as the first convolution takes them."""
    z = np.zeros((model.N, -(-h // 4), -(-w // 4)), np.int64)
    for channel in range(model.N):
        frequencies, offset = model.table("z", channel)
        for place in np.ndindex(z.shape[1:]):
            z[channel][place] = stream.symbol(frequencies) + offset
    return 64 * np.clip(z, -127, 127)


def hyperprior(stream: Stream, model: Tensors, h: int, w: int) -> Ints:
    """y_hat (M, h, w) in units of 1/64."""
    x = read_z(stream, model, h, w)
    x = relu(shuffle(model.convolution(x, "h_s.conv1")))
    x = relu(shuffle(model.convolution(x, "h_s.conv2")))
    means, indexes = model.parameters(model.convolution(x, "h_s.conv3")[:, :h, :w])
    return 64 * read_sorted(stream, model, indexes) + means


def operating_point(stream: Stream, model: Tensors) -> int:
    """The first symbol of a stream of a network for a range."""
    points = 8 * (len(model.card["options"]["lambdas"]) - 1) + 1
    share, more = divmod(2**24, points)
    return stream.symbol([share + (k < more) for k in range(points)])


def opening(stream: Stream, model: Tensors) -> tuple[int, int]:
    """The operating point, and how the map is turned."""
    ranged = model.card["architecture"] == "picsnet-context"
    point = operating_point(stream, model) if ranged else 0
    stored = model.of.get("orientation.freqs")
    return point, 0 if stored is None else stream.symbol([int(f) for f in stored[0]])


def context(stream: Stream, model: Tensors, h: int, w: int) -> Ints:
    """y_hat (M, h, w) in units of 1/64."""
    M, (q, _) = model.M, opening(stream, model)
    z = read_z(stream, model, h, w)
    hc, wc = -(-h // 2), -(-w // 2)
    x = shuffle(model.convolution(z, "context.conv1"))[:, :hc, :wc]
    x = relu(model.levelled(x, "context", q), 8192)
    seen = [relu(model.convolution(x, "context.conv2"))]
    y_hat = np.zeros((M, 2 * hc, 2 * wc), np.int64)
    for t in range(4):
        name = f"context.steps.{t}"
        sums = model.convolution(np.concatenate(seen), f"{name}.conv1")
        mine = [
            (c, i, j)
            for c in range(M)
            for i in (0, 1)
            for j in (0, 1)
            if ((0, 2, 3, 1)[2 * i + j] + 4 * c // M) % 4 == t
        ]
        assert len(mine) == M
        inside = np.zeros((M, hc, wc), bool)
        for k, (_, i, j) in enumerate(mine):
            inside[k, : len(range(i, h, 2)), : len(range(j, w, 2))] = True
        rows, columns = np.indices((hc, wc))
        odd = (rows + columns) % 2 == 1
        phased = f"{name}.around.weight" in model.of
        found = np.zeros((M, hc, wc), np.int64)
        for cells in (~odd, odd) if phased else (~odd | odd,):
            if phased and cells is odd:
                sums = sums + model.convolution(np.clip(found, -16383, 16383), f"{name}.around")
            x = relu(model.levelled(sums, name, q), 8192)
            x = relu(model.convolution(x, f"{name}.conv2"))
            means, indexes = model.parameters(model.convolution(x, f"{name}.conv3"))
            symbols = np.zeros((M, hc, wc), np.int64)
            now = inside & cells
            symbols[now] = read_sorted(stream, model, indexes[now])
            found[:, cells] = (64 * symbols + means)[:, cells]
        for k, (c, i, j) in enumerate(mine):
            y_hat[c, i::2, j::2] = found[k]
        seen.append(np.clip(found, -16383, 16383))
    return y_hat[:, :h, :w]


def restored(y_hat: Ints, model: Tensors, stream: Stream) -> Floats:
    """Latents as the synthesis takes them."""
    y = y_hat / 64
    if model.card["architecture"] == "picsnet-hyperprior":
        return y
    level, share = divmod(opening(stream, model)[0], 8)
    vectors = [
        model.of[f"gains.{name}.vectors"].astype(float) for name in ("log_inverse", "offset")
    ]
    after = min(level + 1, len(vectors[0]) - 1)
    inverse, offset = (((8 - share) * v[level] + share * v[after]) / 8 for v in vectors)
    result: Floats = y * np.exp(inverse)[:, None, None] + offset[:, None, None]
    return result


def synthesis(y: Floats, model: Tensors, height: int, width: int) -> Ints:
    """The map, by the names of the stored tensors."""

    def convolution(x: Floats, name: str) -> Floats:
        weight, bias = (model.of[f"{name}.{part}"].astype(float) for part in ("weight", "bias"))
        h, w = x.shape[1:]
        x = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        windows = np.stack([x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)])
        kernels = weight.reshape(*weight.shape[:2], 9)
        result: Floats = np.tensordot(kernels, windows, ([1, 2], [1, 0])) + bias[:, None, None]
        return result

    def leaky(x: Floats) -> Floats:
        return np.where(x < 0, 0.01 * x, x)

    for k in sorted({int(name.split(".")[1]) for name in model.of if name.startswith("g_s.")}):
        name = f"g_s.{k}"
        if f"{name}.weight" in model.of:
            y = convolution(y, name)
        elif f"{name}.0.weight" in model.of:
            y = shuffle(convolution(y, f"{name}.0"))
        else:
            y = y + leaky(convolution(leaky(convolution(y, f"{name}.conv1")), f"{name}.conv2"))
    assert len(y) == 16
    cut = np.clip(shuffle(y, 4)[0, :height, :width], 0, 1)
    return np.rint(255 * cut).astype(np.int64)


DECODERS: dict[str, Callable[[Stream, Tensors, int, int], Ints]] = {
    "picsnet-hyperprior": hyperprior,
    "picsnet-context": context,
}


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensors]:
    """The vectors' models by fingerprint."""
    found = [Tensors(path.parent) for path in FOLDER.glob("*/card.json")]
    return {model.card["fingerprint"]: model for model in found}


def _with_symbols() -> list[str]:
    """Files with a sketch that is not all black: those have no symbols."""
    return [
        name
        for name in sorted(index())
        if (sketch := read((FOLDER / name).read_bytes()).sketch) is not None and sketch.stream
    ]


@pytest.mark.parametrize("name", _with_symbols())
def test_another_decoder_finds_the_same_latents_and_map(
    name: str, stored: dict[str, Tensors]
) -> None:
    file = read((FOLDER / name).read_bytes())
    assert file.sketch is not None
    model = stored[file.sketch.fingerprint.hex()]
    h, w = -(-file.height // 16), -(-file.width // 16)
    stream = file.sketch.stream
    expected = decode_latents(stream, (h, w), models()[file.sketch.fingerprint])
    _, turn = opening(Stream(stream), model)
    height, width = file.height, file.width
    if turn & 4:
        h, w, height, width = w, h, width, height
    found = DECODERS[model.card["architecture"]](Stream(stream), model, h, w)
    assert np.array_equal(found, (64 * expected.y_hat[0].numpy()).astype(np.int64))

    made = synthesis(restored(found, model, Stream(stream)), model, height, width)
    made = made[:: -1 if turn & 2 else 1, :: -1 if turn & 1 else 1]
    made = made.T if turn & 4 else made
    stored_map = np.asarray(Image.open((FOLDER / name).with_suffix(".png")), dtype=np.int64)
    assert np.abs(made - stored_map).max() <= 1

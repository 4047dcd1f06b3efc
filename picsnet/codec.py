"""The sketch codec: a map to the bytes of a .pics file, and back.

    map -> pad -> g_a -> y, z -> symbols -> one entropy-coded stream -> container
    container -> stream -> z -> h_s (exact) -> tables, means -> y -> g_s -> crop -> map

What decodes a file is the file and the model; nothing else is passed along.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from picsnet.bitstream import PicsFile, SketchLayer, read, write
from picsnet.checkpoints import SketchModel, find_by_fingerprint, load_model
from picsnet.entropy import FrequencyTables, InvalidStreamError, StreamDecoder, StreamEncoder
from picsnet.errors import (
    CheckpointError,
    CorruptStreamError,
    FingerprintError,
    UnsupportedLayerError,
)
from picsnet.ntc.hyperprior import Symbols

Map = NDArray[np.uint8]


class SketchCodec:
    """Codes soft edge maps with one model.

    Args:
        model: network, tables and fingerprint, as `picsnet.checkpoints.load_model` gives them.
    """

    def __init__(self, model: SketchModel) -> None:
        self.model = model
        tables = model.tables
        lows = torch.from_numpy(tables.z.offsets.astype(np.int64))
        lengths = torch.from_numpy(tables.z.lengths.astype(np.int64))
        self._z_range = (lows, lows + lengths - 1)
        # Latent tables are symmetric about zero.
        self._y_range = torch.from_numpy(-tables.y.offsets.astype(np.int64))

    def encode_map(self, sketch: Map) -> bytes:
        """A whole .pics file that holds one map.

        Args:
            sketch: (H, W) uint8, 0 no edge, 255 sure edge; sides 16..8192.
        """
        return self.encode_maps([sketch])[0]

    def encode_maps(self, sketches: Sequence[Map]) -> list[bytes]:
        """Files of several maps of one size, transformed as one batch."""
        height, width = sketches[0].shape
        streams = self.encode_streams(sketches)
        return [
            write(
                PicsFile(
                    width=width,
                    height=height,
                    text=None,
                    sketch=SketchLayer(self.model.fingerprint, stream),
                )
            )
            for stream in streams
        ]

    def encode_streams(self, sketches: Sequence[Map]) -> list[bytes]:
        """Entropy-coded payloads of maps of one size, without a container."""
        if len({sketch.shape for sketch in sketches}) != 1:
            raise ValueError("maps of one batch must have one size")
        symbols = self.analyse(sketches)
        return [
            # An all-black map is the empty stream: no symbol of it is worth a byte.
            b"" if not sketch.any() else encode_symbols(_one(symbols, i), self.model)
            for i, sketch in enumerate(sketches)
        ]

    def analyse(self, sketches: Sequence[Map]) -> Symbols:
        """Symbols of maps of one size, as one batch."""
        x = torch.from_numpy(np.stack(sketches)).to(self.model.device)
        x = _padded(x[:, None].float() / 255, self.model.network.MULTIPLE)
        return self.model.network.analyse(x, self._z_range, self._y_range)

    def decode_map(self, data: bytes, name: str = "<bytes>") -> Map:
        """The map in a file.

        Returns:
            (H, W) uint8, of the size that the file names.

        Raises:
            BitstreamError: one of its subclasses says what is wrong with the file.
        """
        return self.decode_file(read(data, name=name), name)

    def decode_file(self, file: PicsFile, name: str = "<bytes>") -> Map:
        """The map of a file that was parsed already."""
        if file.sketch is None:
            raise UnsupportedLayerError(
                f"{name}: holds no sketch; decode it with the decoder that its prompt is for"
            )
        check_fingerprint(self.model, file.sketch.fingerprint, name)
        return self.decode_stream(file.sketch.stream, file.height, file.width, name)

    def decode_stream(self, stream: bytes, height: int, width: int, name: str = "<bytes>") -> Map:
        """The map of an entropy-coded payload.

        Raises:
            CorruptStreamError: no encoder writes such a payload.
        """
        if not stream:
            return np.zeros((height, width), dtype=np.uint8)
        multiple = self.model.network.MULTIPLE
        size = (-(-height // multiple), -(-width // multiple))
        try:
            means, y = decode_symbols(stream, size, self.model)
        except InvalidStreamError:
            raise CorruptStreamError(
                f"{name}: its sketch is damaged though its checksum holds; get the file again"
            ) from None
        x_hat = self.model.network.synthesise(y, means)[0, 0, :height, :width]
        # Cut to bytes as `numpy.rint` would: half to even.
        result: Map = (x_hat * 255).round().to(torch.uint8).cpu().numpy()
        return result


class SketchCodecs:
    """Codecs by the fingerprints that files name, each loaded when a file first asks for it.

    Args:
        ckpt: the one model to decode with; None looks among those that ship.
        device: where they run.
    """

    def __init__(self, ckpt: str | None, device: str) -> None:
        self._ckpt, self._device = ckpt, device
        self._codecs: dict[bytes, SketchCodec] = {}

    def get(self, fingerprint: bytes, name: str) -> SketchCodec:
        """The codec that a file was written with.

        Raises:
            FingerprintError: none of those at hand is.
            CheckpointError: ``ckpt`` cannot be loaded.
        """
        if fingerprint not in self._codecs:
            self._codecs[fingerprint] = SketchCodec(self._load(fingerprint, name))
        return self._codecs[fingerprint]

    def _load(self, fingerprint: bytes, name: str) -> SketchModel:
        if self._ckpt is None:
            try:
                return find_by_fingerprint(fingerprint, self._device)
            except CheckpointError as error:
                raise FingerprintError(f"{name}: {error}") from None
        model = load_model(self._ckpt, self._device)
        check_fingerprint(model, fingerprint, name)
        return model


def check_fingerprint(model: SketchModel, fingerprint: bytes, name: str) -> None:
    """Refuse a model that is not the one a file was written with.

    Raises:
        FingerprintError: it is another.
    """
    if fingerprint != model.fingerprint:
        raise FingerprintError(
            f"{name}: was written with model {fingerprint.hex()}, but "
            f"{model.name} is {model.fingerprint.hex()}; name the right one: --ckpt"
        )


def _padded(x: Tensor, multiple: int) -> Tensor:
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return torch.nn.functional.pad(x, (0, right, 0, bottom))


def _one(symbols: Symbols, index: int) -> Symbols:
    return Symbols(*(part[index] for part in symbols))


def encode_symbols(symbols: Symbols, model: SketchModel) -> bytes:
    """One picture's symbols as one stream: hyper-latents first, then latents.

    Args:
        symbols: without a batch dimension: z (N, hz, wz), y and indexes (M, h, w).
    """
    encoder = StreamEncoder()
    z = symbols.z.cpu().numpy()
    channels = _channel_indexes(z.shape)
    encoder.encode(z.ravel(), channels, model.tables.z)
    encoder.encode(
        symbols.y.cpu().numpy().ravel(), symbols.indexes.cpu().numpy().ravel(), model.tables.y
    )
    return encoder.finish()


def decode_symbols(
    stream: bytes, size: tuple[int, int], model: SketchModel
) -> tuple[Tensor, Tensor]:
    """Means and latents of one picture, exact on every machine.

    Args:
        stream: the payload.
        size: (h, w) of the latents.

    Returns:
        means (1, M, h, w) float, on a grid of 1/64, and latents less means (1, M, h, w) int32, both
        on the model's device.

    Raises:
        InvalidStreamError: no encoder writes such a payload.
    """
    network, device = model.network, model.device
    h, w = size
    decoder = StreamDecoder(stream)
    shape = (network.N, -(-h // 4), -(-w // 4))
    z = decoder.decode(_channel_indexes(shape), model.tables.z).reshape(1, *shape)
    z_hat = torch.from_numpy(z).to(device)
    means, indexes = network.entropy_parameters(z_hat, size)
    y = decoder.decode(indexes.cpu().numpy().ravel(), model.tables.y)
    return means, torch.from_numpy(y.reshape(1, network.M, h, w)).to(device)


def _channel_indexes(shape: tuple[int, ...]) -> NDArray[np.int32]:
    channels, height, width = shape
    return np.repeat(np.arange(channels, dtype=np.int32), height * width)


def stream_bits(symbols: Symbols, model: SketchModel) -> float:
    """Ideal code length of one picture's symbols under the model's tables, in bits."""
    parts: list[tuple[NDArray[np.int32], NDArray[np.int32], FrequencyTables]] = [
        (symbols.z.cpu().numpy(), _channel_indexes(tuple(symbols.z.shape)), model.tables.z),
        (symbols.y.cpu().numpy(), symbols.indexes.cpu().numpy().ravel(), model.tables.y),
    ]
    bits = 0.0
    for values, indexes, tables in parts:
        frequency = tables.freqs[indexes, values.ravel() - tables.offsets[indexes]]
        bits += float(np.sum(24 - np.log2(frequency.astype(np.float64))))
    return bits

"""The sketch codec: a map to the bytes of a .pics file, and back.

    map -> turn -> pad -> g_a -> y, z -> symbols -> one entropy-coded stream -> container
    container -> stream -> symbols (tables: the network's exact half) -> y_hat -> g_s -> crop
              -> turn back -> map

What decodes a file is the file and the model; nothing else is passed along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from picsnet.bitstream import BytesLike, PicsFile, SketchLayer, read, write
from picsnet.checkpoints import SketchModel, find_by_fingerprint, load_model
from picsnet.entropy import (
    PRECISION,
    FrequencyTables,
    InvalidStreamError,
    StreamDecoder,
    StreamEncoder,
    Table,
    quantise_pmf,
)
from picsnet.errors import (
    CheckpointError,
    CorruptStreamError,
    FingerprintError,
    UnsupportedLayerError,
    UsageError,
)
from picsnet.ntc.base import Latents, NTCOutput, Part
from picsnet.ntc.context import SketchContext
from picsnet.orientation import AS_IT_IS, turned_back, turned_size
from picsnet.stages import Stages

Map = NDArray[np.uint8]


class SketchCodec:
    """Codes soft edge maps with one model.

    Args:
        model: network, tables and fingerprint, as `picsnet.checkpoints.load_model` gives them.
        quality: what is encoded at: 0 is the network's lowest lambda, 1 the next, and so on; what
            lies between is rounded to eighths. None is the model's own. Files say at which quality
            they were written, so decoding does not depend on it.
        effort: 0 (none) to 9: how long the sender looks for better latents for each picture
            (`picsnet.refining`); the model must have been loaded with its prior.

    Raises:
        UsageError: no such model, or the model has no such quality, or cannot be made any effort
            with.
    """

    def __init__(self, model: SketchModel, quality: float | None = None, effort: int = 0) -> None:
        if not isinstance(model, SketchModel):
            raise UsageError(
                f"a model is what picsnet.checkpoints.load_model gives, not {type(model).__name__}"
            )
        self.model = model
        self.point = model.quality if quality is None else _point(model, quality)
        self.effort = effort
        if effort != 0:
            from picsnet.refining import check_effort

            check_effort(effort, model.network, model.name)
        self._limits = model.tables.limits()

    def encode_map(self, sketch: Map, stages: Stages | None = None) -> bytes:
        """A whole .pics file that holds one map.

        Args:
            sketch: (H, W) uint8, 0 no edge, 255 sure edge; sides 16..8192.
            stages: is told the seconds of "transform" (network) and "code" (entropy coding).

        Raises:
            UsageError: of another kind.
            ImageSizeError: a side is outside 16..8192.
        """
        return self.encode_maps([sketch], stages)[0]

    def encode_maps(self, sketches: Sequence[Map], stages: Stages | None = None) -> list[bytes]:
        """Files of several maps of one size, transformed as one batch."""
        sketches = list(sketches)
        streams = self.encode_streams(sketches, stages)
        if not streams:
            return []
        height, width = sketches[0].shape
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

    def encode_streams(self, sketches: Sequence[Map], stages: Stages | None = None) -> list[bytes]:
        """Entropy-coded payloads of maps of one size, without a container."""
        sketches = _checked(sketches)
        stages = stages or Stages()
        # An all-black map is the empty stream: no symbol of it is worth a byte.
        drawn = [sketch for sketch in sketches if sketch.any()]
        with stages("transform"):
            if self.effort:
                chosen = [(*self._refined(sketch), 0) for sketch in drawn]
            else:
                parts = self.analyse(drawn) if drawn else []
                chosen = [(parts, AS_IT_IS, index) for index in range(len(drawn))]
        with stages("code"):
            streams = (
                encode_parts(parts, index, self.point, self.model, orientation)
                for parts, orientation, index in chosen
            )
            return [next(streams) if sketch.any() else b"" for sketch in sketches]

    def analyse(self, sketches: Sequence[Map]) -> list[Part]:
        """Symbols of maps of one size, as one batch, in the stream's order, at no effort."""
        x = torch.from_numpy(np.stack(_checked(sketches))).to(self.model.device)
        x = self.model.network.padded(x[:, None].float() / 255)
        return self.model.network.analyse(x, self._limits, self._points(x))

    def _refined(self, sketch: Map) -> tuple[list[Part], int]:
        """Symbols of the best latents found for one map, and how it is turned."""
        from picsnet.refining import refine

        network = self.model.network
        assert isinstance(network, SketchContext)  # `check_effort` saw to it
        x = torch.from_numpy(sketch.astype(np.float32) / 255)[None, None].to(self.model.device)
        ways = self.model.tables.orientation
        bits = PRECISION - np.log2(ways.freqs[0, : ways.lengths[0]].astype(np.float64))
        card = self.model.card
        loss = (card.get("distortion", "ms-ssim"), card.get("edge_weight", 0.0))
        found = refine(network, x, self.point, self.effort, bits.tolist(), *loss)
        parts = network.symbols(found.y, found.z, self._limits, self._points(x))
        return parts, found.orientation

    @torch.no_grad()
    def predicted_bits(self, sketch: Map) -> float:
        """Bits that the network's likelihoods give a map's symbols, without coding them.

        The model must have been loaded with its prior.
        """
        _checked([sketch])
        x = torch.from_numpy(sketch.astype(np.float32) / 255)[None, None].to(self.model.device)
        x = self.model.network.padded(x)
        output: NTCOutput = self.model.network(x, self._points(x))
        likelihoods = output.likelihoods.values()
        return -sum(float(values.double().log2().sum()) for values in likelihoods)

    def _points(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self.point, device=x.device)

    def decode_map(
        self, data: BytesLike, name: str = "<bytes>", stages: Stages | None = None
    ) -> Map:
        """The map in a file.

        Returns:
            (H, W) uint8, of the size that the file names.

        Raises:
            BitstreamError: one of its subclasses says what is wrong with the file.
        """
        return self.decode_file(read(data, name=name), name, stages)

    def decode_file(
        self, file: PicsFile, name: str = "<bytes>", stages: Stages | None = None
    ) -> Map:
        """The map of a file that was parsed already; stages as `decode_stream` tells them."""
        if file.sketch is None:
            raise UnsupportedLayerError(
                f"{name}: holds no sketch; decode it with the decoder that its prompt is for"
            )
        check_fingerprint(self.model, file.sketch.fingerprint, name)
        return self.decode_stream(file.sketch.stream, file.height, file.width, name, stages)

    def decode_stream(
        self,
        stream: bytes,
        height: int,
        width: int,
        name: str = "<bytes>",
        stages: Stages | None = None,
    ) -> Map:
        """The map of an entropy-coded payload.

        Args:
            stream: the payload.
            height, width: of the map.
            name: of the file, for messages.
            stages: is told the seconds of "code" (entropy coding, with the network's exact half)
                and "transform" (synthesis).

        Raises:
            CorruptStreamError: no encoder writes such a payload.
        """
        if not stream:
            return np.zeros((height, width), dtype=np.uint8)
        multiple = self.model.network.MULTIPLE
        size = (-(-height // multiple), -(-width // multiple))
        stages = stages or Stages()
        try:
            with stages("code"):
                latents = decode_latents(stream, size, self.model)
        except InvalidStreamError:
            raise CorruptStreamError(
                f"{name}: its sketch is damaged though its checksum holds; get the file again"
            ) from None
        # In a caller's bf16 the sketch would be another, by more than a level.
        with stages("transform"), torch.autocast(latents.y_hat.device.type, enabled=False):
            rows, columns = turned_size((height, width), latents.orientation)
            sent = self.model.network.synthesise(latents)[0, 0, :rows, :columns]
            x_hat = turned_back(sent, latents.orientation)
            # Cut to bytes as `numpy.rint` would: half to even.
            result: Map = (x_hat * 255).round().to(torch.uint8).cpu().numpy()
        return result


def _checked(sketches: Iterable[Map]) -> list[Map]:
    """The maps of a batch, if that is what they are.

    Levels of another kind, 0..1 above all, would be coded as if they were nearly black.

    Raises:
        UsageError: one is no map, or they differ in size.
    """
    sketches = list(sketches)
    for sketch in sketches:
        if not isinstance(sketch, np.ndarray):
            raise UsageError(f"a map is a numpy array, not {type(sketch).__name__}; convert it")
        if sketch.ndim != 2 or sketch.dtype != np.uint8:
            raise UsageError(
                f"a map is (H, W) uint8, not {sketch.shape} {sketch.dtype}; convert it"
            )
    if len(sizes := {sketch.shape for sketch in sketches}) > 1:
        listed = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise UsageError(f"maps of one batch must have one size, not {listed}; code them apart")
    return sketches


def _point(model: SketchModel, quality: float) -> int:
    if isinstance(quality, bool) or not isinstance(quality, Real):
        raise UsageError(f"--quality {quality!r}: must be a number")
    quality = float(quality)  # of numpy's integers the small ones would run over below
    network = model.network
    if network.qualities == 1:
        raise UsageError(f"--quality {quality:g}: {model.name} has one quality; leave it out")
    last = network.qualities - 1
    point = round(quality * network.QUALITY_STEPS) if math.isfinite(quality) else -1
    if not 0 <= point <= last:
        raise UsageError(
            f"--quality {quality:g}: must be 0 to {last / network.QUALITY_STEPS:g} for {model.name}"
        )
    return point


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
        model = load_model(self._ckpt, self._device, prior=False)
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


def encode_parts(
    parts: Sequence[Part], index: int, quality: int, model: SketchModel, orientation: int = AS_IT_IS
) -> bytes:
    """One picture of a batch as one stream.

    Its operating point comes first, then how the picture is turned, then its symbols in order.
    """
    encoder = StreamEncoder()
    first = ((quality, _quality_table(model)), (orientation, model.tables.orientation))
    for symbol, table in first:
        encoder.encode(np.array([symbol], dtype=np.int32), _ONE, table)
    for part in parts:
        encoder.encode(*_of_picture(part, index), getattr(model.tables, part.tables))
    return encoder.finish()


def decode_latents(stream: bytes, size: tuple[int, int], model: SketchModel) -> Latents:
    """Latents of one picture, exact on every machine.

    Args:
        stream: the payload.
        size: (h, w), sides of the padded picture by the network's ``MULTIPLE``, as it is seen;
            those of the latents are turned as the sender turned it.

    Raises:
        InvalidStreamError: no encoder writes such a payload.
    """
    decoder = StreamDecoder(stream)
    quality = int(decoder.decode(_ONE, _quality_table(model))[0])
    orientation = int(decoder.decode(_ONE, model.tables.orientation)[0])

    def read(tables: str, indexes: NDArray[np.int32]) -> NDArray[np.int32]:
        return decoder.decode(indexes, getattr(model.tables, tables))

    latents = model.network.read(turned_size(size, orientation), quality, read)
    return latents._replace(orientation=orientation)


def stream_bits(parts: Sequence[Part], index: int, model: SketchModel) -> float:
    """Ideal code length of one picture's symbols under the model's tables, in bits; not turned."""
    as_it_is = int(model.tables.orientation.freqs[0, AS_IT_IS])
    bits = math.log2(model.network.qualities) + PRECISION - math.log2(as_it_is)
    for part in parts:
        values, indexes = _of_picture(part, index)
        tables: FrequencyTables = getattr(model.tables, part.tables)
        frequency = tables.freqs[indexes, values - tables.offsets[indexes]]
        bits += float(np.sum(PRECISION - np.log2(frequency.astype(np.float64))))
    return bits


_ONE = np.zeros(1, dtype=np.int32)


def _quality_table(model: SketchModel) -> FrequencyTables:
    """All operating points alike; where there is only one, it costs nothing."""
    points = np.ones(model.network.qualities)
    return FrequencyTables.from_tables([Table(0, quantise_pmf(points))])


def _of_picture(part: Part, index: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return part.symbols[index].cpu().numpy(), part.indexes[index].cpu().numpy()

"""The project's own codecs under the interface of an evaluation, and all kinds by configuration."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from picsnet.bitstream import layer_bytes
from picsnet.checkpoints import load_model
from picsnet.classical import CODECS, ClassicalPoint, picture_grid
from picsnet.codec import SketchCodec
from picsnet.decoder.choice import default_decoder
from picsnet.decoder.diffusion import DiffusionDecoder
from picsnet.decoder.spec import load_spec
from picsnet.devices import check_device, exact_device
from picsnet.errors import ConfigError
from picsnet.evaluation.baselines.classical import ClassicalPicturePoint
from picsnet.evaluation.baselines.hific import HificPoint, IllmPoint
from picsnet.evaluation.baselines.zoo import ZooPoint
from picsnet.evaluation.config import (
    ClassicalConfig,
    CodecConfig,
    HificConfig,
    IllmConfig,
    PicsConfig,
    SketchConfig,
    ZooConfig,
)
from picsnet.evaluation.points import Decoded, Encoded, Pixels, Point
from picsnet.pics import PICS
from picsnet.prompt.caption import DEFAULT_CAPTIONER
from picsnet.sketch import Sketcher, load_sketcher

SUFFIX = ".pics"


@dataclass
class PicsPoint:
    """Text and sketch (or text alone) with one sketch model.

    Attributes:
        codec, setting, lmbda: as `picsnet.evaluation.points.Point` says.
        pics: makes and reads the files.
    """

    codec: str
    setting: str
    lmbda: float | None
    pics: PICS
    suffix: str = SUFFIX

    def encode(self, picture: Pixels) -> Encoded:
        """The .pics file of a photograph."""
        (coded,) = self.pics.encode_parts([picture])
        return Encoded(coded.data, coded.layers, coded.prompt, coded.candidate, coded.sketch)

    def decode(self, data: bytes) -> Decoded:
        """The photograph of a .pics file, and its sketch."""
        (decoded,) = self.pics.decode_parts([data])
        return Decoded(decoded.picture, decoded.sketch)


@dataclass
class SketchPoint:
    """The sketch alone: what is decoded is a map.

    Attributes:
        codec, setting, lmbda: as `picsnet.evaluation.points.Point` says.
        ckpt: the sketch model.
        effort: of its coding.
        sketcher: what makes the maps, or its name.
        device: where the model runs.
    """

    codec: str
    setting: str
    lmbda: float | None
    ckpt: str
    effort: int
    sketcher: str
    device: str
    suffix: str = SUFFIX

    def encode(self, picture: Pixels) -> Encoded:
        """The .pics file of a photograph's sketch."""
        sketch = self._sketcher(picture)
        data = self._coder.encode_map(sketch)
        return Encoded(data, layer_bytes(data), sketch=sketch)

    def decode(self, data: bytes) -> Decoded:
        """The sketch of a .pics file."""
        return Decoded(None, self._coder.decode_map(data))

    @functools.cached_property
    def _coder(self) -> SketchCodec:
        return SketchCodec(load_model(self.ckpt, exact_device(self.device)), effort=self.effort)

    @functools.cached_property
    def _sketcher(self) -> Sketcher:
        return load_sketcher(self.sketcher, self.device)


class MeanPoint:
    """A fill with the mean colour, three bytes and the size: what any codec must beat."""

    setting = "fill"
    lmbda = None
    suffix = ".mean"

    def __init__(self, codec: str) -> None:
        self.codec = codec

    def encode(self, picture: Pixels) -> Encoded:
        """Width and height (big-endian 16 bits each), then red, green, blue."""
        height, width = picture.shape[:2]
        mean = picture.reshape(-1, 3).mean(0).round().astype(np.uint8)
        return Encoded(width.to_bytes(2, "big") + height.to_bytes(2, "big") + mean.tobytes())

    def decode(self, data: bytes) -> Decoded:
        """The filled picture."""
        width, height = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        red, green, blue = data[4:7]
        return Decoded(np.asarray(Image.new("RGB", (width, height), (red, green, blue))))


def make_points(label: str, config: CodecConfig, device: str) -> list[Point]:
    """All settings of a configured codec.

    Args:
        label: its name in charts.
        config: of one of the kinds of `picsnet.evaluation.config`.
        device: where its models run.

    Raises:
        ConfigError: a value cannot work.
        PicsnetError: something that it names is not there.
    """
    device = check_device(device)
    if isinstance(config, PicsConfig):
        return _pics_points(label, config, device)
    if isinstance(config, SketchConfig):
        return [
            SketchPoint(label, setting, lmbda, ckpt, config.effort, config.sketcher, device)
            for ckpt, setting, lmbda in _sketch_models(_some(config.ckpt, label, "ckpt"))
        ]
    if isinstance(config, ClassicalConfig):
        return _classical_points(label, config)
    if isinstance(config, ZooConfig):
        return _zoo_points(label, config, device)
    if isinstance(config, IllmConfig):
        return [
            IllmPoint(label, m, config.repo, device) for m in _some(config.models, label, "models")
        ]
    if isinstance(config, HificConfig):
        return [HificPoint(label, w, device) for w in _some(config.weights, label, "weights")]
    return [MeanPoint(label)]


def _pics_points(label: str, config: PicsConfig, device: str) -> list[Point]:
    spec = load_spec(config.decoder or default_decoder(), config.decoder_settings)
    decoder = DiffusionDecoder(spec, device)  # one for all sketch models

    def pics(ckpt: str) -> PICS:
        return PICS(
            decoder,
            ckpt=ckpt,
            effort=config.effort,
            sketcher=config.sketcher,
            mode=config.mode,
            prompt_from=config.prompt_from,
            candidates=config.candidates,
            judge=config.judge,
            clip=config.clip,
            captioner=config.captioner or DEFAULT_CAPTIONER,
            device=device,
        )

    ckpts = _some(config.ckpt, label, "ckpt")
    if config.mode == "pic":  # no sketch, so the models make no difference
        return [PicsPoint(label, "prompt alone", None, pics(ckpts[0]))]
    return [
        PicsPoint(label, setting, lmbda, pics(ckpt))
        for ckpt, setting, lmbda in _sketch_models(ckpts)
    ]


def _sketch_models(ckpts: list[str]) -> Iterator[tuple[str, str, float]]:
    """(model, setting, lambda) of each; the setting names the model where lambdas are equal."""
    lambdas = [_lmbda_of(ckpt) for ckpt in ckpts]
    for ckpt, lmbda in zip(ckpts, lambdas, strict=True):
        only = lambdas.count(lmbda) == 1
        yield ckpt, f"lambda {lmbda:g}" + ("" if only else f" ({ckpt})"), lmbda


@functools.cache
def _lmbda_of(ckpt: str) -> float:
    """A sketch model's lambda; points are made anew at each change of codec."""
    return float(load_model(ckpt).card["lmbda"])


def _classical_points(label: str, config: ClassicalConfig) -> list[Point]:
    if config.codec not in CODECS:
        raise ConfigError(
            f"codecs.{label}.codec: no {config.codec!r}; there are {', '.join(CODECS)}"
        )
    try:
        chosen = [_classical_point(config.codec, *point) for point in config.points]
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"codecs.{label}.points: must be [[quality, downscale], ...] ({error})"
        ) from None
    return [ClassicalPicturePoint(label, point) for point in chosen or picture_grid(config.codec)]


def _classical_point(codec: str, quality: float, downscale: float) -> ClassicalPoint:
    if not float(downscale).is_integer():
        raise ValueError(f"downscale {downscale:g} is not a whole number")
    return ClassicalPoint(codec, quality, int(downscale))


def _zoo_points(label: str, config: ZooConfig, device: str) -> list[Point]:
    if not config.quality and not config.weights:
        raise ConfigError(f"codecs.{label}: neither quality nor weights is named; name some")
    make = functools.partial(ZooPoint, label, config.architecture, config.metric)
    return [
        *(make(quality, None, device) for quality in dict.fromkeys(config.quality)),
        *(make(None, weights, device) for weights in dict.fromkeys(config.weights)),
    ]


def _some(values: list[str], label: str, key: str) -> list[str]:
    if not values:
        raise ConfigError(f"codecs.{label}.{key}: none is named; name one or more")
    return list(dict.fromkeys(values))

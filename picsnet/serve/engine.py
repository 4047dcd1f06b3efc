"""The models at work on one request: bytes and options in, bytes and figures out.

    picture -> header checked -> pixels -> PICS or sketch codec -> .pics file, parts
    .pics file -> PICS or sketch codec -> PNG

Runs in a worker, a process of its own (`picsnet.serve.worker`).
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from picsnet import shipped
from picsnet.bitstream import layer_bytes, read
from picsnet.checkpoints import load_model
from picsnet.codec import SketchCodec, SketchCodecs
from picsnet.decoder.geometry import working_size
from picsnet.devices import check_device, exact_device
from picsnet.errors import ModelError, UsageError
from picsnet.images import decode_rgb
from picsnet.serve.settings import Models
from picsnet.sketch import load_sketcher
from picsnet.stages import Stages
from picsnet.textlayer import read_head

if TYPE_CHECKING:
    from picsnet.pics import PICS

Pixels = NDArray[np.uint8]
Answer = tuple[dict[str, Any], dict[str, bytes]]
"""Figures, and files by name."""

PICTURE, FILE = "the picture", "the file"
_SHOWN_SIDE = 1024
"""Longer side of the original that is sent back to be looked at, pixels."""


class Engine:
    """All models of a worker, loaded at once and kept.

    Args:
        models: which.

    Raises:
        PicsnetError: one of them cannot be had.
    """

    def __init__(self, models: Models) -> None:
        if models.threads:
            torch.set_num_threads(models.threads)
        device = check_device(models.device)
        self._max_pixels = models.max_pixels
        self._model = load_model(models.ckpt or shipped.DEFAULT, exact_device(device), prior=False)
        self._codecs = SketchCodecs(models.ckpt, exact_device(device))
        self._sketcher = load_sketcher(models.sketcher, device)
        self._pics: PICS | None = None
        if models.decoder != "none":
            from picsnet.pics import PICS  # diffusers and what it brings, which sketches do without

            self._pics = PICS.from_pretrained(
                models.ckpt,
                models.decoder,
                decoder_settings=models.decoder_set,
                sketcher=models.sketcher,
                prompt_from=models.prompt_from,
                device=device,
            )
        self._about = self._describe(models.ckpt)
        self._warm()

    def about(self) -> dict[str, Any]:
        """What is loaded, for the service's checks and for clients (`/v1/models`)."""
        return self._about

    def encode(self, data: bytes, options: dict[str, Any]) -> Answer:
        """Code a picture.

        Args:
            data: PNG, JPEG, ...
            options: quality, mode, prompt, candidates, parts.

        Returns:
            Figures; the file as "pics", and with ``parts`` sketch and decoded_sketch as PNG and
            original as JPEG, at most 1024 pixels wide and high.

        Raises:
            ImageError, PromptError, UsageError: the client's doing.
        """
        stages = Stages()
        with stages("read"):
            rgb = decode_rgb(data, PICTURE, self._max_pixels)
        files: dict[str, bytes] = {}
        record: dict[str, Any]
        if options["mode"] == "sketch":
            record, file, parts = self._encode_sketch(rgb, options["quality"], stages)
        else:
            assert self._pics is not None  # the service offers no such mode without a decoder
            codec = self._pics.varied(
                quality=options["quality"],
                mode=options["mode"],
                candidates=options["candidates"],
            )
            encoding = codec.encode_parts([rgb], [options["prompt"]])[0]
            stages.seconds |= encoding.seconds
            file = encoding.data
            record = {
                "layers": encoding.layers,
                "prompt": encoding.prompt,
                "candidate": encoding.candidate,
                "candidates": codec.candidates,
                "scores": [round(score, 5) for score in encoding.scores],
            }
            parts = {"sketch": encoding.sketch, "decoded_sketch": encoding.decoded_sketch}
        if options["parts"]:
            files = {name: _png(pixels) for name, pixels in parts.items() if pixels is not None}
            files["original"] = _shown(rgb)
        height, width = rgb.shape[:2]
        figures = {
            "mode": options["mode"],
            "width": width,
            "height": height,
            "bytes": len(file),
            "bpp": 8 * len(file) / (width * height),
            **record,
            "seconds": stages.rounded(),
        }
        return figures, {"pics": file, **files}

    def _encode_sketch(
        self, rgb: Pixels, quality: float | None, stages: Stages
    ) -> tuple[dict[str, Any], bytes, dict[str, Pixels | None]]:
        codec = SketchCodec(self._model, quality)
        with stages("sketch"):
            sketch = self._sketcher(rgb)
        with stages("code"):
            file = codec.encode_map(sketch)
            decoded = codec.decode_map(file, FILE)
        return {"layers": layer_bytes(file)}, file, {"sketch": sketch, "decoded_sketch": decoded}

    def decode(self, data: bytes, options: dict[str, Any]) -> Answer:
        """Decode a file that the service has looked at already.

        Args:
            data: a .pics file.
            options: sketch_only, partial, parts.

        Returns:
            Figures; the picture as "picture", and with ``parts`` decoded_sketch, as PNG.

        Raises:
            BitstreamError: it cannot be decoded.
        """
        file = read(data, name=FILE, partial=options["partial"])
        missing = list(file.missing)
        stages = Stages()
        if options["sketch_only"] or file.text is None:
            assert file.sketch is not None  # the service has seen to it
            with stages("sketch"):
                size = (file.width, file.height)
                if file.text is not None:
                    size = working_size(*size, read_head(file.text, FILE).size)
                codec = self._codecs.get(file.sketch.fingerprint, FILE)
                pixels = codec.decode_stream(file.sketch.stream, size[1], size[0], FILE)
            figures: dict[str, Any] = {"kind": "sketch"}
            sketch: Pixels | None = pixels
        else:
            assert self._pics is not None
            part = self._pics.decode_parts([data], names=[FILE], partial=options["partial"])[0]
            pixels, sketch = part.picture, part.sketch
            stages.seconds |= part.seconds
            figures = {"kind": "picture", "prompt": part.prompt, "candidate": part.candidate}
        height, width = pixels.shape[:2]
        files = {"picture": _png(pixels)}
        if options["parts"] and sketch is not None:
            files["decoded_sketch"] = _png(sketch)
        size_ = {"width": width, "height": height}
        return {**size_, **figures, "missing": missing, "seconds": stages.rounded()}, files

    def _describe(self, ckpt: str | None) -> dict[str, Any]:
        network, model = self._model.network, self._model
        quality = None
        if network.qualities > 1:
            steps = network.QUALITY_STEPS
            quality = {
                "least": 0,
                "most": (network.qualities - 1) / steps,
                "step": 1 / steps,
                "default": model.quality / steps,
            }
        readable = {model.fingerprint.hex()}
        if ckpt is None:
            readable |= set(shipped.networks())
        return {
            "sketch_model": {
                "name": Path(model.name).name,
                "fingerprint": model.fingerprint.hex(),
                "quality": quality,
            },
            "readable": sorted(readable),
            "decoder": self._describe_decoder(),
        }

    def _describe_decoder(self) -> dict[str, Any] | None:
        if self._pics is None:
            return None
        decoder = self._pics.decoder
        identities = {"pic": f"{decoder.identity(control=False):03x}"}
        try:
            identities["pics"] = f"{decoder.identity(control=True):03x}"
        except ModelError as error:
            raise UsageError(f"{error}; or serve sketches alone: --decoder none") from None
        return {
            "name": Path(decoder.spec.name).name,  # without where on this machine it is
            "size": decoder.spec.settings.size,
            "steps": decoder.spec.settings.steps,
            "candidates": self._pics.candidates,
            "prompts": self._pics.prompt_from,
            "identities": identities,
        }

    def _warm(self) -> None:
        """The first request waits for nothing that a later one does not."""
        side = min(64, math.isqrt(self._max_pixels))  # the least limit is the least picture, 16x16
        ramp = np.linspace(0, 255, side, dtype=np.uint8)
        rgb = np.broadcast_to(ramp[None, :, None], (side, side, 3))
        options = {"quality": None, "prompt": None, "candidates": 1, "parts": False}
        modes = ["sketch"] if self._pics is None else ["sketch", "pics"]
        for mode in modes:
            _, files = self.encode(_png(np.ascontiguousarray(rgb)), {**options, "mode": mode})
            asked = {"sketch_only": False, "partial": False, "parts": False}
            self.decode(files["pics"], asked)


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _shown(rgb: Pixels) -> bytes:
    """The original for browsers that do not know its format."""
    picture = Image.fromarray(rgb)
    picture.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()

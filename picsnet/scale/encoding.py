"""Pictures to files by settings, with models that are loaded once and kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from picsnet.bitstream import layer_bytes
from picsnet.checkpoints import load_model
from picsnet.codec import SketchCodec
from picsnet.devices import check_device, exact_device
from picsnet.errors import PicsnetError
from picsnet.images import load_grey, load_rgb
from picsnet.pics import PICS
from picsnet.prompt.caption import DEFAULT_CAPTIONER
from picsnet.prompt.inversion import InversionConfig
from picsnet.scale.manifest import Record
from picsnet.scale.settings import EncodeSettings
from picsnet.sketch import load_sketcher

Coded = tuple[bytes, Record]
"""A file, and what the manifest says of it."""


class Encoder:
    """Codes pictures by settings.

    Args:
        settings: models and how they code.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        PicsnetError: a name or value that cannot work.
    """

    def __init__(self, settings: EncodeSettings, device: str = "auto") -> None:
        device = check_device(device)
        self._pics: PICS | None = None
        if settings.mode != "sketch":
            self._pics = _pics(settings, device)
            return
        model = load_model(settings.ckpt, exact_device(device))
        self._codec = SketchCodec(model, settings.quality, settings.effort)
        is_map = settings.sketcher == "map"
        self._sketcher = None if is_map else load_sketcher(settings.sketcher, device)

    def encode(self, paths: Sequence[Path]) -> list[Coded | PicsnetError]:
        """The files of pictures, made together where that is quicker; a broken one gives its error.

        An error that is none of ours counts as the picture's: the others go on.
        """
        try:
            return [*self._encode(paths)]
        except Exception as error:
            if len(paths) > 1:
                return [result for path in paths for result in self.encode([path])]
            if isinstance(error, PicsnetError):
                return [error]
            reason = " ".join(str(error).split())[:200]
            return [PicsnetError(f"{paths[0]}: {type(error).__name__}: {reason}")]

    def _encode(self, paths: Sequence[Path]) -> list[Coded]:
        if self._pics is None:
            return [self._encode_sketch(path) for path in paths]
        start = time.perf_counter()
        pictures = [load_rgb(path) for path in paths]
        loading = (time.perf_counter() - start) / len(paths)
        return [
            (
                encoding.data,
                {
                    "width": encoding.width,
                    "height": encoding.height,
                    "layers": encoding.layers,
                    "prompt": encoding.prompt,
                    "ids": encoding.ids,
                    "candidate": encoding.candidate,
                    "scores": [round(score, 5) for score in encoding.scores],
                    "stages": encoding.seconds,
                    "seconds": round(loading + sum(encoding.seconds.values()), 3),
                },
            )
            for encoding in self._pics.encode_parts(pictures)
        ]

    def _encode_sketch(self, path: Path) -> Coded:
        start = time.perf_counter()
        sketch = load_grey(path) if self._sketcher is None else self._sketcher(load_rgb(path))
        data = self._codec.encode_map(sketch)
        height, width = sketch.shape
        return data, {
            "width": width,
            "height": height,
            "layers": layer_bytes(data),
            "seconds": round(time.perf_counter() - start, 3),
        }


def _pics(settings: EncodeSettings, device: str) -> PICS:
    return PICS.from_pretrained(
        settings.ckpt,
        settings.decoder,
        decoder_settings=settings.decoder_set,
        quality=settings.quality,
        effort=settings.effort,
        sketcher=settings.sketcher,
        mode=settings.mode,
        prompt_from=settings.prompt_from,
        candidates=settings.candidates,
        judge=settings.judge,
        clip=settings.clip,
        captioner=settings.captioner or DEFAULT_CAPTIONER,
        inversion=InversionConfig(**settings.inversion),
        device=device,
    )

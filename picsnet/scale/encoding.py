"""Pictures to files by settings, with models that are loaded once and kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from picsnet.bitstream import layer_bytes
from picsnet.checkpoints import load_model
from picsnet.codec import SketchCodec
from picsnet.devices import check_device, exact_device
from picsnet.errors import PicsnetError, with_its_kind
from picsnet.images import load_grey, load_rgb
from picsnet.scale.settings import EncodeSettings
from picsnet.sketch import load_sketcher
from picsnet.stages import Stages

if TYPE_CHECKING:
    from picsnet.pics import PICS, Encoding


class Coded(NamedTuple):
    """A picture that was coded.

    Attributes:
        data: the file.
        record: what is told of it: width, height, layers, stages, seconds, and of files with
            prompts more.
        encoding: what was made on the way; None in mode "sketch".
    """

    data: bytes
    record: dict[str, Any]
    encoding: Encoding | None = None


class Encoder:
    """Codes pictures by settings.

    Args:
        settings: models and how they code.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: show bars of what takes long.

    Attributes:
        pics: the whole codec; None in mode "sketch".

    Raises:
        PicsnetError: a name or value that cannot work.
    """

    def __init__(
        self, settings: EncodeSettings, device: str = "auto", progress: bool = False
    ) -> None:
        device = check_device(device)
        self.pics: PICS | None = None
        if settings.mode != "sketch":
            self.pics = _pics(settings, device, progress)
            return
        # Only efforts need what the network was trained with.
        model = load_model(settings.ckpt, exact_device(device), prior=settings.effort > 0)
        self._codec = SketchCodec(model, settings.quality, settings.effort)
        is_map = settings.sketcher == "map"
        self._sketcher = None if is_map else load_sketcher(settings.sketcher, device)

    def encode(self, paths: Sequence[Path]) -> list[Coded | PicsnetError]:
        """The files of pictures, made together where that is quicker; a broken one gives its error.

        An error that is none of ours counts as the picture's: the others go on.
        """
        try:
            return [*self.code(paths)]
        except Exception as error:
            if len(paths) > 1:
                return [result for path in paths for result in self.encode([path])]
            if isinstance(error, PicsnetError):
                return [error]
            return [PicsnetError(f"{paths[0]}: {with_its_kind(error)}")]

    def code(
        self, paths: Sequence[Path], prompts: Sequence[str | None] | None = None
    ) -> list[Coded]:
        """The files of pictures, made together where that is quicker.

        Args:
            paths: of the pictures.
            prompts: of each, where it is given; None where it is to be made.

        Raises:
            PicsnetError: one of them cannot be coded.
        """
        if self.pics is None:
            return [self._code_sketch(path) for path in paths]
        start = time.perf_counter()
        pictures = [load_rgb(path) for path in paths]
        loading = (time.perf_counter() - start) / len(paths)
        return [
            Coded(
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
                encoding,
            )
            for encoding in self.pics.encode_parts(pictures, prompts)
        ]

    def _code_sketch(self, path: Path) -> Coded:
        stages = Stages()
        with stages("load"):
            picture = load_grey(path) if self._sketcher is None else load_rgb(path)
        with stages("sketch"):
            sketch = picture if self._sketcher is None else self._sketcher(picture)
        data = self._codec.encode_map(sketch, stages)
        height, width = sketch.shape
        record = {
            "width": width,
            "height": height,
            "layers": layer_bytes(data),
            "stages": stages.rounded(),
            "seconds": round(sum(stages.seconds.values()), 3),
        }
        return Coded(data, record)


def _pics(settings: EncodeSettings, device: str, progress: bool) -> PICS:
    from picsnet.pics import PICS  # what it brings, sketches do without
    from picsnet.prompt.caption import DEFAULT_CAPTIONER
    from picsnet.prompt.inversion import InversionConfig

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
        progress=progress,
    )

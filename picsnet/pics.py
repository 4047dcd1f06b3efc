"""The whole codec: a photograph to the bytes of a .pics file, and back.

    photograph -> working size -> prompt ids --------------------+
                              \\-> sketch -> NTC -> stream -------+-> N candidates -> best -> file
    file -> ids, candidate, sketch -> frozen diffusion decoder -> original size -> photograph

PIC sends the prompt alone, PICS prompt and sketch ("Text + Sketch: Image Compression at Ultra Low
Rates", arXiv 2307.01944, sections 3.1 and 3.2). What decodes a file is the file, the sketch model
and the decoder; nothing else is passed along.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picsnet import shipped
from picsnet.bitstream import BytesLike, PicsFile, SketchLayer, layer_bytes, read, write
from picsnet.checkpoints import load_model
from picsnet.clip import Clip
from picsnet.codec import SketchCodec, SketchCodecs
from picsnet.decoder.choice import default_decoder
from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.geometry import working_size
from picsnet.decoder.spec import JUDGES, PROMPT_SOURCES, load_spec
from picsnet.devices import check_device, exact_device
from picsnet.errors import (
    DecoderMismatchError,
    ModelError,
    PromptError,
    UnsupportedLayerError,
    UsageError,
)
from picsnet.images import check_size, load_rgb, rgb_of
from picsnet.metrics import colour_error
from picsnet.prompt.caption import DEFAULT_CAPTIONER, Captioner
from picsnet.prompt.inversion import InversionConfig, invert
from picsnet.prompt.palette import describe
from picsnet.prompt.tokens import TokenCoder
from picsnet.sketch import Sketcher, load_sketcher
from picsnet.stages import Stages
from picsnet.textlayer import TextHead, TextLayer, candidate_bits, read_head, read_text, write_text

Pixels = NDArray[np.uint8]
Photograph = Pixels | Image.Image | str | Path

MODES = ("pics", "pic")


@dataclass(frozen=True)
class Encoding:
    """A coded photograph and all that went into it.

    Attributes:
        data: the file.
        width, height: of the original.
        prompt: as text for people; what is sent are the ids.
        ids: of the prompt, in the decoder's vocabulary.
        original: (h, w, 3) uint8 at the working size.
        sketch: (h, w) uint8 at the working size, or None (PIC).
        decoded_sketch: as the receiver will have it, or None.
        candidate: number of the chosen one.
        candidates: (h, w, 3) uint8 each; empty if there was no choice.
        scores: of each candidate, higher is nearer to the original: CLIP's cosine similarity, or
            minus the colour error.
        layers: bytes by what they are for; they sum to the file's.
        seconds: by stage.
    """

    data: bytes
    width: int
    height: int
    prompt: str
    ids: list[int]
    original: Pixels
    sketch: Pixels | None
    decoded_sketch: Pixels | None
    candidate: int
    candidates: list[Pixels]
    scores: list[float]
    layers: dict[str, int]
    seconds: dict[str, float]

    @property
    def bpp(self) -> float:
        """Bits of the file per pixel of the original."""
        return 8 * len(self.data) / (self.width * self.height)


@dataclass(frozen=True)
class Decoding:
    """A decoded file.

    Attributes:
        picture: (H, W, 3) uint8 at the original's size.
        drawn: (h, w, 3) uint8 as the decoder drew it, at the size of its last pass.
        sketch: (h, w) uint8, or None where the file holds none.
        prompt, ids, candidate: as in the file.
        missing: layers that did not arrive whole.
        seconds: by stage.
    """

    picture: Pixels
    drawn: Pixels
    sketch: Pixels | None
    prompt: str
    ids: list[int]
    candidate: int
    missing: tuple[str, ...]
    seconds: dict[str, float]


class PICS:
    """Codes photographs with a sketch model and a frozen diffusion decoder.

    All models are loaded when they are first needed and kept. `from_pretrained` makes one. Threads
    may share one: they take turns.
    """

    def __init__(
        self,
        decoder: DiffusionDecoder,
        *,
        ckpt: str | None = None,
        quality: float | None = None,
        effort: int = 0,
        sketcher: str = "bundled",
        mode: str = "pics",
        prompt_from: str | None = None,
        candidates: int | None = None,
        judge: str | None = None,
        clip: str | None = None,
        captioner: str = DEFAULT_CAPTIONER,
        inversion: InversionConfig | None = None,
        device: str = "cpu",
        progress: bool = False,
    ) -> None:
        if mode not in MODES:
            raise UsageError(f"mode {mode!r}: must be one of {', '.join(MODES)}")
        prompt_from = prompt_from or decoder.spec.prompts
        if prompt_from not in PROMPT_SOURCES:
            raise UsageError(f"prompts from {prompt_from!r}: one of {', '.join(PROMPT_SOURCES)}")
        judge = judge or decoder.spec.judge
        if judge not in JUDGES:
            raise UsageError(f"judge {judge!r}: one of {', '.join(JUDGES)}")
        candidates = decoder.spec.candidates if candidates is None else candidates
        candidate_bits(candidates)
        self.decoder = decoder
        self.mode = mode
        self.prompt_from = prompt_from
        self.candidates, self.judge = candidates, judge
        self.device = device
        self.progress = progress
        self.inversion = inversion or InversionConfig()
        self._ckpt, self._sketcher_name = ckpt, sketcher
        self._quality, self._effort = quality, effort
        self._clip_source = clip or decoder.spec.clip
        self._turn = threading.RLock()
        self._captioner_source = captioner
        if mode == "pics" and (quality is not None or effort):
            _ = self._codec  # a wrong one is refused now, not after a search for a prompt

    @classmethod
    def from_pretrained(
        cls,
        ckpt: str | None = None,
        decoder: str | None = None,
        *,
        decoder_settings: Sequence[str] = (),
        quality: float | None = None,
        effort: int = 0,
        sketcher: str = "bundled",
        mode: str = "pics",
        prompt_from: str | None = None,
        candidates: int | None = None,
        judge: str | None = None,
        clip: str | None = None,
        captioner: str = DEFAULT_CAPTIONER,
        inversion: InversionConfig | None = None,
        device: str = "auto",
        progress: bool = False,
    ) -> PICS:
        """A codec by the names of its parts.

        Args:
            ckpt: sketch model: a shipped name, an exported folder or a Lightning checkpoint. None
                codes with the default that ships, and decodes with the shipped one that a file
                names.
            decoder: a preset, a YAML file, a pipeline's folder or a hub id
                (`picsnet.decoder.spec.load_spec`); None is
                `picsnet.decoder.choice.default_decoder`.
            decoder_settings: ``key=value``; they are part of the decoder's identity.
            quality, effort: of the sketch's coding, as `picsnet.codec.SketchCodec` takes them.
            sketcher: as `picsnet.sketch.load_sketcher` takes it.
            mode: "pics" (prompt and sketch) or "pic" (prompt alone).
            prompt_from: "inversion", "caption", "palette" or "none", where no prompt is given; None
                leaves it to the decoder.
            candidates: how many seeds are drawn and compared, 1..32; 1 loads no CLIP for it. None
                leaves it to the decoder.
            judge: by what they are compared, "clip" or "colour"; None leaves it to the decoder.
            clip: folder or hub id of the CLIP model; the decoder's own by default.
            captioner: folder or hub id of an image-to-text model.
            inversion: settings of the prompt's optimisation.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            progress: bars on stderr for what takes long.

        Raises:
            ConfigError, UsageError: a name or value that cannot work.
        """
        device = check_device(device)
        spec = load_spec(decoder or default_decoder(), decoder_settings)
        return cls(
            DiffusionDecoder(spec, device, progress),
            ckpt=ckpt,
            quality=quality,
            effort=effort,
            sketcher=sketcher,
            mode=mode,
            prompt_from=prompt_from,
            candidates=candidates,
            judge=judge,
            clip=clip,
            captioner=captioner,
            inversion=inversion,
            device=device,
            progress=progress,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Without what belongs to the threads of this process."""
        return {key: value for key, value in self.__dict__.items() if key != "_turn"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= {**state, "_turn": threading.RLock()}

    def varied(
        self, *, quality: float | None = None, mode: str = "pics", candidates: int | None = None
    ) -> PICS:
        """This codec with other settings of what it sends; the models are shared.

        Args:
            quality: of the sketch; None is the model's own.
            mode: "pics" or "pic".
            candidates: how many seeds are compared, 1..32; None leaves it to the decoder.

        Raises:
            UsageError: a value that cannot work.
        """
        if mode not in MODES:
            raise UsageError(f"mode {mode!r}: must be one of {', '.join(MODES)}")
        candidates = self.decoder.spec.candidates if candidates is None else candidates
        candidate_bits(candidates)
        # What is loaded before the copy is kept for the next one.
        needed = ["_coder", "_codecs"]
        needed += ["_sketcher", "_codec"] if mode == "pics" else []
        needed += ["_captioner"] if self.prompt_from == "caption" else []
        if self.prompt_from == "inversion" or (self.judge == "clip" and candidates > 1):
            needed.append("_clip")
        with self._turn:
            for part in needed:
                getattr(self, part)
        other = copy.copy(self)
        other._turn = self._turn
        other.mode, other.candidates, other._quality = mode, candidates, quality
        if mode == "pics":
            other.__dict__["_codec"] = SketchCodec(self._codec.model, quality, self._effort)
        return other

    @overload  # a path is a sequence too, to the type checker
    def encode(self, image: Photograph, prompt: str | None = None) -> bytes: ...  # type: ignore[overload-overlap]
    @overload
    def encode(
        self, image: Sequence[Photograph], prompt: Sequence[str | None] | None = None
    ) -> list[bytes]: ...
    def encode(
        self,
        image: Photograph | Sequence[Photograph],
        prompt: str | Sequence[str | None] | None = None,
    ) -> bytes | list[bytes]:
        """The file of a photograph, or those of several.

        Args:
            image: a picture, an (H, W, 3) uint8 array, a path; or a list of them.
            prompt: text to send instead of one that is made; for a list, one (or None) each.

        Raises:
            ModelError, PromptError, SketcherError, ImageError, CheckpointError: as they say.
        """
        if isinstance(image, np.ndarray | Image.Image | str | Path):
            if prompt is not None and not isinstance(prompt, str):
                raise UsageError("one picture takes one prompt, a text")
            return self.encode_parts([image], [prompt])[0].data
        if isinstance(prompt, str):
            raise UsageError("several pictures take a list of prompts, one (or None) each")
        return [part.data for part in self.encode_parts(image, prompt)]

    @overload
    def decode(self, data: BytesLike) -> Image.Image: ...
    @overload
    def decode(self, data: Sequence[BytesLike]) -> list[Image.Image]: ...
    def decode(self, data: BytesLike | Sequence[BytesLike]) -> Image.Image | list[Image.Image]:
        """The photograph of a file, or those of several, at the originals' sizes.

        Several are drawn one by one, so that a picture does not depend on its company; pictures of
        one working size go through the decoder together with `decode_parts(..., batch=N)`.

        Raises:
            BitstreamError: one of its subclasses says what is wrong with the file.
            ModelError, CheckpointError: a model cannot be had.
            UsageError: a path, not what is in the file.
        """
        if isinstance(data, str) or not isinstance(data, BytesLike | Sequence):
            raise UsageError(
                f"a file is decoded from its bytes, not {type(data).__name__}; "
                "give Path(...).read_bytes()"
            )
        if isinstance(data, BytesLike):
            return Image.fromarray(self.decode_parts([data])[0].picture)
        return [Image.fromarray(part.picture) for part in self.decode_parts(data)]

    def encode_parts(
        self, images: Sequence[Photograph], prompts: Sequence[str | None] | None = None
    ) -> list[Encoding]:
        """As `encode`, with everything that was made on the way; prompts are made as one batch."""
        with self._turn:
            return self._encode_parts(images, prompts)

    def _encode_parts(
        self, images: Sequence[Photograph], prompts: Sequence[str | None] | None
    ) -> list[Encoding]:
        if isinstance(images, str | bytes) or not isinstance(images, Sequence):
            raise UsageError(
                f"several pictures are a list of arrays, PIL.Images or paths, not "
                f"{type(images).__name__}; convert it"
            )
        prompts = [None] * len(images) if prompts is None else prompts
        if wrong := [type(p).__name__ for p in prompts if not isinstance(p, str | None)]:
            raise UsageError(f"a prompt is a text or None, not {wrong[0]}")
        if len(prompts) != len(images):
            raise UsageError(f"{len(prompts)} prompts for {len(images)} pictures; give one each")
        if not images:
            return []  # no batch has no seconds a picture
        pixels = [_pixels(image) for image in images]
        size = self.decoder.spec.settings.size
        originals = [_resized(p, *working_size(p.shape[1], p.shape[0], size)) for p in pixels]
        ids, seconds = self._prompt_ids(originals, prompts)
        return [
            self._encode_one(p.shape[1], p.shape[0], original, one, {"prompt": seconds})
            for p, original, one in zip(pixels, originals, ids, strict=True)
        ]

    def decode_parts(
        self,
        data: Sequence[BytesLike],
        *,
        names: Sequence[str] | None = None,
        partial: bool = False,
        batch: int = 1,
    ) -> list[Decoding]:
        """As `decode`, with everything that the files held.

        Args:
            data: files.
            names: of the files, for messages.
            partial: use the layers that arrived whole, if the prompt did.
            batch: how many pictures of one working size are drawn together. The last bits of a
                picture depend on it.
        """
        if batch < 1:
            raise UsageError(f"{batch} pictures drawn together: must be at least 1")
        names = [f"file {i}" for i in range(len(data))] if names is None else names
        with self._turn:
            return self._decode_parts(data, names, partial, batch)

    def _decode_parts(
        self, data: Sequence[BytesLike], names: Sequence[str], partial: bool, batch: int
    ) -> list[Decoding]:
        parsed = [
            self._parse(read(one, name=name, partial=partial), name)
            for one, name in zip(data, names, strict=True)
        ]
        drawn: dict[int, tuple[Pixels, float]] = {}
        groups: dict[tuple[tuple[tuple[int, int], ...], bool], list[int]] = {}
        for index, item in enumerate(parsed):
            sizes = self.decoder.sizes(item.file.width, item.file.height)
            groups.setdefault((tuple(sizes), item.sketch is None), []).append(index)
        for (passes, _), members in groups.items():
            for start in range(0, len(members), batch):
                some = members[start : start + batch]
                clock = time.perf_counter()
                pictures = self.decoder.draw([parsed[i].drawing for i in some], passes)
                each = (time.perf_counter() - clock) / len(some)
                drawn |= {i: (p, each) for i, p in zip(some, pictures, strict=True)}
        return [
            Decoding(
                picture=_resized(drawn[i][0], item.file.width, item.file.height),
                drawn=drawn[i][0],
                sketch=item.sketch,
                prompt=self.decoder.untokenize(item.layer.ids),
                ids=item.layer.ids,
                candidate=item.layer.head.candidate,
                missing=item.file.missing,
                seconds={"sketch": item.seconds, "draw": drawn[i][1]},
            )
            for i, item in enumerate(parsed)
        ]

    # Sending.

    def _encode_one(
        self, width: int, height: int, original: Pixels, ids: list[int], seconds: dict[str, float]
    ) -> Encoding:
        stages = Stages(seconds)
        sketch = decoded = layer = None
        if self.mode == "pics":
            with stages("sketch"):
                sketch = self._sketcher(original)
            with stages("code"):
                stream = self._codec.encode_streams([sketch])[0]
                decoded = self._codec.decode_stream(stream, sketch.shape[0], sketch.shape[1])
                layer = SketchLayer(self._codec.model.fingerprint, stream)
        with stages("candidates"):
            candidates = self._draw_candidates(ids, decoded, width, height)
        with stages("score"):
            scores = self._scores(original, candidates) if candidates else []
        chosen = int(np.argmax(scores)) if scores else 0
        head = TextHead(
            self.decoder.identity(control=layer is not None),
            self.decoder.spec.settings.size,
            candidate_bits(self.candidates),
            chosen,
        )
        text = write_text(TextLayer(head, ids), self._coder)
        data = write(PicsFile(width, height, text, layer))
        return Encoding(
            data=data,
            width=width,
            height=height,
            prompt=self.decoder.untokenize(ids),
            ids=ids,
            original=original,
            sketch=sketch,
            decoded_sketch=decoded,
            candidate=chosen,
            candidates=candidates,
            scores=scores,
            layers=layer_bytes(data),
            seconds={name: round(value, 4) for name, value in stages.seconds.items()},
        )

    def _draw_candidates(
        self, ids: list[int], sketch: Pixels | None, width: int, height: int
    ) -> list[Pixels]:
        if self.candidates == 1:
            return []
        drawings = [Drawing(ids, sketch, number) for number in range(self.candidates)]
        # Further passes would refine all alike: what differs is there at the working size.
        return self.decoder.draw(drawings, self.decoder.sizes(width, height, whole=False))

    def _scores(self, original: Pixels, candidates: list[Pixels]) -> list[float]:
        if self.judge == "colour":
            return [-colour_error(original, candidate) for candidate in candidates]
        return self._clip.image_similarities(original, candidates)

    def _prompt_ids(
        self, originals: list[Pixels], prompts: Sequence[str | None]
    ) -> tuple[list[list[int]], float]:
        """(ids of each, seconds a picture)."""
        start = time.perf_counter()
        wanted = [i for i, prompt in enumerate(prompts) if prompt is None]
        ids = [self.decoder.tokenize(prompt or "") for prompt in prompts]
        if wanted and self.prompt_from in ("caption", "palette"):
            pictures = [originals[i] for i in wanted]
            captions = (
                self._captioner(pictures)
                if self.prompt_from == "caption"
                else [describe(picture) for picture in pictures]
            )
            for i, caption in zip(wanted, captions, strict=True):
                ids[i] = self.decoder.tokenize(caption)
        if wanted and self.prompt_from == "inversion":
            if self._clip.vocabulary != self.decoder.vocabulary:
                raise PromptError(
                    f"{self._clip_source} and decoder {self.decoder.spec.name} have different "
                    "vocabularies, so prompts cannot be inverted; name the decoder's own CLIP: "
                    "--clip, or use --prompt-from caption"
                )
            tokens = min(self.inversion.tokens, self.decoder.max_tokens)
            config = dataclasses.replace(self.inversion, tokens=tokens)
            features = self._clip.image_features([originals[i] for i in wanted])
            found = invert(self._clip, features, config, progress=self.progress)
            for i, inversion in zip(wanted, found, strict=True):
                ids[i] = inversion.ids
        return ids, (time.perf_counter() - start) / len(originals)

    # Receiving.

    def _parse(self, file: PicsFile, name: str) -> _Parsed:
        if file.text is None:
            raise UnsupportedLayerError(
                f"{name}: holds a sketch but no prompt, so there is nothing to draw from; "
                "decode its sketch with --sketch-only"
            )
        head = read_head(file.text, name)
        sends_sketch = file.sketch is not None or "sketch" in file.missing
        expected = self.decoder.identity(control=sends_sketch)
        settings = self.decoder.spec.settings
        if head.decoder != expected or head.size != settings.size:
            raise DecoderMismatchError(
                f"{name}: was written for decoder {head.decoder:03x} at size {head.size}, but "
                f"{self.decoder.spec.name} with its settings is {expected:03x} at {settings.size}; "
                "name the sender's decoder and settings: --decoder, --decoder-set"
            )
        layer = read_text(file.text, self._coder, name)
        size = working_size(file.width, file.height, head.size)
        start = time.perf_counter()
        sketch = None
        if file.sketch is not None:
            codec = self._codecs.get(file.sketch.fingerprint, name)
            sketch = codec.decode_stream(file.sketch.stream, size[1], size[0], name)
        return _Parsed(file, layer, sketch, time.perf_counter() - start)

    # Parts, loaded when first needed.

    @functools.cached_property
    def _coder(self) -> TokenCoder:
        return TokenCoder(self.decoder.vocabulary)

    @functools.cached_property
    def _codec(self) -> SketchCodec:
        model = load_model(
            self._ckpt or shipped.DEFAULT, exact_device(self.device), prior=bool(self._effort)
        )
        return SketchCodec(model, self._quality, self._effort)

    @functools.cached_property
    def _codecs(self) -> SketchCodecs:
        return SketchCodecs(self._ckpt, exact_device(self.device))

    @functools.cached_property
    def _sketcher(self) -> Sketcher:
        return load_sketcher(self._sketcher_name, self.device)

    @functools.cached_property
    def _clip(self) -> Clip:
        if self._clip_source is None:
            raise ModelError(
                f"decoder {self.decoder.spec.name} names no CLIP model, which inversion and the "
                "choice of candidates need; name one: --clip FOLDER, or use --judge colour with "
                "--prompt or --prompt-from caption"
            )
        return Clip.from_pretrained(self._clip_source, self.device)

    @functools.cached_property
    def _captioner(self) -> Captioner:
        return Captioner.from_pretrained(self._captioner_source, self.device)


@dataclass(frozen=True)
class _Parsed:
    file: PicsFile
    layer: TextLayer
    sketch: Pixels | None
    seconds: float

    @property
    def drawing(self) -> Drawing:
        return Drawing(self.layer.ids, self.sketch, self.layer.head.candidate)


def _pixels(image: Photograph) -> Pixels:
    if isinstance(image, str | Path):
        return load_rgb(Path(image))
    if isinstance(image, Image.Image):
        image = rgb_of(image)
    if not isinstance(image, np.ndarray):
        raise UsageError(
            f"a picture is an array, a PIL.Image or a path, not {type(image).__name__}; convert it"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"a picture is (H, W, 3) uint8, not {image.shape} {image.dtype}; convert it"
        )
    check_size("the picture", image.shape[1], image.shape[0])
    return image


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    if pixels.shape[:2] == (height, width):
        return pixels
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)

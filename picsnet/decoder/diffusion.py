"""A frozen Stable Diffusion pipeline as a decoder: token ids, a sketch and a seed to a picture.

    ids + suffix -> text encoder -> embeddings --+
    sketch -> sharpened -> ControlNet -----------+-> U-Net, `steps` times -> VAE -> picture
    candidate's number -> CPU generator -> noise-+

A picture may be drawn in passes: a small one first, then each time one twice as large, from the
last one enlarged and half drowned in noise (SDEdit, Meng et al., arXiv 2108.01073). Every pass sees
all of the picture at once, so there are no seams.

The method is PICS of "Text + Sketch: Image Compression at Ultra Low Rates" (arXiv 2307.01944,
section 3); without sketch and ControlNet it is PIC. Nothing here is trained.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from picsnet.decoder import loading
from picsnet.decoder.files import (
    controlnet_files,
    controlnet_variant,
    pipeline_files,
    read_vocabulary,
    weight_files,
)
from picsnet.decoder.geometry import pass_sizes
from picsnet.decoder.identity import identify
from picsnet.decoder.spec import MAX_CANDIDATES, DecoderSpec
from picsnet.errors import ConfigError, ModelError, PromptError
from picsnet.hub import resolve

OPTION = "--decoder"
TILED_PIXELS = 2**20
"""Larger pictures go through an AutoencoderKL in tiles, on every device: the rule is part of the
picture. An AutoencoderTiny takes them whole: it needs little memory, and diffusers' tiles for it
fail with other than four latent channels."""


@dataclass(frozen=True)
class Drawing:
    """What one picture is drawn from.

    Attributes:
        ids: of the prompt, without start, end and padding.
        sketch: (H, W) uint8, 255 a sure edge, scaled to each pass; None draws from the prompt
            alone.
        candidate: number of the noise, from 0.
    """

    ids: Sequence[int]
    sketch: NDArray[np.uint8] | None
    candidate: int = 0


class DiffusionDecoder:
    """Draws pictures with a decoder that is loaded when it is first needed, and then kept.

    Args:
        spec: which one, and how it is run.
        device: "cpu", "cuda", "cuda:N" or "mps".
        progress: show a bar of the sampler's steps.
    """

    def __init__(self, spec: DecoderSpec, device: str = "cpu", progress: bool = False) -> None:
        self.spec = spec
        self.device = device
        self.progress = progress
        self._pipelines: dict[bool, Any] = {}
        self._redrawing: dict[bool, Any] = {}
        self._identities: dict[bool, int] = {}
        self._largest_batch: int | None = None

    # What needs no weights in memory.

    @functools.cached_property
    def folder(self) -> Path:
        """Of the pipeline, fetched if need be.

        Raises:
            ModelError: it cannot be had.
        """
        spec = self.spec
        folder = resolve(
            spec.pipeline,
            what=f"the pipeline of decoder {spec.name}",
            option=OPTION,
            revision=spec.revision,
            patterns=pipeline_files(spec),
        )
        if not (folder / "model_index.json").is_file():
            raise ModelError(
                f"{folder}: holds no model_index.json, so it is no diffusers pipeline; name the "
                f"folder that save_pretrained wrote: {OPTION} FOLDER"
            )
        return folder

    @functools.cached_property
    def control_folder(self) -> Path:
        """Of the ControlNet, fetched if need be.

        Raises:
            ModelError: it cannot be had, or the decoder has none.
        """
        spec = self.spec
        if spec.controlnet is not None:
            return resolve(
                spec.controlnet,
                what=f"the ControlNet of decoder {spec.name}",
                option=f"controlnet in a YAML file for {OPTION}",
                revision=spec.controlnet_revision,
                patterns=controlnet_files(spec),
            )
        if not (self.folder / "controlnet").is_dir():
            raise ModelError(
                f"{self.folder}: has no ControlNet, so it draws no sketches; use --mode pic, or a "
                f"YAML file with pipeline: and controlnet: for {OPTION}"
            )
        return self.folder / "controlnet"

    @functools.cached_property
    def vocabulary(self) -> dict[str, int]:
        """Token to id, of the pipeline's tokenizer."""
        return read_vocabulary(self.folder / "tokenizer")

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The pipeline's CLIPTokenizer."""
        return loading.load_tokenizer(self.folder)

    @property
    def max_tokens(self) -> int:
        """How long a prompt may be beside start, end and suffix.

        Raises:
            ConfigError: the suffix alone is too long, so that no picture could be drawn.
        """
        most = int(self.tokenizer.model_max_length) - 2
        if len(self._suffix) > most:
            raise ConfigError(
                f"decoder {self.spec.name}: its suffix takes {len(self._suffix)} tokens with the "
                f"comma before it, and there is room for {most}; shorten it: --decoder-set "
                "suffix=..."
            )
        return most - len(self._suffix)

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text without start and end, cut to `max_tokens`.

        Raises:
            PromptError: UTF-8 cannot write it.
        """
        return self._ids_of(text)[: self.max_tokens]

    def untokenize(self, ids: Sequence[int]) -> str:
        """A text for people to read. Tokenised again it need not give the same ids."""
        return str(self.tokenizer.decode(list(ids))).strip()

    def identity(self, control: bool) -> int:
        """0..4095: what a file names this decoder by.

        Args:
            control: with its ControlNet (PICS) or without (PIC).
        """
        if control not in self._identities:
            self._identities[control] = self._identify(control)
        return self._identities[control]

    def _identify(self, control: bool) -> int:
        folder, variant = self.folder, self.spec.variant
        components = {
            name: [*weight_files(folder / name, variant), *extra]
            for name, extra in (
                ("text_encoder", []),
                ("unet", []),
                ("vae", [folder / "vae" / "config.json"]),
            )
        }
        if control:
            components["controlnet"] = weight_files(
                self.control_folder, controlnet_variant(self.spec)
            )
        return identify(
            self.spec.settings,
            folder / "scheduler" / "scheduler_config.json",
            self.vocabulary,
            components,
        )

    # Drawing.

    def load(self, control: bool) -> None:
        """Load what drawing needs now rather than with the first picture.

        Args:
            control: with the ControlNet or without.

        Raises:
            ModelError: it cannot be had.
        """
        self._pipeline(control)

    def sizes(self, width: int, height: int, whole: bool = True) -> list[tuple[int, int]]:
        """(width, height) of the passes in which an original of that size is drawn.

        Args:
            width, height: of the original, pixels.
            whole: all of them, or those up to the working size, in which candidates are compared.
        """
        s = self.spec.settings
        last = s.last_size if whole else 0
        return pass_sizes(width, height, first=s.first_size, size=s.size, last=last)

    def draw(
        self, drawings: Sequence[Drawing], sizes: Sequence[tuple[int, int]]
    ) -> list[NDArray[np.uint8]]:
        """Pictures of one size, in as few batches as memory allows.

        A picture's noise depends on its candidate's number alone; batches of other sizes differ in
        the last bits of floating-point sums.

        Args:
            drawings: all with a sketch, or all without.
            sizes: (width, height) of each pass, pixels, multiples of 8.

        Returns:
            (height, width, 3) uint8 each, of the last pass.

        Raises:
            ModelError: the decoder cannot be had, not even one picture fits in memory, or what is
                drawn is no number.
            PromptError: a prompt does not fit.
        """
        pictures: list[NDArray[np.uint8]] = []
        size = min(len(drawings), self._largest_batch or len(drawings))
        while len(pictures) < len(drawings):
            batch = drawings[len(pictures) : len(pictures) + size]
            try:
                # Under a caller's autocast it would be another picture, and so would later ones:
                # what is embedded is kept.
                with torch.autocast(torch.device(self.device).type, enabled=False):
                    pictures += self._draw_batch(batch, sizes)
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if size == 1:
                    width, height = sizes[-1]
                    raise ModelError(
                        f"decoder {self.spec.name}: not enough memory on {self.device} for one "
                        f"picture of {width}x{height}; use a smaller size (--decoder-set size=384) "
                        "or another --device"
                    ) from None
                size = self._largest_batch = -(-size // 2)
                if self.device.startswith("cuda"):
                    torch.cuda.empty_cache()
        return pictures

    @torch.inference_mode()
    def _draw_batch(
        self, drawings: Sequence[Drawing], sizes: Sequence[tuple[int, int]]
    ) -> list[NDArray[np.uint8]]:
        settings = self.spec.settings
        sketches = [drawing.sketch for drawing in drawings if drawing.sketch is not None]
        if len(sketches) not in (0, len(drawings)):
            raise ValueError("one batch is drawn either with sketches or without")
        pipeline = self._pipeline(control=bool(sketches))
        arguments: dict[str, Any] = {
            "prompt_embeds": self._embeddings([drawing.ids for drawing in drawings]),
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "output_type": "np",
        }
        if settings.guidance > 1:
            arguments["negative_prompt_embeds"] = self._negative.expand(len(drawings), -1, -1)
        if sketches:
            arguments["controlnet_conditioning_scale"] = settings.control_scale
        pictures: list[NDArray[np.uint8]] = []
        for number, (width, height) in enumerate(sizes):
            # Those of further passes lie beyond those of all candidates.
            seeds = [drawing.candidate + MAX_CANDIDATES * number for drawing in drawings]
            arguments["generator"] = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            conditions = [self._condition(sketch, width, height) for sketch in sketches]
            _tile(pipeline.vae, width * height > TILED_PIXELS)
            if number == 0:
                pictures = self._first_pass(arguments, conditions, width, height)
            else:
                pictures = self._redraw(arguments, conditions, pictures, width, height)
        return pictures

    def _first_pass(
        self, arguments: dict[str, Any], conditions: list[Tensor], width: int, height: int
    ) -> list[NDArray[np.uint8]]:
        """From noise."""
        pipeline = self._pipeline(control=bool(conditions))
        arguments = {
            **arguments,
            "latents": self._noise(pipeline, arguments["generator"], width, height),
            "width": width,
            "height": height,
        }
        if conditions:
            arguments["image"] = torch.stack(conditions)
        return self._bytes(pipeline(**arguments).images)

    def _redraw(
        self,
        arguments: dict[str, Any],
        conditions: list[Tensor],
        pictures: list[NDArray[np.uint8]],
        width: int,
        height: int,
    ) -> list[NDArray[np.uint8]]:
        """From pictures of the pass before, enlarged; the same ones where no step is left."""
        larger = [_scaled(picture, width, height) for picture in pictures]
        if int(self.spec.settings.steps * self.spec.settings.redraw) == 0:
            return [np.asarray(picture) for picture in larger]
        arguments = {**arguments, "image": larger, "strength": self.spec.settings.redraw}
        if conditions:
            arguments["control_image"] = torch.stack(conditions)
        return self._bytes(self._redrawing_pipeline(bool(conditions))(**arguments).images)

    def _bytes(self, pictures: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
        """(B, H, W, 3) in 0..1, in bytes. What is no number would be black there."""
        if not np.isfinite(pictures).all():
            raise ModelError(
                f"decoder {self.spec.name}: drew what is no number (NaN) on {self.device}: its "
                "weights are damaged, or overflow in half precision; fetch them again, or use "
                "--device cpu"
            )
        return [np.rint(picture * 255).astype(np.uint8) for picture in pictures]

    def _noise(
        self, pipeline: Any, generators: list[torch.Generator], width: int, height: int
    ) -> Tensor:
        """Each candidate's own, from the CPU: devices and batches have no part in it."""
        scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
        shape = (1, pipeline.unet.config.in_channels, height // scale, width // scale)
        # The type is part of the format, whatever the caller's default is.
        noise = [torch.randn(shape, generator=one, dtype=torch.float32) for one in generators]
        return torch.cat(noise).to(self.device, pipeline.unet.dtype)

    def _condition(self, sketch: NDArray[np.uint8], width: int, height: int) -> Tensor:
        """The sketch as the ControlNet is given it: scaled, sharpened, in bytes, three channels."""
        from torchvision.transforms.functional import adjust_sharpness

        if sketch.shape != (height, width):
            sketch = np.asarray(_scaled(sketch, width, height))
        x = torch.tensor(sketch)[None].float() / 255
        x = adjust_sharpness(x, self.spec.settings.sharpness)
        condition: Tensor = ((x * 255).clamp(0, 255).floor() / 255).expand(3, -1, -1)
        return condition

    @functools.cached_property
    def _suffix(self) -> list[int]:
        suffix = self.spec.settings.suffix
        return self._ids_of(f", {suffix}", "suffix") if suffix else []

    def _ids_of(self, text: str, what: str = "prompt") -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            # A lone surrogate: Python makes one of a byte on the command line that is not UTF-8.
            raise PromptError(
                f"{what} {text!r}: is not UTF-8 text; write it again in UTF-8"
            ) from None
        # Not verbose: it would foretell errors for texts that are cut here.
        tokens = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return [int(i) for i in tokens.input_ids]

    def _embeddings(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(B, 77, D) of prompts and suffix."""
        rows = []
        for ids in prompts:
            if len(ids) > self.max_tokens or not all(0 <= i < len(self.vocabulary) for i in ids):
                raise PromptError(
                    f"a prompt of {len(ids)} tokens does not fit decoder {self.spec.name}: at most "
                    f"{self.max_tokens}, ids below {len(self.vocabulary)}; shorten it"
                )
            # An empty prompt leaves the suffix without its comma.
            suffix = self._suffix if ids else self._ids_of(self.spec.settings.suffix, "suffix")
            rows.append((*ids, *suffix))
        # Candidates of one picture have one prompt.
        distinct = list(dict.fromkeys(rows))
        states = self._embed_ids(distinct)
        return states[[distinct.index(row) for row in rows]]

    @functools.cached_property
    def _negative(self) -> Tensor:
        """(1, 77, D) of the negative prompt."""
        ids = self._ids_of(self.spec.settings.negative, "negative prompt")
        return self._embed_ids([ids[: self.tokenizer.model_max_length - 2]])

    def _embed_ids(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states of the text encoder, as the pipeline itself would take them."""
        tokenizer, length = self.tokenizer, int(self.tokenizer.model_max_length)
        padded = torch.full((len(rows), length), tokenizer.pad_token_id)
        mask = torch.zeros_like(padded)
        for row, out, seen in zip(rows, padded, mask, strict=True):
            whole = [tokenizer.bos_token_id, *row, tokenizer.eos_token_id]
            out[: len(whole)] = torch.tensor(whole)
            seen[: len(whole)] = 1
        encoder = self._any_pipeline().text_encoder
        masked = getattr(encoder.config, "use_attention_mask", False)
        device = self.device
        states: Tensor = encoder(
            padded.to(device), attention_mask=mask.to(device) if masked else None
        )[0]
        return states

    def _any_pipeline(self) -> Any:
        return next(iter(self._pipelines.values()))

    def _pipeline(self, control: bool) -> Any:
        """Stable Diffusion's pipeline with or without a ControlNet; the parts are shared."""
        if control not in self._pipelines:
            if self._pipelines:
                parts = dict(self._any_pipeline().components)
            else:
                parts = loading.load_parts(self.folder, self.spec, self.tokenizer, self.device)
            folder = self.control_folder if control else None
            pipeline = loading.assemble(parts, folder, self.spec, self.device)
            # None: on terminals only.
            pipeline.set_progress_bar_config(disable=None if self.progress else True)
            self._pipelines[control] = pipeline
        return self._pipelines[control]

    def _redrawing_pipeline(self, control: bool) -> Any:
        """That which begins from pictures, of the same parts."""
        if control not in self._redrawing:
            pipeline = loading.for_redrawing(self._pipeline(control), self.device)
            pipeline.set_progress_bar_config(disable=None if self.progress else True)
            self._redrawing[control] = pipeline
        return self._redrawing[control]


def _tile(vae: Any, tiled: bool) -> None:
    from diffusers import AutoencoderKL

    if tiled and isinstance(vae, AutoencoderKL):
        vae.enable_tiling()  # type: ignore[attr-defined]  # a mixin gives it
    else:
        vae.disable_tiling()


def _scaled(picture: NDArray[np.uint8], width: int, height: int) -> Image.Image:
    return Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        # How the CPU's allocator says it.
        "not enough memory" in str(error) or "can't allocate memory" in str(error)
    )

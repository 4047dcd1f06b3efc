"""CLIP: pictures and prompts as unit vectors that can be compared.

The models are transformers' (``CLIPModel`` folders), frozen. What a prompt's inversion needs beside
features is here too: the vocabulary, which of its tokens may be in a prompt, and the text tower on
embeddings in place of ids.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from picsnet.devices import has_amx
from picsnet.errors import ModelError, PromptError
from picsnet.pretrained import load_whole, loading

FILES = [
    "config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
]
"""What is fetched of a hub repository: one kind of weights, and no other library's."""

IMAGE_BATCH = 16
"""Pictures that go through the image tower together."""

LEGACY_END = 2
"""The end token's id in the configurations of OpenAI's and LAION's models, where it is wrong:
transformers then takes the features at the largest id of a row, which is the end token's."""


class Clip:
    """Image and text features of a frozen ``CLIPModel``.

        pictures -> image processor -> image tower -> projection -> unit vectors
        ids -> start, ids, end -> embeddings -> text tower, at the end token -> projection -> same

    Weights of linear layers are in ``dtype``; norms and the sums along residuals are in float32.
    `from_pretrained` makes one.

    Args:
        model: a CLIPModel in float32.
        tokenizer: its CLIPTokenizer.
        processor: its CLIPImageProcessor.
        device: where to run.
        dtype: of the matrix products.

    Raises:
        ModelError: the tokenizer is not the model's.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        processor: Any,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.vocabulary: dict[str, int] = {str(k): int(v) for k, v in tokenizer.get_vocab().items()}
        _check_vocabulary(tokenizer, self.vocabulary, model.config.text_config)
        self.device = torch.device(device)
        self.dtype = dtype
        self.start_id, self.end_id = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self.max_tokens = int(model.config.text_config.max_position_embeddings) - 2
        self._tokenizer, self._processor = tokenizer, processor
        model.eval().requires_grad_(False)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.to(dtype)
        self._model = model.to(self.device)

    @classmethod
    def from_pretrained(cls, source: str, device: str = "cpu", option: str = "--clip") -> Clip:
        """A CLIP model by its folder or hub id.

        Args:
            source: a folder that ``save_pretrained`` wrote (model, tokenizer, image processor), or
                OWNER/NAME on the hub.
            device: "cpu", "cuda", "cuda:N" or "mps".
            option: that ``source`` came from, for messages.

        Raises:
            ModelError: it cannot be had or loaded.
        """
        from picsnet.hub import resolve

        folder = resolve(source, what="the CLIP model", option=option, patterns=FILES)
        with loading(folder, option):
            from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
            processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
            model = load_whole(CLIPModel, folder)
            return cls(model, tokenizer, processor, device, matmul_dtype(device))

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that no made prompt may hold: they steer the model, or cannot be shown as text.

        Start, end and padding; every token that was added to the vocabulary; and control tokens.
        Those are tokens whose bytes are no text by themselves: not UTF-8 (pieces of longer
        characters), or with control, format, private or separating characters, or nothing.
        """
        special = {self.start_id, self.end_id, *self._tokenizer.all_special_ids}
        special |= set(self._tokenizer.added_tokens_decoder)
        return frozenset(
            special | {i for token, i in self.vocabulary.items() if not _is_text(token)}
        )

    @functools.cached_property
    def embedding_table(self) -> Tensor:
        """(V, E) float32: the input embedding of each id. V may exceed the vocabulary."""
        table: Tensor = self._embedding.weight.detach()
        return table

    @torch.no_grad()
    def image_features(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Features of pictures.

        Args:
            images: (H, W, 3) uint8 each, of any sizes.

        Returns:
            (B, D) float32, of unit length.
        """
        features = []
        for start in range(0, len(images), IMAGE_BATCH):
            pictures = [Image.fromarray(image) for image in images[start : start + IMAGE_BATCH]]
            pixels = self._processor(images=pictures, return_tensors="pt")["pixel_values"]
            with self._autocast():
                out = self._model.get_image_features(pixel_values=pixels.to(self.device))
            features.append(F.normalize(out.pooler_output.float(), dim=-1))
        return torch.cat(features) if features else self._no_features()

    @torch.no_grad()
    def text_features(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Features of prompts.

        Args:
            ids: of each, without start, end and padding.

        Returns:
            (B, D) float32, of unit length.

        Raises:
            PromptError: a prompt is too long, or an id is not in the vocabulary.
        """
        if not ids:
            return self._no_features()
        longest = max(map(len, ids))
        if longest > self.max_tokens:
            raise PromptError(
                f"a prompt of {longest} tokens: the CLIP model takes {self.max_tokens}; shorten it"
            )
        if not all(0 <= i < len(self.embedding_table) for row in ids for i in row):
            raise PromptError(
                f"a prompt has ids outside the CLIP model's 0..{len(self.embedding_table) - 1}; "
                "make it with this model's tokenizer"
            )
        # The first end token counts, and what follows it has no part: any padding will do.
        padded = torch.full((len(ids), longest + 2), self.end_id)
        padded[:, 0] = self.start_id
        for row, out in zip(ids, padded, strict=True):
            out[1 : len(row) + 1] = torch.tensor(row, dtype=out.dtype)
        return self._text_tower(padded.to(self.device))

    def embedded_features(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """Features of prompts whose embeddings are given; gradients flow to those.

        Only start, prompt and end go through the text tower: it is causal, so the features at the
        end token are those of the padded row.

        Args:
            ids: (B, T) int64, without start and end.
            embeddings: (B, T, E) float32: what stands in for the rows of `embedding_table`.

        Returns:
            (B, D) float32, of unit length.
        """
        rows = F.pad(F.pad(ids, (1, 0), value=self.start_id), (0, 1), value=self.end_id)

        def replace(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            return torch.cat([output[:, :1], embeddings, output[:, -1:]], dim=1)

        # CLIPTextModel takes no embeddings, and the ids tell it where the end is.
        handle = self._embedding.register_forward_hook(replace)
        try:
            return self._text_tower(rows)
        finally:
            handle.remove()

    def image_similarities(
        self, original: NDArray[np.uint8], candidates: Sequence[NDArray[np.uint8]]
    ) -> list[float]:
        """How near pictures are to another in CLIP's space.

        Args:
            original: (H, W, 3) uint8.
            candidates: (H, W, 3) uint8 each.

        Returns:
            Their cosine similarity to the original, -1..1.
        """
        features = self.image_features([original, *candidates])
        return [float(value) for value in features[1:] @ features[0]]

    @property
    def _embedding(self) -> nn.Embedding:
        embedding: nn.Embedding = self._model.text_model.get_input_embeddings()
        return embedding

    def _text_tower(self, rows: Tensor) -> Tensor:
        with self._autocast():
            out = self._model.get_text_features(input_ids=rows)
        return F.normalize(out.pooler_output.float(), dim=-1)

    def _autocast(self) -> torch.autocast:
        mixed = self.dtype != torch.float32
        return torch.autocast(self.device.type, self.dtype if mixed else None, enabled=mixed)

    def _no_features(self) -> Tensor:
        return torch.zeros(0, self._model.config.projection_dim, device=self.device)


def matmul_dtype(device: str) -> torch.dtype:
    """The type for CLIP's matrix products on a device.

    float16 would be as fast as bf16 on GPUs, but gradients of a cosine vanish in it.
    """
    if device.startswith("cuda"):
        fast = torch.cuda.get_device_capability(torch.device(device)) >= (8, 0)
    else:
        fast = device == "cpu" and has_amx()
    return torch.bfloat16 if fast else torch.float32


def _check_vocabulary(tokenizer: Any, vocabulary: dict[str, int], config: Any) -> None:
    end = tokenizer.eos_token_id
    largest = max(vocabulary.values(), default=0)
    if largest >= config.vocab_size or config.eos_token_id not in (LEGACY_END, end):
        raise ModelError(
            f"the tokenizer's vocabulary (ids to {largest}, end token {end}) is not that of the "
            f"text tower ({config.vocab_size} ids, end token {config.eos_token_id})"
        )


@functools.cache
def _bytes_of_characters() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


def _is_text(token: str) -> bool:
    """Whether a token of the byte-level vocabulary can be shown by itself."""
    table = _bytes_of_characters()
    token = token.removesuffix("</w>")
    try:
        text = bytes(table[character] for character in token).decode()
    except KeyError:  # not a byte-level vocabulary
        text = token
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and text.isprintable()

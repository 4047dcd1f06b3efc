"""Prompts by captioning: a transformers image-to-text model says what a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from picsnet.hub import resolve
from picsnet.pretrained import load_whole, loading

DEFAULT_CAPTIONER = "Salesforce/blip-image-captioning-base"
"""BLIP (Li et al., 2022, arXiv 2201.12086), BSD-3-Clause, about 1 GB."""

FILES = ["*.json", "vocab.txt", "merges.txt", "*.safetensors", "pytorch_model*.bin"]
"""What is fetched of a hub repository. The default's has its weights as ``pytorch_model.bin`` only,
which transformers reads as data (``weights_only=True``), like safetensors."""

MAX_NEW_TOKENS = 20
"""Of a caption, in the captioner's vocabulary; longer ones buy little for their bytes."""

BEAMS = 3

BATCH = 8
"""Pictures that are captioned together."""


class Captioner:
    """A frozen image-to-text model: BLIP, GIT, ViT-GPT2 and others that need no question.

    Beam search without sampling: the same picture gets the same caption. `from_pretrained` makes
    one.

    Args:
        model: with ``generate``, of the AutoModelForImageTextToText family.
        processor: its processor.
        device: where to run, "cpu", "cuda", "cuda:N" or "mps".
    """

    def __init__(self, model: Any, processor: Any, device: str = "cpu") -> None:
        self._processor = processor
        self._device = torch.device(device)
        self._model = model.eval().requires_grad_(False).to(self._device)

    @classmethod
    def from_pretrained(
        cls, source: str, device: str = "cpu", option: str = "--captioner"
    ) -> Captioner:
        """A captioner by its folder or hub id.

        Args:
            source: a folder that ``save_pretrained`` wrote (model and processor), or OWNER/NAME on
                the hub.
            device: as for the class.
            option: that ``source`` came from, for messages.

        Raises:
            ModelError: it cannot be had or loaded.
        """
        folder = resolve(source, what="the captioner", option=option, patterns=FILES)
        with loading(folder, option):
            from transformers import AutoModelForImageTextToText, AutoProcessor

            processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            return cls(load_whole(AutoModelForImageTextToText, folder), processor, device)

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[str]:
        """Captions of pictures.

        Args:
            images: (H, W, 3) uint8 each, of any sizes.

        Returns:
            One line of plain text each.
        """
        captions: list[str] = []
        for start in range(0, len(images), BATCH):
            pictures = [Image.fromarray(image) for image in images[start : start + BATCH]]
            inputs = self._processor(images=pictures, return_tensors="pt").to(self._device)
            ids = self._model.generate(
                **inputs, max_new_tokens=MAX_NEW_TOKENS, num_beams=BEAMS, do_sample=False
            )
            texts = self._processor.batch_decode(ids, skip_special_tokens=True)
            captions += [" ".join(text.split()) for text in texts]
        return captions

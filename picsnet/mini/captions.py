"""The mini decoder's own tokenizer, and captions as its token ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picsnet.decoder.files import read_vocabulary
from picsnet.errors import CheckpointError
from picsnet.mini.tokenizer import LENGTH, train_tokenizer
from picsnet.prompt.palette import describe
from picsnet.prompt.tokens import listed_words


def save_tokenizer(folder: Path) -> Path:
    """Write a tokenizer that has each word of the prompt coder's list as one token."""
    if not (folder / "tokenizer.json").is_file():
        words = [word for words in listed_words().values() for word in words]
        train_tokenizer(words, folder, min_frequency=1)
    return folder


class PaletteCaptioner:
    """Descriptions of pictures as rows of token ids, padded as the pipeline pads them.

    Args:
        tokenizer: a CLIPTokenizer's folder.
    """

    def __init__(self, tokenizer: Path) -> None:
        self._folder = tokenizer
        self._tokenizer: Any = None

    @property
    def vocabulary_size(self) -> int:
        """How many tokens there are."""
        return len(read_vocabulary(self._folder))

    def __call__(self, rgb: NDArray[np.uint8]) -> list[int]:
        """(H, W, 3) uint8 to 77 ids."""
        return self.ids(describe(rgb))

    def ids(self, text: str) -> list[int]:
        """A text's 77 ids, with start, end and padding.

        Raises:
            CheckpointError: there is no tokenizer.
        """
        if self._tokenizer is None:  # in each loader's process its own
            if not (self._folder / "tokenizer.json").is_file():
                raise CheckpointError(
                    f"{self._folder}: no tokenizer there; train that stage first (task mini-clip), "
                    "or name its run's folder: clip=FOLDER"
                )
            from transformers import CLIPTokenizer

            self._tokenizer = CLIPTokenizer.from_pretrained(self._folder, local_files_only=True)
        padded = self._tokenizer(
            text, padding="max_length", max_length=LENGTH, truncation=True
        ).input_ids
        return [int(i) for i in padded]

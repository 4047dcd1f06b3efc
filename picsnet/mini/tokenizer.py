"""Tokenizers by CLIP's rules, trained on text of one's own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

LENGTH = 77
"""Places of CLIP's text tower, start and end among them."""


def train_tokenizer(
    texts: Iterable[str],
    folder: Path,
    size: int | None = None,
    min_frequency: int = 2,
    progress: bool = False,
) -> int:
    """Train a CLIPTokenizer and save it.

    Its vocabulary has CLIP's order: characters, characters at a word's end, merges by rank, start,
    end. So it has CLIP's rules: lower case, words split at punctuation, digits one by one.

    Args:
        texts: lines to learn words from.
        folder: where it is saved.
        size: of the vocabulary; None takes all merges that there are.
        min_frequency: of a merge in the texts.
        progress: show the library's bar.

    Returns:
        The vocabulary's size, less than ``size`` where the texts have not enough merges.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import CLIPTokenizer

    trained = Tokenizer(BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Lowercase(),
        ]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=2**20 if size is None else size + 1000,  # two merges can make the same token
        min_frequency=min_frequency,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    trained.train_from_iterator(texts, trainer)

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *(c + "</w>" for c in alphabet)])
    merges = []
    for left, right in json.loads(trained.to_str())["model"]["merges"]:
        if size is not None and len(tokens) == size - 2:
            break
        merges.append(f"{left} {right}")
        tokens[left + right] = None
    tokens |= dict.fromkeys(["<|startoftext|>", "<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "vocab.json", folder / "merges.txt"
    files[0].write_text(json.dumps({token: i for i, token in enumerate(tokens)}), "utf-8")
    files[1].write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    CLIPTokenizer(str(files[0]), str(files[1]), model_max_length=LENGTH).save_pretrained(folder)
    return len(tokens)

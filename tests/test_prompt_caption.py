"""Captions by an image-to-text model, a miniature BLIP in the real one's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from picsnet.errors import ModelError
from picsnet.prompt.caption import BATCH, MAX_NEW_TOKENS, Captioner

VOCABULARY = "[PAD] [UNK] [CLS] [SEP] [MASK] a dog on grass red blue sky the of sea"
WORDS = VOCABULARY.split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text = {
        **small,
        "vocab_size": len(WORDS) + 2,  # as BLIP: what starts a caption is not in the vocabulary
        "encoder_hidden_size": 32,
        "bos_token_id": len(WORDS),
        "pad_token_id": 0,
        "eos_token_id": 2,
        "sep_token_id": 3,
        "max_position_embeddings": 64,
        "initializer_range": 1.0,  # random weights that say different things of different pictures
    }
    vision = {**small, "image_size": 32, "patch_size": 8, "initializer_range": 0.5}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    model.eval().save_pretrained(folder)
    processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(processor, tokenizer).save_pretrained(folder)
    return folder


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (1, 1, 3), dtype=np.uint8).repeat(20 + 9 * i, 0).repeat(50, 1)
        for i in range(count)
    ]


def test_a_caption_is_a_line_of_the_models_words(folder: Path) -> None:
    captions = Captioner.from_pretrained(str(folder))(pictures(10))
    assert len(captions) == 10
    for caption in captions:
        words = caption.split()
        assert len(words) <= MAX_NEW_TOKENS
        assert caption == " ".join(words)
        assert set(words) <= set(WORDS[5:])  # none of the special ones
    assert len(set(captions)) > 2  # it looks at the pictures


def test_captions_do_not_change(folder: Path) -> None:
    some = pictures(BATCH + 2)  # more than go together
    torch.manual_seed(1)
    first = Captioner.from_pretrained(str(folder))(some)
    torch.manual_seed(2)
    captioner = Captioner.from_pretrained(str(folder))
    assert captioner(some) == first
    assert [captioner([one])[0] for one in some] == first
    assert captioner([]) == []


def test_weights_as_the_default_has_them(folder: Path, tmp_path: Path) -> None:
    """The default's repository holds pytorch_model.bin and no safetensors."""
    from safetensors.torch import load_file

    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    expected = Captioner.from_pretrained(str(folder))(pictures(2))
    assert Captioner.from_pretrained(str(tmp_path))(pictures(2)) == expected


def test_a_broken_folder_is_one_line(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match=r"cannot be loaded .*--captioner") as caught:
        Captioner.from_pretrained(str(tmp_path))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="--captioner"):
        Captioner.from_pretrained(str(tmp_path / "nowhere"))

"""CLIP features: pictures and prompts as unit vectors, with a miniature of the real classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from picsnet.clip import IMAGE_BATCH, Clip
from picsnet.errors import ModelError, PromptError
from tests.miniatures import save_clip, save_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return Clip.from_pretrained(str(folder))


def pictures(count: int) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (30 + i, 50, 3), dtype=np.uint8) for i in range(count)]


def ids_of(clip: Clip, *words: str) -> list[int]:
    return [clip.vocabulary[word + "</w>"] for word in words]


def test_text_features_are_those_of_the_padded_prompt(clip: Clip, folder: Path) -> None:
    """As transformers has them, with all 77 positions filled."""
    from transformers import CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    texts = ["a dog", "the blue house by the sea at night", ""]
    batch = tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = model.get_text_features(**batch).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    torch.testing.assert_close(clip.text_features(ids), expected, atol=1e-5, rtol=0)


def test_image_features_are_those_of_the_processed_picture(clip: Clip, folder: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPImageProcessor.from_pretrained(folder)
    some = pictures(IMAGE_BATCH + 1)  # more than go together
    batch = processor([Image.fromarray(p) for p in some], return_tensors="pt")
    with torch.no_grad():
        expected = model.get_image_features(**batch).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    features = clip.image_features(some)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    assert clip.image_features([]).shape == (0, features.shape[1])
    assert clip.text_features([]).shape == (0, features.shape[1])


def test_embeddings_in_place_of_ids(clip: Clip) -> None:
    ids = torch.tensor([ids_of(clip, "red", "house"), ids_of(clip, "snow", "dog")])
    rows = clip.embedding_table[ids].requires_grad_()
    features = clip.embedded_features(ids, rows)
    torch.testing.assert_close(features, clip.text_features(ids.tolist()), atol=1e-5, rtol=0)
    # A small step along the gradient changes a similarity by what the gradient says.
    target = clip.text_features([ids_of(clip, "blue", "sea")])[0]
    (gradient,) = torch.autograd.grad((features @ target).sum(), rows)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        before, after = (
            clip.embedded_features(ids, e) @ target for e in (rows - step, rows + step)
        )
    assert float((after - before).sum()) == pytest.approx(2e-2 * float(gradient.norm()), rel=0.02)
    # What was in place of the ids is gone again.
    torch.testing.assert_close(features, clip.text_features(ids.tolist()), atol=1e-5, rtol=0)


def test_similarities_of_pictures(clip: Clip) -> None:
    original, *others = pictures(4)
    scores = clip.image_similarities(original, [original, *others])
    assert scores[0] == pytest.approx(1, abs=1e-5)
    features = clip.image_features([original, *others])
    assert scores[1:] == pytest.approx((features[1:] @ features[0]).tolist(), abs=1e-5)


def test_special_tokens(clip: Clip) -> None:
    special = clip.special_ids
    assert {clip.start_id, clip.end_id} <= special
    assert not special & set(ids_of(clip, "dog", "sea"))
    pieces = [i for token, i in clip.vocabulary.items() if token in ("Ã", "Ł</w>")]
    assert len(pieces) == 2 and set(pieces) <= special  # bytes that are no text by themselves


def test_prompts_that_cannot_be(clip: Clip) -> None:
    word = ids_of(clip, "dog")
    assert clip.text_features([word * clip.max_tokens]).shape[0] == 1
    with pytest.raises(PromptError, match="76 tokens: the CLIP model takes 75"):
        clip.text_features([word * (clip.max_tokens + 1)])
    for wrong in (-1, len(clip.embedding_table)):
        with pytest.raises(PromptError, match="outside the CLIP model's"):
            clip.text_features([[wrong]])


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    tokenizer = folder / "tokenizer.json"
    own = tokenizer.read_bytes()
    save_tokenizer(folder, ["another"])
    with pytest.raises(ModelError, match=r"vocabulary .* is not that of the text tower .*--clip"):
        Clip.from_pretrained(str(folder))
    tokenizer.write_bytes(own[:100])
    with pytest.raises(ModelError, match=r"cannot be loaded .*--clip") as caught:
        Clip.from_pretrained(str(folder))
    assert "\n" not in str(caught.value)


def test_lost_weights_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights .*text_projection.*--clip"):
        Clip.from_pretrained(str(tmp_path))

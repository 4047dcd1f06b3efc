"""Inversion of prompts, on a miniature CLIP."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from picsnet.clip import Clip
from picsnet.errors import ConfigError, ModelError, PromptError
from picsnet.prompt.inversion import InversionConfig, _Search, _Vocabulary, invert
from tests.miniatures import save_clip

QUICK = InversionConfig(tokens=4, steps=8, patience=8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return Clip.from_pretrained(str(save_clip(tmp_path_factory.mktemp("clip"))))


def planted(clip: Clip, count: int, tokens: int = 4, seed: int = 0) -> list[list[int]]:
    usable = sorted(set(clip.vocabulary.values()) - clip.special_ids)
    rng = np.random.default_rng(seed)
    return rng.choice(usable, (count, tokens)).tolist()


def test_planted_prompts_are_found(clip: Clip) -> None:
    """Of 20 planted prompts of four tokens, at least 19 at 0.98, as anybody can check."""
    similarities, chance = [], []
    for seed in range(4):
        prompts = planted(clip, 5, seed=seed)
        features = clip.text_features(prompts)
        found = invert(
            clip, features, InversionConfig(tokens=4, steps=150, patience=150, seed=seed + 50)
        )
        assert all(len(one.ids) == 4 for one in found)
        own = (clip.text_features([one.ids for one in found]) * features).sum(-1)
        assert [one.similarity for one in found] == pytest.approx(own.tolist(), abs=1e-5)
        similarities += own.tolist()
        other = clip.text_features(planted(clip, 5, seed=100 + seed))
        chance += (other * features).sum(-1).tolist()
    assert sum(s >= 0.98 for s in similarities) >= 19, similarities
    assert np.mean(chance) < 0.8, chance  # what any prompt comes to


def test_passes_of_a_step(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass with gradients and at most two without, whatever the number of pictures."""
    counts = {"with": 0, "backward": 0, "without": 0}
    tower = clip.embedded_features

    def counted(*arguments: Any) -> torch.Tensor:
        features = tower(*arguments)
        if not features.requires_grad:
            counts["without"] += 1
            return features
        counts["with"] += 1

        def note(gradient: torch.Tensor) -> None:
            counts["backward"] += 1

        features.register_hook(note)
        return features

    monkeypatch.setattr(clip, "embedded_features", counted)
    monkeypatch.setattr(clip, "text_features", None)  # no passes beside those
    features = torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)
    found = invert(clip, features, QUICK)
    assert [one.steps for one in found] == [QUICK.steps] * 3
    assert counts["with"] == counts["backward"] == QUICK.steps
    assert QUICK.steps < counts["without"] <= 2 * QUICK.steps


def test_emptied_places_tell_what_exchanges_bring(clip: Clip) -> None:
    """Around good prompts, what is promised of all tokens is nearly what comes true of them.

    By the gradient at the prompt itself the correlation here is 0.2.
    """
    vocabulary = _Vocabulary.of(clip)
    correlations = []
    for seed in range(3):
        search = _Search(
            clip, vocabulary, clip.text_features(planted(clip, 1, seed=3 + seed)), QUICK
        )
        for _ in range(6):
            search.step()
        search._tokens = search._best_tokens
        promised = search._emptied_gradient(torch.arange(4)[None])[0] @ vocabulary.rows.T
        for place in range(4):
            rows = search._tokens.repeat(len(vocabulary.ids), 1)
            rows[:, place] = torch.arange(len(rows))
            true = clip.text_features(vocabulary.ids[rows].tolist()) @ search._targets[0]
            correlations.append(np.corrcoef(promised[place], true)[0, 1])
    assert np.mean(correlations) > 0.6, correlations


def test_the_same_seed_the_same_prompt(clip: Clip) -> None:
    features = clip.text_features(planted(clip, 3, seed=7))
    first = invert(clip, features, QUICK)
    torch.manual_seed(1)
    assert invert(clip, features, QUICK) == first
    other = invert(clip, features, InversionConfig(tokens=4, steps=8, patience=8, seed=1))
    assert [one.ids for one in other] != [one.ids for one in first]


def test_a_callers_inference_mode_does_not_matter(
    clip: Clip, tmp_path_factory: pytest.TempPathFactory
) -> None:
    picture = np.zeros((40, 40, 3), np.uint8)
    expected = invert(clip, clip.image_features([picture]), QUICK)
    with torch.inference_mode():
        other = Clip.from_pretrained(str(save_clip(tmp_path_factory.mktemp("clip"))))
        features = other.image_features([picture])
        assert invert(other, features, QUICK) == expected
    assert invert(other, features, QUICK) == expected


def test_no_picture_sees_another(clip: Clip) -> None:
    features = clip.text_features(planted(clip, 4, seed=8))
    together = invert(clip, features, QUICK)
    alone = [invert(clip, one[None], QUICK)[0] for one in features]
    for one, other in zip(together, alone, strict=True):
        assert one.ids == other.ids
        assert one.similarity == pytest.approx(other.similarity, abs=1e-5)


def test_special_tokens_are_never_in_a_prompt(clip: Clip) -> None:
    """Not even where the target was made of them."""
    special = sorted(clip.special_ids - {clip.start_id, clip.end_id})
    rng = np.random.default_rng(0)
    features = clip.text_features(rng.choice(special, (6, 4)).tolist())
    for one in invert(clip, features, InversionConfig(tokens=4, steps=20, restarts=2)):
        assert not set(one.ids) & clip.special_ids
        assert set(one.ids) <= set(clip.vocabulary.values())


def test_a_search_that_has_stopped_improving_ends(clip: Clip) -> None:
    features = clip.text_features(planted(clip, 3, tokens=1, seed=9))
    found = invert(clip, features, InversionConfig(tokens=1, steps=500, patience=20))
    assert all(one.steps < 100 for one in found)


def test_a_picture_whose_prompt_is_good_enough_is_done(clip: Clip) -> None:
    features = clip.text_features(planted(clip, 4, seed=12))
    whole = invert(clip, features, InversionConfig(tokens=4, steps=40, patience=40))
    least = min(one.similarity for one in whole) - 0.01
    early = invert(clip, features, InversionConfig(tokens=4, steps=40, patience=40, enough=least))
    assert all(least <= one.similarity for one in early)
    assert max(one.steps for one in early) < 40


def test_restarts_and_steps_do_not_find_worse(clip: Clip) -> None:
    features = clip.text_features(planted(clip, 6, seed=10))
    few, many, side_by_side = (
        np.mean([one.similarity for one in invert(clip, features, config)])
        for config in (
            InversionConfig(tokens=4, steps=4),
            InversionConfig(tokens=4, steps=40),
            InversionConfig(tokens=4, steps=40, restarts=4),
        )
    )
    assert few < many < side_by_side + 0.005


def test_restarts_do_not_depend_on_each_other(clip: Clip) -> None:
    """Of four searches side by side the first is that which runs alone."""
    features = clip.text_features(planted(clip, 2, seed=13))
    config = InversionConfig(tokens=4, steps=10, restarts=4)
    search = _Search(clip, _Vocabulary.of(clip), features, config)
    alone = _Search(clip, _Vocabulary.of(clip), features, QUICK)
    for _ in range(10):
        search.step()
        alone.step()
    assert torch.equal(search._tokens[::4], alone._tokens)


def test_prompts_longer_than_a_step_looks_at(clip: Clip) -> None:
    """Seven places in turn, three at a time: all of them are looked at."""
    features = clip.text_features(planted(clip, 2, tokens=7, seed=14))
    config = InversionConfig(tokens=7, steps=30, places=3, choices=2)
    first = invert(clip, features, dataclasses.replace(config, steps=1))
    for one, before in zip(invert(clip, features, config), first, strict=True):
        assert all(a != b for a, b in zip(one.ids, before.ids, strict=True)) or (
            one.similarity > 0.9
        )
        assert one.similarity > before.similarity


def test_memory_that_runs_out_halves_the_batch(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    features = clip.text_features(planted(clip, 5, seed=11))
    expected = invert(clip, features, QUICK)
    tower, sizes = clip.embedded_features, []

    def cramped(ids: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        sizes.append(len(ids))
        if len(ids) > 2 * (1 + 4 * QUICK.choices):
            raise torch.OutOfMemoryError
        return tower(ids, embeddings)

    monkeypatch.setattr(clip, "embedded_features", cramped)
    found = invert(clip, features, QUICK)
    assert [one.ids for one in found] == [one.ids for one in expected]
    # Five pictures, three, two: the prompt itself and four exchanges in each of four places.
    assert [size for size in sizes if size > 34] == [85, 51] and max(sizes[4:]) == 34

    def none(ids: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(clip, "embedded_features", none)
    with pytest.raises(ModelError, match="not enough memory on cpu for one picture"):
        invert(clip, features, QUICK)


def test_more_tokens_than_the_model_takes(clip: Clip) -> None:
    with pytest.raises(PromptError, match="80 tokens, but the CLIP model takes 75"):
        invert(clip, clip.text_features([[0]]), InversionConfig(tokens=80))


@pytest.mark.parametrize(
    "values",
    [{"tokens": 0}, {"steps": 1.5}, {"kick": 0}, {"restarts": True}, {"min_gain": float("nan")}],
)
def test_settings_that_cannot_work(values: dict[str, Any]) -> None:
    (name,) = values
    with pytest.raises(ConfigError, match=f"inversion: {name} is"):
        InversionConfig(**values)


def test_the_bar_is_for_terminals(clip: Clip, capsys: pytest.CaptureFixture[str]) -> None:
    invert(clip, clip.text_features([[5, 6]]), QUICK, progress=True)
    assert capsys.readouterr().err == ""  # not a terminal


def test_empty_batches(clip: Clip) -> None:
    assert invert(clip, torch.zeros(0, 24), QUICK) == []

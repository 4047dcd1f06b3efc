"""Prompts by inversion: token ids whose CLIP features are near those of a picture.

A search by exchanges of tokens. To exchange a token is no small step, so the gradient of the
similarity at the present prompt says next to nothing of what an exchange would bring. Taken where
the token's place is *empty* (the mean embedding stands there) it says nearly all: all tokens are
about as far from there, and none is preferred. On a ViT-B with random weights the gain that it
promises and the gain of 256 random exchanges correlate by 0.94 to 0.99; taken at the prompt itself,
as HotFlip (Ebrahimi et al., 2018) takes it, by -0.14 to 0.89.

    prompt -> its places emptied, one at a time -> forward, backward -> promised gains of all tokens
           -> the best few of each place, forward -> the best of them, together -> forward -> prompt

A prompt that no exchange improves any more is remembered, some of its tokens are replaced at
random, and the search goes on from there: iterated local search. The usual method, PEZ ("Hard
Prompts Made Easy", Wen et al., 2023, arXiv 2302.03668), is what the Text + Sketch paper runs;
benchmarks/inversion.py holds it against this one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from picsnet.clip import Clip
from picsnet.errors import ConfigError, ModelError, PromptError

_NONE = -2.0  # below every cosine


@dataclass(frozen=True)
class InversionConfig:
    """How prompts are searched for.

    Attributes:
        tokens: length of a prompt.
        steps: at most; each is one forward and one backward pass of the text tower for ``places``
            prompts, and two forward passes for the ``places * choices`` that follow from it.
        places: of a prompt that a step looks at; all in turn.
        choices: tokens that are tried in each.
        kick: tokens, at most, that are replaced at random where no exchange helps any more.
        restarts: searches side by side for each picture.
        patience: steps without a gain of ``min_gain`` in similarity after which a picture is done.
        min_gain: see patience.
        enough: similarity with which a picture is done; at 1 none is enough.
        seed: of the first prompts and of what else is drawn.

    Raises:
        ConfigError: a value that cannot work.
    """

    tokens: int = 16
    steps: int = 60
    places: int = 8
    choices: int = 4
    kick: int = 3
    restarts: int = 1
    patience: int = 30
    min_gain: float = 1e-4
    enough: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value, whole = getattr(self, field.name), isinstance(field.default, int)
            low = 0 if field.name in ("seed", "min_gain", "enough") else 1
            if (
                isinstance(value, bool)
                or not isinstance(value, int if whole else int | float)
                or not math.isfinite(value)
                or value < low
            ):
                kind = "whole number" if whole else "number"
                raise ConfigError(
                    f"inversion: {field.name} is {value!r}; it must be a {kind} from {low}"
                )


@dataclass(frozen=True)
class Inversion:
    """A found prompt.

    Attributes:
        ids: without start and end; none is one of `Clip.special_ids`.
        similarity: cosine of its features and the picture's, -1..1.
        steps: after which the search ended.
    """

    ids: list[int]
    similarity: float
    steps: int


def invert(
    clip: Clip, features: Tensor, config: InversionConfig, progress: bool = False
) -> list[Inversion]:
    """Prompts for pictures, searched for all at once.

    Every picture starts from the same random prompts, by seed and restart, whatever else is in the
    batch. Rounding may still differ in batches of other sizes (matrix products sum in another
    order), and a long search can then end at another prompt.

    Args:
        clip: the model; with the decoder's vocabulary if the decoder is to read the prompts.
        features: (B, D), of unit length: of pictures, or anything else in CLIP's space.
        config: of the search.
        progress: show a bar on stderr if that is a terminal.

    Returns:
        One prompt each, the best that was seen.

    Raises:
        PromptError: the model does not take so many tokens.
        ModelError: not even one picture fits in the device's memory.
    """
    if config.tokens > clip.max_tokens:
        raise PromptError(
            f"inversion: {config.tokens} tokens, but the CLIP model takes {clip.max_tokens}; "
            "ask for fewer"
        )
    # The search needs gradients, and the caller may be in a mode that keeps none.
    with torch.inference_mode(False):
        return _in_batches(clip, features, config, progress)


def _in_batches(
    clip: Clip, features: Tensor, config: InversionConfig, progress: bool
) -> list[Inversion]:
    vocabulary = _Vocabulary.of(clip)
    found: list[Inversion] = []
    size = len(features)
    while len(found) < len(features):
        some = features[len(found) : len(found) + size].detach()
        batch = _search_or_none(clip, vocabulary, some, config, progress)
        if batch is not None:
            found += batch
        elif size == 1:
            raise ModelError(
                f"inversion: not enough memory on {clip.device} for one picture with "
                f"{config.restarts} restarts; use fewer, or another --device"
            )
        else:
            size = -(-size // 2)
            torch.cuda.empty_cache()
    return found


def _search_or_none(
    clip: Clip, vocabulary: _Vocabulary, features: Tensor, config: InversionConfig, progress: bool
) -> list[Inversion] | None:
    """The prompts, or None if memory ran out. On return nothing holds that memory."""
    try:
        return _search(clip, vocabulary, features, config, progress)
    except torch.OutOfMemoryError:
        return None


def _search(
    clip: Clip, vocabulary: _Vocabulary, features: Tensor, config: InversionConfig, progress: bool
) -> list[Inversion]:
    search = _Search(clip, vocabulary, features, config)
    found: dict[int, Inversion] = {}
    steps = range(1, config.steps + 1)
    plural = "" if len(features) == 1 else "s"
    with tqdm(
        steps,
        desc=f"inverting {len(features)} picture{plural}",
        unit="step",
        leave=False,
        disable=None if progress else True,  # None: unless stderr is a terminal
    ) as bar:
        for step in bar:
            search.step()
            found |= search.take_finished(everything=step == config.steps)
            running = search.best.tolist()
            best = [*running, *(inversion.similarity for inversion in found.values())]
            bar.set_postfix(similarity=f"{np.mean(best):.4f}", running=len(running), refresh=False)
            if not running:
                break
    return [found[index] for index in range(len(features))]


class _Vocabulary(NamedTuple):
    """The tokens that a prompt may hold. Within the search a token is its place among these."""

    ids: Tensor  # (C,) int64, in CLIP's vocabulary
    rows: Tensor  # (C, E) their embeddings
    mean: Tensor  # (E,) of those: what stands in an empty place

    @classmethod
    def of(cls, clip: Clip) -> _Vocabulary:
        allowed = sorted(set(clip.vocabulary.values()) - clip.special_ids)
        if not allowed:
            raise PromptError("inversion: the CLIP model's vocabulary holds control tokens only")
        ids = torch.tensor(allowed, device=clip.device)
        rows = clip.embedding_table[ids]
        return cls(ids, rows, rows.mean(0))


class _Draw(NamedTuple):
    """What chance decides in one step, by restart: the same for every picture."""

    places: Tensor  # (R, P) int64, different ones: what the step looks at
    kicked: Tensor  # (R, T) bool: the places to replace, should a prompt be stuck
    tokens: Tensor  # (R, T) int64: with what


class _Chance:
    """Draws for all restarts; no restart's draws depend on how many there are."""

    def __init__(self, config: InversionConfig, vocabulary: int, device: torch.device) -> None:
        self._config, self._vocabulary, self._device = config, vocabulary, device
        self._rngs = [np.random.default_rng([config.seed, r]) for r in range(config.restarts)]
        self._waiting: list[list[int]] = [[] for _ in self._rngs]

    def prompts(self) -> Tensor:
        """(R, T) int64: the first prompts."""
        tokens = self._config.tokens
        return self._stack([rng.integers(self._vocabulary, size=tokens) for rng in self._rngs])

    def draw(self) -> _Draw:
        """That of the next step."""
        config = self._config
        places, kicked, tokens = [], [], []
        for rng, waiting in zip(self._rngs, self._waiting, strict=True):
            if not waiting:
                waiting += rng.permutation(config.tokens).tolist()
            places.append(np.array(waiting[: config.places]))
            del waiting[: config.places]
            count = rng.integers(1, min(config.kick, config.tokens) + 1)
            kicked.append(rng.permutation(config.tokens) < count)
            tokens.append(rng.integers(self._vocabulary, size=config.tokens))
        return _Draw(self._stack(places), self._stack(kicked), self._stack(tokens))

    def _stack(self, rows: list[NDArray[Any]]) -> Tensor:
        return torch.from_numpy(np.stack(rows)).to(self._device)


class _Search:
    """The pictures that are still searched for.

    A chain is one restart of one picture; the first axis of tensors is chains (N), all of the first
    picture's first, but for those that are said to be by picture (B).
    """

    def __init__(
        self, clip: Clip, vocabulary: _Vocabulary, features: Tensor, config: InversionConfig
    ) -> None:
        self._clip, self._vocabulary, self._config = clip, vocabulary, config
        pictures = len(features)
        self._chance = _Chance(config, len(vocabulary.ids), clip.device)
        first = self._chance.prompts()
        targets = features.to(clip.device, torch.float32)
        self._targets = targets.repeat_interleave(config.restarts, 0)
        self._tokens = first.repeat(pictures, 1)
        self._untouched = torch.zeros(len(self._tokens), dtype=torch.int64, device=clip.device)
        # Where each chain goes back to if what follows a kick is no better.
        self._home = self._tokens.clone()
        self._home_similarity = torch.full((len(self._tokens),), _NONE, device=clip.device)
        # By picture.
        self._pictures = torch.arange(pictures, device=clip.device)
        self._best_tokens = first[:1].repeat(pictures, 1)
        self.best = torch.full((pictures,), _NONE, device=clip.device)
        self._mark = self.best.clone()
        self._marked_at = torch.zeros_like(self._pictures)
        self._step = 0

    def step(self) -> None:
        """Look at some places of every chain's prompt; exchange tokens, or kick."""
        self._step += 1
        draw = _Draw(*(part.repeat(len(self.best), 1) for part in self._chance.draw()))
        seen = self._evaluate(self._exchanges(draw.places))
        seen = seen.beside(self._evaluate(*self._joined(seen, draw.places)))
        similarity, row = seen.similarity.max(1)
        moved = similarity > seen.similarity[:, 0]
        self._tokens = _pick(seen.tokens, row)
        self._keep_best(similarity)
        self._untouched = torch.where(moved, 0, self._untouched + draw.places.shape[1])
        self._kick(self._untouched >= self._config.tokens, similarity, draw)

    def take_finished(self, everything: bool) -> dict[int, Inversion]:
        """Results of the pictures that are done (or of all), which leave.

        Returns:
            By the picture's place in the batch.
        """
        finished = self._step - self._marked_at >= self._config.patience
        finished |= self.best >= self._config.enough
        if everything:
            finished = torch.ones_like(finished)
        if not finished.any():
            return {}
        ids = self._vocabulary.ids[self._best_tokens[finished]].tolist()
        pictures, best = self._pictures[finished].tolist(), self.best[finished].tolist()
        found = {
            picture: Inversion(row, similarity, self._step)
            for picture, row, similarity in zip(pictures, ids, best, strict=True)
        }
        self._keep(~finished)
        return found

    def _exchanges(self, places: Tensor) -> Tensor:
        """(N, 1 + P * choices, T): the prompts, and those with the most promising exchanges."""
        count, choices = places.shape[1], min(self._config.choices, len(self._vocabulary.ids))
        gain = self._emptied_gradient(places) @ self._vocabulary.rows.T
        present = self._tokens.gather(1, places)
        gain.scatter_(2, present[..., None], -math.inf)
        chosen = gain.topk(choices, dim=2).indices
        rows = self._tokens[:, None].repeat(1, 1 + count * choices, 1)
        where = places.repeat_interleave(choices, 1)[..., None]
        rows[:, 1:].scatter_(2, where, chosen.flatten(1)[..., None])
        return rows

    def _emptied_gradient(self, places: Tensor) -> Tensor:
        """(N, P, E): of the similarity, by what stands in a place, where that is nothing."""
        chains, count = places.shape
        tokens = self._tokens[:, None].expand(-1, count, -1)
        embeddings = self._vocabulary.rows[tokens]
        where = places[..., None, None].expand(-1, -1, 1, embeddings.shape[-1])
        embeddings.scatter_(2, where, self._vocabulary.mean.expand(where.shape))
        embeddings = embeddings.flatten(0, 1).requires_grad_()
        with torch.enable_grad():
            ids = self._vocabulary.ids[tokens.flatten(0, 1)]
            features = self._clip.embedded_features(ids, embeddings)
            # A sum, not a mean: a row's gradient is its own, however many there are.
            total = (features.view(chains, count, -1) * self._targets[:, None]).sum()
        (gradient,) = torch.autograd.grad(total, embeddings)
        return gradient.view(chains, count, *gradient.shape[1:]).gather(2, where)[:, :, 0]

    def _joined(self, seen: _Seen, places: Tensor) -> tuple[Tensor, Tensor]:
        """Several exchanges at once, as if their effects on the features were to add up.

        The best exchange comes first, then always the one that brings the sum nearest to the
        target; those of 2, 4, 8, ... are worth a look.

        Returns:
            (N, L, T) prompts, and (N, L) bool: those that promise to be better than one less.
        """
        choices = (seen.tokens.shape[1] - 1) // places.shape[1]
        where = places.repeat_interleave(choices, 1)
        effects = seen.features[:, 1:] - seen.features[:, :1]
        total, row = seen.features[:, 0], self._tokens
        nearness = seen.similarity[:, 0]
        free = torch.ones_like(where, dtype=torch.bool)
        going = torch.ones_like(nearness, dtype=torch.bool)
        joined, worthwhile = [], []
        for number in range(1, places.shape[1] + 1):
            sums = total[:, None] + effects
            cosine = (sums * self._targets[:, None]).sum(-1) / sums.norm(dim=-1).clamp(min=1e-6)
            value, index = cosine.masked_fill(~free, _NONE).max(1)
            going = going & (value > nearness)
            nearness = value
            total = _pick(sums, index)
            place = where.gather(1, index[:, None])
            token = _pick(seen.tokens[:, 1:], index).gather(1, place)
            row = row.scatter(1, place, token)
            free = free & (where != place)
            if number > 1 and (number & (number - 1) == 0 or number == places.shape[1]):
                joined.append(row)
                worthwhile.append(going)
        if not joined:
            return seen.tokens[:, :0], torch.zeros_like(where[:, :0], dtype=torch.bool)
        return torch.stack(joined, 1), torch.stack(worthwhile, 1)

    @torch.no_grad()
    def _evaluate(self, tokens: Tensor, which: Tensor | None = None) -> _Seen:
        """Features of (N, n, T) prompts; where ``which`` (N, n) is given, of those only."""
        if which is None:
            which = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        features = self._targets.new_zeros(*tokens.shape[:2], self._targets.shape[1])
        rows = tokens[which]
        if len(rows):
            features[which] = self._clip.embedded_features(
                self._vocabulary.ids[rows], self._vocabulary.rows[rows]
            )
        similarity = (features * self._targets[:, None]).sum(-1)
        return _Seen(tokens, features, similarity.masked_fill(~which, _NONE))

    def _keep_best(self, similarity: Tensor) -> None:
        similarity, chain = similarity.view(len(self.best), -1).max(1)
        better = similarity > self.best
        self.best = torch.where(better, similarity, self.best)
        tokens = _pick(self._tokens.view(len(self.best), -1, self._config.tokens), chain)
        self._best_tokens = torch.where(better[:, None], tokens, self._best_tokens)
        gained = self.best > self._mark + self._config.min_gain
        self._mark = torch.where(gained, self.best, self._mark)
        self._marked_at = torch.where(gained, self._step, self._marked_at)

    def _kick(self, stuck: Tensor, similarity: Tensor, draw: _Draw) -> None:
        """Go on from beside the better of a stuck prompt and the home of its chain."""
        better = stuck & (similarity > self._home_similarity)
        self._home = torch.where(better[:, None], self._tokens, self._home)
        self._home_similarity = torch.where(better, similarity, self._home_similarity)
        kicked = torch.where(draw.kicked, draw.tokens, self._home)
        self._tokens = torch.where(stuck[:, None], kicked, self._tokens)
        self._untouched = torch.where(stuck, 0, self._untouched)

    def _keep(self, mask: Tensor) -> None:
        """Go on with some of the pictures."""
        for name in ("_pictures", "_best_tokens", "best", "_mark", "_marked_at"):
            setattr(self, name, getattr(self, name)[mask])
        chains = mask.repeat_interleave(self._config.restarts)
        for name in ("_targets", "_tokens", "_untouched", "_home", "_home_similarity"):
            setattr(self, name, getattr(self, name)[chains])


class _Seen(NamedTuple):
    """What forward passes say of N chains' prompts."""

    tokens: Tensor  # (N, n, T)
    features: Tensor  # (N, n, D), of unit length
    similarity: Tensor  # (N, n); that of prompts that were not looked at is below every other

    def beside(self, other: _Seen) -> _Seen:
        """All prompts of both."""
        return _Seen(
            *(torch.cat([mine, its], dim=1) for mine, its in zip(self, other, strict=True))
        )


def _pick(values: Tensor, row: Tensor) -> Tensor:
    """One row of each chain or picture: (N, n, ...) and (N,) to (N, ...)."""
    return values[torch.arange(len(row), device=row.device), row]

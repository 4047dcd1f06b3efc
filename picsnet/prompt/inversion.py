"""Prompts by inversion: token ids whose CLIP features are near those of a picture.

The method is PEZ, "Hard Prompts Made Easy" (Wen et al., 2023, arXiv 2302.03668), with the settings
of the Text + Sketch paper. Continuous embeddings are optimised; each step projects them to the
nearest rows of the vocabulary, takes the gradient there, and applies it to the continuous ones.

PEZ by itself circles around good prompts and seldom stops at the best of its neighbours. So a few
more rows go through each step's forward and backward pass: the best prompt so far with one or two
tokens exchanged (`_Swaps`). They cost no passes of their own, and no picture of a batch sees
another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from picsnet.clip import Clip
from picsnet.errors import ConfigError, ModelError, PromptError

CHECK_EVERY = 20
"""Steps between looks at who has stopped improving; each look waits for the device."""

SINGLES = 1024
"""Swaps of one token that are tried around a prompt, by the gain that the gradient promises."""

PAIRS = 256
"""Swaps of two tokens that are tried when no single one helps."""

_NONE = -2.0  # below every cosine


@dataclass(frozen=True)
class InversionConfig:
    """How prompts are searched for.

    Attributes:
        tokens: length of a prompt.
        steps: at most; each is one forward and one backward pass of the text tower.
        lr, weight_decay: AdamW's.
        restarts: continuous prompts optimised side by side for each picture.
        swaps: further rows of each step, for exchanges of single tokens; 0 is PEZ alone.
        patience: steps without a gain of ``min_gain`` in similarity after which a picture is done.
        min_gain: see patience.
        seed: of the first prompts.

    Raises:
        ConfigError: a value that cannot work.
    """

    tokens: int = 16
    steps: int = 3000
    lr: float = 0.1
    weight_decay: float = 0.1
    restarts: int = 1
    swaps: int = 2
    patience: int = 1000
    min_gain: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"tokens": 1, "steps": 1, "restarts": 1, "patience": 1}
        for field in fields(self):
            value, whole = getattr(self, field.name), isinstance(field.default, int)
            low = least.get(field.name, 0)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                wrong = True
            else:
                wrong = (
                    not math.isfinite(value) or value < low or (field.name == "lr" and not value)
                )
            if wrong:
                kind = "whole number" if whole else "number"
                above = "above 0" if field.name == "lr" else f"from {low}"
                raise ConfigError(
                    f"inversion: {field.name} is {value!r}; it must be a {kind} {above}"
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
                f"{config.restarts} restarts and {config.swaps} swaps; use fewer, or another "
                "--device"
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
            if step % CHECK_EVERY and step != config.steps:
                continue
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
    units: Tensor  # (C, E) those, of unit length

    @classmethod
    def of(cls, clip: Clip) -> _Vocabulary:
        allowed = sorted(set(clip.vocabulary.values()) - clip.special_ids)
        if not allowed:
            raise PromptError("inversion: the CLIP model's vocabulary holds control tokens only")
        ids = torch.tensor(allowed, device=clip.device)
        rows = clip.embedding_table[ids]
        return cls(ids, rows, F.normalize(rows, dim=-1))

    def nearest(self, embeddings: Tensor) -> Tensor:
        """(...,) tokens by cosine, of (..., E)."""
        return (embeddings @ self.units.T).argmax(-1)


class _Evaluation(NamedTuple):
    """What one forward and backward pass says of B pictures' rows."""

    tokens: Tensor  # (B, n, T)
    features: Tensor  # (B, n, D), of unit length
    similarity: Tensor  # (B, n)
    gradient: Tensor  # (B, n, T, E), of the similarity by the embeddings


class _Search:
    """The pictures that are still searched for; the first axis of every tensor is theirs."""

    def __init__(
        self, clip: Clip, vocabulary: _Vocabulary, features: Tensor, config: InversionConfig
    ) -> None:
        self._clip, self._vocabulary, self._config = clip, vocabulary, config
        self._targets = features.to(clip.device, torch.float32)
        pictures, size = len(features), len(vocabulary.ids)
        first = torch.stack(
            [
                torch.from_numpy(
                    np.random.default_rng([config.seed, restart]).integers(size, size=config.tokens)
                )
                for restart in range(config.restarts)
            ]
        ).to(clip.device)
        self._prompts = vocabulary.rows[first].repeat(pictures, 1, 1, 1).requires_grad_()
        self._optimiser = torch.optim.AdamW(
            [self._prompts], lr=config.lr, weight_decay=config.weight_decay
        )
        self._swaps = _Swaps(vocabulary, self._targets, config) if config.swaps else None
        self._places = torch.arange(pictures, device=clip.device)
        self._best_tokens = first[:1].repeat(pictures, 1)
        self.best = torch.full((pictures,), _NONE, device=clip.device)
        self._mark = self.best.clone()
        self._marked_at = torch.zeros_like(self._places)
        self._step = 0

    def step(self) -> None:
        """One forward and one backward pass, and what follows from them."""
        self._step += 1
        rows = self._vocabulary.nearest(self._prompts.detach())
        if self._swaps is not None:
            rows = torch.cat([rows, self._swaps.propose()], dim=1)
        seen = self._evaluate(rows)
        self._prompts.grad = -seen.gradient[:, : self._config.restarts]
        self._optimiser.step()
        self._keep_best(seen)
        if self._swaps is not None:
            self._swaps.learn(seen)

    def take_finished(self, everything: bool) -> dict[int, Inversion]:
        """Results of the pictures that have stopped improving (or of all), which leave.

        Returns:
            By the picture's place in the batch.
        """
        finished = self._step - self._marked_at >= self._config.patience
        if everything:
            finished = torch.ones_like(finished)
        if not finished.any():
            return {}
        ids = self._vocabulary.ids[self._best_tokens[finished]].tolist()
        taken = zip(self._places[finished].tolist(), ids, self.best[finished].tolist(), strict=True)
        found = {place: Inversion(row, best, self._step) for place, row, best in taken}
        self._keep(~finished)
        return found

    def _evaluate(self, rows: Tensor) -> _Evaluation:
        pictures, count, tokens = rows.shape
        flat = rows.flatten(0, 1)
        embeddings = self._vocabulary.rows[flat].requires_grad_()
        with torch.enable_grad():
            features = self._clip.embedded_features(self._vocabulary.ids[flat], embeddings)
            features = features.view(pictures, count, -1)
            similarity = (features * self._targets[:, None]).sum(-1)
        # A sum, not a mean: a row's gradient is its own, however many there are.
        (gradient,) = torch.autograd.grad(similarity.sum(), embeddings)
        return _Evaluation(
            rows,
            features.detach(),
            similarity.detach(),
            gradient.view(pictures, count, tokens, -1),
        )

    def _keep_best(self, seen: _Evaluation) -> None:
        similarity, row = seen.similarity.max(1)
        better = similarity > self.best
        self.best = torch.where(better, similarity, self.best)
        tokens = _pick(seen.tokens, row)
        self._best_tokens = torch.where(better[:, None], tokens, self._best_tokens)
        gained = self.best > self._mark + self._config.min_gain
        self._mark = torch.where(gained, self.best, self._mark)
        self._marked_at = torch.where(gained, self._step, self._marked_at)

    def _keep(self, mask: Tensor) -> None:
        """Go on with some of the pictures."""
        for name in ("_targets", "_places", "_best_tokens", "best", "_mark", "_marked_at"):
            setattr(self, name, getattr(self, name)[mask])
        state = self._optimiser.state[self._prompts]
        self._prompts.data = self._prompts.data[mask]
        self._prompts.grad = None
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = state[name][mask]
        if self._swaps is not None:
            self._swaps.keep(mask)


class _Swaps:
    """Proposes exchanges of tokens around a prompt, the base, and moves it where they help.

    From a new base all `SINGLES` most promising exchanges of one token are tried in turn, by the
    gain that the gradient at the base promises (as HotFlip does, Ebrahimi et al., 2018). Near an
    optimum that promise is worth little, since an exchange is no small step; but the features that
    each one was seen to have are. If none helps, the `PAIRS` of them whose effects on the features
    together come nearest to the target are tried. If none of those helps either, PEZ's present
    prompt becomes the base.
    """

    def __init__(self, vocabulary: _Vocabulary, targets: Tensor, config: InversionConfig) -> None:
        self._vocabulary, self._targets = vocabulary, targets
        self._count, self._restarts = config.swaps, config.restarts
        pictures, device = len(targets), targets.device
        size = len(vocabulary.ids)
        self._singles = min(SINGLES, config.tokens * (size - 1))
        # A base at no similarity is none: the first step's best prompt replaces it.
        self._base = torch.zeros(pictures, config.tokens, dtype=torch.int64, device=device)
        self._similarity = torch.full((pictures,), _NONE, device=device)
        self._features = torch.zeros_like(targets)
        # Exchanges are numbered position * size + token; a single one is a pair of the same.
        moves = max(self._singles, PAIRS)
        self._moves = torch.zeros(pictures, moves, 2, dtype=torch.int64, device=device)
        self._measured = torch.zeros(pictures, moves + self._count, targets.shape[1], device=device)
        self._next = torch.zeros(pictures, dtype=torch.int64, device=device)
        self._length = torch.zeros_like(self._next)
        self._in_pairs = torch.zeros(pictures, dtype=torch.bool, device=device)

    def propose(self) -> Tensor:
        """(B, swaps, T) prompts to evaluate."""
        size = len(self._vocabulary.ids)
        places = self._upcoming().clamp(max=self._moves.shape[1] - 1)
        rows = self._base[:, None].repeat(1, self._count, 1)
        for move in self._moves.gather(1, places[..., None].expand(-1, -1, 2)).unbind(-1):
            rows.scatter_(2, (move // size)[..., None], (move % size)[..., None])
        return rows

    def learn(self, seen: _Evaluation) -> None:
        """Take note of what the proposed prompts, and PEZ's before them, have come to."""
        features = seen.features[:, self._restarts :]
        upcoming = self._upcoming()[..., None].expand_as(features)
        self._measured.scatter_(1, upcoming, features)
        self._next += self._count
        similarity = seen.similarity.clone()
        similarity[:, self._restarts :].masked_fill_((self._similarity == _NONE)[:, None], _NONE)
        best, row = similarity.max(1)
        better = best > self._similarity
        exhausted = ~better & (self._next >= self._length)
        if not (better | exhausted).any():
            return
        for picture in exhausted.nonzero()[:, 0].tolist():
            if self._in_pairs[picture] or self._base.shape[1] == 1:
                self._similarity[picture] = _NONE
            else:
                self._try_pairs(picture)
        if better.any():
            self._move(better, seen, row)

    def keep(self, mask: Tensor) -> None:
        """Go on with some of the pictures."""
        names = ("_targets", "_base", "_similarity", "_features", "_moves", "_measured")
        for name in (*names, "_next", "_length", "_in_pairs"):
            setattr(self, name, getattr(self, name)[mask])

    def _upcoming(self) -> Tensor:
        """(B, swaps) places in the list of moves."""
        return self._next[:, None] + torch.arange(self._count, device=self._next.device)

    def _move(self, which: Tensor, seen: _Evaluation, row: Tensor) -> None:
        """New bases for some pictures, and the exchanges to try from there."""
        row = row[which]
        base = _pick(seen.tokens[which], row)
        gradient = _pick(seen.gradient[which], row)
        self._base[which] = base
        self._similarity[which] = _pick(seen.similarity[which], row)
        self._features[which] = _pick(seen.features[which], row)
        gain = gradient @ self._vocabulary.rows.T
        gain -= gain.gather(2, base[..., None])
        gain.scatter_(2, base[..., None], -math.inf)
        moves = gain.flatten(1).topk(self._singles).indices
        self._moves[which, : self._singles] = moves[..., None]
        self._next[which] = 0
        self._length[which] = self._singles
        self._in_pairs[which] = False

    def _try_pairs(self, picture: int) -> None:
        """Line up the pairs of the measured exchanges, by the similarity that they should have."""
        base, target = self._features[picture], self._targets[picture]
        moves = self._moves[picture, : self._singles, 0]
        effect = self._measured[picture, : self._singles] - base
        # Cosine of (base + one effect + the other) and the target, for all pairs.
        towards = effect @ target
        dot = self._similarity[picture] + towards[:, None] + towards
        along = 2 * (effect @ base) + effect.square().sum(1)
        square = 1 + along[:, None] + along + 2 * effect @ effect.T
        cosine = dot / square.clamp(min=1e-6).sqrt()
        position = moves // len(self._vocabulary.ids)
        cosine[position[:, None] >= position] = -math.inf
        count = min(PAIRS, int((cosine > -math.inf).sum()))
        top = cosine.flatten().topk(count).indices
        pairs = torch.stack([moves[top // len(moves)], moves[top % len(moves)]], dim=1)
        self._moves[picture, :count] = pairs
        self._next[picture] = 0
        self._length[picture] = count
        self._in_pairs[picture] = True


def _pick(values: Tensor, row: Tensor) -> Tensor:
    """One row of each picture: (B, n, ...) and (B,) to (B, ...)."""
    return values[torch.arange(len(row), device=row.device), row]

"""Lossless coding of a prompt's token ids with a static prior (docs/format.md, "Prompt").

    ids -> natural: class after class, end; then each token within its class --+-> the cheaper one
     \\-> uniform: how many; then each id, all of the vocabulary alike ---------/

Natural captions are cheap by three habits: which classes of words follow each other, which words of
a class are frequent (``words.txt``), and that among other tokens those of a low merge rank are the
frequent ones. Anything else, such as prompts found by optimisation, goes the uniform way.

Sender and receiver build all tables from the decoder's vocabulary, in integers throughout, so no
rounding of floats can part them:

* A token belongs to the class that lists its text in words.txt, if it ends a word (``</w>``);
  else to `word` if it ends a word; else to `piece`.
* A class holds its listed tokens in the order of the list (what the vocabulary lacks is skipped),
  `word` and `piece` theirs by rising id with single characters last. The k-th (from 0) has the
  weight 2^32 div (k + b)^s; b and s are in `_CLASSES`.
* Weights w of K symbols become frequencies f = 1 + w (2^24 - K) div (sum of w), and the first
  symbol gets what the sum lacks to 2^24.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from picsnet.entropy import (
    TOTAL,
    FrequencyTables,
    InvalidStreamError,
    StreamDecoder,
    StreamEncoder,
    Table,
)
from picsnet.errors import PromptError

MAX_TOKENS = 75
"""What CLIP's 77 places leave between start and end."""
MAX_VOCABULARY = 2**16
END_OF_WORD = "</w>"


class _Class(NamedTuple):
    """A class's law: its k-th token has the weight 2^32 div (k + b)^s."""

    name: str
    b: int
    s: int


_CLASSES = (
    _Class("determiner", 1, 2),
    _Class("of", 1, 1),
    _Class("preposition", 3, 2),
    _Class("conjunction", 1, 2),
    _Class("verb", 1, 1),
    _Class("doing", 2, 1),
    _Class("adverb", 3, 2),
    _Class("measure", 3, 1),
    _Class("adjective", 4, 1),
    _Class("noun", 16, 1),
    _Class("punctuation", 1, 2),
    _Class("word", 4000, 1),
    _Class("piece", 2000, 1),
)
_WORD, _PIECE = 12, 13
_END = 0
"""Classes count from 1 in this order. 0 is the end of the prompt, and its start as what went
before."""

# Weights of what follows: the end, then the classes. A row for the start of the prompt, then one
# for each class. Counted on 215 captions and prompts for text-to-image models, smoothed, rounded;
# their words were counted whole, so the row and the column of pieces are a guess.
_FOLLOWERS = (
    (24, 439, 1, 3, 1, 1, 1, 1, 17, 19, 9, 1, 11, 3),  # start
    (2, 12, 1, 4, 1, 1, 10, 1, 49, 115, 266, 1, 41, 12),  # determiner
    (4, 302, 2, 5, 1, 1, 2, 1, 6, 31, 112, 2, 32, 10),  # of
    (3, 335, 4, 7, 1, 4, 3, 2, 33, 24, 74, 1, 18, 5),  # preposition
    (6, 155, 3, 15, 2, 73, 33, 8, 4, 53, 101, 4, 41, 12),  # conjunction
    (7, 85, 34, 77, 10, 25, 142, 1, 4, 30, 27, 4, 48, 14),  # verb
    (6, 91, 1, 272, 1, 1, 2, 16, 6, 9, 80, 9, 14, 4),  # doing
    (9, 34, 82, 178, 3, 36, 6, 2, 55, 43, 28, 17, 7, 2),  # adverb
    (51, 14, 281, 34, 8, 1, 9, 17, 14, 7, 16, 43, 8, 2),  # measure
    (13, 6, 6, 15, 9, 1, 1, 1, 38, 38, 319, 17, 38, 11),  # adjective
    (118, 7, 7, 96, 32, 23, 70, 8, 8, 2, 45, 69, 20, 6),  # noun
    (55, 37, 2, 4, 4, 1, 14, 35, 10, 152, 149, 2, 55, 16),  # punctuation
    (91, 24, 22, 106, 21, 13, 38, 5, 18, 12, 90, 46, 30, 9),  # word
    (10, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 311, 135),  # piece
)

# First symbol of a prompt: 0 for natural, 1 + n for n ids in the uniform way. In 1024ths. Any other
# count than 16 takes 7.7 bits: under 8, so that a byte is all that a prompt can cost beyond 16 bits
# an id. Inversion makes 16: those take 1.5 bits, and 32 bytes of a vocabulary of 49,408.
_INVERTED = 16
_HEAD = (281, *(368 if n == _INVERTED else 5 for n in range(MAX_TOKENS + 1)))


class TokenCoder:
    """Codes prompts in one vocabulary.

    A prompt never takes more than 16 bits an id plus one byte.

    Args:
        vocabulary: token to id, as CLIP's vocab.json has it: 0, 1, ... without gaps. Tokens at the
            end of a word end in ``</w>``; a vocabulary without such tokens works, and costs more.

    Attributes:
        size: how many tokens the vocabulary has, 1..65,536.

    Raises:
        PromptError: the vocabulary has gaps, is empty, or is too large.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self.size = len(vocabulary)
        tokens: list[str | None] = [None] * self.size
        for token, index in vocabulary.items():
            if 0 <= index < self.size:
                tokens[index] = token
        if not 1 <= self.size <= MAX_VOCABULARY or None in tokens:
            raise PromptError(
                f"a vocabulary of {self.size} tokens cannot be coded: there must be 1 to "
                f"{MAX_VOCABULARY}, their ids 0, 1, ... without gaps; use the tokenizer that came "
                "with the decoder"
            )
        members = _members([token for token in tokens if token is not None])
        # By class: ids; by id: its class, and its place there.
        self._ids = [np.array(ids, dtype=np.int32) for ids in members]
        self._class_of = np.zeros(self.size, dtype=np.int32)
        self._place_of = np.zeros(self.size, dtype=np.int32)
        for number, ids in enumerate(self._ids, start=1):
            self._class_of[ids] = number
            self._place_of[ids] = np.arange(len(ids))
        # A class without members is never sent; its table is there to keep the numbers.
        self._tokens = FrequencyTables.from_tables(
            [_zipf(max(1, len(ids)), law) for ids, law in zip(members, _CLASSES, strict=True)]
        )
        self._uniform = FrequencyTables.from_tables([_table(np.ones(self.size, dtype=np.int64))])

    def write(self, encoder: StreamEncoder, ids: Sequence[int]) -> None:
        """Add a prompt to a stream, which may hold other symbols before and after.

        Args:
            encoder: the stream.
            ids: 0..75 of them, without start, end or padding.

        Raises:
            PromptError: there are too many, or one is not the vocabulary's.
        """
        tokens = self._checked(ids)
        classes, contexts, places = self._natural(tokens)
        if self._prefers_natural(tokens, classes, contexts, places):
            _put(encoder, 0)
            encoder.encode(classes, contexts, _CLASS_TABLES)
            encoder.encode(places, classes[: len(tokens)] - 1, self._tokens)
        else:
            _put(encoder, 1 + len(tokens))
            encoder.encode(tokens, np.zeros_like(tokens), self._uniform)

    def read(self, decoder: StreamDecoder) -> list[int]:
        """The next prompt of a stream.

        Any bytes whatever give at most 75 ids of the vocabulary, or the error.

        Raises:
            InvalidStreamError: no encoder writes such a stream.
        """
        head = int(decoder.decode(np.zeros(1, np.int32), _HEAD_TABLE)[0])
        if head > 0:
            tokens = decoder.decode(np.zeros(head - 1, np.int32), self._uniform)
            return [int(token) for token in tokens]
        classes = _read_classes(decoder)
        if any(len(self._ids[number - 1]) == 0 for number in classes):
            raise InvalidStreamError("no token of the vocabulary is of this class")
        places = decoder.decode(np.array(classes, np.int32) - 1, self._tokens)
        return [
            int(self._ids[number - 1][place])
            for number, place in zip(classes, places.tolist(), strict=True)
        ]

    def encode(self, ids: Sequence[int]) -> bytes:
        """A stream with this prompt alone.

        Raises:
            PromptError: as `write`.
        """
        encoder = StreamEncoder()
        self.write(encoder, ids)
        return encoder.finish()

    def decode(self, data: bytes) -> list[int]:
        """The prompt of a stream with nothing else.

        Raises:
            InvalidStreamError: as `read`.
        """
        return self.read(StreamDecoder(data))

    def is_natural(self, ids: Sequence[int]) -> bool:
        """Whether a prompt goes the natural way and not the uniform one.

        Raises:
            PromptError: as `write`.
        """
        tokens = self._checked(ids)
        return self._prefers_natural(tokens, *self._natural(tokens))

    def _checked(self, ids: Sequence[int]) -> NDArray[np.int32]:
        numbers = [int(i) for i in ids]
        if len(numbers) > MAX_TOKENS:
            raise PromptError(
                f"a prompt of {len(numbers)} tokens is too long: at most {MAX_TOKENS}; shorten it"
            )
        for number in numbers:
            if not 0 <= number < self.size:
                raise PromptError(
                    f"token {number} of the prompt is not in the decoder's vocabulary of "
                    f"{self.size}; make the prompt with the decoder's own tokenizer"
                )
        return np.array(numbers, dtype=np.int32)

    def _natural(
        self, tokens: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """Classes with the end, their tables, and the tokens' places within their classes.

        Args:
            tokens: (n,).

        Returns:
            (m,), (m,), (n,), where m = min(n + 1, 75): after 75 tokens the end goes unsaid.
        """
        sent = min(len(tokens) + 1, MAX_TOKENS)
        chain = [_END, *self._class_of[tokens].tolist(), _END]
        steps = list(pairwise(chain))[:sent]
        classes = np.array([after for _, after in steps], dtype=np.int32)
        contexts = np.array([_row(i, step[0]) for i, step in enumerate(steps)], dtype=np.int32)
        return classes, contexts, self._place_of[tokens]

    def _prefers_natural(
        self,
        tokens: NDArray[np.int32],
        classes: NDArray[np.int32],
        contexts: NDArray[np.int32],
        places: NDArray[np.int32],
    ) -> bool:
        """Whether the natural way is cheaper, by a bit at least.

        Probabilities are compared as exact products of integers, so one prompt has the same bytes
        everywhere. The bit covers what the coder's own rounding can add over 150 symbols.
        """
        natural = [
            _HEAD_TABLE.freqs[0, 0],
            *_CLASS_TABLES.freqs[contexts, classes],
            *self._tokens.freqs[classes[: len(tokens)] - 1, places],
        ]
        uniform = [_HEAD_TABLE.freqs[0, 1 + len(tokens)], *self._uniform.freqs[0, tokens]]
        # Each factor is over 2^24: what the longer product has more of them goes to the other side.
        scale = 2 * TOTAL ** (len(natural) - len(uniform))
        return bool(math.prod(map(int, natural)) >= scale * math.prod(map(int, uniform)))


def listed_words() -> dict[str, list[str]]:
    """words.txt: words by class."""
    lists: dict[str, list[str]] = {}
    name = ""
    text = files("picsnet.prompt").joinpath("words.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
            lists[name] = []
        elif not line.startswith("# "):
            for word in line.split():
                lists[name].append(word)
    return lists


def _members(tokens: Sequence[str]) -> list[list[int]]:
    """Ids of each class in the order of the module's rule; `tokens` by id."""
    index = {token: i for i, token in enumerate(tokens)}
    lists = listed_words()
    members = [
        [index[word + END_OF_WORD] for word in lists[law.name] if word + END_OF_WORD in index]
        for law in _CLASSES[: _WORD - 1]
    ]
    listed = {i for ids in members for i in ids}
    rest = [i for i in range(len(tokens)) if i not in listed]
    rest.sort(key=lambda i: (len(tokens[i].removesuffix(END_OF_WORD)) == 1, i))
    words = [i for i in rest if tokens[i].endswith(END_OF_WORD)]
    pieces = [i for i in rest if not tokens[i].endswith(END_OF_WORD)]
    return [*members, words, pieces]


def _table(weights: NDArray[np.int64]) -> Table:
    """Frequencies that sum to 2^24, by the module's rule.

    Args:
        weights: (K,), positive, each below 2^39.
    """
    freqs = 1 + weights * (TOTAL - len(weights)) // int(weights.sum())
    freqs[0] += TOTAL - int(freqs.sum())
    return Table(0, freqs.astype(np.int32))


def _zipf(count: int, law: _Class) -> Table:
    places = np.arange(count, dtype=np.int64)
    return _table(2**32 // (places + law.b) ** law.s)


def _row(position: int, before: int) -> int:
    """The table of the class at a position, 0..74, after another class."""
    return position * len(_FOLLOWERS) + before


def _put(encoder: StreamEncoder, head: int) -> None:
    encoder.encode(np.array([head], np.int32), np.zeros(1, np.int32), _HEAD_TABLE)


def _read_classes(decoder: StreamDecoder) -> list[int]:
    """The classes of a natural prompt, without its end."""
    classes: list[int] = []
    before = _END
    while len(classes) < MAX_TOKENS:
        row = np.array([_row(len(classes), before)], dtype=np.int32)
        before = int(decoder.decode(row, _CLASS_TABLES)[0])
        if before == _END:
            break
        classes.append(before)
    return classes


_HEAD_TABLE = FrequencyTables.from_tables([_table(np.array(_HEAD, dtype=np.int64))])

# The same tables for each position: a stream takes the symbols of one call by rising table, so with
# a row for each position they stay in order, and the whole chain is one call.
_CLASS_TABLES = FrequencyTables.from_tables(
    [_table(np.array(row, dtype=np.int64)) for row in _FOLLOWERS] * MAX_TOKENS
)

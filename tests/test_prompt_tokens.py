"""The token coder: ids come back whatever they are, in the bytes that docs/format.md promises."""

from __future__ import annotations

import hashlib
import json
import zlib
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picsnet.entropy import FrequencyTables, InvalidStreamError, StreamDecoder, StreamEncoder, Table
from picsnet.errors import PromptError
from picsnet.prompt import tokens as tokens_module
from picsnet.prompt.tokens import MAX_TOKENS, TokenCoder
from tests.miniatures import save_tokenizer

CLIP_SIZE = 49408

# Ids of CLIP's own vocabulary.
KNOWN = {
    "the": 518,
    "on": 525,
    "of": 539,
    "an": 550,
    "photo": 1125,
    "black": 1449,
    "dog": 1929,
    "cat": 2368,
    "horse": 4558,
    "riding": 6765,
    "mars": 7496,
    "astronaut": 18376,
}


def word_lists() -> dict[str, list[str]]:
    """words.txt by class, read without the library's own reader."""
    text = files("picsnet.prompt").joinpath("words.txt").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("# "))
    parts = body.replace("[", "]").split("]")[1:]
    return dict(zip(parts[::2], (part.split() for part in parts[1::2]), strict=True))


@cache
def clip_like(size: int = CLIP_SIZE) -> dict[str, int]:
    """A vocabulary in CLIP's order, with every listed word, and made-up words and pieces."""
    characters = [chr(33 + i) for i in range(256)]
    tokens = characters + [c + "</w>" for c in characters]
    words = [w for ws in word_lists().values() for w in ws if len(w) > 1]
    rest = size - 2 - len(tokens) - len(words)
    made_up = [f"x{i}" if i % 3 == 0 else f"x{i}</w>" for i in range(rest)]
    # The listed words stand spread among the others, so that their ids are not in the list's order.
    tokens += sorted([w + "</w>" for w in words] + made_up, key=lambda t: zlib.crc32(t.encode()))
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    for word, place in KNOWN.items():
        if place < size:
            now = tokens.index(word + "</w>")
            tokens[now], tokens[place] = tokens[place], tokens[now]
    return {token: i for i, token in enumerate(tokens)}


def numbered(size: int, end: str = "</w>") -> dict[str, int]:
    return {f"token{i}{end}": i for i in range(size)}


def ids_of(text: str, vocabulary: dict[str, int]) -> list[int]:
    """Words that are single tokens."""
    return [vocabulary[word + "</w>"] for word in text.split()]


CLIP = TokenCoder(clip_like())
CODERS = {
    "clip": CLIP,
    "largest": TokenCoder(clip_like(65536)),
    "numbered": TokenCoder(numbered(65281)),
    "no words": TokenCoder(numbered(1000, end="")),
    "two": TokenCoder({"a</w>": 0, "of</w>": 1}),
    "one": TokenCoder({"a</w>": 0}),
}

CAPTIONS = [
    "a photo of a cat",
    "the black dog",
    "a photo of an astronaut riding a horse on mars",
    "two people standing next to a red train in the snow , high quality",
]


@st.composite
def prompts(draw: st.DrawFn) -> tuple[TokenCoder, list[int]]:
    coder = CODERS[draw(st.sampled_from(sorted(CODERS)))]
    # Whole captions with odd ids in them, besides odd ids alone.
    parts = draw(st.lists(st.integers(0, coder.size - 1), max_size=MAX_TOKENS))
    if coder is CLIP and draw(st.booleans()):
        parts = ids_of(draw(st.sampled_from(CAPTIONS)), clip_like()) + parts
    return coder, parts[:MAX_TOKENS]


@settings(max_examples=200, deadline=None)
@given(prompts())
def test_ids_come_back_in_two_bytes_each_and_one(prompt: tuple[TokenCoder, list[int]]) -> None:
    coder, ids = prompt
    data = coder.encode(ids)
    assert coder.decode(data) == ids
    assert len(data) <= 2 * len(ids) + 1


@pytest.mark.parametrize("size", [CLIP_SIZE, 65000, 65280, 65281, 65536])
def test_no_length_exceeds_plain_packing_by_more_than_a_byte(size: int) -> None:
    """Nor behind symbols that fill a byte, which put the coder's range where it rounds most."""
    coder = TokenCoder(clip_like(size))
    byte = FrequencyTables.from_tables([Table(0, np.full(256, 2**16, np.int32))])
    rng = np.random.default_rng(size)
    for length in range(MAX_TOKENS + 1):
        ids = rng.integers(0, size, length).tolist()
        encoder = StreamEncoder()
        encoder.encode(rng.integers(0, 256, 1).astype(np.int32), np.zeros(1, np.int32), byte)
        coder.write(encoder, ids)
        assert len(encoder.finish()) <= 2 * length + 2
        assert len(coder.encode(ids)) <= 2 * length + 1


@pytest.mark.parametrize("name", ["clip", "largest"])
def test_prompts_between_the_two_ways_do_not_exceed_it_either(name: str) -> None:
    """Captions that are spoiled token by token: somewhere the cheaper way changes."""
    coder, vocabulary = CODERS[name], clip_like(CODERS[name].size)
    rng = np.random.default_rng(0)
    caption = ids_of(" , ".join(CAPTIONS), vocabulary)
    ways = []
    for _ in range(4):
        ids = list(caption)
        for place in rng.permutation(len(ids)):
            ids[place] = int(rng.integers(coder.size))
            data = coder.encode(ids)
            assert coder.decode(data) == ids
            assert len(data) <= 2 * len(ids) + 1
            ways.append(coder.is_natural(ids))
    assert 0.1 < np.mean(ways) < 0.9


def test_thousands_of_prompts_come_back() -> None:
    rng = np.random.default_rng(1)
    lists = [ids_of(" ".join(ws), clip_like()) for ws in word_lists().values()]
    for length in rng.integers(5, 26, 1000):
        classes = rng.choice(len(lists), length)
        ids = [lists[c][min(int(rng.geometric(0.1)), len(lists[c])) - 1] for c in classes]
        assert CLIP.decode(CLIP.encode(ids)) == ids
    for _ in range(1000):
        ids = rng.integers(0, CLIP.size, 16).tolist()
        assert CLIP.decode(CLIP.encode(ids)) == ids


def test_an_inverted_prompt_takes_32_bytes() -> None:
    """Sixteen ids over CLIP's vocabulary; also behind the five bits of one of 4 candidates."""
    bits = FrequencyTables.from_tables([Table(0, np.full(32, 2**19, np.int32))])
    rng = np.random.default_rng(2)
    for _ in range(300):
        ids = rng.integers(0, CLIP.size, 16).tolist()
        assert not CLIP.is_natural(ids)
        encoder = StreamEncoder()
        encoder.encode(rng.integers(0, 32, 1).astype(np.int32), np.zeros(1, np.int32), bits)
        CLIP.write(encoder, ids)
        assert len(encoder.finish()) <= 32
        assert len(CLIP.encode(ids)) <= 32


@pytest.mark.parametrize(("caption", "most"), zip(CAPTIONS, (5, 4, 10, 16), strict=True))
def test_captions_are_cheap(caption: str, most: int) -> None:
    ids = ids_of(caption, clip_like())
    assert CLIP.is_natural(ids)
    assert len(CLIP.encode(ids)) <= most < len(ids) + 3


def test_order_and_rank_matter() -> None:
    """Each habit of the prior pays: the class before, the list's order, words above pieces."""
    vocabulary = clip_like()

    def cost(*tokens: str) -> int:
        return len(CLIP.encode([vocabulary[token + "</w>"] for token in tokens] * 12))

    assert cost("a", "cat", "on") < cost("cat", "a", "on")
    assert cost("man", "on") < cost("booth", "on")
    made_up = {t: i for t, i in vocabulary.items() if t[0] == "x" and t[1:2].isdecimal()}
    words = [i for t, i in made_up.items() if t.endswith("</w>")]
    pieces = [i for t, i in made_up.items() if not t.endswith("</w>")]
    a, on = ids_of("a on", vocabulary)
    low, high, piece = (
        len(CLIP.encode([a, token, on] * 15)) for token in (words[0], words[-1], pieces[0])
    )
    assert low < high and low < piece


def test_no_prompt_is_no_bytes() -> None:
    for coder in CODERS.values():
        assert coder.encode([]) == b""
        assert coder.decode(b"") == []


def test_ids_of_any_integer_type() -> None:
    ids = np.array([5, 0, 7], dtype=np.uint16)
    decoded = CLIP.decode(CLIP.encode(ids))  # type: ignore[arg-type]
    assert decoded == [5, 0, 7]
    assert all(type(i) is int for i in decoded)


@settings(deadline=None)
@given(st.integers(-9, 9), prompts(), prompts(), st.integers(-9, 9))
def test_a_stream_holds_other_symbols_before_and_after(
    first: int, one: tuple[TokenCoder, list[int]], two: tuple[TokenCoder, list[int]], last: int
) -> None:
    table = FrequencyTables.from_tables([Table(-9, _flat(19))])
    index = np.zeros(1, np.int32)
    encoder = StreamEncoder()
    encoder.encode(np.array([first], np.int32), index, table)
    for coder, ids in (one, two):
        coder.write(encoder, ids)
    encoder.encode(np.array([last], np.int32), index, table)
    decoder = StreamDecoder(encoder.finish())
    assert decoder.decode(index, table) == [first]
    for coder, ids in (one, two):
        assert coder.read(decoder) == ids
    assert decoder.decode(index, table) == [last]


def _flat(size: int) -> np.ndarray:
    freqs = np.full(size, 2**24 // size, np.int32)
    freqs[0] += 2**24 - freqs.sum()
    return freqs


def test_a_prompt_that_its_text_would_lose(tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    folder = save_tokenizer(tmp_path / "tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    pieces = [vocabulary[token] for token in ("c", "a", "t</w>", "do", "g</w>")]
    text = tokenizer.decode(pieces)
    assert tokenizer(text, add_special_tokens=False).input_ids != pieces
    coder = TokenCoder(vocabulary)
    assert coder.decode(coder.encode(pieces)) == pieces


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CODERS)), st.binary(max_size=200))
def test_any_bytes_end_in_ids_or_the_error(name: str, data: bytes) -> None:
    coder = CODERS[name]
    try:
        ids = coder.decode(data)
    except InvalidStreamError:
        return
    assert len(ids) <= MAX_TOKENS
    assert all(0 <= i < coder.size for i in ids)
    assert coder.decode(coder.encode(ids)) == ids


def test_cut_streams_do_no_harm() -> None:
    rng = np.random.default_rng(3)
    natural = ids_of(CAPTIONS[2], clip_like())
    for ids in (natural, rng.integers(0, CLIP.size, 75).tolist()):
        data = CLIP.encode(ids)
        for length in range(len(data)):
            try:
                decoded = CLIP.decode(data[:length])
            except InvalidStreamError:
                continue
            assert decoded != ids and all(0 <= i < CLIP.size for i in decoded)


def test_a_class_without_tokens_is_refused() -> None:
    """A stream for a vocabulary with determiners, read with one that has none."""
    data = CLIP.encode(ids_of(CAPTIONS[0], clip_like()))
    with pytest.raises(InvalidStreamError, match="class"):
        CODERS["no words"].decode(data)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0] * 76, "76 tokens is too long: at most 75"),
        ([3, CLIP_SIZE], "token 49408 .* vocabulary of 49408"),
        ([-1], "token -1 "),
    ],
)
def test_prompts_that_cannot_be_sent(ids: list[int], message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        CLIP.encode(ids)
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


@pytest.mark.parametrize(
    "vocabulary",
    [{}, {"a": 1}, {"a": 0, "b": 0}, {"a": 0, "b": 2}, {"a": -1, "b": 0}, numbered(65537)],
    ids=["empty", "from 1", "twice", "gap", "negative", "too large"],
)
def test_vocabularies_that_cannot_be_coded(vocabulary: dict[str, int]) -> None:
    with pytest.raises(PromptError, match=f"vocabulary of {len(vocabulary)} tokens") as caught:
        TokenCoder(vocabulary)
    assert "\n" not in str(caught.value)


def test_words_are_listed_once_and_as_tokenizers_cut_them() -> None:
    lists = word_lists()
    words = [word for ws in lists.values() for word in ws]
    assert len(set(words)) == len(words)
    assert list(lists) == [law.name for law in tokens_module._CLASSES[:-2]]
    for word in words:
        assert word.isascii() and word == word.lower()
        # CLIP's tokenizer takes letters together, digits one by one.
        assert word.isalpha() or len(word) == 1 or word in ("'s", "'t"), word


class ReferenceDecoder:
    """docs/format.md in plain integers: the stream's decoder, and the tables from the words."""

    def __init__(self, vocabulary: dict[str, int], data: bytes) -> None:
        lists = word_lists()
        token_of = {i: token for token, i in vocabulary.items()}
        listed = [
            [vocabulary[word + "</w>"] for word in words if word + "</w>" in vocabulary]
            for words in lists.values()
        ]
        rest = sorted(set(token_of) - {i for ids in listed for i in ids})
        rest.sort(key=lambda i: len(token_of[i].replace("</w>", "")) == 1)
        words = [i for i in rest if token_of[i].endswith("</w>")]
        self.members = [*listed, words, [i for i in rest if i not in set(words)]]
        self.size = len(vocabulary)
        self.lower, self.span, self.data, self.position = 0, 2**64 - 1, data + bytes(1000), 8
        self.point = int.from_bytes(self.data[:8], "big")

    def prompt(self) -> list[int]:
        head = self.symbol(self.frequencies([281, *([5] * 16), 368, *([5] * 59)]))
        if head > 0:
            freqs = self.frequencies([1] * self.size)
            return [self.symbol(freqs) for _ in range(head - 1)]
        classes: list[int] = []
        while len(classes) < 75:
            row = tokens_module._FOLLOWERS[classes[-1] if classes else 0]
            follower = self.symbol(self.frequencies(list(row)))
            if follower == 0:
                break
            classes.append(follower)
        ids = [0] * len(classes)
        for number, (_, b, s) in enumerate(tokens_module._CLASSES, start=1):
            members = self.members[number - 1]
            freqs = self.frequencies([2**32 // (k + b) ** s for k in range(len(members))])
            for place in (i for i, c in enumerate(classes) if c == number):
                ids[place] = members[self.symbol(freqs)]
        return ids

    @staticmethod
    def frequencies(weights: list[int]) -> list[int]:
        total = sum(weights)
        freqs = [1 + w * (2**24 - len(weights)) // total for w in weights]
        return [freqs[0] + 2**24 - sum(freqs), *freqs[1:]] if freqs else []

    def symbol(self, freqs: list[int]) -> int:
        if len(freqs) == 1:
            return 0
        scale = self.span >> 24
        quantile = (self.point - self.lower) % 2**64 // scale
        symbol = cumulative = 0
        while quantile >= cumulative + freqs[symbol]:
            cumulative, symbol = cumulative + freqs[symbol], symbol + 1
        self.lower = (self.lower + scale * cumulative) % 2**64
        self.span = scale * freqs[symbol]
        while self.span < 2**32:
            self.lower, self.span = (self.lower << 32) % 2**64, self.span << 32
            word = int.from_bytes(self.data[self.position : self.position + 4], "big")
            self.point, self.position = (self.point << 32 | word) % 2**64, self.position + 4
        return symbol


def test_the_documented_decoder_reads_our_streams() -> None:
    vocabulary, rng = clip_like(4000), np.random.default_rng(4)
    coder = TokenCoder(vocabulary)
    sent = [ids_of(caption, vocabulary) for caption in CAPTIONS]
    sent += [rng.integers(0, 4000, n).tolist() for n in (0, 1, 16, 75)]
    sent += [ids_of("a cat of", vocabulary) * 25, [*ids_of("a x1 on", vocabulary), 700, 5, 300]]
    ways = set()
    for ids in sent:
        ways.add(coder.is_natural(ids))
        assert ReferenceDecoder(vocabulary, coder.encode(ids)).prompt() == ids
    assert ways == {True, False}


def test_golden_streams() -> None:
    """These bytes are a promise: files in the world hold such streams."""
    for caption, (ids, expected) in GOLDEN.items():
        assert ids_of(caption, clip_like()) == ids
        assert CLIP.encode(ids).hex() == expected
        assert CLIP.decode(bytes.fromhex(expected)) == ids
    assert not CLIP.is_natural(INVERTED)
    assert CLIP.encode(INVERTED).hex() == GOLDEN_INVERTED


def test_golden_tables() -> None:
    """A change of any table is a new version of the format."""
    digest = hashlib.sha256()
    ours = (CLIP._tokens, CLIP._uniform, tokens_module._CLASS_TABLES, tokens_module._HEAD_TABLE)
    for tables in ours:
        digest.update(tables.freqs.astype("<i4").tobytes())
    assert digest.hexdigest() == GOLDEN_TABLES


GOLDEN = {
    "a photo of a cat": ([320, 1125, 539, 320, 2368], "0839c2"),
    "the black dog": ([518, 1449, 1929], "10ae90"),
    "a photo of an astronaut riding a horse on mars": (
        [320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496],
        "08bb8e97951db70a",
    ),
}
INVERTED = [31337, 49405, 7, 12345, 30000, 40001, 18377, 3, 255, 256, 511, 512, 2222, 44444, 9, 1]
GOLDEN_INVERTED = "94a8afa1d42a5281c38f67e9ae5ac61ab48de710ecb2e7fa2b1067204af461a5"
GOLDEN_TABLES = "e1d41088e1e0ac6fccc24f03d60576904939fc92693750d5f3e2555fc2698166"

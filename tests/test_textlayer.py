"""The text layer's body."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picsnet.bitstream import PicsFile, SketchLayer, layer_bytes, overhead_bytes, read, write
from picsnet.errors import CorruptStreamError, PicsnetError, TruncatedFileError, UsageError
from picsnet.prompt.tokens import MAX_TOKENS, TokenCoder
from picsnet.textlayer import (
    TextHead,
    TextLayer,
    candidate_bits,
    read_head,
    read_text,
    write_text,
)

VOCABULARY = 49408
CODER = TokenCoder({f"token{i}</w>": i for i in range(VOCABULARY)})


@st.composite
def layers(draw: st.DrawFn) -> TextLayer:
    bits = draw(st.integers(0, 5))
    head = TextHead(
        decoder=draw(st.integers(0, 4095)),
        size=64 * draw(st.integers(1, 16)),
        candidate_bits=bits,
        candidate=draw(st.integers(0, 2**bits - 1)),
    )
    return TextLayer(head, draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=MAX_TOKENS)))


@settings(deadline=None)
@given(layers())
def test_what_is_written_is_read(layer: TextLayer) -> None:
    body = write_text(layer, CODER)
    assert read_text(body, CODER) == layer
    assert read_head(body) == layer.head


@settings(deadline=None)
@given(layers(), st.integers(16, 8192), st.integers(16, 8192), st.binary(max_size=200))
def test_a_pics_file_spends_16_bytes_beside_its_payloads(
    layer: TextLayer, width: int, height: int, stream: bytes
) -> None:
    text = write_text(layer, CODER)
    data = write(PicsFile(width, height, text, SketchLayer(b"abc", stream)))
    assert read(data).text == text
    assert overhead_bytes(layer_bytes(data)) <= 16


def test_a_candidate_costs_less_than_a_byte() -> None:
    def total(bits: int) -> int:
        head = TextHead(5, 512, bits, (1 << bits) - 1)
        rng = np.random.default_rng(0)
        rows = [rng.integers(0, VOCABULARY, n % 40).tolist() for n in range(120)]
        return sum(len(write_text(TextLayer(head, ids), CODER)) for ids in rows)

    # On the mean over lengths: the end of a single stream is cut to whole bytes.
    for bits in range(1, 6):
        assert total(bits) - total(0) <= 120


@pytest.mark.parametrize("candidates", range(1, 33))
def test_a_candidate_takes_the_bits_that_name_it(candidates: int) -> None:
    assert candidate_bits(candidates) == math.ceil(math.log2(candidates))


@pytest.mark.parametrize("candidates", [0, 33, -1])
def test_candidates_have_limits(candidates: int) -> None:
    with pytest.raises(UsageError, match="1 to 32"):
        candidate_bits(candidates)


def test_a_short_body_is_refused() -> None:
    for body in (b"", b"\x70"):
        with pytest.raises(TruncatedFileError):
            read_head(body)


@settings(deadline=None)
@given(st.binary(min_size=2, max_size=60))
def test_any_bytes_end_in_a_layer_or_an_error(body: bytes) -> None:
    try:
        layer = read_text(body, CODER)
    except PicsnetError as error:
        assert isinstance(error, CorruptStreamError)
    else:
        assert all(0 <= i < VOCABULARY for i in layer.ids)
        assert layer.head.candidate < 2**layer.head.candidate_bits


def test_golden_body() -> None:
    layer = TextLayer(TextHead(0xABC, 512, 2, 3), [320, 1125, 539])
    assert write_text(layer, CODER)[:2].hex() == "7abc"

"""The entropy coder: what goes in comes out, in the bytes that docs/format.md promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from picsnet.entropy import (
    TOTAL,
    FrequencyTables,
    InvalidStreamError,
    StreamDecoder,
    StreamEncoder,
    Table,
    quantise_pmf,
)

Message = tuple[FrequencyTables, NDArray[np.int32], NDArray[np.int32]]


def message(seed: int, tables: int, length: int) -> Message:
    """Random tables, from flat to nearly certain, and symbols drawn from them."""
    rng = np.random.default_rng(seed)
    made = FrequencyTables.from_tables(
        [
            Table(
                int(rng.integers(-9, 9)),
                quantise_pmf(rng.random(int(rng.integers(1, 40))) ** float(rng.integers(1, 60))),
            )
            for _ in range(tables)
        ]
    )
    indexes = rng.integers(0, tables, length).astype(np.int32)
    symbols = np.zeros(length, dtype=np.int32)
    for place, index in enumerate(indexes):
        size = made.lengths[index]
        drawn = rng.choice(size, p=made.freqs[index, :size] / TOTAL)
        symbols[place] = made.offsets[index] + drawn
    return made, indexes, symbols


def encode(*messages: Message) -> bytes:
    encoder = StreamEncoder()
    for tables, indexes, symbols in messages:
        encoder.encode(symbols, indexes, tables)
    return encoder.finish()


def ideal_bytes(*messages: Message) -> float:
    return (
        sum(
            float(np.sum(24 - np.log2(tables.freqs[indexes, symbols - tables.offsets[indexes]])))
            for tables, indexes, symbols in messages
        )
        / 8
    )


messages = st.builds(message, st.integers(0, 2**32), st.integers(1, 12), st.integers(0, 150))


@settings(max_examples=150, deadline=None)
@given(first=messages, second=messages)
def test_round_trip_within_a_byte_of_the_ideal(first: Message, second: Message) -> None:
    data = encode(first, second)
    decoder = StreamDecoder(data)
    for tables, indexes, symbols in (first, second):
        assert np.array_equal(decoder.decode(indexes, tables), symbols)
    assert len(data) <= ideal_bytes(first, second) + 1
    assert not data.endswith(b"\0")


def reference_decode(data: bytes, tables: FrequencyTables, indexes: NDArray[np.int32]) -> list[int]:
    """The decoder of docs/format.md, in plain integers."""
    mask, position = 2**64 - 1, 8
    padded = data + bytes(16 + 4 * len(indexes))
    point = int.from_bytes(padded[:8], "big")
    lower, span = 0, mask
    symbols = [0] * len(indexes)
    for place in np.argsort(indexes, kind="stable").tolist():
        index = int(indexes[place])
        frequencies = tables.freqs[index, : tables.lengths[index]].tolist()
        if len(frequencies) == 1:
            symbols[place] = int(tables.offsets[index])
            continue
        scale = span >> 24
        quantile = ((point - lower) & mask) // scale
        cumulative = symbol = 0
        while quantile >= cumulative + frequencies[symbol]:
            cumulative += frequencies[symbol]
            symbol += 1
        lower = (lower + scale * cumulative) & mask
        span = scale * frequencies[symbol]
        while span < 2**32:
            lower, span = (lower << 32) & mask, span << 32
            word = int.from_bytes(padded[position : position + 4], "big")
            point, position = (point << 32 | word) & mask, position + 4
        symbols[place] = symbol + int(tables.offsets[index])
    return symbols


@settings(max_examples=100, deadline=None)
@given(sent=messages)
def test_the_documented_decoder_reads_our_streams(sent: Message) -> None:
    """Also proves that the library codes with our integers and not with floats near them."""
    tables, indexes, symbols = sent
    assert reference_decode(encode(sent), tables, indexes) == symbols.tolist()


@settings(max_examples=150, deadline=None)
@given(sent=messages, data=st.binary(max_size=80))
def test_any_bytes_give_symbols_of_the_tables_or_an_error(sent: Message, data: bytes) -> None:
    tables, indexes, _ = sent
    try:
        symbols = StreamDecoder(data).decode(indexes, tables)
    except InvalidStreamError:
        return
    places = symbols - tables.offsets[indexes]
    assert ((places >= 0) & (places < tables.lengths[indexes])).all()


@settings(max_examples=60, deadline=None)
@given(sent=messages, cut=st.integers(0, 100))
def test_cut_streams_do_no_harm(sent: Message, cut: int) -> None:
    tables, indexes, symbols = sent
    data = encode(sent)
    try:
        decoded = StreamDecoder(data[: cut % (len(data) + 1)]).decode(indexes, tables)
    except InvalidStreamError:
        return
    assert decoded.shape == symbols.shape


def test_golden_stream() -> None:
    """These bytes are a promise: files in the world hold such streams."""
    tables = FrequencyTables.from_tables(
        [
            Table(-1, np.array([2**22, 2**23, 2**22], np.int32)),
            Table(0, np.array([2**24 - 3, 1, 1, 1], np.int32)),
            Table(7, np.array([2**24], np.int32)),
        ]
    )
    indexes = np.array([0, 1, 2, 0, 1, 0, 0, 0, 1, 2], np.int32)
    symbols = np.array([-1, 0, 7, 1, 0, 0, 0, -1, 2, 7], np.int32)
    data = encode((tables, indexes, symbols))
    assert data.hex() == GOLDEN
    assert StreamDecoder(data).decode(indexes, tables).tolist() == symbols.tolist()


GOLDEN = "36fffff8"


def test_certain_symbols_cost_nothing() -> None:
    tables = FrequencyTables.from_tables([Table(5, quantise_pmf(np.ones(1)))])
    indexes = np.zeros(1000, np.int32)
    assert encode((tables, indexes, np.full(1000, 5, np.int32))) == b""
    assert StreamDecoder(b"").decode(indexes, tables).tolist() == [5] * 1000


def test_nearly_certain_symbols_cost_next_to_nothing() -> None:
    tables = FrequencyTables.from_tables([Table(0, np.array([2**24 - 1, 1], np.int32))])
    indexes = np.zeros(20_000, np.int32)
    assert len(encode((tables, indexes, np.zeros(20_000, np.int32)))) <= 1


@given(
    pmf=st.lists(st.floats(0, 1), min_size=1, max_size=300).filter(lambda values: sum(values) > 0)
)
def test_quantised_probabilities_sum_and_stay_close(pmf: list[float]) -> None:
    exact = np.array(pmf) / np.sum(pmf)
    frequencies = quantise_pmf(np.array(pmf))
    assert frequencies.sum() == TOTAL
    assert frequencies.min() >= 1
    assert np.abs(frequencies / TOTAL - exact).max() <= (len(pmf) + 1) / TOTAL


@pytest.mark.parametrize("pmf", [[], [0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0], [np.inf]])
def test_what_is_no_probability_vector_is_refused(pmf: list[float]) -> None:
    with pytest.raises(ValueError, match="probability vector"):
        quantise_pmf(np.array(pmf))


def test_tables_survive_storage_and_wrong_ones_are_refused() -> None:
    tables = message(1, 5, 0)[0]
    again = FrequencyTables.from_arrays(tables.to_arrays())
    assert np.array_equal(again.freqs, tables.freqs)
    for field, change in (("freqs", 1), ("lengths", 1000), ("lengths", -1000)):
        arrays = {key: value.copy() for key, value in tables.to_arrays().items()}
        arrays[field].flat[0] += change
        with pytest.raises(ValueError, match="coding tables"):
            FrequencyTables.from_arrays(arrays)
    with pytest.raises(ValueError, match="missing"):
        FrequencyTables.from_arrays({"freqs": tables.freqs})


def test_symbols_outside_their_table_are_refused() -> None:
    tables = FrequencyTables.from_tables([Table(0, quantise_pmf(np.ones(3)))])
    for symbol in (-1, 3):
        with pytest.raises(ValueError, match="outside its coding table"):
            encode((tables, np.zeros(1, np.int32), np.array([symbol], np.int32)))

"""Integer coding tables, and one range-coded stream for all symbols of a picture.

The coder is constriction's range coder (a maintained Rust library that never reads outside its
input): 32-bit words, 64-bit state, probabilities in units of 2**-24.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

PRECISION = 24
TOTAL = 2**PRECISION


class InvalidStreamError(ValueError):
    """Bytes that no encoder with these tables writes."""


_Model = constriction.stream.model.Categorical


def quantise_pmf(pmf: NDArray[np.float64]) -> NDArray[np.int32]:
    """Integer frequencies that sum to 2**24, each at least 1, close to a probability vector.

    Largest remainders get what rounding down leaves over. Used only when a model is exported; from
    then on the integers are the model.

    Args:
        pmf: (K,), non-negative, not all zero; normalised here.

    Raises:
        ValueError: not a probability vector.
    """
    pmf = np.asarray(pmf, dtype=np.float64)
    total = float(pmf.sum())
    if pmf.ndim != 1 or not 1 <= len(pmf) <= TOTAL // 2 or not np.isfinite(total) or total <= 0:
        raise ValueError("a probability vector needs entries, finite and not all zero")
    if (pmf < 0).any():
        raise ValueError("a probability vector has no negative entries")
    # One unit each is set aside, so that every symbol can be coded.
    shares = pmf / total * (TOTAL - len(pmf))
    floors = np.floor(shares).astype(np.int64)
    left = TOTAL - len(pmf) - int(floors.sum())
    order = np.argsort(-(shares - floors), kind="stable")
    floors[order[:left]] += 1
    frequencies: NDArray[np.int32] = (floors + 1).astype(np.int32)
    return frequencies


@dataclass(frozen=True)
class Table:
    """Frequencies of the symbols offset, offset + 1, ..., in units of 2**-24."""

    offset: int
    freqs: NDArray[np.int32]


class FrequencyTables:
    """Coding tables by index.

    Attributes:
        freqs: (T, K) int32, zero beyond a table's length.
        offsets: (T,) int32, lowest symbol of each table.
        lengths: (T,) int32, how many symbols each table has.

    Raises:
        ValueError: the arrays are not tables: wrong shapes, a frequency below 1, a sum that is not
            2**24.
    """

    def __init__(
        self, freqs: NDArray[np.int32], offsets: NDArray[np.int32], lengths: NDArray[np.int32]
    ) -> None:
        if freqs.ndim != 2 or offsets.shape != lengths.shape or offsets.shape != freqs.shape[:1]:
            raise ValueError("coding tables: shapes of frequencies, offsets and lengths disagree")
        if len(lengths) == 0 or lengths.min() < 1 or lengths.max() > freqs.shape[1]:
            raise ValueError("coding tables: a table's length is outside its array")
        used = np.arange(freqs.shape[1]) < lengths[:, None]
        if (freqs[used] < 1).any() or (freqs[~used] != 0).any():
            raise ValueError("coding tables: a frequency is below 1, or stands past a table's end")
        if (freqs.sum(axis=1, dtype=np.int64) != TOTAL).any():
            raise ValueError("coding tables: frequencies do not sum to 2**24")
        self.freqs, self.offsets, self.lengths = freqs, offsets, lengths
        self._models: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the coder's models, which cannot be copied; they are made again."""
        return {**self.__dict__, "_models": {}}

    @classmethod
    def from_tables(cls, tables: Sequence[Table]) -> FrequencyTables:
        """Tables of any lengths, padded to one array."""
        width = max(len(table.freqs) for table in tables)
        freqs = np.zeros((len(tables), width), dtype=np.int32)
        for row, table in zip(freqs, tables, strict=True):
            row[: len(table.freqs)] = table.freqs
        return cls(
            freqs,
            np.array([table.offset for table in tables], dtype=np.int32),
            np.array([len(table.freqs) for table in tables], dtype=np.int32),
        )

    def to_arrays(self) -> dict[str, NDArray[np.int32]]:
        """What is stored."""
        return {"freqs": self.freqs, "offsets": self.offsets, "lengths": self.lengths}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.int32]]) -> FrequencyTables:
        """What was stored; checked."""
        missing = {"freqs", "offsets", "lengths"} - set(arrays)
        if missing:
            raise ValueError(f"coding tables: {', '.join(sorted(missing))} missing")
        return cls(arrays["freqs"], arrays["offsets"], arrays["lengths"])

    def model(self, index: int) -> Any:
        """The coder's model of one table; None for a table of one symbol, which costs nothing."""
        if index not in self._models:
            length = int(self.lengths[index])
            # The coder turns probabilities p into cumulative frequencies
            #     floor(cumsum(p) * (2**24 - K) / sum(p)) + i.
            # With p = freqs - 1, whose sum is 2**24 - K, the factor is exactly 1 and every term an
            # exact integer: the cumulative frequencies are ours, whatever rounds on the way.
            weights = (self.freqs[index, :length] - 1).astype(np.float64)
            self._models[index] = None if length == 1 else _Model(weights, perfect=False)
        return self._models[index]


def _groups(indexes: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(table, places of its symbols), by rising table; within a table in the given order.

    Both sides know the indexes before the symbols, so this order costs nothing, and each table is
    one call of the coder.
    """
    order = np.argsort(indexes, kind="stable")
    ordered = indexes[order]
    bounds = np.flatnonzero(np.diff(ordered, prepend=-1, append=-1))
    for start, end in itertools.pairwise(bounds.tolist()):
        yield int(ordered[start]), order[start:end]


class StreamEncoder:
    """Writes groups of symbols into one stream."""

    def __init__(self) -> None:
        self._calls: list[tuple[NDArray[np.int32], NDArray[np.int32], FrequencyTables]] = []

    def encode(
        self, symbols: NDArray[np.int32], indexes: NDArray[np.int32], tables: FrequencyTables
    ) -> None:
        """Add symbols.

        Args:
            symbols: (n,).
            indexes: (n,), the table of each.
            tables: that the indexes point into.

        Raises:
            ValueError: a symbol is outside its table.
        """
        places = symbols.astype(np.int64) - tables.offsets[indexes]
        if ((places < 0) | (places >= tables.lengths[indexes])).any():
            raise ValueError("a symbol lies outside its coding table; clip symbols to the tables")
        self._calls.append((places.astype(np.int32), indexes, tables))

    def finish(self) -> bytes:
        """The stream, as short as it can be: empty if no symbol costs anything."""
        coder = constriction.stream.queue.RangeEncoder()
        for places, indexes, tables in self._calls:
            for index, where in _groups(indexes):
                model = tables.model(index)
                if model is not None:
                    coder.encode(np.ascontiguousarray(places[where]), model)
        return self._trimmed(_to_bytes(coder.get_compressed()))

    def _trimmed(self, data: bytes) -> bytes:
        """The shortest stream that decodes to the same symbols.

        The decoder reads zeros past the end, and any number in the coder's last interval decodes:
        so the candidates are prefixes, as they are or raised by one in the last place.
        """
        data = data.rstrip(b"\0")
        low, high, best = max(0, len(data) - 9), len(data), data
        # What a length can say, every greater one can: halving finds the least.
        while low < high:
            middle = (low + high) // 2
            found = self._of_length(data, middle)
            if found is None:
                low = middle + 1
            else:
                high, best = middle, found
        return best

    def _of_length(self, data: bytes, length: int) -> bytes | None:
        prefix = data[:length]
        raised = (int.from_bytes(prefix, "big") + 1).to_bytes(length + 1, "big")
        for candidate in (prefix, raised[1:] if raised[0] == 0 else None):
            if candidate is not None and self._decodes(candidate):
                return candidate.rstrip(b"\0")
        return None

    def _decodes(self, data: bytes) -> bool:
        decoder = StreamDecoder(data)
        try:
            return all(
                np.array_equal(decoder.decode(indexes, tables), places + tables.offsets[indexes])
                for places, indexes, tables in self._calls
            )
        except InvalidStreamError:
            return False


class StreamDecoder:
    """Reads groups of symbols from a stream.

    Any bytes whatever give symbols within the tables, or an `InvalidStreamError`.

    Args:
        data: the stream; zeros are read past its end.
    """

    def __init__(self, data: bytes) -> None:
        # Past its last word the coder reads zeros by itself; within it they are ours.
        padded = data + bytes(-len(data) % 4)
        words = np.frombuffer(padded, dtype=">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, indexes: NDArray[np.int32], tables: FrequencyTables) -> NDArray[np.int32]:
        """Next symbols.

        Args:
            indexes: (n,), the table of each.
            tables: that the indexes point into.

        Returns:
            (n,) int32.

        Raises:
            InvalidStreamError: no encoder writes such a stream.
        """
        symbols = tables.offsets[indexes].astype(np.int32)
        for index, where in _groups(indexes):
            model = tables.model(index)
            if model is not None:
                try:
                    symbols[where] += self._coder.decode(model, len(where))
                except AssertionError:
                    # How constriction's bindings say that no symbols lead to these bytes.
                    raise InvalidStreamError("no symbols have this stream") from None
        return symbols


def _to_bytes(words: NDArray[np.uint32]) -> bytes:
    return words.astype(">u4").tobytes()

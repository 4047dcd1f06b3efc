"""The text layer's body: decoder, working size, candidate and prompt (docs/format.md).

    size, 4 bits | decoder's identity, 12 bits | one stream: candidate's width, candidate, prompt

The body's head can be read without the decoder; the prompt needs its vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np

from picsnet.entropy import (
    TOTAL,
    FrequencyTables,
    InvalidStreamError,
    StreamDecoder,
    StreamEncoder,
    Table,
)
from picsnet.errors import CorruptStreamError, TruncatedFileError, UsageError
from picsnet.prompt.tokens import TokenCoder

HEAD_BYTES = 2
IDENTITIES = 2**12
SIZE_UNIT = 64
SIZES = 16
"""Working sizes are SIZE_UNIT x 1..SIZES."""
MAX_CANDIDATE_BITS = 5
MAX_CANDIDATES = 2**MAX_CANDIDATE_BITS

# How many bits the candidate's number takes, 0 to 5, in sixteenths: with the number itself never
# more than a byte.
_BITS_SHARES = (8, 2, 2, 1, 1, 2)
_TABLES = FrequencyTables.from_tables(
    [
        Table(0, np.array(_BITS_SHARES, np.int32) * (TOTAL // 16)),
        *(
            Table(0, np.full(2**bits, TOTAL >> bits, dtype=np.int32))
            for bits in range(1, MAX_CANDIDATE_BITS + 1)
        ),
    ]
)


@dataclass(frozen=True)
class TextHead:
    """What a text layer says before its prompt.

    Attributes:
        decoder: identity, 0..4095.
        size: shorter side at which the picture is drawn, pixels: 64, 128, ..., 1024.
        candidate_bits: what the candidate's number takes, 0..5: ceil(log2 N) for N candidates.
        candidate: number of the noise, from 0.
    """

    decoder: int
    size: int
    candidate_bits: int
    candidate: int


@dataclass(frozen=True)
class TextLayer:
    """A whole text layer.

    Attributes:
        head: decoder, size and candidate.
        ids: of the prompt, in the decoder's vocabulary.
    """

    head: TextHead
    ids: list[int]


def candidate_bits(candidates: int) -> int:
    """Bits that name one of N: ceil(log2 N).

    Raises:
        UsageError: N is no whole number of 1..32.
    """
    whole = isinstance(candidates, Integral) and not isinstance(candidates, bool)
    if not whole or not 1 <= candidates <= MAX_CANDIDATES:
        raise UsageError(
            f"--candidates {candidates!r}: must be 1 to {MAX_CANDIDATES}, a whole number"
        )
    return int(candidates - 1).bit_length()  # numpy's integers have no such method


def write_text(layer: TextLayer, coder: TokenCoder) -> bytes:
    """The body.

    Raises:
        ValueError: a value is outside its range.
        PromptError: the ids are not the vocabulary's, or too many.
    """
    head = layer.head
    code, rest = divmod(head.size, SIZE_UNIT)
    if rest or not 1 <= code <= SIZES or not 0 <= head.decoder < IDENTITIES:
        raise ValueError("sizes are multiples of 64 up to 1024, identities below 4096")
    encoder = StreamEncoder()
    _put(encoder, head.candidate_bits, 0)
    if head.candidate_bits:
        _put(encoder, head.candidate, head.candidate_bits)
    coder.write(encoder, layer.ids)
    return ((code - 1) << 12 | head.decoder).to_bytes(HEAD_BYTES, "big") + encoder.finish()


def read_head(body: bytes, name: str = "<bytes>") -> TextHead:
    """What stands before the prompt; needs no vocabulary.

    Raises:
        TruncatedFileError: the body is too short.
        CorruptStreamError: no encoder writes such a body.
    """
    return _read_head(body, name)[0]


def read_text(body: bytes, coder: TokenCoder, name: str = "<bytes>") -> TextLayer:
    """A whole body.

    Raises:
        TruncatedFileError, CorruptStreamError: as `read_head`.
    """
    head, decoder = _read_head(body, name)
    try:
        return TextLayer(head, coder.read(decoder))
    except InvalidStreamError:
        raise CorruptStreamError(_damaged(name)) from None


def _read_head(body: bytes, name: str) -> tuple[TextHead, StreamDecoder]:
    if len(body) < HEAD_BYTES:
        raise TruncatedFileError(f"{name}: its text layer is too short; get the file again")
    code, identity = divmod(int.from_bytes(body[:HEAD_BYTES], "big"), IDENTITIES)
    decoder = StreamDecoder(body[HEAD_BYTES:])
    try:
        bits = _get(decoder, 0)
        candidate = _get(decoder, bits) if bits else 0
    except InvalidStreamError:
        raise CorruptStreamError(_damaged(name)) from None
    return TextHead(identity, (code + 1) * SIZE_UNIT, bits, candidate), decoder


def _damaged(name: str) -> str:
    return f"{name}: its prompt is damaged though its checksum holds; get the file again"


def _put(encoder: StreamEncoder, value: int, table: int) -> None:
    encoder.encode(np.array([value], np.int32), np.array([table], np.int32), _TABLES)


def _get(decoder: StreamDecoder, table: int) -> int:
    return int(decoder.decode(np.array([table], np.int32), _TABLES)[0])

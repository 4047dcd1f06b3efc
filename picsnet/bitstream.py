"""The .pics container, format version 1 (docs/format.md). Standard library only.

    0xF5 | version, layer mask | width - 1 | height - 1 | layer | checksum | [layer | checksum]

Layers stand in the order in which they matter, each but the last with its length before it, one
byte, and a CRC-8 of all bytes so far behind it; the last runs to the end of the file and is
followed by a CRC-16. A file that is cut short still yields the layers before the cut.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

from picsnet.errors import (
    BitstreamError,
    ChecksumError,
    ImageSizeError,
    NotPicsFileError,
    TruncatedFileError,
    UnsupportedLayerError,
    UnsupportedVersionError,
    UsageError,
)

MAGIC = 0xF5  # never a byte of UTF-8 text, nor the first of another picture format
VERSION = 1
MIN_SIDE = 16
MAX_SIDE = 8192
FINGERPRINT_BYTES = 3
DECODER_BYTES = 2
MAX_TEXT_BYTES = 255
MAX_SKETCH_BYTES = 4 * 2**20
TEXT, SKETCH = 1, 2

BytesLike = bytes | bytearray | memoryview

_LIMITS = {TEXT: MAX_TEXT_BYTES, SKETCH: MAX_SKETCH_BYTES}
_NAMES = {TEXT: "text", SKETCH: "sketch"}


@dataclass(frozen=True)
class SketchLayer:
    """A coded sketch.

    Attributes:
        fingerprint: 3 bytes that name the model's weights.
        stream: entropy-coded symbols; empty for an all-black map.
    """

    fingerprint: bytes
    stream: bytes


@dataclass(frozen=True)
class PicsFile:
    """What a file holds.

    Attributes:
        width, height: of the picture, pixels, 16..8192.
        text: body of the text layer (`picsnet.textlayer`), or None.
        sketch: the sketch layer, or None.
        missing: layers that the file announces and that did not arrive whole.
    """

    width: int
    height: int
    text: bytes | None = None
    sketch: SketchLayer | None = None
    missing: tuple[str, ...] = ()


def write(file: PicsFile) -> bytes:
    """The bytes of a file.

    Raises:
        ImageSizeError: a side is outside 16..8192.
        UnsupportedLayerError: no layer at all, or one beyond its size limit.
    """
    _check_size(file.width, file.height, "the picture")
    bodies: dict[int, bytes] = {}
    if file.text is not None:
        bodies[TEXT] = file.text
    if file.sketch is not None:
        if len(file.sketch.fingerprint) != FINGERPRINT_BYTES:
            raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes")
        bodies[SKETCH] = file.sketch.fingerprint + file.sketch.stream
    if not bodies:
        raise UnsupportedLayerError("a file without layers holds nothing; give a text or a sketch")
    for layer, body in bodies.items():
        if len(body) > _LIMITS[layer]:
            raise UnsupportedLayerError(
                f"the {_NAMES[layer]} layer takes {len(body)} bytes, beyond the format's "
                f"{_LIMITS[layer]}; code a smaller picture"
            )
    data = bytearray((MAGIC, VERSION << 4 | sum(bodies)))
    data += _varint(file.width - 1) + _varint(file.height - 1)
    last = max(bodies)
    for layer, body in sorted(bodies.items()):
        if layer != last:
            data.append(len(body))
        data += body
        data += _checksum(data, layer == last)
    return bytes(data)


@dataclass(frozen=True)
class _Layout:
    """Where things are: for each layer (kind, start of its length, start, end, checksum's end)."""

    width: int
    height: int
    header_end: int
    layers: list[tuple[int, int, int, int, int]]
    missing: tuple[str, ...]
    damage: BitstreamError | None


def read(
    data: BytesLike, *, name: str = "<bytes>", partial: bool = False, max_pixels: int | None = None
) -> PicsFile:
    """Parse and verify a file.

    No bytes can follow the last layer: it runs to the end.

    Args:
        data: the file.
        name: of the file, for messages.
        partial: give the intact layers before a damaged one instead of an error, if there are any.
        max_pixels: pictures of more are refused. A file of a few bytes may rightly name 8192x8192,
            which takes a minute and gigabytes to decode: set this where files come from strangers.

    Raises:
        NotPicsFileError, UnsupportedVersionError, UnsupportedLayerError, ImageSizeError,
        TruncatedFileError, ChecksumError: as they say.
    """
    data = as_bytes(data)
    layout = _layout(data, name)
    check_pixels(layout.width, layout.height, max_pixels, f"{name}:")
    if layout.damage is not None and not (partial and layout.layers):
        raise layout.damage
    text: bytes | None = None
    sketch: SketchLayer | None = None
    for layer, _, start, end, _ in layout.layers:
        body = data[start:end]
        if layer == TEXT:
            text = body
        else:
            sketch = SketchLayer(body[:FINGERPRINT_BYTES], body[FINGERPRINT_BYTES:])
    return PicsFile(layout.width, layout.height, text, sketch, layout.missing)


def as_bytes(data: BytesLike) -> bytes:
    """A file that came as bytes of another kind; not the zeros that ``bytes`` makes of a number.

    Raises:
        UsageError: it is no bytes, but a path perhaps.
    """
    try:
        return data if isinstance(data, bytes) else memoryview(data).tobytes()
    except TypeError:
        raise UsageError(
            f"a file is decoded from its bytes, not {type(data).__name__}; "
            "give Path(...).read_bytes()"
        ) from None


def check_pixels(width: int, height: int, most: int | None, what: str) -> None:
    """Refuse what is larger than its receiver allows.

    Raises:
        ImageSizeError: it has more pixels than ``most``.
    """
    pixels = width * height
    if most is not None and pixels > most:
        raise ImageSizeError(
            f"{what} is {width}x{height}, {pixels} pixels, and at most {most} are allowed; "
            "allow more with --max-pixels"
        )


def layer_bytes(data: BytesLike, *, name: str = "<bytes>") -> dict[str, int]:
    """Bytes of a whole file by what they are for; they sum to ``len(data)``.

    The candidate's number, 1 to 8 bits, shares the stream of the prompt and is counted there.

    Raises:
        BitstreamError: as `read`.
    """
    data = as_bytes(data)
    layout = _layout(data, name)
    if layout.damage is not None:
        raise layout.damage
    names = ("header", "decoder", "prompt", "fingerprint", "sketch", "checksums")
    parts = {**dict.fromkeys(names, 0), "header": layout.header_end}
    for layer, length_start, start, end, checksum_end in layout.layers:
        parts["header"] += start - length_start
        parts["checksums"] += checksum_end - end
        if layer == SKETCH:
            parts["fingerprint"] += FINGERPRINT_BYTES
            parts["sketch"] += end - start - FINGERPRINT_BYTES
        else:
            parts["decoder"] += min(DECODER_BYTES, end - start)
            parts["prompt"] += max(0, end - start - DECODER_BYTES)
    return parts


def overhead_bytes(layers: dict[str, int]) -> int:
    """What a file spends beside the payloads of prompt and sketch.

    The candidate's bits are counted as a whole byte of it.

    Args:
        layers: as `layer_bytes` gives them.
    """
    candidate = min(1, layers["prompt"])
    return sum(layers.values()) - layers["prompt"] - layers["sketch"] + candidate


def _layout(data: bytes, name: str) -> _Layout:
    if not data:
        raise NotPicsFileError(f"{name}: is empty; encode the picture again")
    if data[0] != MAGIC:
        raise NotPicsFileError(f"{name}: is not a .pics file; give one written by picsnet encode")
    if len(data) < 2:
        raise TruncatedFileError(_cut(name))
    version, mask = data[1] >> 4, data[1] & 15
    if version != VERSION:
        raise UnsupportedVersionError(
            f"{name}: has format version {version}, this picsnet reads {VERSION}; update picsnet"
        )
    if mask & ~(TEXT | SKETCH) or not mask:
        raise UnsupportedLayerError(
            f"{name}: holds layers that this picsnet does not know (mask {mask}); update picsnet"
        )
    width, position = _read_varint(data, 2, name)
    height, position = _read_varint(data, position, name)
    width, height = width + 1, height + 1
    _check_size(width, height, name)
    header_end = position
    found: list[tuple[int, int, int, int, int]] = []
    present = [layer for layer in (TEXT, SKETCH) if mask & layer]
    try:
        for layer in present:
            length_start, last = position, layer == present[-1]
            if last:
                length = len(data) - position - 2
            else:
                if position >= len(data):
                    raise TruncatedFileError(_cut(name))
                length, position = data[position], position + 1
            least = FINGERPRINT_BYTES if layer == SKETCH else 0
            if length > _LIMITS[layer]:
                raise TruncatedFileError(
                    f"{name}: its {_NAMES[layer]} layer claims {length} bytes, beyond the format's "
                    f"{_LIMITS[layer]}; the file is damaged, get it again"
                )
            end = position + length
            checksum_end = end + (2 if last else 1)
            if length < least or checksum_end > len(data):
                raise TruncatedFileError(_cut(name))
            if data[end:checksum_end] != _checksum(data[:end], last):
                raise ChecksumError(
                    f"{name}: its checksum does not match (damaged or cut short); get it again"
                )
            found.append((layer, length_start, position, end, checksum_end))
            position = checksum_end
    except BitstreamError as error:
        missing = tuple(_NAMES[layer] for layer in present[len(found) :])
        return _Layout(width, height, header_end, found, missing, error)
    return _Layout(width, height, header_end, found, (), None)


def _check_size(width: int, height: int, name: str) -> None:
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ImageSizeError(
            f"{name}: is {width}x{height}; sides must be {MIN_SIDE} to {MAX_SIDE} pixels"
        )


def _cut(name: str) -> str:
    return f"{name}: ends before its contents do (cut short); get the whole file again"


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first, the high bit set on all but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, position: int, name: str) -> tuple[int, int]:
    """(value, position after it). At most two bytes, and no more than the value needs."""
    first = data[position : position + 2]
    if not first or (first[0] & 0x80 and len(first) < 2):
        raise TruncatedFileError(_cut(name))
    if not first[0] & 0x80:
        return first[0], position + 1
    if first[1] & 0x80 or first[1] == 0:
        raise ImageSizeError(f"{name}: holds a number that no encoder writes; get the file again")
    return first[0] & 0x7F | first[1] << 7, position + 2


def _checksum(data: bytes | bytearray, last: bool) -> bytes:
    """CRC-16/CCITT-FALSE for the last layer, CRC-8 (polynomial 0x07) for those before it."""
    if last:
        return binascii.crc_hqx(bytes(data), 0xFFFF).to_bytes(2, "big")
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return bytes((crc,))

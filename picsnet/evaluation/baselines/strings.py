"""A file for the strings of others' codecs, so that their rate is a file's, too.

    width, height (big-endian 16 bits each) | length, string | ... | last string

Lengths are 7 bits a byte, the lowest first. The last string ends with the file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from picsnet.errors import DataError

_SIZE = struct.Struct(">HH")


def write_strings(width: int, height: int, strings: Sequence[bytes]) -> bytes:
    """The file of a picture's strings.

    Args:
        width, height: of the picture, up to 65535.
        strings: one or more.
    """
    parts = [_SIZE.pack(width, height)]
    for string in strings[:-1]:
        parts += [_varint(len(string)), string]
    return b"".join([*parts, strings[-1]])


def read_strings(data: bytes, count: int) -> tuple[int, int, list[bytes]]:
    """Width, height and strings of a file.

    Args:
        data: the file.
        count: how many strings it holds.

    Raises:
        DataError: it is cut short, or a length runs past its end.
    """
    if len(data) < _SIZE.size:
        raise DataError(f"a file of {len(data)} bytes is no coded picture; encode it again")
    width, height = _SIZE.unpack_from(data)
    at, strings = _SIZE.size, []
    for _ in range(count - 1):
        length, at = _read_varint(data, at)
        if at + length > len(data):
            raise DataError("a string runs past the end of its file; encode the picture again")
        strings.append(data[at : at + length])
        at += length
    if not width or not height:
        raise DataError(f"a picture of {width}x{height} cannot be; encode it again")
    return width, height, [*strings, data[at:]]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(data):
            break
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise DataError("a length in the file is damaged; encode the picture again")

"""What passes between the service and its workers: a JSON object and byte strings after it.

    length of the JSON, 4 bytes | JSON, whose "blobs" are lengths | blobs

JSON, and not pickle: a worker reads strangers' pictures, and nothing that it says may run here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, BinaryIO

Frame = tuple[dict[str, Any], list[bytes]]

_LENGTH = 4
_MAX_HEAD = 2**24


def pack(message: dict[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """The bytes of a frame."""
    head = json.dumps({**message, "blobs": [len(blob) for blob in blobs]}).encode()
    return b"".join([len(head).to_bytes(_LENGTH, "big"), head, *blobs])


def receive(stream: BinaryIO) -> Frame | None:
    """The next frame, or None where the other side has closed.

    Raises:
        EOFError: it closed in the middle of one.
    """
    length = stream.read(_LENGTH)
    if not length:
        return None
    message = json.loads(_exactly(stream, int.from_bytes(length, "big")))
    return message, [_exactly(stream, size) for size in message.pop("blobs")]


def _exactly(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


async def receive_async(stream: asyncio.StreamReader) -> Frame:
    """The next frame.

    Raises:
        asyncio.IncompleteReadError: the other side closed.
        ValueError: it sent something else.
    """
    size = int.from_bytes(await stream.readexactly(_LENGTH), "big")
    if size > _MAX_HEAD:
        raise ValueError("a frame's head is too long")
    message = json.loads(await stream.readexactly(size))
    return message, [await stream.readexactly(size) for size in message.pop("blobs")]

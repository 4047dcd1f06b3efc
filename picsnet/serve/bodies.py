"""Bodies of requests, raw or multipart, read in pieces and never beyond their limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from picsnet.serve.refusals import GONE, Refusal
from picsnet.serve.settings import MIB

FIELD = "file"
"""Of a multipart body: the picture or the .pics file."""
_MAX_FIELDS = 16
_MAX_TEXT = 8192
_FORM = "multipart/form-data"


async def read_body(
    request: Request, limit: int, seconds: float, kinds: tuple[str, ...]
) -> tuple[bytes, list[tuple[str, str]]]:
    """What a request brings.

    Args:
        request: whose body has not been read.
        limit: bytes; no more are read.
        seconds: in which all of it has to arrive.
        kinds: beginnings of content types that are taken beside multipart/form-data.

    Returns:
        The bytes, raw or of the field ``file``; the other fields of a multipart body, names and
        values as they came. Names that clients give their files are not looked at.

    Raises:
        Refusal: 408, 413, 415, 400 for what is malformed, `GONE`.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind and kind != _FORM and not kind.startswith(kinds):
        raise Refusal(
            415,
            f"Content-Type {kind[:80]}: send the bytes as application/octet-stream, or as the "
            f"field {FIELD} of {_FORM}",
        )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            if kind == _FORM:
                data, fields = await _read_form(request, limit)
            else:
                data, fields = b"".join([c async for c in _counted(request, limit)]), []
    except TimeoutError:
        raise Refusal(
            408, f"the body did not arrive within {seconds:g} s; send it again, or a smaller one"
        ) from None
    except ClientDisconnect:
        raise Refusal(GONE, "the client went away") from None
    if not data:
        raise Refusal(400, "the body is empty; send a file in it")
    return data, fields


async def _counted(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit:
            raise _too_large(limit)
        yield chunk


async def _read_form(request: Request, limit: int) -> tuple[bytes, list[tuple[str, str]]]:
    parser = MultiPartParser(
        # Latin-1 gives bytes back as they came: a file may come as text, where it has no name.
        Headers({"content-type": f"{request.headers['content-type']}; charset=latin-1"}),
        _counted(request, limit),
        max_files=1,
        max_fields=_MAX_FIELDS,
        max_part_size=_MAX_TEXT,
    )
    # Files stay in memory, where the limit bounds them, and never touch the disk.
    parser.spool_max_size = limit + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"the multipart body is malformed: {error.message}") from None
    except (KeyError, UnicodeDecodeError, ValueError):
        raise Refusal(400, "the multipart body is malformed; send it again") from None
    data: bytes | None = None
    fields = []
    for name, value in form.multi_items():
        name = _text(name)
        if name == FIELD:
            if data is not None:
                raise Refusal(400, f"{FIELD}: given more than once; send one file a request")
            data = await value.read() if isinstance(value, UploadFile) else value.encode("latin-1")
        elif isinstance(value, UploadFile):
            raise Refusal(400, f"the file is in the field {name[:40]!r}; send it as {FIELD}")
        else:
            fields.append((name, _text(value)))
    return data or b"", fields


def _text(latin: str) -> str:
    try:
        return latin.encode("latin-1").decode()
    except UnicodeDecodeError:
        return latin


def _too_large(limit: int) -> Refusal:
    return Refusal(
        413, f"the body is larger than {limit / MIB:g} MiB, the limit; send a smaller one"
    )

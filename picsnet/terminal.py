"""What a terminal is shown: progress, and text that must not command it, whatever file it is of."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


def printable(text: str) -> str:
    r"""The text with everything that a terminal might obey written out as it is in Python.

    That is control characters (escape sequences, carriage returns, line feeds), characters that
    turn the direction of writing, lone surrogates from file names, and all others that do not
    print. What prints, in any script, stays.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape_what_cannot_be_written() -> None:
    """Have stdout escape what its encoding lacks, as Python has stderr do: names and prompts may be
    of any script. For processes of our own: the streams of one that imports us are not ours."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_error(error: Exception | str) -> None:
    """One line on stderr."""
    print(f"picsnet: error: {printable(str(error))}", file=sys.stderr)


def shown(items: Iterable[T], total: int, name: str, unit: str) -> Iterator[T]:
    """The same items, with progress on stderr: a bar on a terminal, elsewhere a line now and then.

    Args:
        items: to go through.
        total: how many there are.
        name: of the work.
        unit: what one is called; more have an s.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=name, unit=unit, file=sys.stderr)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if count == total or time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{name}: {count} of {total} {unit}s", file=sys.stderr, flush=True)

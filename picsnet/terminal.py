"""Text for a terminal: what comes out of files, and their names, must not command it."""

from __future__ import annotations

import sys


def printable(text: str) -> str:
    r"""The text with everything that a terminal might obey written out as it is in Python.

    That is control characters (escape sequences, carriage returns, line feeds), characters that
    turn the direction of writing, lone surrogates from file names, and all others that do not
    print. What prints, in any script, stays.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_error(error: Exception | str) -> None:
    """One line on stderr."""
    print(f"picsnet: error: {printable(str(error))}", file=sys.stderr)

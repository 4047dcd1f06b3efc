"""Prompts that a user gives: one for one picture, a CSV for many, or text files beside them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path

from picsnet.errors import DataError, UsageError
from picsnet.files import InputFile, read_file

SIDECAR = "sidecar"

Prompter = Callable[[InputFile], str | None]
"""The prompt for a picture, or None where one is to be made."""


def user_prompts(prompt: str | None, prompts: str | None, pictures: int) -> Prompter:
    """Where a picture's prompt comes from.

    Args:
        prompt: text for the one picture.
        prompts: a CSV file with columns ``file`` and ``prompt``, or "sidecar": ``photo.txt``
            beside ``photo.png``.
        pictures: how many there are.

    Raises:
        UsageError: both were given, or one text for several pictures.
        DataError: the CSV cannot be used.
    """
    if prompt is not None and prompts is not None:
        raise UsageError("--prompt and --prompts exclude each other; give one of them")
    if prompt is not None:
        if pictures != 1:
            raise UsageError(
                f"--prompt: one text for {pictures} pictures; name each picture's with --prompts"
            )
        return lambda item: prompt
    if prompts is None:
        return lambda item: None
    if prompts == SIDECAR:
        return _beside
    table = _read_table(Path(prompts))
    return lambda item: _look_up(table, item, prompts)


def _beside(item: InputFile) -> str:
    path = item.path.with_suffix(".txt")
    if not os.path.isfile(path):
        raise DataError(f"{item.path}: no prompt beside it; write one to {path}")
    return _text(path).strip()


def _text(path: Path) -> str:
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def _read_table(path: Path) -> dict[str, str]:
    # Lines may end as any system ends them. Strict: a quote that is left open would make one prompt
    # of all that follows.
    rows = csv.DictReader(io.StringIO(_text(path), newline=None), strict=True)
    table: dict[str, str] = {}
    try:
        if not {"file", "prompt"} <= set(rows.fieldnames or ()):
            raise DataError(f"{path}: needs a first line that names the columns: file,prompt")
        for row in rows:
            if None in row:  # what is beyond the columns: the rest of a prompt, mostly
                raise DataError(
                    f"{path}: line {rows.line_num} has more columns than the first one names; put "
                    'a prompt with commas in quotes: "a house, red"'
                )
            table[(row["file"] or "").strip()] = (row["prompt"] or "").strip()
    except csv.Error as error:
        raise DataError(
            f"{path}: line {rows.line_num} cannot be read ({error}); mend its quotes"
        ) from None
    return table


def _look_up(table: dict[str, str], item: InputFile, name: str) -> str:
    for key in (str(item.path), item.relative.as_posix(), item.path.name):
        if key in table:
            return table[key]
    raise DataError(
        f"{item.path}: no line of {name} is for it; add one: {item.relative.as_posix()},PROMPT"
    )

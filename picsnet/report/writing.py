"""The report's folder: gathered beside its place, then put there whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from picsnet import __version__
from picsnet.errors import OutputError, UsageError
from picsnet.files import replace_folder
from picsnet.report.loading import Run
from picsnet.report.page import PAGE, gather, render
from picsnet.report.published import Published

MARK = "picsnet-report.json"
"""Tells a report of ours from a folder of somebody's."""


def write_report(
    runs: Sequence[Run],
    published: Sequence[Published],
    folder: Path,
    pictures: int | None = None,
    lossless: bool = False,
) -> list[str]:
    """Write the page, its pictures and figures.

    Args:
        runs: to report on.
        published: points of others.
        folder: to make; a report of ours there is replaced.
        pictures: photographs of each dataset in the gallery; None takes all.
        lossless: PNG in place of WebP.

    Returns:
        What is amiss, in words: pictures that are gone, a library that is missing.

    Raises:
        UsageError: the folder holds something else, or two runs have a point in common or cannot be
            compared.
        OutputError: it cannot be written.
    """
    place = folder.resolve()
    part = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        _check_place(folder, runs)
        part.mkdir(parents=True)
        data = gather(runs, published, part, pictures, lossless)
        (part / PAGE).write_text(render(data), encoding="utf-8")
        (part / MARK).write_text(json.dumps({"picsnet": __version__}) + "\n")
        replace_folder(part, place)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); name another place: -o"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    notes: list[str] = data["notes"]
    return notes


def _check_place(folder: Path, runs: Sequence[Run]) -> None:
    """Nothing but a report may be replaced, and no run with it."""
    place = folder.resolve()
    for run in runs:
        if place == run.folder.resolve() or place in run.folder.resolve().parents:
            raise UsageError(
                f"{folder}: the run {run.folder} is in it, and would be replaced; name another "
                "place: -o"
            )
    if place.exists() and not place.is_dir():
        raise UsageError(f"{folder}: is a file, and a report is a folder; name another place: -o")
    if place.is_dir() and not (place / MARK).is_file() and any(place.iterdir()):
        raise UsageError(f"{folder}: holds something that is no report; name another place: -o")

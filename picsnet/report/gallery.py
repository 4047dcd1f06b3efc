"""Pictures of runs, copied beside the page in a form that browsers show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from tqdm import tqdm

from picsnet.errors import in_one_line
from picsnet.files import slug
from picsnet.report.loading import Run, layers_of

PICTURES = "pictures"
QUALITY = 90
_SHOWN = ("decoded", "sketch", "decoded_sketch")

Placed = tuple[Run, dict[str, Any]]


def copy_gallery(
    runs: Sequence[Run], folder: Path, limit: int | None, lossless: bool
) -> tuple[list[dict[str, Any]], list[str]]:
    """Copies of the pictures that rows name, and what the page needs to show them.

    Args:
        runs: of which.
        folder: of the report.
        limit: only the first so many photographs of each dataset.
        lossless: PNG in place of WebP.

    Returns:
        An entry a photograph: ``dataset``, ``picture``, ``width``, ``height``, ``original`` (None
        if it cannot be shown) and ``items``, one a codec and setting, with paths relative to the
        report; and in words which pictures cannot be shown.
    """
    rows = _limited([(run, row) for run in runs for row in run.rows], limit)
    named = dict.fromkeys(
        (run.folder / path, _place(run, path))
        for run, row in rows
        for path in (row["original"], *(row.get(name) for name in _SHOWN))
        if path
    )
    copies, missing = _copy(list(named), folder, ".png" if lossless else ".webp")
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for run, row in rows:
        entry = entries.setdefault(
            (row["dataset"], row["picture"]),
            {
                "dataset": row["dataset"],
                "picture": row["picture"],
                "width": row["width"],
                "height": row["height"],
                "original": copies.get(run.folder / row["original"]),
                "items": [],
            },
        )
        entry["items"].append(_item(run, row, copies))
    return list(entries.values()), missing


def _limited(rows: Sequence[Placed], limit: int | None) -> list[Placed]:
    taken: dict[str, set[str]] = {}
    kept = []
    for run, row in rows:
        own = taken.setdefault(row["dataset"], set())
        if limit is None or row["picture"] in own or len(own) < limit:
            own.add(row["picture"])
            kept.append((run, row))
    return kept


def _item(run: Run, row: dict[str, Any], copies: dict[Path, str]) -> dict[str, Any]:
    paths = {name: copies.get(run.folder / row[name]) for name in _SHOWN if row.get(name)}
    return {
        "codec": row["codec"],
        "setting": row["setting"],
        "bytes": row["bytes"],
        "bpp": row["bpp"],
        "layers": layers_of(row),
        "prompt": row.get("prompt"),
        **{name: path for name, path in paths.items() if path},
    }


def _place(run: Run, path: str) -> PurePosixPath:
    """Where a copy goes, without suffix. All parts are plain: no ``..``, nothing to escape."""
    parts = PurePosixPath(path).with_suffix("").parts
    return PurePosixPath(PICTURES, slug(run.name), *map(slug, parts))


def _copy(
    named: Sequence[tuple[Path, PurePosixPath]], folder: Path, suffix: str
) -> tuple[dict[Path, str], list[str]]:
    """Paths in the report by source, and what cannot be shown. Files of one content become one."""
    by_content: dict[bytes, str] = {}
    copies: dict[Path, str] = {}
    sources: dict[str, Path] = {}
    missing: dict[Path, str] = {}
    for source, place in named:
        try:
            digest = hashlib.sha256(source.read_bytes()).digest()
        except FileNotFoundError:
            missing[source] = f"{source}: is gone"
        except OSError as error:
            missing[source] = f"{source}: cannot be read ({error.strerror or error})"
        else:
            copies[source] = by_content.setdefault(digest, f"{place}{suffix}")
            sources.setdefault(copies[source], source)

    def write(target: str) -> str | None:
        return _convert(sources[target], folder / target)

    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it encodes
        bar = tqdm(pool.map(write, sources), "gallery", len(sources), disable=None, leave=False)
        broken = {target: why for target, why in zip(sources, bar, strict=True) if why}
    missing |= {sources[target]: why for target, why in broken.items()}
    kept = {source: target for source, target in copies.items() if target not in broken}
    return kept, [missing[source] for source, _ in named if source in missing]


def _convert(source: Path, target: Path) -> str | None:
    """Write a copy; why not, where the source is no picture. Failing to write raises OSError."""
    try:
        with Image.open(source) as picture:
            picture.load()
    except Exception as error:  # Pillow raises whatever the damage suggests
        return f"{source}: is no picture that can be read ({in_one_line(error)})"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".webp":
        picture.save(target, "WEBP", quality=QUALITY, method=4)
    else:
        picture.save(target, "PNG")
    return None

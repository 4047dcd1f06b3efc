"""Stamps of files by their names: weights may change under a name."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from picsnet import shipped


def stamps(names: Iterable[str]) -> list[str]:
    """What changes when files do.

    Args:
        names: a path, or the name of a model that ships, gives the stamps of its files; all else
            gives none.
    """
    return [stamp for name in names for stamp in _stamp_of(name)]


def forget() -> None:
    """Look at the files again: in a long session they may have changed since they were stamped."""
    _stamp_of.cache_clear()


@functools.cache
def _stamp_of(name: str) -> tuple[str, ...]:
    for path in (Path(name), shipped.FOLDER / name):
        if os.path.isdir(path) and (model := _sketch_model(path)) is not None:
            return model
        if os.path.exists(path):
            files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
            return tuple(f"{file.name} {_stamp_of_file(file)}" for file in files)
    return ()


def _sketch_model(folder: Path) -> tuple[str, ...] | None:
    """Of a sketch model what its files depend on: its lambda and its weights, which may lie in
    another folder. The rest of its card tells of it and changes nothing."""
    try:
        card, source = shipped.read_card(folder)
        return f"lambda {card['lmbda']}", _stamp_of_file(source / shipped.WEIGHTS)
    except (OSError, ValueError, KeyError):
        return None


def _stamp_of_file(path: Path) -> str:
    """Size and time; for models that ship a hash, since a checkout gives them new times."""
    if shipped.FOLDER in path.resolve().parents:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return f"{path.stat().st_size} {path.stat().st_mtime_ns}"

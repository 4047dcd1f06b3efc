"""Pictures of runs, copied beside the page in a form that browsers show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from picsnet.evaluation.jobs import slug
from picsnet.report.loading import Run, layers_of

PICTURES = "pictures"
QUALITY = 90
_SHOWN = ("decoded", "sketch", "decoded_sketch")


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
        An entry a photograph: ``dataset``, ``picture``, ``width``, ``height``, ``original`` and
        ``items``, one a codec and setting, with paths relative to the report; and the paths of
        pictures that are not there any more.
    """
    copier = _Copier(folder, lossless)
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    rows = [(run, row) for run in runs for row in run.rows]
    for run, row in tqdm(rows, "gallery", unit="row", disable=None, leave=False):
        key = (row["dataset"], row["picture"])
        if key not in entries:
            known = sum(dataset == key[0] for dataset, _ in entries)
            if limit is not None and known >= limit:
                continue
            original = copier.copy(run, row["original"])
            if original is None:
                continue
            entries[key] = {
                "dataset": row["dataset"],
                "picture": row["picture"],
                "width": row["width"],
                "height": row["height"],
                "original": original,
                "items": [],
            }
        shown = {name: copier.copy(run, row[name]) for name in _SHOWN if row.get(name)}
        entries[key]["items"].append(
            {
                "codec": row["codec"],
                "setting": row["setting"],
                "bytes": row["bytes"],
                "bpp": row["bpp"],
                "layers": layers_of(row),
                "prompt": row["prompt"],
                **{name: path for name, path in shown.items() if path},
            }
        )
    return list(entries.values()), copier.missing


class _Copier:
    def __init__(self, folder: Path, lossless: bool) -> None:
        self._folder, self._suffix = folder, ".png" if lossless else ".webp"
        self._done: dict[Path, str | None] = {}
        self.missing: list[str] = []

    def copy(self, run: Run, relative: str) -> str | None:
        """The copy's path in the report; None if there is nothing to copy."""
        source = run.folder / relative
        if source not in self._done:
            target = f"{PICTURES}/{slug(run.name)}/{Path(relative).with_suffix(self._suffix)}"
            self._done[source] = target if self._write(source, self._folder / target) else None
        return self._done[source]

    def _write(self, source: Path, target: Path) -> bool:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with Image.open(source) as picture:
                if self._suffix == ".webp":
                    picture.save(target, "WEBP", quality=QUALITY, method=4)
                else:
                    picture.save(target, "PNG")
        except OSError:
            self.missing.append(str(source))
            return False
        return True

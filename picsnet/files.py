"""Files in and out: inputs by path, folder or glob; outputs whole or not at all. Standard library
only."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from picsnet.errors import DataError, OutputError, UnwritableError, UsageError

IMAGE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in "png jpg jpeg webp bmp tif tiff gif avif jxl ppm pgm".split()  # noqa: SIM905
)


LONGEST_NAME = 255
"""Bytes of a file's name, on all usual systems."""

BEGUN = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.(pics|jsonl|begun)")
"""Names of coded files, records and notes that a killed process had begun (`beside`)."""


@dataclass(frozen=True)
class InputFile:
    """A file to work on.

    Attributes:
        path: where it is.
        relative: its place under the folder that was named, or its bare name: outputs keep it.
    """

    path: Path
    relative: Path


def expand_inputs(patterns: Sequence[str | Path], suffixes: frozenset[str]) -> list[InputFile]:
    """Files named by paths, folders (recursive, hidden ones left out) and globs, in sorted order.

    Raises:
        UsageError: a path does not exist or cannot be read, or a glob finds nothing.
        DataError: a folder holds no file with one of the suffixes.
    """
    found: dict[Path, InputFile] = {}
    for pattern in patterns:
        path = Path(pattern)
        # `os.path` says no where pathlib raises: of names that are too long, of places that are
        # closed to us.
        if os.path.isdir(path):
            items = _in_folder(path, suffixes)
        elif os.path.exists(path):
            items = [InputFile(path, Path(path.name))]
        else:
            matches = sorted(glob.glob(str(pattern), recursive=True))
            items = [
                item
                for match in map(Path, matches)
                for item in (
                    _in_folder(match, suffixes)
                    if os.path.isdir(match)
                    else [InputFile(match, Path(match.name))]
                )
            ]
            if not items:
                raise _not_there(path)
        for item in items:
            found.setdefault(item.path, item)
    return list(found.values())


def _not_there(path: Path) -> UsageError:
    try:
        path.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return UsageError(
                f"{path}: cannot be read ({error.strerror}); check the path and permissions"
            )
    except ValueError:  # a NUL
        pass
    return UsageError(f"{path}: no such file or folder; check the path")


def _in_folder(folder: Path, suffixes: frozenset[str]) -> list[InputFile]:
    items = [
        InputFile(path, path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes
        and os.path.isfile(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not items:
        kinds = ", ".join(sorted(suffixes))
        raise DataError(f"{folder}: no files of these kinds in it: {kinds}; name another folder")
    return items


def slug(name: str) -> str:
    """A name as one of a folder, or of a W&B artifact; different names give different ones."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "_", name).strip("._")
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def read_file(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and permissions"
        ) from None


def beside(name: str) -> str:
    """Under which name a file is written that is renamed when it is whole: a hidden one."""
    stem, suffix = os.path.splitext(name)
    # Not the process's number alone: machines that share a disk may have the same.
    end = f".{os.getpid()}-{secrets.token_hex(4)}{suffix}"
    # A name may be as long as names can be, and this one is not to be longer.
    short = os.fsencode(stem)[: max(1, LONGEST_NAME - 1 - len(os.fsencode(end)))]
    return f".{short.decode(errors='ignore')}{end}"


def make_folder(path: Path, what: str, mend: str) -> None:
    """A folder, and those above it, if they are not there.

    Args:
        path: of the folder.
        what: it is called in the error.
        mend: what the error advises.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot make {what} ({error.strerror}); {mend}") from None


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to that becomes ``path`` when all went well, and vanishes otherwise.

    Raises:
        UnwritableError: no space, or no permission.
        OutputError: something in the way.
    """
    path = Path(path)
    part = path.with_name(beside(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    except OSError as error:
        raise _unwritten(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def replace_folder(part: Path, place: Path) -> None:
    """A folder that was filled beside it into another's place; the old one goes last.

    Args:
        part: the new folder; it is gone afterwards.
        place: where it belongs, on the same disk.

    Raises:
        OSError: it cannot be put there; the old one is there still.
    """
    old = part.with_name(f"{part.name}.old")
    if place.exists():
        place.rename(old)
    try:
        part.rename(place)
    except OSError:
        if old.exists():
            old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _unwritten(path: Path, error: OSError) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnwritableError(
            f"{path}: no space left to write it; free some, or name another place with -o"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UnwritableError(
            f"{path}: no permission to write it; change the folder's rights or name another: -o"
        )
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        why = "a file or folder of that name is in the way"
    else:
        why = f"cannot be written ({error.strerror or error})"
    return OutputError(f"{path}: {why}; name another place with -o")

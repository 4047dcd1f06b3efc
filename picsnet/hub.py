"""Models from a Hugging Face hub: fetched once into its cache, then read without the network.

What a snapshot in the cache should hold is known from the list of files that the hub's client keeps
beside it (``trees/COMMIT.json``): with that, "whole" can be told from "interrupted" and "other
files were wanted" offline. `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_HOME` and the client's other
variables hold. The client is imported when it is first needed.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picsnet.errors import ModelError

_ID = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?:@(\S+))?", re.ASCII)

_TRIES = 3
"""Of a download whose connection is reset."""


@dataclass(frozen=True)
class _Wanted:
    """Files of a repository: those that match one of the patterns, or all."""

    repository: str
    revision: str | None
    patterns: tuple[str, ...] | None

    @property
    def by_name(self) -> bool:
        return self.patterns is not None and not any(set(p) & set("*?[") for p in self.patterns)

    @property
    def command(self) -> str:
        """That fetches them."""
        words = ["hf", "download", self.repository]
        for pattern in self.patterns or ():
            words += [pattern] if self.by_name else ["--include", pattern]
        return shlex.join(words + (["--revision", self.revision] if self.revision else []))


def resolve(
    source: str,
    *,
    what: str,
    option: str,
    revision: str | None = None,
    patterns: Sequence[str] | None = None,
) -> Path:
    """The folder of a model on this machine, fetched from the hub if need be.

    What the cache holds whole is used as it is, and the hub is not asked for anything newer. A
    download says so in a line on stderr, and shows the client's progress bars on a terminal. Where
    the connection breaks it goes on where it was; where the process ends, files that were finished
    need not be fetched again.

    Args:
        source: a folder, or OWNER/NAME or OWNER/NAME@REVISION of the hub. A folder comes first.
        what: is looked for, for messages: "the CLIP model".
        option: that names a local folder, for messages: "--clip".
        revision: commit, tag or branch; the main branch if neither this nor ``source`` names one.
        patterns: globs and names of the files that are wanted, as in ``snapshot_download``. A
            repository need not have something for each. All files if None.

    Returns:
        ``source`` if that is a folder, else the snapshot's folder in the cache.

    Raises:
        ModelError: it cannot be had; one line with the reason, the command that fetches it
            beforehand, and the option.
    """
    folder = os.path.expanduser(source)
    if source and os.path.isdir(folder):
        return Path(folder)
    wanted = _parse(source, revision, patterns)
    if wanted is None:
        kind = "a file, not a folder" if os.path.isfile(folder) else "no such folder"
        raise ModelError(
            f"{source}: {kind}, and no hub id (OWNER/NAME or OWNER/NAME@REVISION); name {what} "
            f"with {option}"
        )
    snapshot, whole = _in_cache(wanted)
    if snapshot is not None and whole:
        return snapshot
    try:
        _ask(wanted)
    except Exception as error:
        if snapshot is not None:
            # Fetched by a program that kept no list. Only the hub knows what is missing, if
            # anything is; loading will show.
            return snapshot
        raise ModelError(_message(wanted, what, option, error)) from None
    try:
        fetched = _fetch(wanted, what)
    except Exception as error:
        # The client lets its own, its HTTP library's and the system's errors through.
        raise ModelError(_message(wanted, what, option, error)) from None
    if not _holds_any(fetched, wanted):
        files = textwrap.shorten(" or ".join(wanted.patterns or ["files"]), 120, placeholder=" ...")
        raise ModelError(
            f"{wanted.repository}: the repository has no {files}, so it is not {what}; "
            f"check the id and the revision, or name a local folder with {option}"
        )
    return fetched


def cached(
    source: str, *, revision: str | None = None, patterns: Sequence[str] | None = None
) -> Path | None:
    """The folder of a model if it is on this machine and known to be whole; never asks the hub.

    Args:
        source, revision, patterns: as for `resolve`.

    Raises:
        ModelError: ``source`` and ``revision`` name two revisions.
    """
    folder = os.path.expanduser(source)
    if source and os.path.isdir(folder):
        return Path(folder)
    wanted = _parse(source, revision, patterns)
    snapshot, whole = _in_cache(wanted) if wanted is not None else (None, False)
    return snapshot if whole else None


def _parse(source: str, revision: str | None, patterns: Sequence[str] | None) -> _Wanted | None:
    """What a hub id asks for; None if it is none."""
    match = _ID.fullmatch(source)
    if match is None or os.path.isfile(source):
        return None
    repository, own = match[1], match[2]
    if own and revision and own != revision:
        raise ModelError(
            f"{source}: names revision {own}, but {revision} was given as well; leave one out"
        )
    return _Wanted(repository, revision or own, tuple(patterns) if patterns is not None else None)


def _in_cache(wanted: _Wanted) -> tuple[Path | None, bool]:
    """The snapshot in the cache, and whether it is sure to be whole; None if it is sure not to."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        snapshot = _snapshot(wanted, local_files_only=True)
    except (OSError, ValueError):  # not there, known to be incomplete, or no id that a hub allows
        return None, False
    if not _holds_any(snapshot, wanted):
        return None, False
    try:
        get_cached_repo_tree(wanted.repository, revision=wanted.revision)
        return snapshot, True  # the client has compared
    except CachedRepoTreeNotFoundError:
        # Clients before 1.22, and those that fetch file by file, leave no list.
        if not wanted.by_name:
            return snapshot, False
        there = all((snapshot / name).is_file() for name in wanted.patterns or ())
        return (snapshot if there else None), there


def _ask(wanted: _Wanted) -> None:
    """See whether the hub has it: one request, where a download would try for half a minute."""
    from huggingface_hub import HfApi, constants

    HfApi().model_info(
        wanted.repository, revision=wanted.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )


def _fetch(wanted: _Wanted, what: str) -> Path:
    print(f"picsnet: fetching {what}: {wanted.repository}", file=sys.stderr, flush=True)
    for tries_left in reversed(range(_TRIES)):
        try:
            return _snapshot(wanted)
        except Exception as error:
            # The client goes on by itself after a connection that ends or stalls, but not after
            # one that is reset. By its name: which HTTP library it is depends on the release.
            if type(error).__name__ != "ReadError" or not tries_left:
                raise
            time.sleep(1)
    raise AssertionError("unreachable")


def _snapshot(wanted: _Wanted, local_files_only: bool = False) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        """The client's bar, on terminals only."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"disable": None, **options})

    return Path(
        snapshot_download(
            wanted.repository,
            revision=wanted.revision,
            allow_patterns=None if wanted.patterns is None else list(wanted.patterns),
            local_files_only=local_files_only,
            tqdm_class=Bar,
        )
    )


def _holds_any(snapshot: Path, wanted: _Wanted) -> bool:
    patterns = ("*",) if wanted.patterns is None else wanted.patterns
    files = [p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()]
    return any(fnmatch.filter(files, pattern) for pattern in patterns)


def _message(wanted: _Wanted, what: str, option: str, error: Exception) -> str:
    from huggingface_hub import constants

    cache = constants.HF_HUB_CACHE
    for cause in _causes(error):
        number = cause.errno if isinstance(cause, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT):
            return (
                f"{wanted.repository}: no space left in {cache} for {what}; free some, set HF_HOME "
                f"to a folder on another disk, or name a local folder with {option}"
            )
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            return (
                f"{wanted.repository}: no permission to write {what} to {cache}; change the "
                f"folder's rights, set HF_HOME to another, or name a local folder with {option}"
            )
    return (
        f"{wanted.repository}: {what} is not in the cache, or not all of it, and cannot be fetched "
        f"({_reason(wanted, error)}); fetch it beforehand with: {wanted.command}, or name a local "
        f"folder with {option}"
    )


def _reason(wanted: _Wanted, error: Exception) -> str:
    from huggingface_hub import constants, errors

    for cause in _causes(error):
        if isinstance(cause, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set"
        if isinstance(cause, errors.GatedRepoError):
            return "it is gated: accept its terms on its page, then: hf auth login"
        if isinstance(cause, errors.RepositoryNotFoundError):
            return "no folder of that name, and no such repository on the hub, or a private one"
        if isinstance(cause, errors.RevisionNotFoundError):
            return f"the repository has no revision {wanted.revision}"
        if isinstance(cause, errors.HfHubHTTPError):
            return f"{constants.ENDPOINT} answers with status {cause.response.status_code}"
        if any(kind.__name__ == "TransportError" for kind in type(cause).__mro__):
            return f"no connection to {constants.ENDPOINT}: {_short(cause)}"
    return _short(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _short(error: BaseException) -> str:
    return textwrap.shorten(str(error), 120, placeholder=" ...") or type(error).__name__

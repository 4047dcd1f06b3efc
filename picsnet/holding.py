"""Files whose locks hold a folder for one process.

A lock and not that the file is there, so that a killed process is in nobody's way; `filelock` makes
do with the file where a disk has no locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from picsnet.errors import OutputError, PicsnetError


@contextlib.contextmanager
def held(
    path: Path, busy: PicsnetError, mend: str, lock: Callable[[IO[bytes], int], None] = fcntl.flock
) -> Iterator[None]:
    """A lock for as long as it is needed; then its file goes.

    Args:
        path: of its file.
        busy: raised where another process has it.
        mend: what to do where the file cannot be written.
        lock: ``fcntl.flock`` is shared with processes that are forked meanwhile, ``fcntl.lockf`` is
            of this process alone.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        file = path.open("ab")  # network disks lock for writing only what is open for that
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); {mend}") from None
    with file:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = os.fstat(file.fileno()).st_nlink == 0  # by one that ended this moment
        except (BlockingIOError, PermissionError):  # systems differ
            taken = True
        except OSError:  # some shared disks have no locks
            taken = False
        if taken:
            raise busy
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is held: the next one under this name is another's

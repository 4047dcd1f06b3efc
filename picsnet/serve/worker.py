"""A worker: a process that holds the models and does one request after another.

It reads frames from its standard input and answers on what was its standard output; whatever
libraries print goes to the log. It ends when its input does, so none outlives its service. Pictures
of strangers are parsed here and nowhere else: what goes wrong in a library's C code ends a worker,
which the service replaces.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any, BinaryIO

from picsnet.errors import (
    BitstreamError,
    ImageError,
    ImageFormatError,
    PicsnetError,
    PromptError,
    TooManyPixelsError,
    UsageError,
)
from picsnet.serve.frames import pack, receive
from picsnet.serve.settings import Models

# The first that fits. What is not among them is the server's doing, and its text stays here.
_STATUSES: tuple[tuple[type[PicsnetError], int], ...] = (
    (ImageFormatError, 415),
    (TooManyPixelsError, 413),
    (ImageError, 422),
    (BitstreamError, 422),
    (PromptError, 422),
    (UsageError, 400),
)
_PATH = re.compile(r"(^|[\s('\"])(/|[A-Za-z]:\\)[\w.]")
"""A path of this machine, which is no client's business."""


def main() -> int:
    """Serve until the input ends; returns the exit status."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    first = receive(requests)
    if first is None:
        return 0
    settings = first[0]
    settings["decoder_set"] = tuple(settings["decoder_set"])
    try:
        from picsnet.serve.engine import Engine

        engine = Engine(Models(**settings))
    except PicsnetError as error:
        _send(answers, {"error": str(error), "exit_status": error.exit_status})
        return 1
    _send(answers, {"about": engine.about()})
    while (frame := receive(requests)) is not None:
        options, (data,) = frame
        try:
            work = engine.encode if options.pop("verb") == "encode" else engine.decode
            figures, files = work(data, options)
        except Exception as error:  # whatever it was, the next request shall be served
            _send(answers, _refusal(error))
            continue
        _send(answers, {"figures": figures, "files": list(files)}, list(files.values()))
        del frame, data, files, figures
    return 0


def _refusal(error: Exception) -> dict[str, Any]:
    for kind, status in _STATUSES:
        if isinstance(error, kind) and not _PATH.search(str(error)):
            return {"error": str(error), "status": status}
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename}:{last.lineno}"
    print(
        f"picsnet: worker: {type(error).__name__}: {error} ({place})", file=sys.stderr, flush=True
    )
    return {"error": "", "status": 500}


def _send(stream: BinaryIO, message: dict[str, Any], blobs: list[bytes] | None = None) -> None:
    stream.write(pack(message, blobs or []))
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())

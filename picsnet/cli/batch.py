"""Work over many inputs: output names, progress, and failures that do not stop the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from picsnet.errors import PicsnetError, UsageError
from picsnet.files import InputFile

Record = dict[str, Any]


def output_paths(
    inputs: list[InputFile], out: str | None, suffix: str
) -> list[tuple[InputFile, Path]]:
    """Where each input's result goes.

    Args:
        inputs: expanded inputs.
        out: a file (for one input; it must end in ``suffix``), a folder, or None: beside the input.
        suffix: of the results, with its dot.

    Raises:
        UsageError: one file was named for several inputs, or two inputs would write one file.
    """
    if out is None:
        pairs = [(item, item.path.with_suffix(suffix)) for item in inputs]
    elif out.endswith(suffix) and not Path(out).is_dir():
        if len(inputs) != 1:
            raise UsageError(f"-o {out}: names one file for {len(inputs)} inputs; name a folder")
        pairs = [(inputs[0], Path(out))]
    else:
        pairs = [(item, (Path(out) / item.relative).with_suffix(suffix)) for item in inputs]
    taken: dict[Path, Path] = {}
    for item, target in pairs:
        other = taken.setdefault(target, item.path)
        if other != item.path:
            raise UsageError(
                f"{other} and {item.path} would both be written to {target}; "
                "rename one or code them apart"
            )
    return pairs


def run_all(
    pairs: list[tuple[InputFile, Path]],
    work: Callable[[Path, Path], Record],
    describe: Callable[[Record], str],
    as_json: bool,
    quiet: bool,
) -> int:
    """Do ``work(source, target)`` for each pair; returns the exit status.

    Results go to stdout, one line (or JSON object) each; the progress bar and errors to stderr. A
    failing input is named and the others go on; the status is then that of the last failure.
    """
    status = 0
    for item, target in _progress(pairs, quiet or as_json):
        try:
            record = work(item.path, target)
        except PicsnetError as error:
            print(f"picsnet: error: {error}", file=sys.stderr)
            status = error.exit_status
            continue
        if as_json:
            print(json.dumps(record), flush=True)
        elif not quiet:
            print(describe(record), flush=True)
    return status


def _progress(
    pairs: list[tuple[InputFile, Path]], silent: bool
) -> Iterable[tuple[InputFile, Path]]:
    if silent or len(pairs) == 1 or not sys.stderr.isatty():
        return pairs
    from tqdm import tqdm

    bar: Iterable[tuple[InputFile, Path]] = tqdm(pairs, unit="file", file=sys.stderr)
    return bar

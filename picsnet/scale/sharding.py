"""A folder of pictures shared by several processes, each with its own models.

    pictures -> what is done already -> the rest, one of every so many for each process
             -> coded, and noted in the process's journal -> one manifest, by the first process

Lightning's Fabric starts the processes, or takes those that torchrun or srun started. What is done
is left alone if its file is whole and was made from the same bytes with the same settings. Of what
fails no file stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from picsnet.devices import check_device
from picsnet.errors import OutputError, PicsnetError, UsageError, in_one_line
from picsnet.files import BEGUN, InputFile, make_folder, read_file
from picsnet.holding import held
from picsnet.launching import Processes
from picsnet.scale.manifest import (
    LOCK,
    MANIFEST,
    OK,
    Journal,
    Outcome,
    Record,
    check_free,
    coded,
    failed,
    failures,
    merge_folder,
    new_run,
    read_folder,
)
from picsnet.scale.settings import EncodeSettings, content_key

Pair = tuple[InputFile, Path]
Prompter = Callable[[InputFile], str | None]


class Notebook:
    """Where a process notes what it does.

    Args:
        out: folder of the outputs.
        journal: of the process.
        digest: of the settings.
        prompter: the prompt that is given for a picture.
        parent: the process without which this one must not go on; None if there is none.
    """

    def __init__(
        self, out: Path, journal: Journal, digest: str, prompter: Prompter, parent: int | None
    ) -> None:
        self._out, self._journal, self._digest = out, journal, digest
        self._prompter, self._parent = prompter, parent

    def key(self, item: InputFile) -> str | None:
        """Of a picture as it is now; None if it cannot be read, which coding it will tell.

        Raises:
            OrphanedError: the process that started this one is gone.
        """
        self._check_parent()
        return _key(item, self._digest, self._prompter)

    def note(self, pair: Pair, key: str | None, record: Record) -> None:
        """A picture that was coded, and its file is there."""
        data = read_file(pair[1])
        self._journal.write(coded(record, data, **self._known(pair, key)))

    def note_failure(self, pair: Pair, key: str | None, error: PicsnetError) -> None:
        """A picture that could not be coded. What an earlier run made of it goes first: beside
        such a record, and under the picture's name, it would pass for the picture's own.

        Raises:
            OrphanedError: as `key`; the file may be the next run's.
            OutputError: the file cannot be removed; that is noted too.
        """
        self._check_parent()
        stays = None
        try:
            pair[1].unlink(missing_ok=True)
        except OSError as problem:
            stays = OutputError(
                f"{error}; and {pair[1]}, which an earlier run made of it, cannot be removed "
                f"({problem.strerror}); delete it"
            )
        self._journal.write(failed(str(stays or error), **self._known(pair, key)))
        if stays is not None:
            raise stays

    def _check_parent(self) -> None:
        if self._parent is not None and os.getppid() != self._parent:
            raise OrphanedError

    def _known(self, pair: Pair, key: str | None) -> Record:
        item, target = pair
        return {
            "input": item.path.as_posix(),
            "output": target.relative_to(self._out).as_posix(),
            "key": key,
            "settings": self._digest,
        }


class OrphanedError(Exception):
    """The launcher is gone: no fault of a picture's, so nothing that the next one is done after."""


class HaltedError(Exception):
    """Nothing more can be written: no fault of a picture's either, and nothing is removed for it.

    Args:
        reason: in one line.
    """

    def __init__(self, reason: PicsnetError) -> None:
        super().__init__(str(reason))
        self.reason = reason


Code = Callable[[list[Pair], EncodeSettings, str, bool, Notebook], None]
"""Codes pairs by settings on a device, told whether this process is the first, and notes each. It
is not called with no pairs: then no models are loaded."""

_Begun = tuple[str, EncodeSettings, str, Sequence[Pair]]
"""What holds for all processes: name of the run, settings with all names in them, their digest,
pairs."""


def launch(processes: Processes, device: str) -> Fabric:
    """Start the other processes, unless a launcher did.

    Args:
        processes: how many.
        device: "auto", "cpu", "cuda", "mps"; for one process also "cuda:N".

    Raises:
        UsageError: there are fewer devices.
    """
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    kind, _, index = check_device(device).partition(":")
    if processes.count > 1 and index:
        raise UsageError(
            f"--device {device}: names one device for {processes.per_node}; use --device {kind}"
        )
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, processes.per_node)
    if processes.per_node > there:
        mend = "ask for --gpus-per-node" if processes.launcher == "srun" else "start fewer"
        raise UsageError(
            f"{processes.per_node} processes on a machine with {there} {kind} devices; {mend}, or "
            "use --device cpu"
        )
    options: dict[str, Any] = processes.fabric_options()
    if index:
        options["devices"] = [int(index)]
    fabric = Fabric(accelerator=kind, **options)
    with _together():
        fabric.launch()
    return fabric


def encode_shares(
    fabric: Fabric,
    pairs: Sequence[Pair],
    out: Path,
    settings: EncodeSettings,
    prompter: Prompter,
    code: Code,
) -> Outcome | None:
    """Do what is not done yet, and write ``out/manifest.jsonl``.

    Args:
        fabric: as `launch` gives it; all processes must call this with the same arguments.
        pairs: pictures and the files that they become, under ``out``. The first process's count:
            a file that comes late is not in all lists.
        out: a folder that all processes see.
        settings: what ``code`` codes with; they are part of the key. What they leave to the
            machine, the first process's says for all: files of one digest are alike.
        prompter: prompts that were given, likewise.
        code: codes a share.

    Returns:
        What came of it; None in processes other than the first.

    Raises:
        PicsnetError: nothing can be coded, or a process died. What is done stays done.
    """
    with contextlib.ExitStack() as holding:
        begun = _begin(fabric, holding, out, settings, pairs)
        return None if begun is None else _go_on(fabric, begun, out, prompter, code)


def _go_on(
    fabric: Fabric, begun: _Begun, out: Path, prompter: Prompter, code: Code
) -> Outcome | None:
    """From what is done already to the manifest."""
    run, settings, digest, pairs = begun
    before = _done(fabric, pairs, out, digest, prompter)
    pending = [pair for pair, done in zip(pairs, before, strict=True) if not done]
    share = pending[fabric.global_rank :: fabric.world_size]
    problem: PicsnetError | None = None
    if share:
        journal = Journal(out, run, fabric.global_rank)
        notebook = Notebook(out, journal, digest, prompter, _parent(fabric))
        try:
            code(share, settings, str(fabric.device), fabric.is_global_zero, notebook)
        except OrphanedError:
            raise PicsnetError(
                "the process that started this one has died; run the same command again to go on"
            ) from None
        except HaltedError as halted:
            problem = halted.reason
        except PicsnetError as error:
            problem = error
        finally:
            journal.close()
    if not _all_well(fabric, problem) or not fabric.is_global_zero:
        return None
    named = {target.relative_to(out).as_posix(): item.path.as_posix() for item, target in pairs}
    wrong = failures(merge_folder(out, named, digest), named)
    missing = [record for record in wrong if record["settings"] is None]
    return Outcome(str(out / MANIFEST), len(pairs), sum(before), wrong, missing)


def _begin(
    fabric: Fabric,
    holding: contextlib.ExitStack,
    out: Path,
    settings: EncodeSettings,
    pairs: Sequence[Pair],
) -> _Begun | None:
    """What the first process says, or None where that is a problem, which it raises itself.

    It holds the folder until ``holding`` is closed.
    """
    said: _Begun | PicsnetError | None = None
    if fabric.is_global_zero:
        try:
            make_folder(out, "the folder", "name another one with -o")
            busy = PicsnetError(
                f"{out}: another run is writing here; wait until it has ended, or end it"
            )
            holding.enter_context(held(out / LOCK, busy, "name another folder with -o"))
            _tidy(out)
            settings = settings.resolved()
            said = (new_run(), settings, settings.digest(), pairs)
        except PicsnetError as error:
            said = error
    with _together():
        said = fabric.broadcast(said)
    if not isinstance(said, PicsnetError):
        return said
    if fabric.is_global_zero:
        raise said
    return None


def _tidy(out: Path) -> None:
    """Remove what killed processes had begun."""
    check_free(out)
    for folder, _, names in os.walk(out):
        for name in filter(BEGUN.fullmatch, names):
            Path(folder, name).unlink(missing_ok=True)


def _done(
    fabric: Fabric, pairs: Sequence[Pair], out: Path, digest: str, prompter: Prompter
) -> list[bool]:
    """Which pairs are done; each process looks at its share of them.

    That all have looked before one begins makes them agree on what is left.
    """
    records = read_folder(out)
    mine = range(fabric.global_rank, len(pairs), fabric.world_size)
    flags = torch.zeros(len(pairs), dtype=torch.int32)
    for number in mine:
        item, target = pairs[number]
        record = records.get(target.relative_to(out).as_posix())
        if record is None or record["status"] != OK or record.get("settings") != digest:
            continue
        whole = _intact(target, record)
        flags[number] = whole and record["key"] == _key(item, digest, prompter)
    return [bool(flag) for flag in _sum(fabric, flags)]


def _intact(target: Path, record: Record) -> bool:
    try:
        data = target.read_bytes()
    except OSError:
        return False
    return bool(hashlib.sha256(data).hexdigest() == record["sha256"])


def _key(item: InputFile, digest: str, prompter: Prompter) -> str | None:
    try:
        return content_key(digest, read_file(item.path), prompter(item))
    except PicsnetError:
        return None


def _parent(fabric: Fabric) -> int | None:
    """The launcher on this machine; a process that outlives it would work beside the next run."""
    own = os.environ.get("TORCHELASTIC_RUN_ID") is not None or fabric.local_rank > 0
    return os.getppid() if own else None


def _all_well(fabric: Fabric, problem: PicsnetError | None) -> bool:
    """Wait for all; the first process that had a problem raises it, and the first of all says
    that there is one: its exit status is the one that is looked at."""
    mine = torch.zeros(fabric.world_size, dtype=torch.int32)
    mine[fabric.global_rank] = problem is not None
    flags = _sum(fabric, mine)
    if problem is not None and fabric.global_rank == flags.index(1):
        raise problem
    if problem is None and any(flags) and fabric.is_global_zero:
        raise PicsnetError(
            "another process had a problem, told above; run the same command again to go on"
        )
    return not any(flags)


def _sum(fabric: Fabric, flags: torch.Tensor) -> list[int]:
    """Over all processes; none has it before all have come."""
    with _together():
        total = fabric.all_reduce(flags, reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    result: list[int] = total.tolist()
    return result


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """What is done by all processes fails where one is gone."""
    try:
        yield
    except RuntimeError as error:
        reason = in_one_line(error)
        raise PicsnetError(
            f"another process of this run is gone or cannot be reached ({reason}); run the same "
            "command again to go on"
        ) from None

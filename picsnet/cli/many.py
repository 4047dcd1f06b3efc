"""``picsnet encode`` over many pictures: processes that share them, a manifest, and going on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from picsnet.cli.batch import Pair, Record, names_file, run_chunks
from picsnet.cli.prompts import Prompter
from picsnet.errors import PicsnetError, UnwritableError, UsageError, with_its_kind
from picsnet.launching import find_processes, launcher
from picsnet.scale.settings import EncodeSettings
from picsnet.terminal import print_error, printable

AUTO = "auto"

Work = Callable[[list[Pair]], list[Record]]
Runner = Callable[..., int]
"""As `run_chunks`: does chunks of pairs and tells of them."""
Code = Callable[[EncodeSettings, argparse.Namespace, list[Pair], Runner, int], int]
"""Codes pairs by settings, with the runner that it is given; the last is how many processes share
this machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of many pictures."""
    many = parser.add_argument_group("many pictures")
    many.add_argument(
        "--resume",
        action="store_true",
        help="leave out what is done already, and keep OUT/manifest.jsonl, which says what is "
        "(always with several processes)",
    )
    many.add_argument(
        "--devices",
        metavar="N",
        help="processes on this machine, each with a device of its own and a share of the pictures;"
        " auto: one for each GPU (torchrun and srun say it themselves)",
    )
    many.add_argument(
        "--nodes", type=int, metavar="N", help="machines, where they are started one by one"
    )


def wanted(args: argparse.Namespace) -> bool:
    """Whether a manifest is kept, and pictures may be shared."""
    several = args.devices is not None or args.nodes is not None
    return bool(args.resume or several or launcher())


def run(
    args: argparse.Namespace,
    asked: EncodeSettings,
    pairs: list[Pair],
    prompter: Prompter,
    code: Code,
) -> int:
    """Code this process's share by ``code``, with the settings that the first process makes of
    those that were asked for."""
    if args.save_parts is not None:
        raise UsageError(
            f"--save-parts {args.save_parts}: --resume and several processes leave out what is "
            "done, its parts too; leave one or the other out"
        )
    out = _folder(args)
    processes = find_processes(_devices(args), args.nodes)
    from picsnet.scale import sharding

    fabric = sharding.launch(processes, args.device)

    def share(
        some: list[Pair],
        coded_by: EncodeSettings,
        device: str,
        first: bool,
        notebook: sharding.Notebook,
    ) -> None:
        own = argparse.Namespace(**vars(args))
        own.device, own.quiet = device, args.quiet or not first
        code(coded_by, own, some, _noting(notebook, args.debug), processes.per_node)

    outcome = sharding.encode_shares(fabric, pairs, out, asked, prompter, share)
    if outcome is None:
        return 0
    for record in outcome.lost:
        print_error(record["error"])
    if not args.quiet:
        print(printable(str(outcome)), file=sys.stderr if args.json else sys.stdout)
    return 1 if outcome.failed else 0


def _noting(notebook: Any, debug: bool) -> Runner:
    """`run_chunks` with a note of each picture, whatever becomes of it.

    What cannot be written for want of space or rights is no picture's failure: it ends the run.
    """
    from picsnet.scale.sharding import HaltedError

    def runner(pairs: list[Pair], size: int, work: Work, *rest: Any) -> int:
        def noted(chunk: list[Pair]) -> list[Record]:
            try:
                return done(chunk)
            except UnwritableError as error:
                raise HaltedError(error) from None

        def done(chunk: list[Pair]) -> list[Record]:
            keys = [notebook.key(item) for item, _ in chunk]
            try:
                records = _readable(work, chunk, debug)
            except PicsnetError as error:
                # Several are done again one by one.
                if len(chunk) == 1 and not isinstance(error, UnwritableError):
                    notebook.note_failure(chunk[0], keys[0], error)
                raise
            for pair, key, record in zip(chunk, keys, records, strict=True):
                notebook.note(pair, key, record)
            return records

        return run_chunks(pairs, size, noted, *rest)

    return runner


def _readable(work: Work, chunk: list[Pair], debug: bool) -> list[Record]:
    """One picture that something unforeseen happens to does not stop the others."""
    try:
        return work(chunk)
    except PicsnetError:
        raise
    except Exception as error:
        if debug:
            raise
        raise PicsnetError(
            f"{chunk[0][0].path}: {with_its_kind(error)}; code it alone with --debug"
        ) from error


def _folder(args: argparse.Namespace) -> Path:
    if args.output is None or names_file(args.output, ".pics"):
        raise UsageError(
            "--resume and several processes keep a manifest beside the files; name their folder: "
            "-o FOLDER"
        )
    return Path(args.output)


def _devices(args: argparse.Namespace) -> int | None:
    if args.devices is None or args.devices.isdigit():
        return None if args.devices is None else int(args.devices)
    if args.devices != AUTO:
        raise UsageError(f"--devices {args.devices}: must be a number, or {AUTO}")
    if launcher() is not None:
        return None
    import torch

    return max(1, torch.cuda.device_count()) if args.device in (AUTO, "cuda") else 1


def settings(args: argparse.Namespace, mode: str) -> EncodeSettings:
    """What the options say of how pictures are coded."""
    given = {field.name: getattr(args, field.name) for field in fields(EncodeSettings)}
    given |= {"mode": mode, "decoder_set": tuple(args.decoder_set)}
    if mode == "sketch":
        given["decoder"] = None  # where it is the word for that
    return EncodeSettings(**given)

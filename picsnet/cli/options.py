"""Options that several verbs have."""

from __future__ import annotations

import argparse

from picsnet.errors import UsageError


def add_common(parser: argparse.ArgumentParser) -> None:
    """Device and output."""
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a file on stdout")
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many sketches are coded at once."""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="sketches coded at once; files do not depend on it (default: one a core, as far as "
        "memory allows; on CUDA one)",
    )


def check_workers(workers: int | None) -> None:
    """Refuse a number that is none.

    Raises:
        UsageError: it is below 1.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: must be at least 1")


def add_decoder(parser: argparse.ArgumentParser, default: str, none: str | None = None) -> None:
    """Which diffusion decoder, and how it is run.

    Args:
        parser: to add to.
        default: what is taken where none is named, in words.
        none: the word that stands for no decoder at all, if there is one.
    """
    group = parser.add_argument_group("diffusion decoder")
    group.add_argument(
        "--decoder",
        metavar="ID_OR_PATH",
        help="one that ships or a preset (picsnet models lists them), a pipeline's folder, a YAML "
        "file or a hub id" + (f", or {none}" if none else "") + f" ({default})",
    )
    group.add_argument(
        "--decoder-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the decoder, e.g. steps=10; sender and receiver must agree; repeatable",
    )

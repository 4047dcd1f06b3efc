"""``picsnet serve``: a page to try the codec on, and an HTTP API."""

from __future__ import annotations

import argparse

from picsnet.cli import options
from picsnet.errors import ServiceError, UsageError
from picsnet.serve.settings import MIB, Limits, Models

NAME = "serve"
HELP = "serve a page to code photographs on, and an HTTP API"
_EXTRA = "picsnet[serve]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine alone)",
    )
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--ckpt",
        help="sketch model, as encode takes it (default: one that ships; files of all that ship "
        "can then be decoded)",
    )
    parser.add_argument(
        "--sketcher", default="bundled", help="edge extractor: bundled, hed or hed:FOLDER"
    )
    parser.add_argument(
        "--prompt-from",
        choices=["inversion", "caption", "palette", "none"],
        help="how prompts are made (default: as suits the decoder)",
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    options.add_decoder(
        parser, "default: sd21-hed where its files are on this machine, else one that ships", "none"
    )
    _add_limits(parser.add_argument_group("limits"))


def _add_limits(group: argparse._ArgumentGroup) -> None:
    limits = Limits()

    def add(name: str, metavar: str, about: str, kind: type = int) -> None:
        default = getattr(limits, name.removeprefix("--").replace("-", "_"))
        group.add_argument(
            name, type=kind, default=default, metavar=metavar, help=f"{about} (%(default)s)"
        )

    group.add_argument(
        "--max-body",
        type=float,
        default=limits.max_body / MIB,
        metavar="MIB",
        help="of a request (%(default)g)",
    )
    add("--max-pixels", "N", "of a picture, checked before it is decoded")
    add("--max-candidates", "N", "drawn for one request")
    add("--body-timeout", "S", "seconds in which a body has to arrive", float)
    add("--write-timeout", "S", "seconds in which a client has to take more of its answer", float)
    add("--max-wait", "S", "seconds in the queue", float)
    add("--timeout", "S", "seconds of work; what takes longer is stopped", float)
    add("--workers", "N", "processes that each hold the models: what is worked on at once")
    add("--queue", "N", "requests that may wait beside those")
    add("--max-connections", "N", "open at once")
    add("--max-connections-per-client", "N", "open at once from one address; 0: no limit")
    add("--max-per-client", "N", "unfinished requests of one address; 0: no limit")
    add("--grace", "S", "seconds that work has to end in when the service is stopped", float)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal says to stop."""
    if not 0 <= args.port < 65536:
        raise UsageError(f"--port {args.port}: must be 0 to 65535")
    if not 0 < args.max_body < 2**20:
        raise UsageError(f"--max-body {args.max_body:g}: must be above 0, in MiB")
    limits = Limits(
        max_body=max(1, int(args.max_body * MIB)),
        max_pixels=args.max_pixels,
        max_candidates=args.max_candidates,
        body_timeout=args.body_timeout,
        write_timeout=args.write_timeout,
        max_wait=args.max_wait,
        timeout=args.timeout,
        workers=args.workers,
        queue=args.queue,
        max_connections=args.max_connections,
        max_connections_per_client=args.max_connections_per_client,
        max_per_client=args.max_per_client,
        grace=args.grace,
    )
    models = Models(
        ckpt=args.ckpt,
        decoder=args.decoder,
        decoder_set=tuple(args.decoder_set),
        sketcher=args.sketcher,
        prompt_from=args.prompt_from,
        device=args.device,
        max_pixels=args.max_pixels,
        threads=_threads(args.workers),
    )
    try:
        from picsnet.serve.server import serve
    except ModuleNotFoundError as error:
        raise ServiceError(
            f"picsnet serve needs {error.name}, which is not installed; pip install '{_EXTRA}'"
        ) from None
    serve(models, limits, args.host, args.port, args.quiet)
    return 0


def _threads(workers: int) -> int:
    """Of each worker: the cores shared out, unless the environment says how many."""
    import os

    if "OMP_NUM_THREADS" in os.environ:
        return 0
    return max(1, (os.cpu_count() or 1) // workers)

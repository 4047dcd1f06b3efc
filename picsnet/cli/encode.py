"""``picsnet encode``: photographs to .pics files."""

from __future__ import annotations

import argparse
import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from picsnet import shipped
from picsnet.cli import many, options
from picsnet.cli.batch import Pair, Record, output_paths, run_chunks, written_twice
from picsnet.cli.prompts import Prompter, user_prompts
from picsnet.errors import UsageError
from picsnet.files import IMAGE_SUFFIXES, InputFile, atomic_write, expand_inputs

if TYPE_CHECKING:
    from picsnet.scale.encoding import Coded, Encoder
    from picsnet.scale.settings import EncodeSettings

NAME = "encode"
HELP = "code photographs to .pics files"
NO_DECODER = "none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures, folders or globs")
    parser.add_argument(
        "--ckpt",
        default=shipped.DEFAULT,
        help="a shipped model, an exported folder or a Lightning checkpoint (default: %(default)s)",
    )
    parser.add_argument(
        "--quality",
        type=float,
        metavar="Q",
        help="of the sketch, for a network that serves several lambdas: 0 (fewest bytes), 1, ... "
        "are its lambdas, and what lies between counts in eighths (default: the model's own)",
    )
    parser.add_argument(
        "--effort",
        type=int,
        default=0,
        metavar="E",
        help="0 to 9: how long to look for a better coding of each sketch; decoding stays as fast "
        "(default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="OUT", help="a .pics file or a folder")
    parser.add_argument(
        "--mode",
        choices=["pics", "pic", "sketch"],
        help="what the file holds: prompt and sketch, prompt alone, sketch alone "
        "(default: pics where a decoder is named or on this machine, else sketch)",
    )
    parser.add_argument(
        "--sketcher",
        default="bundled",
        help="edge extractor: bundled, hed, hed:FOLDER, or map if inputs are maps already",
    )
    options.add_decoder(
        parser,
        "default: sd21-hed where its files are on this machine, else one that ships",
        none=NO_DECODER,
    )
    prompts = parser.add_argument_group("prompts and candidates")
    prompts.add_argument("--prompt", metavar="TEXT", help="the picture's prompt")
    prompts.add_argument(
        "--prompts",
        metavar="CSV",
        help="prompts of several pictures: a CSV with columns file,prompt, or 'sidecar' for a "
        ".txt beside each picture",
    )
    prompts.add_argument(
        "--prompt-from",
        choices=["inversion", "caption", "palette", "none"],
        help="how a prompt is made where none is given (default: as suits the decoder, "
        "mostly inversion)",
    )
    prompts.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="draw N seeds and name the one most like the original, 1..32 (default: as suits the "
        "decoder, mostly 4)",
    )
    prompts.add_argument(
        "--judge",
        choices=["clip", "colour"],
        help="what likeness is: CLIP's, or of colours by place (default: as suits the decoder)",
    )
    prompts.add_argument("--clip", metavar="ID_OR_PATH", help="CLIP model (default: the decoder's)")
    prompts.add_argument("--captioner", metavar="ID_OR_PATH", help="image-to-text model")
    prompts.add_argument("--tokens", type=int, metavar="N", help="of an inverted prompt")
    prompts.add_argument("--inversion-steps", type=int, metavar="N", help="at most")
    prompts.add_argument("--restarts", type=int, metavar="N", help="of the inversion")
    prompts.add_argument("--seed", type=int, help="of the inversion")
    prompts.add_argument(
        "--batch", type=int, default=8, metavar="N", help="pictures inverted together (default: 8)"
    )
    prompts.add_argument(
        "--save-parts",
        metavar="FOLDER",
        help="keep original, sketch, decoded sketch, prompt, candidates, reconstruction and a "
        "side-by-side picture of each",
    )
    options.add_workers(parser)
    many.add_arguments(parser)
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Code all inputs; a broken one is named and the others go on."""
    mode = _mode(args)
    inputs = expand_inputs(args.images, IMAGE_SUFFIXES)
    pairs = output_paths(inputs, args.output, ".pics")
    if args.save_parts is not None:
        _check_parts(args.save_parts, inputs)
    prompter = user_prompts(args.prompt, args.prompts, len(pairs))
    settings = many.settings(args, mode)
    code = functools.partial(_code, prompter)
    if many.wanted(args):
        return many.run(args, settings, pairs, prompter, code)
    return code(settings, args, pairs, run_chunks)


def _code(
    prompter: Prompter,
    settings: EncodeSettings,
    args: argparse.Namespace,
    pairs: list[Pair],
    runner: many.Runner,
    processes: int = 1,
) -> int:
    from picsnet.devices import share_cores
    from picsnet.scale.encoding import Encoder

    encoder = Encoder(settings, args.device, not (args.quiet or args.json))

    def work(chunk: list[Pair]) -> list[Record]:
        paths = [item.path for item, _ in chunk]
        prompts = [prompter(item) for item, _ in chunk]
        records = []
        for pair, coded in zip(chunk, encoder.code(paths, prompts), strict=True):
            records.append(_written(pair, coded))
            if args.save_parts:
                _save_parts(args.save_parts, pair[0], encoder, coded)
        return records

    # Sketches are coded side by side, prompts found for several pictures together.
    together, workers = args.batch, 1
    if settings.mode == "sketch":
        together = 1
        workers = share_cores(len(pairs), args.workers, device=args.device, processes=processes)
    return runner(pairs, together, work, _describe, args.json, args.quiet, workers)


def _written(pair: Pair, coded: Coded) -> Record:
    item, target = pair
    start = time.perf_counter()
    with atomic_write(target) as part:
        part.write_bytes(coded.data)
    writing = time.perf_counter() - start
    size = target.stat().st_size
    known = coded.record
    return {
        "input": str(item.path),
        "output": str(target),
        **known,
        "bytes": size,
        "bpp": 8 * size / (known["width"] * known["height"]),
        "stages": {**known["stages"], "write": round(writing, 4)},
        "seconds": round(known["seconds"] + writing, 3),
    }


def _parts_folder(folder: str, item: InputFile) -> Path:
    return Path(folder) / item.relative.with_suffix("")


def _check_parts(folder: str, inputs: list[InputFile]) -> None:
    """Refuse pictures of one name: files beside pictures of two folders are two, their parts not.

    Raises:
        UsageError: the parts of two would be written to one place, or parts among the inputs.
    """
    full = {os.path.realpath(item.path.parent) for item in inputs}
    for place in (_parts_folder(folder, item) for item in inputs):
        if os.path.realpath(place) in full:
            raise UsageError(
                f"--save-parts {folder}: {place} holds inputs, which parts could be written over; "
                "name another folder"
            )
    if both := written_twice((item, _parts_folder(folder, item)) for item in inputs):
        one, other, place = both
        raise UsageError(
            f"--save-parts {folder}: the parts of {one} and of {other} would both be written to "
            f"{place}; name the folder that has both, or code them apart"
        )


def _save_parts(folder: str, item: InputFile, encoder: Encoder, coded: Coded) -> None:
    from picsnet.parts import save_parts

    assert encoder.pics is not None and coded.encoding is not None  # `_mode` saw to it
    decoded = encoder.pics.decode_parts([coded.data])[0]
    save_parts(_parts_folder(folder, item), coded.encoding, decoded)


def _mode(args: argparse.Namespace) -> str:
    named = args.decoder not in (None, NO_DECODER)
    mode: str = args.mode or ("pics" if named or _can_draw(args) else "sketch")
    if mode != "sketch" and args.decoder == NO_DECODER:
        raise UsageError(
            f"--mode {mode} needs a decoder, whose vocabulary its prompt is in; name one: --decoder"
        )
    if mode == "sketch":
        given = {
            "--decoder": named,
            "--prompt": args.prompt is not None,
            "--prompts": args.prompts is not None,
            "--save-parts": args.save_parts is not None,
        }
        if wrong := [name for name, is_given in given.items() if is_given]:
            raise UsageError(
                f"{', '.join(wrong)}: a sketch file holds no prompt; use --mode pics or pic, or "
                "leave it out"
            )
    elif mode == "pic" and (args.quality is not None or args.effort):
        raise UsageError(
            "--quality and --effort are of the sketch, and --mode pic sends none; leave them out"
        )
    elif args.sketcher == "map":
        raise UsageError(f"--sketcher map: mode {mode} needs photographs; use --mode sketch")
    if args.batch < 1:
        raise UsageError(f"--batch {args.batch}: must be at least 1")
    options.check_workers(args.workers)
    if mode != "sketch" and args.workers is not None:
        raise UsageError(
            f"--workers {args.workers}: is for --mode sketch; pictures with a prompt are made "
            "--batch at a time"
        )
    return mode


def _can_draw(args: argparse.Namespace) -> bool:
    if args.decoder == NO_DECODER or args.sketcher == "map":
        return False
    from picsnet.decoder.choice import default_is_present

    return default_is_present()


def _describe(record: Record) -> list[str]:
    line = (
        f"{record['output']}: {record['width']}x{record['height']}, {record['bytes']} bytes, "
        f"{record['bpp']:.5f} bpp, {record['seconds']:.2f} s"
    )
    if "prompt" not in record:
        return [line]
    stages = ", ".join(f"{name} {value:.2f} s" for name, value in record["stages"].items())
    return [f"{line} ({stages})", f"  prompt: {record['prompt']}"]

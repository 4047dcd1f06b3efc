"""``picsnet decode``: .pics files to pictures."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from picsnet.cli import options
from picsnet.cli.batch import Pair, Record, names_file, output_paths, run_all
from picsnet.errors import OutputError, PicsnetError, UsageError
from picsnet.files import expand_inputs, read_file
from picsnet.terminal import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from picsnet.bitstream import PicsFile
    from picsnet.codec import SketchCodec, SketchCodecs
    from picsnet.pics import PICS
    from picsnet.stages import Stages

NAME = "decode"
HELP = "decode .pics files to PNG pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("files", nargs="+", metavar="FILE", help=".pics files, folders or globs")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="a .png file or a folder (default: beside each file; there, over nothing that is "
        "there already)",
    )
    parser.add_argument(
        "--ckpt",
        help="the model that the file was written with, where it is not one of those that ship",
    )
    parser.add_argument(
        "--sketch-only",
        action="store_true",
        help="write the decoded sketch, at the size at which it was coded",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="of a damaged or cut file use the layers that arrived whole, and say which did not",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="refuse pictures of more (default: the format's limit, 8192x8192, which takes long)",
    )
    options.add_decoder(parser, "default: the one on this machine that the file was written for")
    options.add_workers(parser)
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    """Decode all inputs; a broken one is named and the others go on."""
    pairs = output_paths(expand_inputs(args.files, frozenset({".pics"})), args.output, ".png")
    options.check_workers(args.workers)
    from picsnet.bitstream import read

    # A file is parsed before torch is loaded: where it is the only one and damaged, at once.
    receiver = _Receiver(args)
    named = args.output is not None and names_file(args.output, ".png")

    def work(source: Path, target: Path) -> Record:
        if not named and os.path.exists(target) and _beside(source, target):
            # The photograph that was coded lies there, as likely as not.
            raise OutputError(f"{target}: is there already; name another place with -o")
        data = read_file(source)
        file = read(data, name=str(source), partial=args.partial, max_pixels=args.max_pixels)
        from picsnet.images import save_png
        from picsnet.stages import Stages

        if file.missing:
            lost = " and ".join(file.missing)
            note = f"{source}: its {lost} did not arrive whole; decoded without"
            # One write: other workers' lines must not come between.
            sys.stderr.write(f"picsnet: {printable(note)}\n")
        stages = Stages()
        if _is_drawn(file, args):
            pixels, record = receiver.picture(data, file, str(source), stages)
        else:
            pixels, record = receiver.sketch(file, str(source), stages)
        with stages("write"):
            save_png(pixels, target)
        height, width = pixels.shape[:2]
        return {
            "input": str(source),
            "output": str(target),
            "width": width,
            "height": height,
            **record,
            "stages": stages.rounded(),
            "seconds": round(sum(stages.seconds.values()), 3),
            "missing": list(file.missing),
        }

    workers = _workers(args, pairs)
    return run_all(pairs, work, _describe, args.json, args.quiet, workers)


def _beside(source: Path, target: Path) -> bool:
    """In one folder, whether or not -o named it."""
    return os.path.realpath(source.parent) == os.path.realpath(target.parent)


def _is_drawn(file: PicsFile, args: argparse.Namespace) -> bool:
    return not (args.sketch_only or (file.text is None and file.sketch is not None))


def _workers(args: argparse.Namespace, pairs: list[Pair]) -> int:
    """How many files to decode at once: what a diffusion model draws goes one by one."""
    if len(pairs) == 1:
        return 1
    drawn = None if args.sketch_only else next(_drawn(args, pairs), None)
    if drawn is None:
        from picsnet.devices import share_cores

        return share_cores(len(pairs), args.workers, device=args.device)
    if args.workers is not None:
        raise UsageError(
            f"--workers {args.workers}: is for sketches, and {drawn} is drawn from a prompt; leave "
            "it out, or use --sketch-only"
        )
    return 1


def _drawn(args: argparse.Namespace, pairs: list[Pair]) -> Iterator[Path]:
    """Files that ask for a diffusion decoder; broken ones are named later, in their turn."""
    from picsnet.bitstream import read

    for item, _ in pairs:
        with contextlib.suppress(PicsnetError):
            file = read(read_file(item.path), partial=args.partial, max_pixels=args.max_pixels)
            if _is_drawn(file, args):
                yield item.path


def _describe(record: Record) -> list[str]:
    line = f"{record['output']}: {record['width']}x{record['height']}, by {record['model']}, "
    line += f"{record['seconds']:.2f} s"
    return [line, f"  prompt: {record['prompt']}"] if "prompt" in record else [line]


class _Receiver:
    """Loads what files turn out to need, once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self._codecs: SketchCodecs | None = None
        self._loading = threading.Lock()
        self._pics: dict[str, PICS] = {}

    def sketch(self, file: PicsFile, name: str, stages: Stages) -> tuple[NDArray[np.uint8], Record]:
        """(pixels, record) of a file's sketch."""
        from picsnet.bitstream import check_pixels
        from picsnet.decoder.geometry import working_size
        from picsnet.errors import UnsupportedLayerError
        from picsnet.textlayer import read_head

        if file.sketch is None:
            raise UnsupportedLayerError(f"{name}: holds no sketch; decode it without --sketch-only")
        size = (file.width, file.height)
        if file.text is not None:
            size = working_size(*size, read_head(file.text, name).size)
            # The file says it, not the decoder: it may be 4096x1024 for a picture of 64x16.
            check_pixels(*size, self.args.max_pixels, f"{name}: its sketch")
        # Loading a model is paid once, not by the file that comes first.
        codec = self._codec(file.sketch.fingerprint, name)
        pixels = codec.decode_stream(file.sketch.stream, size[1], size[0], name, stages)
        return pixels, {"model": codec.model.name}

    def _codec(self, fingerprint: bytes, name: str) -> SketchCodec:
        with self._loading:
            if self._codecs is None:
                from picsnet.codec import SketchCodecs
                from picsnet.devices import check_device, exact_device

                self._codecs = SketchCodecs(
                    self.args.ckpt, exact_device(check_device(self.args.device))
                )
            return self._codecs.get(fingerprint, name)

    def picture(
        self, data: bytes, file: PicsFile, name: str, stages: Stages
    ) -> tuple[NDArray[np.uint8], Record]:
        """(pixels, record) of the photograph that a decoder draws."""
        pics = self._pics_for(file, name)
        part = pics.decode_parts([data], names=[name], partial=self.args.partial)[0]
        stages.seconds.update(part.seconds)
        return part.picture, {
            "model": pics.decoder.spec.name,
            "prompt": part.prompt,
            "candidate": part.candidate,
        }

    def _pics_for(self, file: PicsFile, name: str) -> PICS:
        """The codec with the decoder that was named, or else that the file names."""
        from picsnet.decoder.choice import present_decoders
        from picsnet.errors import DecoderMismatchError, UnsupportedLayerError
        from picsnet.textlayer import read_head

        if self.args.decoder is not None:
            return self._make(self.args.decoder)
        if file.text is None:
            raise UnsupportedLayerError(
                f"{name}: holds no prompt, so there is nothing to draw from; get the file again"
            )
        head = read_head(file.text, name)
        control = file.sketch is not None or "sketch" in file.missing
        names = []
        for spec in present_decoders():
            names.append(spec.name)
            pics = self._make(spec.name)
            size = pics.decoder.spec.settings.size
            if (pics.decoder.identity(control), size) == (head.decoder, head.size):
                return pics
        raise DecoderMismatchError(
            f"{name}: was written for decoder {head.decoder:03x} at size {head.size}, and none on "
            f"this machine is that ({', '.join(names) or 'there are none'}); name it: --decoder, "
            "--decoder-set"
        )

    def _make(self, decoder: str) -> PICS:
        if decoder not in self._pics:
            from picsnet.pics import PICS

            self._pics[decoder] = PICS.from_pretrained(
                self.args.ckpt,
                decoder,
                decoder_settings=self.args.decoder_set,
                device=self.args.device,
                progress=not (self.args.quiet or self.args.json),
            )
        return self._pics[decoder]

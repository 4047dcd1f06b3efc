"""The mini decoder on photographs: rate, likeness, and what text and sketch are worth.

    python benchmarks/mini.py --data ../shared/data/kodak

codes each photograph with text, sketch and the decoder that ships, decodes the file, and compares
with opponents that get as many bytes: AVIF and WebP at low qualities and downscaled (the best by
MS-SSIM of those that fit, or the smallest file if none does), and the picture's mean colour; and
with the decoder itself without text, without sketch, and with another picture's sketch. What these
are worth is told by pictures of one candidate each, since to choose among several favours what they
were chosen by. Writes ``mini.json`` and ``contact_sheet.webp`` (original, decoded sketch, decoded
photograph) to ``out/mini``.

Measures, at the original's size unless said otherwise: MS-SSIM of luminance; colour error, the mean
CIELAB distance of the means of a 16x16 grid; sketch agreement, the F-measure of thinned sketches
(above 0.5, within 2 pixels, matched one to one) of original and reconstruction at the working size.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from picsnet.classical import DOWNSCALES, ClassicalPoint
from picsnet.decoder.diffusion import Drawing
from picsnet.decoder.spec import MINI
from picsnet.errors import DataError, PicsnetError
from picsnet.evaluation.edges import edge_agreement, thinned
from picsnet.files import IMAGE_SUFFIXES, InputFile, atomic_write, expand_inputs
from picsnet.images import load_rgb
from picsnet.metrics import MS_SSIM_SHORTEST_SIDE, colour_error, map_ms_ssim
from picsnet.pics import PICS, Decoding, Encoding
from picsnet.sketch import Sketcher, load_sketcher

Pixels = NDArray[np.uint8]

SHEET_WIDTH = 192
"""Of a picture on the contact sheet, pixels."""
SIZE_BYTES = 4
"""That tell at which size an opponent's picture is shown."""
ONE = "one candidate"
"""Ours, but for the choice."""


@dataclass(frozen=True)
class Row:
    """One picture by one opponent."""

    picture: str
    opponent: str
    bytes: int
    bpp: float
    ms_ssim: float
    colour_error: float
    sketch_f: float


def main(arguments: list[str] | None = None) -> int:
    """Code, measure, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="photographs, folders or globs")
    parser.add_argument("--decoder", default=MINI, help="default: %(default)s")
    parser.add_argument("--ckpt", default="sketch_ntc_lambda0.5", help="default: %(default)s")
    parser.add_argument("--candidates", type=int, help="default: as suits the decoder")
    parser.add_argument("--prompt-from", help="default: as suits the decoder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", default="out/mini", help="folder (default: %(default)s)")
    args = parser.parse_args(arguments)
    try:
        report, sheet = measure(args)
        folder = Path(args.output)
        with atomic_write(folder / "mini.json") as part:
            part.write_text(json.dumps(report, indent=1) + "\n")
        with atomic_write(folder / "contact_sheet.webp") as part:
            Image.fromarray(sheet).save(part, format="WEBP", quality=75, method=6)
    except PicsnetError as error:
        print(f"mini.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(table(report))
    return 0


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], Pixels]:
    """(report, contact sheet) of all photographs."""
    files = expand_inputs(args.data, IMAGE_SUFFIXES)
    names = _names(files)
    codec = PICS.from_pretrained(
        args.ckpt,
        args.decoder,
        prompt_from=args.prompt_from,
        candidates=args.candidates,
        device=args.device,
    )
    sketcher = load_sketcher("bundled", codec.device)
    photos = [load_rgb(file.path) for file in files]
    for file, photo in zip(files, photos, strict=True):
        if min(photo.shape[:2]) < MS_SSIM_SHORTEST_SIDE:
            raise DataError(
                f"{file.path}: {photo.shape[1]}x{photo.shape[0]} is too small for MS-SSIM; leave "
                f"out pictures with sides under {MS_SSIM_SHORTEST_SIDE} pixels"
            )
    start = time.perf_counter()
    encodings = [codec.encode_parts([p])[0] for p in tqdm(photos, "encoding", disable=None)]
    encoded = time.perf_counter()
    decodings = [codec.decode_parts([e.data])[0] for e in tqdm(encodings, "decoding", disable=None)]
    decoded = time.perf_counter()
    rows: list[Row] = []
    for index, name in enumerate(tqdm(names, "comparing", disable=None)):
        photo, encoding = photos[index], encodings[index]
        judge = Judge(name, photo, encoding, sketcher)
        wrong = _sketch_of_another(encodings, index) if len(encodings) > 1 else None
        for opponent, size, picture in (
            ("picsnet", len(encoding.data), decodings[index].picture),
            *_ablations(codec, encoding, wrong),
            *_opponents(photo, len(encoding.data)),
        ):
            rows.append(judge.row(opponent, size, picture))
    report = {
        "decoder": args.decoder,
        "ckpt": args.ckpt,
        "candidates": codec.candidates,
        "encode_seconds": (encoded - start) / len(photos),
        "decode_seconds": (decoded - encoded) / len(photos),
        "layers": _mean_layers(encodings),
        "prompts": {name: e.prompt for name, e in zip(names, encodings, strict=True)},
        "helps": {
            "text, by colour error": _wins(rows, "no text", "colour_error", lower=True),
            "sketch, by sketch F": _wins(rows, "no sketch", "sketch_f", lower=False),
            "right sketch, by sketch F": _wins(rows, "wrong sketch", "sketch_f", lower=False),
        },
        "rows": [asdict(row) for row in rows],
    }
    return report, contact_sheet(photos, encodings, decodings)


class Judge:
    """Measures reconstructions of one photograph."""

    def __init__(self, name: str, photo: Pixels, encoding: Encoding, sketcher: Sketcher) -> None:
        self._name, self._photo, self._sketcher = name, photo, sketcher
        self._size = (encoding.original.shape[1], encoding.original.shape[0])
        self._edges = self._thinned(encoding.original)

    def row(self, opponent: str, size: int, picture: Pixels) -> Row:
        """All measures of one reconstruction, (H, W, 3) uint8 of the original's size."""
        height, width = self._photo.shape[:2]
        small = Image.fromarray(picture).resize(self._size, Image.Resampling.LANCZOS)
        return Row(
            picture=self._name,
            opponent=opponent,
            bytes=size,
            bpp=8 * size / (width * height),
            ms_ssim=map_ms_ssim(_grey(self._photo), _grey(picture)),
            colour_error=colour_error(self._photo, picture),
            sketch_f=edge_agreement(self._edges, self._thinned(np.asarray(small))),
        )

    def _thinned(self, picture: Pixels) -> NDArray[np.bool_]:
        return thinned(self._sketcher(picture))


def _names(files: Sequence[InputFile]) -> list[str]:
    """Of pictures, short where that tells them apart."""
    short = [file.path.stem for file in files]
    return short if len(set(short)) == len(short) else [str(file.path) for file in files]


def _ablations(
    codec: PICS, encoding: Encoding, wrong: Pixels | None
) -> Iterator[tuple[str, int, Pixels]]:
    """The first candidate, and what it is without one of its inputs; bytes are the whole file's."""
    sketch = encoding.decoded_sketch
    drawings = [
        (ONE, encoding.ids, sketch),
        ("no text", [], sketch),
        ("no sketch", encoding.ids, None),
    ]
    if wrong is not None:
        drawings.append(("wrong sketch", encoding.ids, wrong))
    for name, ids, shown in drawings:
        drawing = Drawing(ids, shown, 0)
        sizes = codec.decoder.sizes(encoding.width, encoding.height)
        drawn = codec.decoder.draw([drawing], sizes)[0]
        full = Image.fromarray(drawn).resize(
            (encoding.width, encoding.height), Image.Resampling.LANCZOS
        )
        yield name, len(encoding.data), np.asarray(full)


def _sketch_of_another(encodings: list[Encoding], index: int) -> Pixels:
    """The next picture's decoded sketch, at this one's size."""
    other = encodings[(index + 1) % len(encodings)].decoded_sketch
    assert other is not None
    height, width = encodings[index].original.shape[:2]
    turned = np.rot90(other) if (other.shape[0] > other.shape[1]) != (height > width) else other
    return np.asarray(Image.fromarray(turned).resize((width, height), Image.Resampling.BILINEAR))


def _opponents(photo: Pixels, budget: int) -> Iterator[tuple[str, int, Pixels]]:
    for codec in ("AVIF", "WEBP"):
        yield (codec.replace("WEBP", "WebP"), *_classical(photo, codec, budget))
    mean = photo.reshape(-1, 3).mean(0).round().astype(np.uint8)
    yield "mean colour", 3 + SIZE_BYTES, np.broadcast_to(mean, photo.shape).copy()


def _classical(photo: Pixels, codec: str, budget: int) -> tuple[int, Pixels]:
    """The best picture of a classical codec within a budget, or its smallest file."""
    tried: list[tuple[ClassicalPoint, bytes]] = []
    for scale in DOWNSCALES[DOWNSCALES.index(4) :]:
        for quality in (0, 5, 10, 20, 35, 50, 70):
            point = ClassicalPoint(codec, quality, scale)
            tried.append((point, point.encode_picture(photo)))
    fitting = [one for one in tried if len(one[1]) <= budget]
    if not fitting:
        fitting = [min(tried, key=lambda one: len(one[1]))]
    found = [(len(data), point.decode_picture(data)) for point, data in fitting]
    return max(found, key=lambda one: map_ms_ssim(_grey(photo), _grey(one[1])))


def _grey(picture: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(picture).convert("L"))


def _mean_layers(encodings: list[Encoding]) -> dict[str, float]:
    names = encodings[0].layers
    return {name: statistics.fmean(e.layers[name] for e in encodings) for name in names}


def _wins(rows: list[Row], opponent: str, measure: str, lower: bool) -> str:
    """Of how many pictures one candidate is better than its like without an input."""
    ours = {row.picture: getattr(row, measure) for row in rows if row.opponent == ONE}
    theirs = {row.picture: getattr(row, measure) for row in rows if row.opponent == opponent}
    better = sum(
        (ours[name] < theirs[name]) if lower else (ours[name] > theirs[name]) for name in theirs
    )
    return f"{better} of {len(theirs)}"


def contact_sheet(
    photos: list[Pixels], encodings: list[Encoding], decodings: list[Decoding]
) -> Pixels:
    """Original, decoded sketch and decoded photograph of each, three triples a row."""
    triples = []
    for photo, encoding, decoding in zip(photos, encodings, decodings, strict=True):
        assert encoding.decoded_sketch is not None
        sketch = np.repeat(encoding.decoded_sketch[:, :, None], 3, axis=2)
        triples.append(np.hstack([_thumbnail(p) for p in (photo, sketch, decoding.picture)]))
    blank = np.full_like(triples[0], 255)
    triples += [blank] * (-len(triples) % 3)
    sheet = [np.hstack(triples[i : i + 3]) for i in range(0, len(triples), 3)]
    return np.vstack(sheet)


def _thumbnail(picture: Pixels) -> Pixels:
    """Fitted into a square with a white margin."""
    image = Image.fromarray(picture)
    image.thumbnail((SHEET_WIDTH - 8, SHEET_WIDTH - 8), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SHEET_WIDTH, SHEET_WIDTH), "white")
    square.paste(image, ((SHEET_WIDTH - image.width) // 2, (SHEET_WIDTH - image.height) // 2))
    return np.asarray(square)


def table(report: dict[str, Any]) -> str:
    """Means over the pictures, and who helps whom."""
    rows = [Row(**row) for row in report["rows"]]
    lines = [
        "| opponent | bytes | bpp | MS-SSIM | colour error | sketch F |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in dict.fromkeys(row.opponent for row in rows):
        some = [row for row in rows if row.opponent == name]
        values = {
            key: statistics.fmean(getattr(row, key) for row in some)
            for key in ("bytes", "bpp", "ms_ssim", "colour_error", "sketch_f")
        }
        lines.append(
            f"| {name} | {values['bytes']:.0f} | {values['bpp']:.4f} | {values['ms_ssim']:.3f} | "
            f"{values['colour_error']:.1f} | {values['sketch_f']:.3f} |"
        )
    layers = ", ".join(f"{name} {value:.1f}" for name, value in report["layers"].items())
    helps = ", ".join(f"{name}: {value}" for name, value in report["helps"].items())
    return "\n".join(
        [
            *lines,
            f"bytes by layer: {layers}",
            f"helps: {helps}",
            f"{report['encode_seconds']:.1f} s to encode, {report['decode_seconds']:.1f} s to "
            "decode a picture",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())

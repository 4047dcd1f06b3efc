"""Write test vectors: ``python -m tests.vectors.make NAME...`` for sets by name.

Those that exist are left as they are. Models are miniatures whose weights are random and seeded,
scaled until their symbols vary: an untrained network sends zeros by one table, and proves nothing.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from picsnet.bitstream import PicsFile, SketchLayer, write
from picsnet.checkpoints import export, load_model
from picsnet.codec import SketchCodec, encode_parts
from picsnet.ntc import build
from picsnet.ntc.context import Levels
from picsnet.ntc.fixedpoint import FixedPointConv2d
from picsnet.orientation import ORIENTATIONS, turned
from picsnet.textlayer import TextHead, TextLayer, write_text
from tests.conftest import drawn_map
from tests.vectors import FOLDER, INDEX, VOCABULARY, decode, index, models, token_coder

SIZES = [(16, 16), (17, 33), (64, 80), (50, 200), (128, 128), (161, 97)]
CONTEXT = {
    "lambdas": [0.25, 0.5, 1.0],
    "widths": [8, 12, 16],
    "M": 12,
    "N": 8,
    "analysis": [1, 1, 1],
    "synthesis": [1, 1, 1],
    "features": 12,
    "width": 16,
}


class Kind(NamedTuple):
    """A set of vectors.

    Attributes:
        architecture, options: of its model.
        qualities: that its files are coded at, in turn.
        levels: whether what differs from lambda to lambda is random too, in place of its start.
        turned: whether its files take all orientations in turn.
    """

    architecture: str
    options: dict[str, Any]
    qualities: list[float | None]
    levels: bool = False
    turned: bool = False


SETS = {
    "picsnet-hyperprior": Kind(
        "picsnet-hyperprior", {"widths": [8, 12, 16], "M": 12, "N": 8}, [None]
    ),
    "picsnet-context": Kind("picsnet-context", CONTEXT, [0, 1, 2]),
    # In the set above the context's level vectors are all zero, and no point lies between lambdas.
    "picsnet-context-levels": Kind("picsnet-context", CONTEXT, [0, 0.375, 1.625, 2], True),
    # Those above were made before maps could be turned, and stay as they are.
    "picsnet-context-turned": Kind(
        "picsnet-context",
        {**CONTEXT, "widths": [8, 8, 8], "M": 8, "N": 4, "features": 8, "width": 8},
        [0, 0.375, 1.625, 2],
        levels=True,
        turned=True,
    ),
    "picsnet-context-phases": Kind(
        "picsnet-context",
        {**CONTEXT, "widths": [8, 8, 8], "M": 8, "N": 4, "features": 8, "width": 8, "phases": 2},
        [0, 0.375, 1.625, 2],
        levels=True,
        turned=True,
    ),
}
PROMPTS = [[], [0], [5, 5, 5], [17, 301, 42, 7, 256, 1], list(range(3, 300, 4))]


def make_model(kind: Kind, folder: Path) -> None:
    """A miniature of an architecture, exported."""
    torch.manual_seed(20261124)
    network = build(kind.architecture, kind.options)
    with torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, FixedPointConv2d):
                layer.weight.mul_(2.5)
            elif isinstance(layer, torch.nn.Conv2d) and not name.startswith("g_s"):
                layer.weight.mul_(1.8)
            elif isinstance(layer, Levels) and kind.levels:
                layer.vectors.add_(torch.randn_like(layer.vectors), alpha=0.3)
    card = {"architecture": kind.architecture, "options": kind.options, "lmbda": 0.5}
    export(network, card, folder)  # type: ignore[arg-type]


def make_sketches(name: str, of: Kind, folder: Path) -> None:
    """Files of one model: sizes, operating points, all black, white, noise."""
    model = load_model(folder)
    rng = np.random.default_rng(5)
    turns = itertools.cycle(range(ORIENTATIONS))
    maps = {f"{h}x{w}": drawn_map(h, w, seed=h + w) for h, w in SIZES}
    maps["black"] = np.zeros((40, 56), np.uint8)
    maps["white"] = np.full((48, 48), 255, np.uint8)
    maps["noise"] = rng.integers(0, 256, (96, 64), dtype=np.uint8)
    for number, (kind, sketch) in enumerate(maps.items()):
        codec = SketchCodec(model, of.qualities[number % len(of.qualities)])
        data = codec.encode_map(sketch)
        if of.turned and sketch.any():
            turn = next(turns)
            sent = turned(torch.tensor(sketch), turn).numpy()
            stream = encode_parts(codec.analyse([sent]), 0, codec.point, model, turn)
            layer = SketchLayer(model.fingerprint, stream)
            data = write(PicsFile(sketch.shape[1], sketch.shape[0], None, layer))
        (FOLDER / f"{name}-{kind}.pics").write_bytes(data)


def make_texts(folder: Path) -> None:
    """Files with prompts alone, and with prompt and sketch."""
    coder, model = token_coder(), load_model(folder)
    stream = SketchCodec(model).encode_streams([drawn_map(64, 96, 1)])[0]
    for number, ids in enumerate(PROMPTS):
        head = TextHead(decoder=7 * number, size=64, candidate_bits=number, candidate=number % 2)
        text = write_text(TextLayer(head, ids), coder)
        sketch = SketchLayer(model.fingerprint, stream)
        (FOLDER / f"pic-{number}.pics").write_bytes(write(PicsFile(700, 500, text, None)))
        (FOLDER / f"pics-{number}.pics").write_bytes(write(PicsFile(96, 64, text, sketch)))


def main(names: list[str]) -> None:
    """Make what is missing."""
    known = index() if INDEX.is_file() else {}
    if not VOCABULARY.is_file():
        words = [f"{a}{b}" for a in "abcdefghijklmnopqrs" for b in ("", "a</w>", "</w>", "on</w>")]
        words += [
            f"{word}{n}</w>" for n in range(4) for word in ["the", "dog", "a", "red", "of", "sky"]
        ]
        words += [f"word{n:03d}</w>" for n in range(240)]
        VOCABULARY.write_text(json.dumps({word: i for i, word in enumerate(dict.fromkeys(words))}))
    for name in names:
        folder = FOLDER / name
        if not folder.is_dir():
            make_model(SETS[name], folder)
            make_sketches(name, SETS[name], folder)
    if not any(FOLDER.glob("pic-*.pics")):
        make_texts(FOLDER / names[0])
    available = models()
    for path in sorted(FOLDER.glob("*.pics")):
        if path.name not in known:
            known[path.name], decoded = decode(path.read_bytes(), available)
            if decoded is not None:
                Image.fromarray(decoded).save(path.with_suffix(".png"))
    text = json.dumps({name: asdict(vector) for name, vector in sorted(known.items())}, indent=1)
    INDEX.write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(SETS))

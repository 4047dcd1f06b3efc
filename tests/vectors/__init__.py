"""Files as test vectors: what was once written decodes to the same symbols for ever.

``index.json`` says for each file what it decodes to. The models that they need lie beside them, so
a vector outlives the models that ship. `make` writes a set anew; a set that is committed is not
made again: a later format or architecture adds files to it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picsnet.bitstream import PicsFile, read
from picsnet.checkpoints import SketchModel, load_model
from picsnet.codec import SketchCodec, decode_latents
from picsnet.prompt.tokens import TokenCoder
from picsnet.textlayer import read_text

FOLDER = Path(__file__).resolve().parent
INDEX = FOLDER / "index.json"
VOCABULARY = FOLDER / "vocabulary.json"


@dataclass(frozen=True)
class Vector:
    """What a file decodes to.

    Attributes:
        width, height: of the picture.
        latents: SHA-256 of y_hat in units of 1/64 as little-endian int32, with its shape; None
            without a sketch.
        map: SHA-256 of the decoded map's bytes; None without a sketch.
        text: decoder, size, candidate and prompt ids; None without a text.
    """

    width: int
    height: int
    latents: str | None
    map: str | None
    text: dict[str, Any] | None


def models() -> dict[bytes, SketchModel]:
    """The vectors' models by fingerprint."""
    found = [load_model(path.parent) for path in sorted(FOLDER.glob("*/card.json"))]
    return {model.fingerprint: model for model in found}


def token_coder() -> TokenCoder:
    """Of the vectors' vocabulary."""
    return TokenCoder(json.loads(VOCABULARY.read_text()))


def index() -> dict[str, Vector]:
    """What is committed, by the file's name."""
    return {name: Vector(**value) for name, value in json.loads(INDEX.read_text()).items()}


def decode(data: bytes, known: dict[bytes, SketchModel]) -> tuple[Vector, NDArray[np.uint8] | None]:
    """What a file decodes to here, and its map."""
    file = read(data)
    text = None
    if file.text is not None:
        layer = read_text(file.text, token_coder())
        text = {**vars(layer.head), "ids": layer.ids}
    if file.sketch is None:
        return Vector(file.width, file.height, None, None, text), None
    model = known[file.sketch.fingerprint]
    decoded = SketchCodec(model).decode_stream(file.sketch.stream, file.height, file.width)
    latents = latents_hash(file, model)
    return Vector(file.width, file.height, latents, _hash(decoded), text), decoded


def latents_hash(file: PicsFile, model: SketchModel) -> str:
    """SHA-256 of what the exact half of a decoder makes of a sketch."""
    assert file.sketch is not None
    multiple = model.network.MULTIPLE
    size = (-(-file.height // multiple), -(-file.width // multiple))
    y_hat = decode_latents(file.sketch.stream, size, model).y_hat.cpu().numpy() * 64
    assert np.array_equal(y_hat, np.rint(y_hat)), "latents left their grid"
    return _hash(y_hat.astype("<i4"))


def _hash(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

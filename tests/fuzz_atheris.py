"""Coverage-guided fuzzing of all that reads a file, with atheris (``pip install 'picsnet[fuzz]'``).

    mkdir out/corpus
    python -m tests.fuzz_atheris out/corpus -timeout=2 -max_len=2500 -max_total_time=1800

Options are libFuzzer's. An empty folder is filled with the committed test vectors. The last bit
of an input says what it is: a file as it stands, or the contents of one (`contents`), whose
checksums are made when it is read, so that coverage leads past the container as well.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import atheris
import torch

HEAD = struct.Struct("<HHBBB")
SIDES = 512
"""Contents are of pictures of so many widths and heights: small ones, which are read faster."""

with atheris.instrument_imports(include=["picsnet"]):
    from picsnet.bitstream import MIN_SIDE, PicsFile, SketchLayer, read, write
    from tests.fuzz import Reader, corpus
    from tests.vectors import models

    torch.set_num_threads(1)
    reader = Reader(models())
    for vector in corpus():
        reader(vector)  # imports what is loaded at first use: only here is it instrumented

keys = sorted(reader.codecs)


def contents(file: PicsFile) -> bytes:
    """A file without its checksums: sides, layers, model, length of the text, text, sketch."""
    text = file.text or b""
    layers = (file.text is not None) + 2 * (file.sketch is not None)
    key = keys.index(file.sketch.fingerprint) if file.sketch else 0
    head = HEAD.pack(file.width - MIN_SIDE, file.height - MIN_SIDE, layers, key, len(text))
    return head + text + (file.sketch.stream if file.sketch else b"")


def mended(data: bytes) -> bytes:
    """The file of some contents, or of what became of them."""
    width, height, layers, key, length = HEAD.unpack(data[: HEAD.size].ljust(HEAD.size, b"\0"))
    text, stream = data[HEAD.size :][:length], data[HEAD.size :][length:]
    sketch = SketchLayer(keys[key % len(keys)], stream)
    return write(
        PicsFile(
            MIN_SIDE + width % SIDES,
            MIN_SIDE + height % SIDES,
            text if layers % 4 != 2 else None,
            sketch if layers & 2 else None,
        )
    )


def one(data: bytes) -> None:
    """What libFuzzer calls."""
    reader(mended(data[:-1]) if data and data[-1] & 1 else data[:-1])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if Path(argument).is_dir() and not any(Path(argument).iterdir()):
            for number, vector in enumerate(corpus()):
                (Path(argument) / f"file{number}").write_bytes(vector + b"\0")
                (Path(argument) / f"contents{number}").write_bytes(contents(read(vector)) + b"\1")
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

"""Coverage-guided fuzzing of all that reads a file, with atheris (``pip install 'picsnet[fuzz]'``).

    python -m tests.fuzz_atheris CORPUS_FOLDER -max_total_time=600

Options are libFuzzer's. Half of the inputs have their checksums mended, chosen by their last bit,
so that coverage leads past the container as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["picsnet"]):
    from picsnet.bitstream import MAX_SIDE, MIN_SIDE, PicsFile, SketchLayer, write
    from tests.fuzz import Reader, corpus
    from tests.vectors import models

reader = Reader(models())


def mended(data: bytes) -> bytes:
    """A file with valid checksums around some bytes."""
    provider = atheris.FuzzedDataProvider(data)
    width, height = (provider.ConsumeIntInRange(MIN_SIDE, 512) for _ in range(2))
    if provider.ConsumeProbability() < 0.01:
        width = MAX_SIDE
    text = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 60))
    keys = sorted(reader.codecs)
    key = keys[provider.ConsumeIntInRange(0, len(keys) - 1)]
    sketch = SketchLayer(key, provider.ConsumeBytes(400))
    kind = provider.ConsumeIntInRange(0, 2)
    return write(
        PicsFile(width, height, text if kind != 1 else None, sketch if kind != 2 else None)
    )


def one(data: bytes) -> None:
    """What libFuzzer calls."""
    reader(mended(data) if data and data[-1] & 1 else data)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        if Path(argument).is_dir() and not any(Path(argument).iterdir()):
            for number, data in enumerate(corpus()):
                (Path(argument) / f"seed{number}").write_bytes(data)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()

"""What was once written is read for ever: committed files, by committed models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from picsnet.bitstream import VERSION, read
from picsnet.checkpoints import SketchModel
from picsnet.codec import decode_latents
from tests.vectors import FOLDER, decode, index, models

NAMES = sorted(index())


@pytest.fixture(scope="module")
def known() -> dict[bytes, SketchModel]:
    return models()


def test_every_file_is_in_the_index() -> None:
    assert {path.name for path in FOLDER.glob("*.pics")} == set(NAMES)
    assert len(NAMES) >= 37


@pytest.mark.parametrize("name", NAMES)
def test_file_decodes_to_what_was_written(name: str, known: dict[bytes, SketchModel]) -> None:
    expected = index()[name]
    found, decoded = decode((FOLDER / name).read_bytes(), known)
    # Latents and prompts are exact everywhere; pixels come from floats, and may be off by a level.
    assert dataclasses.replace(found, map=expected.map) == expected
    if decoded is not None:
        stored = np.asarray(Image.open((FOLDER / name).with_suffix(".png")), dtype=int)
        assert np.abs(decoded - stored).max() <= 1


def test_symbols_vary(known: dict[bytes, SketchModel]) -> None:
    """The files put the models to work: many different latents, and all operating points."""
    points: dict[bytes, set[int]] = {key: set() for key in known}
    turns: dict[bytes, set[int]] = {key: set() for key in known}
    for name in NAMES:
        file = read((FOLDER / name).read_bytes())
        if file.sketch is None or not file.sketch.stream:
            continue
        model = known[file.sketch.fingerprint]
        multiple = model.network.MULTIPLE
        size = (-(-file.height // multiple), -(-file.width // multiple))
        latents = decode_latents(file.sketch.stream, size, model)
        points[model.fingerprint].add(int(latents.quality))
        turns[model.fingerprint].add(latents.orientation)
        if min(file.width, file.height) >= 64:
            assert len(np.unique(latents.y_hat.numpy())) > 20, name
    assert sorted(map(len, points.values())) == [1, 3, 4, 4, 4]
    assert sorted(map(len, turns.values())) == [1, 1, 1, 8, 8]


def test_versions_that_were_written_are_still_read() -> None:
    versions = {(FOLDER / name).read_bytes()[1] >> 4 for name in NAMES}
    assert versions == set(range(1, VERSION + 1)), "a new version needs vectors of its own"

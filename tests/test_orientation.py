"""Maps that are sent turned come back upright, and senders turn them where it pays."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from picsnet.bitstream import PicsFile, SketchLayer, read, write
from picsnet.checkpoints import SketchModel, fingerprint_of, load_model
from picsnet.codec import SketchCodec, decode_latents, encode_parts
from picsnet.errors import CheckpointError
from picsnet.ntc.context import SketchContext
from picsnet.orientation import AS_IT_IS, ORIENTATIONS, turned, turned_back, turned_size
from picsnet.refining import Lagrangian, refine
from tests.conftest import drawn_map
from tests.vectors import FOLDER

MODEL = FOLDER / "picsnet-context-turned"
BITS = [1.0, *[math.log2(14)] * (ORIENTATIONS - 1)]
"""Of its table: half for a map as it is."""


@pytest.fixture(scope="module")
def model() -> SketchModel:
    return load_model(MODEL)


def test_there_are_eight_ways_and_each_is_undone() -> None:
    picture = torch.arange(6).view(2, 3)
    ways = [turned(picture, way) for way in range(ORIENTATIONS)]
    assert len({tuple(map(tuple, way.tolist())) for way in ways}) == 8
    assert torch.equal(ways[AS_IT_IS], picture)
    for number, way in enumerate(ways):
        assert torch.equal(turned_back(way, number), picture)
        assert tuple(way.shape) == turned_size((2, 3), number)


@pytest.mark.parametrize("way", range(ORIENTATIONS))
def test_a_map_sent_turned_comes_back_upright(model: SketchModel, way: int) -> None:
    sketch = drawn_map(40, 75, seed=way)
    codec = SketchCodec(model)
    sent = turned(torch.tensor(sketch), way).numpy()
    stream = encode_parts(codec.analyse([sent]), 0, codec.point, model, way)
    layer = SketchLayer(model.fingerprint, stream)
    decoded = codec.decode_map(write(PicsFile(width=75, height=40, sketch=layer)))
    assert decoded.shape == (40, 75)
    as_sent = torch.tensor(codec.decode_map(codec.encode_map(sent)))
    assert np.array_equal(decoded, turned_back(as_sent, way).numpy())


def test_an_effort_begins_at_the_best_way(model: SketchModel) -> None:
    network = model.network
    assert isinstance(network, SketchContext)
    x = torch.tensor(drawn_map(60, 100, seed=2))[None, None] / 255
    losses = [
        Lagrangian(network, turned(x, way), model.quality, bits).as_coded()
        for way, bits in enumerate(BITS)
    ]
    assert max(losses) > 1.001 * min(losses)
    best = losses.index(min(losses))
    assert best != AS_IT_IS, "another picture would show more"
    found = refine(network, x, model.quality, 1, BITS)
    assert (found.orientation, found.before) == (best, losses[AS_IT_IS])
    assert found.after <= losses[best]
    # Files that cannot say how they are turned are not.
    assert refine(network, x, model.quality, 1).orientation == AS_IT_IS


def test_a_way_that_saves_less_than_saying_so_is_not_taken(model: SketchModel) -> None:
    network = model.network
    assert isinstance(network, SketchContext)
    x = torch.tensor(drawn_map(60, 100, seed=2))[None, None] / 255
    dear = [0.0, *[1e6] * (ORIENTATIONS - 1)]
    assert refine(network, x, model.quality, 1, dear).orientation == AS_IT_IS


def test_a_file_of_an_effort_says_how_it_is_turned(model: SketchModel) -> None:
    sketch = drawn_map(60, 100, seed=2)
    network = model.network
    assert isinstance(network, SketchContext)
    x = torch.tensor(sketch.astype(np.float32) / 255)[None, None]
    found = refine(network, x, model.quality, 1, BITS)
    assert found.orientation != AS_IT_IS
    data = SketchCodec(model, effort=1).encode_map(sketch)
    layer = read(data).sketch
    assert layer is not None
    latents = decode_latents(layer.stream, (4, 7), model)
    assert latents.orientation == found.orientation
    rows, columns = turned_size((60, 100), found.orientation)
    sent = network.synthesise(latents)[0, 0, :rows, :columns]
    upright = (turned_back(sent, found.orientation) * 255).round().byte().numpy()
    assert np.array_equal(SketchCodec(model).decode_map(data), upright)
    # It is what was refined, but for symbols that tables cannot hold.
    assert latents.y_hat.shape == found.y.shape


def test_a_table_of_other_orientations_is_refused(tmp_path: Path) -> None:
    tensors = load_file(MODEL / "model.safetensors")
    tensors["orientation.freqs"] = torch.full((1, 4), 2**22, dtype=torch.int32)
    tensors["orientation.lengths"] = torch.tensor([4], dtype=torch.int32)
    save_file(tensors, tmp_path / "model.safetensors")
    card = json.loads((MODEL / "card.json").read_text())
    card["fingerprint"] = fingerprint_of(tensors).hex()
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="orientations that it does not have"):
        load_model(tmp_path)

"""The edge detector that ships."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from picsnet.checkpoints import load_model
from picsnet.cli import main
from picsnet.codec import SketchCodec
from picsnet.errors import SketcherError
from picsnet.shipped import CARD, WEIGHTS
from picsnet.sketch import bundled
from picsnet.sketch.network import EdgeNetwork


def disc(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A bright disc on dark ground: its edge is a ring."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - 60, x - 80) < 35
    return np.where(inside[..., None], (220, 200, 60), (30, 50, 90)).astype(np.uint8)


@pytest.fixture(scope="module")
def sketcher() -> bundled.BundledSketcher:
    return bundled.BundledSketcher()


def test_edges_are_where_the_picture_has_them(sketcher: bundled.BundledSketcher) -> None:
    edges = sketcher(disc())
    assert edges.shape == (120, 160)
    assert edges.dtype == np.uint8
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(y - 60, x - 80)
    ring, inside, outside = abs(radius - 35) < 2, radius < 25, radius > 45
    assert edges[ring].mean() > 120
    assert edges[inside].mean() < 25
    assert edges[outside].mean() < 25


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (33, 47)])
def test_any_size(sketcher: bundled.BundledSketcher, size: tuple[int, int]) -> None:
    assert sketcher(disc(120, 300)[: size[0], : size[1]]).shape == size


def test_strips_leave_no_trace(
    sketcher: bundled.BundledSketcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (100, 12, 3), np.uint8)
    tall = np.asarray(Image.fromarray(blocks).resize((96, 1200)))
    whole = sketcher(tall)
    monkeypatch.setattr(bundled, "STRIP_PIXELS", 96 * 256)
    in_strips = sketcher(tall)
    assert np.abs(whole.astype(int) - in_strips).max() <= 1


def test_weights_fit_in_two_megabytes() -> None:
    assert (bundled.SHIPPED / WEIGHTS).stat().st_size <= 2_000_000


def test_damaged_or_missing_weights_are_one_line(tmp_path: Path) -> None:
    for content in (None, b"", b"{}"):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        if content is not None:
            (folder / CARD).write_bytes(content)
        with pytest.raises(SketcherError, match=r"train\.py") as caught:
            bundled.BundledSketcher(folder=folder)
        assert "\n" not in str(caught.value)


def test_a_weight_that_is_missing_is_noticed(tmp_path: Path) -> None:
    tensors = load_file(bundled.SHIPPED / WEIGHTS)
    tensors.pop("stages.2.0.weight")
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / CARD).write_bytes((bundled.SHIPPED / CARD).read_bytes())
    with pytest.raises(SketcherError, match=r"missing, the first stages\.2\.0\.weight"):
        bundled.BundledSketcher(folder=tmp_path)


def test_a_card_names_what_was_trained_on(tmp_path: Path) -> None:
    model: dict[str, Any] = {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1], "fusion": 8}
    weights = EdgeNetwork(**model).state_dict()
    data = {"batch_size": 2, "crop": 64, "splits": ["train"]}
    saved = {
        "state_dict": {f"ema.module.{key}": value for key, value in weights.items()},
        "config": {"task": "edge", "model": model, "data": data},
        "batches_seen": 7,
    }
    torch.save(saved, tmp_path / "last.ckpt")
    assert main(["export", str(tmp_path / "last.ckpt"), "-o", str(tmp_path / "model")]) == 0
    card = json.loads((tmp_path / "model" / CARD).read_text())
    assert (card["data"], card["steps"]) == ("BSDS500 train", 7)


def test_sketch_and_file_do_not_depend_on_a_callers_default_type() -> None:
    def coded() -> tuple[NDArray[np.uint8], bytes, NDArray[np.uint8]]:
        sketch = bundled.BundledSketcher()(disc())
        codec = SketchCodec(load_model("sketch_ntc_lambda0.5"), effort=1)
        data = codec.encode_map(sketch)
        return sketch, data, codec.decode_map(data)

    expected = coded()
    kind = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        found = coded()
    finally:
        torch.set_default_dtype(kind)
    assert found[1] == expected[1]
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[2], expected[2])

"""What tests share: small maps, and a miniature model exported to a folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

REPOSITORY = Path(__file__).resolve().parent.parent
# For processes that tests start; two of pytest's share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Small networks on contended cores are many times slower with more."""
    torch.set_num_threads(1)


OF_BF16 = {
    name: getattr(torch.cpu, name)
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
}


@pytest.fixture(autouse=True, scope="session")
def _float32_on_every_cpu() -> Iterator[None]:
    """What is compared with other libraries in float32 must not depend on who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in OF_BF16:
            patch.setattr(torch.cpu, name, lambda: False)
        yield


@pytest.fixture
def bf16_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is compared with other processes, which know of no test."""
    for name, function in OF_BF16.items():
        monkeypatch.setattr(torch.cpu, name, function)


@pytest.fixture(autouse=True, scope="session")
def _interrupts_are_heard() -> None:
    """Where the tests run in the background SIGINT is ignored, and that is inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def drawn_map(height: int, width: int, seed: int, lines: int = 12) -> NDArray[np.uint8]:
    """Soft strokes on black, like an edge map."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", (width, height))
    draw = ImageDraw.Draw(picture)
    for _ in range(lines):
        points = rng.integers(0, [width, height], size=(3, 2))
        draw.line([tuple(p) for p in points.tolist()], fill=int(rng.integers(90, 255)), width=3)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(1.2)))


def drawn_photos(folder: Path, height: int, width: int) -> Path:
    """A folder that is made, with two grey pictures."""
    folder.mkdir()
    for seed in range(2):
        picture = np.stack([drawn_map(height, width, seed)] * 3, axis=2)
        Image.fromarray(picture).save(folder / f"{seed}.png")
    return folder


WEIGHTS_BY_NAME = ("detector", "pipeline", "control", "clip", "captioner", "ckpt")


def write_named_weights() -> None:
    """``models/`` here: weights by these names, and a decoder's file that names three of them."""
    for name in WEIGHTS_BY_NAME:
        Path("models", name).mkdir(parents=True)
        Path("models", name, "weights.bin").write_text("one")
    Path("models", "own.yaml").write_text("pipeline: pipeline\ncontrolnet: control\nclip: clip\n")


@pytest.fixture(scope="session")
def maps_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn maps."""
    folder = tmp_path_factory.mktemp("maps")
    for seed in range(12):
        Image.fromarray(drawn_map(200, 280, seed)).save(folder / f"map{seed:02d}.png")
    return folder


@pytest.fixture(scope="session")
def miniature_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature pipeline's folder with ControlNet, a CLIP model beside it, and settings."""
    from tests.miniatures import save_clip, save_pipeline

    folder = save_pipeline(tmp_path_factory.mktemp("decoder") / "miniature")
    save_clip(folder / "clip")
    (folder / "picsnet.yaml").write_text("clip: clip\nsettings:\n  steps: 3\n  size: 128\n")
    return folder

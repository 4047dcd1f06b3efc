"""The HED sketcher, with random weights: it must be controlnet_aux's detector at any size."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from picsnet.errors import SketcherError, UsageError
from picsnet.sketch import Sketcher, load_sketcher
from picsnet.sketch import hed as hed_module
from picsnet.sketch.hed import HedSketcher


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose maps are neither flat nor saturated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from controlnet_aux.hed import ControlNetHED_Apache2

    torch.manual_seed(0)
    network = ControlNetHED_Apache2()
    with torch.no_grad():
        network.norm += 127
        for name, weight in network.named_parameters():
            if name.endswith("weight"):
                torch.nn.init.kaiming_normal_(weight)
                if "projection" in name:
                    weight *= 0.02
    folder = tmp_path_factory.mktemp("hed")
    torch.save(network.state_dict(), folder / "ControlNetHED.pth")
    return folder


@pytest.fixture(scope="module")
def sketcher(folder: Path) -> Sketcher:
    return load_sketcher(f"hed:{folder}")


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colour with hard edges."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (-(-height // 40), -(-width // 40), 3), dtype=np.uint8)
    return blocks.repeat(40, axis=0).repeat(40, axis=1)[:height, :width]


def test_equals_controlnet_aux_where_that_does_not_resize(folder: Path, sketcher: Sketcher) -> None:
    from controlnet_aux.hed import HEDdetector

    rgb = picture(512, 576)
    detector = HEDdetector.from_pretrained(str(folder))
    expected = detector(rgb, detect_resolution=512, image_resolution=512, output_type="np")
    assert expected[..., 0].std() > 10, "the comparison would prove nothing"
    np.testing.assert_array_equal(sketcher(rgb), expected[..., 0])


@pytest.mark.parametrize("size", [(16, 16), (33, 130), (64, 17)])
def test_map_has_the_pictures_size(sketcher: Sketcher, size: tuple[int, int]) -> None:
    map_ = sketcher(picture(*size))
    assert map_.shape == size and map_.dtype == np.uint8


def test_padding_does_not_reach_far_from_the_border(sketcher: Sketcher) -> None:
    rgb = picture(320, 320)
    whole, cut = sketcher(rgb), sketcher(rgb[:, :300])
    # 98 pixels and one step of the deepest output, 16.
    assert np.abs(whole[:, :180].astype(int) - cut[:, :180]).max() <= 1


def test_strips_leave_no_trace(sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = picture(600, 96)
    whole = sketcher(rgb)
    monkeypatch.setattr(hed_module, "STRIP_PIXELS", 96 * 128)
    # Other sizes may take other convolution kernels: the last bit of a float may tip a level.
    assert np.abs(whole.astype(int) - sketcher(rgb)).max() <= 1
    monkeypatch.setattr(hed_module, "MARGIN", 64)
    assert np.abs(whole.astype(int) - sketcher(rgb)).max() > 1, "the comparison proves nothing"


def test_name_tells_the_weights(folder: Path, sketcher: Sketcher, tmp_path: Path) -> None:
    assert load_sketcher(f"hed:{folder}").name == sketcher.name
    kind, _, fingerprint = sketcher.name.partition("-")
    assert kind == "hed" and len(fingerprint) == 8 and int(fingerprint, 16) >= 0
    state = torch.load(folder / "ControlNetHED.pth", weights_only=True)
    state["norm"] += 1
    torch.save(state, tmp_path / "ControlNetHED.pth")
    assert HedSketcher(str(tmp_path)).name != sketcher.name


class Harmful:
    """What a pickle can do when it is read without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_weights_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"norm": Harmful(tmp_path / "made")}, tmp_path / "ControlNetHED.pth")
    with pytest.raises(SketcherError, match="not the weights"):
        load_sketcher(f"hed:{tmp_path}")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x02}q\x00."])
def test_damaged_weights_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ControlNetHED.pth").write_bytes(content)
    with pytest.raises(SketcherError, match=r"ControlNetHED\.pth: not the weights.*hf download"):
        load_sketcher(f"hed:{tmp_path}")


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(SketcherError, match=r"holds no ControlNetHED\.pth"):
        load_sketcher(f"hed:{tmp_path}")
    with pytest.raises(SketcherError, match="no such folder"):
        load_sketcher(f"hed:{tmp_path / 'none'}")


@pytest.mark.parametrize("spec", ["hed", "hed:owner/repository"])
def test_no_hub_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    # The hub client reads its settings at import.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SketcherError) as caught:
        load_sketcher(spec)
    source = spec.partition(":")[2] or "lllyasviel/Annotators"
    message = str(caught.value)
    assert "\n" not in message and message.startswith(f"{source}: ")
    assert f"hf download {source} ControlNetHED.pth" in message and "hed:FOLDER" in message


@pytest.mark.parametrize("spec", ["", "canny", "hed:", "bundled:x", "HED"])
def test_unknown_sketcher_lists_what_exists(spec: str) -> None:
    with pytest.raises(UsageError, match=r"bundled, hed, hed:FOLDER"):
        load_sketcher(spec)

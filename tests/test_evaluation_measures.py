"""Measures against independent implementations, on the same pictures."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor, nn

from picsnet import stamps
from picsnet.errors import ModelError
from picsnet.evaluation import sets
from picsnet.evaluation.config import MeasuresConfig
from picsnet.evaluation.likeness import Likeness, load, ms_ssim, psnr
from picsnet.metrics import bd_rate

Pixels = NDArray[np.uint8]


def _pair(side: int = 256) -> tuple[Pixels, Pixels]:
    original = np.asarray(Image.fromarray(data.astronaut()).resize((side, side)))
    noise = np.random.default_rng(1).normal(0, 12, original.shape)
    return original, np.clip(original + noise, 0, 255).astype(np.uint8)


def test_psnr_is_scikit_images() -> None:
    a, b = _pair()
    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=255), abs=1e-4)
    assert psnr(a, a) == 100


def test_ms_ssim_is_torchmetrics() -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    a, b = _pair()
    x, y = (torch.tensor(p).permute(2, 0, 1)[None].double() for p in (a, b))
    theirs = multiscale_structural_similarity_index_measure(x, y, data_range=255.0)
    assert ms_ssim(a, b) == pytest.approx(float(theirs), abs=1e-4)


def test_ms_ssim_has_no_value_for_small_pictures() -> None:
    a, b = _pair(128)
    assert ms_ssim(a, b) is None


def test_bd_rate_is_bjontegaards() -> None:
    import bjontegaard

    anchor, own = (
        ([0.01, 0.02, 0.04, 0.08], [24.0, 26.0, 28.5, 30.0]),
        (
            [0.012, 0.02, 0.035, 0.07],
            [25.0, 26.5, 28.9, 30.5],
        ),
    )
    theirs = bjontegaard.bd_rate(*anchor, *own, method="pchip", min_overlap=0)
    assert bd_rate(*anchor, *own).percent == pytest.approx(theirs, abs=1e-6)


class Small(nn.Module):
    """(B, 3, H, W) uint8 to (B, 8)."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(8, 3, 4, 4, generator=generator) / 7

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x.float() / 255, self.weight, stride=4).relu().mean((2, 3))


def _two_sets() -> tuple[list[Pixels], list[Pixels]]:
    draw = np.random.default_rng(2)
    whole = data.astronaut()
    crops = [
        whole[top : top + 64, left : left + 64] for top, left in draw.integers(0, 448, (40, 2))
    ]
    return crops[:20], [255 - crop for crop in crops[20:]]


def _fidelity(monkeypatch: pytest.MonkeyPatch, **options: object) -> dict[str, float]:
    """torch-fidelity's own figures with the small network."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Extractor(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **kwargs: object) -> None:
            super().__init__(name, features_list)
            self.small = Small()

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.small(x),)

        @staticmethod
        def get_provided_features_list() -> tuple[str]:
            return ("8",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "8"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> Tensor:
            return torch.zeros(1, 3, 4, 4, dtype=torch.uint8)

    torch_fidelity.register_feature_extractor("small", Extractor)
    found: dict[str, float] = torch_fidelity.calculate_metrics(
        feature_extractor="small", cuda=False, verbose=False, batch_size=8, **options
    )
    return found


class Pictures(torch.utils.data.Dataset[Tensor]):
    def __init__(self, pictures: list[Pixels]) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor(self.pictures[index]).permute(2, 0, 1)


def test_fid_and_kid_are_torch_fidelitys(monkeypatch: pytest.MonkeyPatch) -> None:
    real, found = _two_sets()
    theirs = _fidelity(
        monkeypatch,
        input1=Pictures(found),
        input2=Pictures(real),
        fid=True,
        kid=True,
        kid_subsets=100,
        kid_subset_size=20,
    )
    a, b = (torch.cat(sets.features(some, Small())) for some in (real, found))
    assert theirs["frechet_inception_distance"] > 0.01
    assert sets.fid(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    # Subsets of all there are: no draw of them decides the value.
    mine = sets.kid(a, b, subset=20, seed=1)
    assert mine == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-5)


def test_squares_tile_a_picture_and_tile_it_again_half_a_side_on() -> None:
    picture = np.zeros((128, 192, 3), np.uint8)
    (found,) = sets.features([picture], Small(), patch=64)
    assert len(found) == 2 * 3 + 1 * 2
    (none,) = sets.features([picture[:32]], Small(), patch=64)
    assert len(none) == 0


def test_the_interval_of_a_set_is_as_wide_as_sets_differ() -> None:
    draw = torch.Generator().manual_seed(3)
    truth = torch.randn(400, 4, generator=draw)

    def some() -> list[Tensor]:
        return list((torch.randn(60, 1, 4, generator=draw) + 0.5).unbind())

    interval = sets.with_interval(truth, some(), sets.fid, 20, seed=1)
    assert interval.low is not None and interval.high is not None
    assert interval.low < interval.mean < interval.high
    spread = np.std([sets.fid(truth, torch.cat(some())) for _ in range(20)])
    assert 0.5 < (interval.high - interval.low) / (2 * 1.96 * spread) < 2
    assert sets.with_interval(truth, some()[:5], sets.fid, 20, seed=1).low is None


def _likenesses(**options: object) -> tuple[dict[str, Likeness], dict[str, str]]:
    made, left_out = load(MeasuresConfig(**options), "picture")  # type: ignore[arg-type]
    return {one.name: one for one in made}, left_out


def test_lpips_is_zero_for_equals_and_larger_for_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(squeezenet1_1().state_dict(), folder / "squeezenet1_1-b8a52dc0.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    made, left_out = _likenesses(names=["lpips"], lpips_net="squeeze")
    assert not left_out
    a, b = _pair(64)
    worse = np.random.default_rng(5).integers(0, 256, a.shape).astype(np.uint8)
    assert made["lpips"].compare(a, a) == pytest.approx(0, abs=1e-6)
    assert 0 < made["lpips"].compare(a, b) < made["lpips"].compare(a, worse)  # type: ignore[operator]


def test_what_needs_weights_that_are_not_here_says_which_and_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    made, left_out = _likenesses(names=["psnr", "lpips", "dists", "clip_distance"])
    assert list(made) == ["psnr"]
    assert "alexnet" in left_out["lpips"] and "TORCH_HOME" in left_out["lpips"]
    assert "vgg16" in left_out["dists"]
    assert "CLIP-ViT-H-14" in left_out["clip_distance"]
    assert all("\n" not in reason for reason in left_out.values())


@pytest.mark.parametrize("content", ["half", "a page"])
def test_damaged_weights_are_named_and_to_be_deleted(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    lpips, inception = folder / "squeezenet1_1-b8a52dc0.pth", folder / sets.INCEPTION_FILE
    for path in (lpips, inception):
        path.write_bytes(b"<html>sign in</html>")
        if content == "half":
            torch.save({"weight": torch.zeros(1000)}, path)
            path.write_bytes(path.read_bytes()[:2000])
    made, left_out = _likenesses(names=["psnr", "lpips"], lpips_net="squeeze")
    assert list(made) == ["psnr"]
    with pytest.raises(ModelError) as raised:
        sets.load_inception()
    for path, why in ((lpips, left_out["lpips"]), (inception, str(raised.value))):
        assert why.startswith(f"{path}: ") and "delete it" in why and "\n" not in why


def test_clip_distance_is_one_less_cosine_with_the_named_backbone() -> None:
    from picsnet import shipped

    clip = str(shipped.FOLDER / "picsnet-mini" / "clip")
    made, left_out = _likenesses(names=["clip_distance"], clip=clip)
    assert not left_out and clip in made["clip_distance"].made_with
    a, b = _pair(96)
    other = np.asarray(Image.fromarray(data.coffee()).resize((96, 96)))
    compare = made["clip_distance"].compare
    assert compare(a, a) == pytest.approx(0, abs=1e-5)
    assert 0 < compare(a, b) < compare(a, other)  # type: ignore[operator]


def test_another_clip_in_the_same_folder_is_another_measure(tmp_path: Path) -> None:
    from picsnet import shipped

    clip = tmp_path / "clip"
    shutil.copytree(shipped.FOLDER / "picsnet-mini" / "clip", clip)

    def made_with() -> str:
        stamps.forget()
        return _likenesses(names=["clip_distance"], clip=str(clip))[0]["clip_distance"].made_with

    before = made_with()
    assert before == made_with()
    os.utime(clip / "model.safetensors", (1, 1))
    assert before != made_with()

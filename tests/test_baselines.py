"""Other people's codecs in an evaluation: their files, and what is said without weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from picsnet.errors import CheckpointError, ConfigError, DataError, ModelError
from picsnet.evaluation.baselines.hific import IllmPoint
from picsnet.evaluation.baselines.strings import read_strings, write_strings
from picsnet.evaluation.baselines.zoo import ZooPoint
from picsnet.evaluation.codecs import make_points
from picsnet.evaluation.config import (
    ClassicalConfig,
    HificConfig,
    IllmConfig,
    PicsConfig,
    ZooConfig,
)
from picsnet.ntc.hific import HificNTC
from tests import processes
from tests.conftest import REPOSITORY
from tests.test_training import environment


def _photo(width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(data.astronaut()).resize((width, height)))


sides = st.integers(1, 65535)


@given(sides, sides, st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_strings_come_back(width: int, height: int, strings: list[bytes]) -> None:
    file = write_strings(width, height, strings)
    assert read_strings(file, len(strings)) == (width, height, strings)
    overhead = len(file) - sum(map(len, strings))
    assert overhead <= 4 + 2 * (len(strings) - 1)


@given(st.binary(max_size=60), st.integers(1, 3))
def test_damaged_files_of_strings_are_refused_or_read(damaged: bytes, count: int) -> None:
    try:
        width, height, strings = read_strings(damaged, count)
    except DataError:
        return
    assert width and height and len(strings) == count
    assert sum(map(len, strings)) <= len(damaged)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a short run of the configuration that ships, with a smaller network."""
    folder = tmp_path_factory.mktemp("photo_ntc")
    (folder / "photos").mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / "photos" / f"{name}.png")
    pack = folder / "photos.tar"
    for command in (
        ["pack.py", str(folder / "photos"), "-o", str(pack), "--ckpt"],
        [
            *("train.py", "--config", "photo_ntc_cheng2020.yaml", f"data.pack={pack}"),
            *("model.options={N: 12}", "trainer.max_steps=3", "trainer.val_every=3"),
            *("data.val_count=1", "data.batch_size=1", "data.workers=0", f"output={folder}"),
            *("logging.wandb=disabled", "trainer.accelerator=cpu", "trainer.precision=32-true"),
        ],
    ):
        done = processes.run([sys.executable, *command], REPOSITORY, environment())
        assert done.returncode == 0, done.stderr
    assert (folder / "photo_ntc_cheng2020" / "panel.png").is_file()
    return folder / "photo_ntc_cheng2020" / "checkpoints" / "last.ckpt"


def test_a_network_trained_here_codes_photographs_of_any_size(trained: Path) -> None:
    config = ZooConfig(weights=[str(trained)])
    (point,) = make_points("NTC", config, "cpu")
    assert (point.codec, point.setting) == ("NTC", "photo_ntc_cheng2020")
    original = _photo(150, 70)
    file = point.encode(original).data
    (again,) = make_points("NTC", config, "cpu")  # nothing but the file passes between them
    decoded = again.decode(file).picture
    assert decoded is not None and decoded.shape == original.shape
    assert decoded.dtype == np.uint8 and decoded.std() > 0
    with pytest.raises(DataError):
        point.decode(file[:3])


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, trained: Path) -> None:
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"not weights")
    for path in (other, tmp_path / "absent.ckpt"):
        point = ZooPoint("NTC", "cheng2020-attn", "ms-ssim", None, str(path), "cpu")
        with pytest.raises(CheckpointError, match="photo-ntc"):
            point.encode(_photo(64, 64))


def test_pretrained_weights_that_are_not_here_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    (point,) = make_points("NTC", ZooConfig(quality=[1]), "cpu")
    with pytest.raises(ModelError, match=r"cheng2020_attn-ms-ssim-1-.*TORCH_HOME"):
        point.encode(_photo(64, 64))
    (unknown,) = make_points("NTC", ZooConfig(quality=[99]), "cpu")
    with pytest.raises(ModelError, match="quality 99"):
        unknown.encode(_photo(64, 64))


HUB = """
import torch
from types import SimpleNamespace

dependencies = ["torch"]


class Network(torch.nn.Module):
    factor = 64

    def __init__(self):
        super().__init__()
        self.ready = False

    def update_tensor_devices(self, target):
        self.ready = target == "compress"

    def compress(self, image, force_cpu=True):
        assert self.ready and image.shape[0] == 1 and 0 <= image.min() and image.max() <= 1
        mean = (image.mean((0, 2, 3)) * 255).round().byte()
        return SimpleNamespace(
            latent_strings=[bytes(mean.tolist())], hyper_latent_strings=[b"hyper"],
            image_size=tuple(image.shape[-2:]), padded_size=None,
        )

    def decompress(self, coded, force_cpu=True):
        assert coded.hyper_latent_strings == [b"hyper"]
        assert all(side % 64 == 0 for side in coded.padded_size)
        colour = torch.tensor(list(coded.latent_strings[0])) / 255
        height, width = coded.image_size
        return colour[None, :, None, None].expand(1, 3, height, width)


def msillm_quality_vlo1(pretrained=False):
    assert pretrained
    return Network()
"""


def test_msillm_is_coded_through_a_file(tmp_path: Path) -> None:
    # A stand-in with the interface of NeuralCompression's HiFiCAutoencoder 0.3.1.
    (tmp_path / "hubconf.py").write_text(HUB)
    config = IllmConfig(models=["msillm_quality_vlo1"], repo=str(tmp_path))
    (point,) = make_points("MS-ILLM", config, "cpu")
    original = _photo(100, 70)
    file = point.encode(original).data
    assert len(file) == 4 + 1 + 3 + 5
    decoded = point.decode(file).picture
    assert decoded is not None and decoded.shape == original.shape
    assert np.abs(decoded.mean((0, 1)) - original.mean((0, 1))).max() < 1


def test_msillm_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    absent = IllmPoint("MS-ILLM", "msillm_quality_vlo1", str(tmp_path), "cpu")
    with pytest.raises(ModelError, match=r"hubconf\.py"):
        absent.encode(_photo(64, 64))
    (tmp_path / "hubconf.py").write_text("import neuralcompression_that_is_not_installed")
    broken = IllmPoint("MS-ILLM", "msillm_quality_vlo1", str(tmp_path), "cpu")
    with pytest.raises(ModelError, match="CC-BY-NC") as caught:
        broken.encode(_photo(64, 64))
    assert "\n" not in str(caught.value)


def test_hific_without_its_library_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "neuralcompression", None)
    with pytest.raises(ConfigError, match="pip install --no-deps neuralcompression"):
        HificNTC({})


def test_hific_trains_and_codes(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("neuralcompression.models", reason="its old pins are not in the lock")
    options = "{latent_features: 32, hyper_features: 24, num_residual_blocks: 1}"
    done = processes.run(
        [
            *(sys.executable, "train.py", "--config", "hific.yaml"),
            *(f"data.pack={trained.parents[2] / 'photos.tar'}", f"model.options={options}"),
            *("trainer.max_steps=4", "trainer.val_every=4", "loss.adversarial_after=2"),
            *("data.val_count=1", "data.batch_size=1", "data.workers=0", f"output={tmp_path}"),
            *("logging.wandb=disabled", "trainer.accelerator=cpu", "trainer.precision=32-true"),
        ],
        REPOSITORY,
        environment(),
    )
    assert done.returncode == 0, done.stderr
    weights = str(tmp_path / "hific" / "checkpoints" / "last.ckpt")
    (point,) = make_points("HiFiC", HificConfig(weights=[weights]), "cpu")
    file = point.encode(_photo(150, 70)).data
    (again,) = make_points("HiFiC", HificConfig(weights=[weights]), "cpu")
    decoded = again.decode(file).picture
    assert decoded is not None and decoded.shape == (70, 150, 3) and decoded.std() > 0
    (wrong,) = make_points("HiFiC", HificConfig(weights=[str(trained)]), "cpu")
    with pytest.raises(CheckpointError, match="hific run"):
        wrong.encode(_photo(64, 64))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ClassicalConfig(codec="GIF"), "GIF"),
        (ClassicalConfig(codec="WEBP", points=[[5, 3]]), "downscale"),
        (ClassicalConfig(codec="WEBP", points=[[5]]), "points"),
        (ZooConfig(), "quality"),
        (IllmConfig(models=[]), "models"),
        (HificConfig(), "weights"),
        (PicsConfig(ckpt=[]), "ckpt"),
    ],
)
def test_impossible_settings_are_refused(config: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_points("X", config, "cpu")  # type: ignore[arg-type]

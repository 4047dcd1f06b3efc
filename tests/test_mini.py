"""picsnet-mini: pack, three stages of training, assembly, and the codec with what came of it."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import pack
import picsnet
import train
from datamodules.pack import MAX_BYTES, decode, read_pack, write_pack
from datamodules.photos import FixedPhotoDataset, PhotoDataset, PhotoDataSettings, SamplePool
from picsnet.bitstream import read, write
from picsnet.config import VAEModelConfig
from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.spec import load_spec
from picsnet.errors import CheckpointError, DataError, UsageError
from picsnet.mini import assemble
from picsnet.mini.blocks import SCALING_FACTOR, as_one_convolution, fit_encoder
from picsnet.mini.captions import PaletteCaptioner, save_tokenizer
from picsnet.mini.networks import make_vae
from picsnet.prompt.palette import describe

SETTINGS = PhotoDataSettings(crop=64, batch_size=2, workers=0, seed=3, total_steps=10)


def picture(seed: int, height: int = 160, width: int = 200) -> NDArray[np.uint8]:
    """Smooth colours with an edge, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    row = int(rng.integers(height // 4, 3 * height // 4))
    pixels[row:] = 255 - pixels[row:]
    return pixels


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(10):
        Image.fromarray(picture(seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def packed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "photos.tar"
    arguments = ["--side", "96", "--ckpt", "sketch_ntc_lambda0.25", "sketch_ntc_lambda2.0"]
    assert pack.main([str(photos), "-o", str(path), *arguments]) == 0
    return path


@pytest.fixture(scope="module")
def mini(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of the real classes, trained for a few steps by the real commands."""
    runs = tmp_path_factory.mktemp("runs")
    common = [
        f"output={runs}",
        f"data.pack={packed}",
        "data.val_count=2",
        "data.workers=0",
        "data.batch_size=2",
        "trainer.max_steps=3",
        "trainer.val_every=2",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "logging.wandb=disabled",
    ]
    small = {
        "mini_vae": ["model.width=8", "data.crop=32", "loss.adversarial_after=1"],
        "mini_clip": [
            *("model.text_width=32", "model.text_layers=1", "model.image_width=32"),
            *("model.image_layers=1", "model.image_size=32", "model.patch_size=8", "data.crop=32"),
        ],
        "mini_diffusion": [
            *("model.channels=[16,32]", "model.sketch_channels=[4,4,8,8]", "model.groups=8"),
            *("data.crop=64", f"vae={runs}/mini_vae", f"clip={runs}/mini_clip"),
            "data.pool=5",
        ],
    }
    for name, options in small.items():
        assert train.main(["--config", f"{name}.yaml", *common, *options]) == 0
    folder = runs / "picsnet-mini"
    stages = [f"--{stage}={runs}/mini_{stage}" for stage in ("vae", "clip", "diffusion")]
    assert assemble.main([*stages, "-o", str(folder)]) == 0
    return folder


def test_a_pack_holds_photographs_and_coded_sketches(packed: Path, photos: Path) -> None:
    held = read_pack(packed)
    assert len(held.photos) == 10
    assert min(decode(held.photos[0]).shape[:2]) == 96
    assert [len(some) for some in held.sketches] == [2] * 10
    from picsnet.bitstream import read

    assert all(read(data).sketch is not None for some in held.sketches for data in some)
    with tarfile.open(packed) as archive:
        about = json.load(archive.extractfile("pack.json"))  # type: ignore[arg-type]
    assert about["photographs"] == 10 and len(about["models"]) == 2


def test_the_same_photographs_make_the_same_pack(photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.glob("*.png"))
    broken, small = tmp_path / "broken.png", tmp_path / "small.png"
    broken.write_bytes(b"no picture")
    Image.fromarray(picture(0, 60, 60)).save(small)
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    assert write_pack(paths, one, side=96)[0] == 10
    assert write_pack([small, broken, *reversed(paths)], other, side=96)[0] == 10
    assert one.read_bytes() == other.read_bytes()


def test_a_packs_limit_is_of_its_file(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, target = list(photos.glob("*.png")), tmp_path / "pack.tar"
    # Sketches are so small that most of what they take are the archive's own blocks.
    size = write_pack(paths, target, side=96, coder=lambda photo: [b"sketch"] * 50)[1]
    assert size == target.stat().st_size
    monkeypatch.setattr("datamodules.pack.MAX_BYTES", size)
    write_pack(paths, target, side=96, coder=lambda photo: [b"sketch"] * 50)
    monkeypatch.setattr("datamodules.pack.MAX_BYTES", size - 1)
    with pytest.raises(DataError, match="the pack would take"):
        write_pack(paths, target, side=96, coder=lambda photo: [b"sketch"] * 50)


def test_packs_that_cannot_be(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "pack.tar"
    with pytest.raises(DataError, match="no photographs of 5000 pixels"):
        write_pack(list(photos.glob("*.png")), target, side=5000)
    monkeypatch.setattr("datamodules.pack.MAX_BYTES", 2**12)
    with pytest.raises(DataError, match="lower --side"):
        write_pack(list(photos.glob("*.png")), target, side=96)
    with pytest.raises(UsageError, match="--side 0"):
        write_pack(list(photos.glob("*.png")), target, side=0)
    assert not target.exists() and MAX_BYTES == 45 * 2**20
    target.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot be read as a pack .*pack\.py"):
        read_pack(target)
    with tarfile.open(target, "w"):
        pass
    with pytest.raises(DataError, match="is not a pack"):
        read_pack(target)


def test_samples_are_functions_of_their_position(packed: Path) -> None:
    held = read_pack(packed)
    maps = [[np.full(decode(p).shape[:2], i, np.uint8)] for i, p in enumerate(held.photos)]
    dataset = PhotoDataset(
        held.photos, SETTINGS, caption=lambda crop: [int(crop.mean())], maps=maps
    )
    sample, again, next_one = dataset[4], dataset[4], dataset[5]
    assert all(torch.equal(sample[key], again[key]) for key in ("photo", "ids", "sketch"))
    assert not torch.equal(sample["photo"], next_one["photo"])
    assert sample["photo"].shape == (3, 64, 64) and sample["sketch"].shape == (1, 64, 64)
    # The caption is of the crop as it is shown.
    assert abs(int(sample["ids"]) - float(sample["photo"].float().mean())) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pool_takes_the_first_samples_again_in_other_orders(packed: Path, workers: int) -> None:
    fresh = PhotoDataset(read_pack(packed).photos, SETTINGS, caption=lambda crop: [7])
    size = 70  # more than one batch of its making
    pool = SamplePool(fresh, size, seed=3, workers=workers)
    taken = [pool[position] for position in range(2 * size)]

    def names(samples: list[dict[str, torch.Tensor]]) -> list[bytes]:
        return [sample["photo"].numpy().tobytes() for sample in samples]

    first, second = names(taken[:size]), names(taken[size:])
    assert sorted(first) == sorted(second) == sorted(names([fresh[k] for k in range(size)]))
    assert first != second
    assert all(sample["ids"].tolist() == [7] for sample in taken)
    assert torch.equal(pool[5]["photo"], taken[5]["photo"])


def test_map_and_photograph_are_cut_alike(packed: Path) -> None:
    held = read_pack(packed)
    maps = [[decode(photo)[:, :, 0]] for photo in held.photos]
    plain = PhotoDataSettings(**{**vars(SETTINGS), "jitter": 0.0})
    for position in range(8):
        sample = PhotoDataset(held.photos, plain, maps=maps)[position]
        assert torch.equal(sample["photo"][:1], sample["sketch"])
    fixed = FixedPhotoDataset(held.photos, 64, maps=maps)[1]
    assert torch.equal(fixed["photo"][:1], fixed["sketch"])


def test_the_linear_encoder_keeps_what_matters() -> None:
    pictures = [picture(seed) for seed in range(12)]
    model = VAEModelConfig(latent_channels=12, width=8)
    vae = make_vae(model)
    vae.encoder.load_state_dict(fit_encoder(pictures, model.encoder_width, model.latent_channels))
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        z = vae.encode(x).latents * SCALING_FACTOR
    assert z.shape == (12, 12, 20, 25)
    weight, bias = as_one_convolution(vae.encoder)
    at_once = torch.nn.functional.conv2d(x, weight, bias, stride=8) * SCALING_FACTOR
    torch.testing.assert_close(at_once, z, atol=1e-3, rtol=0)
    assert float(z.mean()) == pytest.approx(0, abs=0.05)
    assert float(z.square().mean()) == pytest.approx(1, rel=0.05)
    # What a linear decoder makes of it; mean colours alone are 3 of the 12.
    points = z.permute(0, 2, 3, 1).reshape(-1, 12)
    blocks = torch.nn.functional.pixel_unshuffle(x, 8).permute(0, 2, 3, 1).reshape(-1, 192)
    with_one = torch.cat([points, torch.ones(len(points), 1)], 1)
    kept = with_one @ torch.linalg.lstsq(with_one, blocks).solution
    centred = blocks - blocks.mean(0)
    best = torch.linalg.svdvals(centred)[12:].square().sum()
    error = (kept - blocks).square().sum()
    assert error < 1.5 * best  # than the best of all linear codes, without halvings
    assert error < 0.02 * centred.square().sum()


def test_words_of_captions_are_single_tokens(tmp_path: Path) -> None:
    captioner = PaletteCaptioner(save_tokenizer(tmp_path / "tokenizer"))
    for seed in range(5):
        text = describe(picture(seed))
        ids = captioner.ids(text)
        words = text.replace(",", " ,").replace(";", " ;").split()
        inside = [i for i in ids if i < captioner.vocabulary_size - 2]
        assert len(inside) == len(words)
        assert len(ids) == 77 and ids == captioner(picture(seed))
    # A second call finds the tokenizer there.
    before = (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns
    save_tokenizer(tmp_path / "tokenizer")
    assert (tmp_path / "tokenizer" / "tokenizer.json").stat().st_mtime_ns == before


def test_the_folder_is_a_stock_pipelines(mini: Path) -> None:
    from diffusers import StableDiffusionControlNetPipeline

    pipeline = StableDiffusionControlNetPipeline.from_pretrained(mini, torch_dtype=torch.float32)
    sketch = Image.fromarray(np.zeros((64, 64), np.uint8)).convert("RGB")
    generator = torch.Generator().manual_seed(0)
    drawn = pipeline(
        "blue above", sketch, num_inference_steps=2, generator=generator, output_type="np"
    ).images
    assert drawn.shape == (1, 64, 64, 3) and np.isfinite(drawn).all()


def test_our_decoder_draws_what_the_stock_pipeline_draws(mini: Path) -> None:
    from diffusers import StableDiffusionControlNetPipeline

    decoder = DiffusionDecoder(load_spec(str(mini)), "cpu")
    sketch = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    ids = decoder.tokenize("dark green above, white below")
    ours = decoder.draw([Drawing(ids, sketch, 3)], [(96, 64)])[0]
    pipeline = StableDiffusionControlNetPipeline.from_pretrained(mini, torch_dtype=torch.float32)
    stock = pipeline(
        "dark green above, white below",
        Image.fromarray(sketch).convert("RGB"),
        negative_prompt="",
        num_inference_steps=assemble.SETTINGS["steps"],
        guidance_scale=assemble.SETTINGS["guidance"],
        generator=torch.Generator().manual_seed(3),
        output_type="np",
    ).images[0]
    assert np.abs(ours - np.rint(stock * 255)).max() <= 1


def test_the_whole_codec_with_it(mini: Path) -> None:
    codec = picsnet.PICS.from_pretrained(
        decoder=str(mini), prompt_from="palette", candidates=2, device="cpu"
    )
    photo = picture(42)
    data = codec.encode(photo)
    parts = codec.decode_parts([data])[0]
    expected = describe(codec.encode_parts([photo])[0].original)
    assert parts.prompt.replace(" ,", ",").replace(" ;", ";") == expected
    assert parts.picture.shape == photo.shape
    assert codec.encode(photo) == data


def test_a_stage_starts_from_another_runs_weights(
    mini: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = mini.parent / "mini_clip"
    given = [
        *("--config", str(run / "config.yaml"), f"output={tmp_path}", "name=next"),
        *("trainer.max_steps=1", "optim.lr=1e-9", f"data.pack={packed}"),
    ]
    first = run / "checkpoints" / "last.ckpt"
    assert train.main([*given, f"init_from={first}"]) == 0
    weights = [
        {
            k: v
            for k, v in torch.load(path, weights_only=True)["state_dict"].items()
            if "ema.module" in k
        }
        for path in (first, tmp_path / "next" / "checkpoints" / "last.ckpt")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-6), name
    capsys.readouterr()
    for other in ("mini_vae", "nowhere"):
        given[3] = f"name={other}"
        path = mini.parent / other / "checkpoints" / "last.ckpt"
        assert train.main([*given, f"init_from={path}"]) == 1
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert str(path) in error and ("is of task mini-vae" in error or "no such" in error)
        assert not (tmp_path / other / "checkpoints").exists()


def test_a_pack_of_a_network_that_is_gone(
    mini: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sketches cannot be read; what mends it is another pack."""
    old = tmp_path / "old.tar"
    with tarfile.open(packed) as source, tarfile.open(old, "w") as target:
        for member in source:
            data = source.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".pics"):
                file = read(data, name=member.name)
                assert file.sketch is not None
                sketch = replace(file.sketch, fingerprint=bytes.fromhex("195f55"))
                data = write(replace(file, sketch=sketch))
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    given = ["--config", str(mini.parent / "mini_diffusion" / "config.yaml"), f"data.pack={old}"]
    assert train.main([*given, f"output={tmp_path}", "name=next"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"{old}: " in error and "make it again: python pack.py" in error


def test_stages_that_cannot_begin_are_one_line(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"data.pack={packed}", f"output={tmp_path}", f"clip={tmp_path / 'none'}"]
    assert train.main(["--config", "mini_diffusion.yaml", *given]) == 1
    error = capsys.readouterr().err
    assert "train that stage first (task mini-clip)" in error and error.count("\n") == 1
    (tmp_path / "file").touch()
    given = [f"data.pack={packed}", f"output={tmp_path / 'file'}"]
    assert train.main(["--config", "mini_clip.yaml", *given]) == 1
    error = capsys.readouterr().err
    assert "set output=FOLDER" in error and error.count("\n") == 1


def test_the_account_has_the_steps_that_were_made(
    mini: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that its time budget ended has made fewer than its configuration asks for."""
    first = mini.parent / "mini_vae"
    given = ["--config", str(first / "config.yaml"), f"output={tmp_path}", "trainer.max_hours=0"]
    assert train.main(given) == 0
    stages = [f"--{stage}={mini.parent}/mini_{stage}" for stage in ("clip", "diffusion")]
    out = tmp_path / "out"
    assert assemble.main([*stages, f"--vae={tmp_path}/mini_vae", "-o", str(out)]) == 0
    account = json.loads((out / "training.json").read_text())
    assert (account["mini-vae"]["steps"], account["mini-clip"]["steps"]) == (1, 3)


def test_a_stage_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert assemble.main(["--vae", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "train that stage first (task mini-vae)" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    from picsnet.mini.stages import read_stage

    (tmp_path / "checkpoints").mkdir()
    torch.save({"state_dict": {}, "config": {"task": "edge"}}, tmp_path / "checkpoints/last.ckpt")
    with pytest.raises(CheckpointError, match="is of task edge, not mini-vae"):
        read_stage(tmp_path, "mini-vae")

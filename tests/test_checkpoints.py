"""Models as files: what was saved comes back, and what is not a model is refused in one line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from picsnet import shipped
from picsnet.checkpoints import export, find_by_fingerprint, load_model, load_weights, pack
from picsnet.codec import SketchCodec
from picsnet.errors import CheckpointError
from picsnet.ntc import build
from picsnet.ntc.hyperprior import SketchHyperprior
from tests.conftest import drawn_map

OPTIONS = {"widths": [8, 8, 8], "M": 6, "N": 4}
CARD = {"architecture": "picsnet-hyperprior", "options": OPTIONS, "lmbda": 0.5}


@pytest.fixture
def network() -> SketchHyperprior:
    torch.manual_seed(3)
    made = build("picsnet-hyperprior", OPTIONS)
    assert isinstance(made, SketchHyperprior)
    return made


@pytest.fixture
def folder(network: SketchHyperprior, tmp_path: Path) -> Path:
    export(network, CARD, tmp_path / "model")
    return tmp_path / "model"


def lightning_checkpoint(path: Path, architecture: str, options: dict[str, Any]) -> Path:
    """As training writes it, of an untrained network."""
    network = build(architecture, options)
    config = {
        "task": "sketch-ntc",
        "model": {"architecture": architecture, "options": options},
        "lmbda": 0.5,
        "distortion": "mse",
        "data": {"batch_size": 2, "crop": 64, "sketcher": "bundled"},
    }
    state = {f"ema.module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "config": config, "batches_seen": 1}, path)
    return path


def test_export_and_back(network: SketchHyperprior, folder: Path) -> None:
    model = load_model(folder)
    assert model.fingerprint.hex() == model.card["fingerprint"]
    again = pack(model.network)
    for key, value in pack(network).items():
        if not key.startswith("tables."):
            assert torch.equal(again[key], value), key
    sketch = drawn_map(70, 90, 1)
    codec = SketchCodec(model)
    assert codec.decode_map(codec.encode_map(sketch)).shape == (70, 90)


def test_weights_alone_make_the_fingerprint_and_any_change_shows(folder: Path) -> None:
    before = load_model(folder).fingerprint
    network = load_model(folder).network
    with torch.no_grad():
        network.g_s[0].bias[0] += 0.5  # type: ignore[index,union-attr,operator]
    export(network, CARD, folder)
    assert load_model(folder).fingerprint != before


def test_files_name_the_model_that_ships() -> None:
    for name, card in shipped.cards().items():
        if "lmbda" in card:
            assert find_by_fingerprint(bytes.fromhex(card["fingerprint"])).name == name
    with pytest.raises(CheckpointError, match="--ckpt CKPT"):
        find_by_fingerprint(b"\0\0\0")


def test_every_card_says_what_it_is() -> None:
    for name, card in shipped.cards().items():
        assert {"architecture", "options", "steps", "fingerprint", "environment"} <= set(card), name
        if "lmbda" in card:
            assert {"distortion", "sketcher", "data", "measured"} <= set(card), name
            assert {"bpp", "ms_ssim", "pictures"} <= set(card["measured"]), name


def spoil_card(folder: Path) -> None:
    (folder / shipped.CARD).write_text("{")


def foreign_card(folder: Path) -> None:
    (folder / shipped.CARD).write_text("{}")


def other_architecture(folder: Path) -> None:
    card = json.loads((folder / shipped.CARD).read_text())
    card["options"]["M"] = 8
    (folder / shipped.CARD).write_text(json.dumps(card))


def cut_weights(folder: Path) -> None:
    data = (folder / shipped.WEIGHTS).read_bytes()
    (folder / shipped.WEIGHTS).write_bytes(data[: len(data) // 2])


def flip_a_weight(folder: Path) -> None:
    data = bytearray((folder / shipped.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / shipped.WEIGHTS).write_bytes(bytes(data))


def no_weights(folder: Path) -> None:
    (folder / shipped.WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_card, "damaged model"),
        (foreign_card, "not a picsnet model card"),
        (other_architecture, "does not hold"),
        (cut_weights, "damaged model"),
        (flip_a_weight, "fingerprint"),
        (no_weights, "no such model"),
    ],
)
def test_spoilt_folders(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_papers_network_writes_no_files(tmp_path: Path) -> None:
    path = lightning_checkpoint(tmp_path / "last.ckpt", "cheng2020-attn-sketch", {"N": 8})
    with pytest.raises(CheckpointError, match="on this machine only"):
        load_model(path)


def test_weights_start_a_run_only_where_they_fit(folder: Path) -> None:
    same = build("picsnet-hyperprior", OPTIONS)
    load_weights(same, folder)
    expected = load_model(folder).network.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in same.state_dict().items() if "g_" in k)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(build("picsnet-hyperprior", {**OPTIONS, "M": 8}), folder)


class Harm:
    """Runs a command when unpickled by a careless reader."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.witness}",)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "harmed"
    torch.save({"state_dict": Harm(witness)}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match=r"bad\.ckpt: not a"):
        load_model(tmp_path / "bad.ckpt")
    assert not witness.exists()

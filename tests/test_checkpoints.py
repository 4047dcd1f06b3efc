"""Models as files: what was saved comes back, and what is not a model is refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from picsnet import shipped
from picsnet.checkpoints import (
    card_of,
    export,
    find_by_fingerprint,
    fingerprint_of,
    load_model,
    load_weights,
    pack,
)
from picsnet.codec import SketchCodec
from picsnet.config import load_config, to_dict
from picsnet.errors import CheckpointError, ConfigError, OutputError
from picsnet.exporting import export_checkpoint
from picsnet.ntc import build
from picsnet.ntc.context import Levels, SketchContext
from picsnet.ntc.hyperprior import SketchHyperprior
from tests.conftest import REPOSITORY, drawn_map

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


def test_a_file_in_the_way_of_an_export_is_named(network: SketchHyperprior, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="in the way"):
        export(network, CARD, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("task", "words"),
    [("photo-ntc", r"evaluate\.py takes"), ("mini-vae", r"picsnet\.mini\.assemble")],
)
def test_what_is_not_exported_is_used_in_another_way(task: str, words: str, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "config": {"task": task}}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=f"is of task {task}.*{words}"):
        export_checkpoint(tmp_path / "last.ckpt", tmp_path / "model")


def test_a_model_without_its_prior_codes_alike(network: SketchHyperprior, folder: Path) -> None:
    sketch = drawn_map(70, 90, 1)
    for spec in (folder, "sketch_ntc_lambda0.5"):
        whole, coding = load_model(spec), load_model(spec, prior=False)
        lacks = set(whole.network.state_dict()) - set(coding.network.state_dict())
        assert lacks and all(key.startswith(whole.network.PRIOR) for key in lacks)
        assert coding.fingerprint == whole.fingerprint
        data = SketchCodec(coding).encode_map(sketch)
        assert data == SketchCodec(whole).encode_map(sketch)
        assert np.array_equal(
            SketchCodec(coding).decode_map(data), SketchCodec(whole).decode_map(data)
        )


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
            found = find_by_fingerprint(bytes.fromhex(card["fingerprint"]))
            assert found.fingerprint == load_model(name).fingerprint
    with pytest.raises(CheckpointError, match="--ckpt CKPT"):
        find_by_fingerprint(b"\0\0\0")


def test_every_card_says_what_it_is() -> None:
    for name, card in shipped.cards().items():
        assert {"architecture", "options", "steps", "fingerprint", "environment"} <= set(card), name
        if "lmbda" in card:
            assert {"distortion", "sketcher", "data", "measured"} <= set(card), name
            assert {"bpp", "ms_ssim", "pictures"} <= set(card["measured"]), name


RANGE = {
    "lambdas": [0.25, 0.5, 1.0],
    "widths": [8, 8, 8],
    "M": 8,
    "N": 4,
    "features": 8,
    "width": 8,
}


def test_an_operating_point_is_a_card_beside_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    card = {"architecture": "picsnet-context", "options": RANGE, "lmbda": 0.5}
    export(build("picsnet-context", RANGE), card, tmp_path / "whole")
    for name, lmbda in (("low", 0.25), ("between", 0.7), ("high", 1.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "card.json").write_text(f'{{"model": "whole", "lmbda": {lmbda}}}')
    models = {name: load_model(tmp_path / name) for name in ("whole", "low", "between", "high")}
    assert {name: model.quality for name, model in models.items()} == {
        "whole": 8,
        "low": 0,
        "between": 12,
        "high": 16,
    }
    assert len({model.fingerprint for model in models.values()}) == 1
    # Any of them decodes what another wrote.
    data = SketchCodec(models["low"]).encode_map(drawn_map(64, 64, 1))
    assert SketchCodec(models["high"]).decode_map(data).shape == (64, 64)
    (tmp_path / "low" / "card.json").write_text('{"model": "high", "lmbda": 1}')
    with pytest.raises(CheckpointError, match="damaged model"):
        load_model(tmp_path / "low")
    (tmp_path / "low" / "card.json").write_text('{"model": "gone", "lmbda": 1}')
    with pytest.raises(CheckpointError, match=r"no such model \(.*gone.* is missing"):
        load_model(tmp_path / "low")
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    with pytest.raises(CheckpointError, match=f"in a run's folder; its weights are {last}"):
        load_model(tmp_path / "run")
    (tmp_path / "low" / "card.json").write_text('{"model": "whole", "lmbda": 0}')
    with pytest.raises(CheckpointError, match="not a picsnet model card"):
        load_model(tmp_path / "low")


def test_the_range_network_survives_its_export(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build("picsnet-context", RANGE)
    card = {"architecture": "picsnet-context", "options": RANGE, "lmbda": 0.5}
    export(network, card, tmp_path / "model")
    first, again = pack(network), pack(load_model(tmp_path / "model").network)
    assert first.keys() == again.keys()
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
    receivers = [key for key in first if key.startswith(("context.", "gains.", "g_s."))]
    assert any("level" in key for key in receivers)
    for key in (
        "context.steps.2.level.vectors",
        "gains.log_inverse.vectors",
        "gains.offset.vectors",
    ):
        changed = {**first, key: first[key] + 1}
        assert fingerprint_of(changed) != fingerprint_of(first), key
    sender = {**first, "gains.log_gain.vectors": first["gains.log_gain.vectors"] + 1}
    assert fingerprint_of(sender) == fingerprint_of(first)


def test_a_range_network_starts_from_a_hyperprior(folder: Path) -> None:
    """What it takes over does what it did, with more blocks as well."""
    options = {**RANGE, "M": 6, "analysis": [1, 1, 3], "synthesis": [2, 1, 2]}
    with pytest.raises(ConfigError, match="multiple of 4"):
        build("picsnet-context", options)
    source = build("picsnet-hyperprior", {**OPTIONS, "M": 8})
    export(source, {**CARD, "options": {**OPTIONS, "M": 8}}, folder)
    started = build("picsnet-context", {**options, "M": 8})
    load_weights(started, folder)
    x = torch.rand(1, 1, 32, 48)
    model = load_model(folder).network
    with torch.no_grad():
        assert torch.allclose(started.g_a(x), model.g_a(x), atol=1e-5)
        y = torch.randn(1, 8, 2, 3)
        assert torch.allclose(started.g_s(y), model.g_s(y), atol=1e-5)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(build("picsnet-context", {**RANGE, "M": 16}), folder)


@pytest.mark.parametrize(
    "more", [{}, {"analysis": [1, 2, 1], "synthesis": [1, 1, 3]}, {"phases": 2}]
)
@pytest.mark.parametrize("lmbda", [0.25, 0.5, 0.7, 4.0])
def test_a_network_for_one_lambda_starts_from_one_for_a_range(
    tmp_path: Path, lmbda: float, more: dict[str, Any]
) -> None:
    """It does what the other does at that lambda, or at the nearest; with more blocks or phases
    as well."""
    torch.manual_seed(0)
    source = build("picsnet-context", RANGE)
    assert isinstance(source, SketchContext)
    with torch.no_grad():
        for layer in source.modules():
            if isinstance(layer, Levels):
                layer.vectors.add_(torch.randn_like(layer.vectors), alpha=0.2)
    card = {"architecture": "picsnet-context", "options": RANGE, "lmbda": 0.5}
    export(source, card, tmp_path / "range")
    one = build("picsnet-context", {**RANGE, **more, "lambdas": [lmbda]}).eval()
    load_weights(one, tmp_path / "range")
    trained = load_model(tmp_path / "range").network
    quality = trained.quality_of(lmbda)
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        expected, found = trained(x, torch.tensor([quality])), one(x)
    # 0.7 is no eighth of the way.
    tolerance = 0.05 if lmbda == 0.7 else 1e-3
    assert torch.allclose(expected.x_hat, found.x_hat, atol=tolerance)
    bits = [-sum(float(v.log2().sum()) for v in o.likelihoods.values()) for o in (expected, found)]
    assert bits[0] == pytest.approx(bits[1], rel=tolerance)


@pytest.mark.parametrize(
    ("more", "what"), [({"analysis": [1, 1, 2]}, "blocks"), ({"phases": 2}, "phases")]
)
def test_a_deeper_networks_error_says_what_to_give_the_run(
    tmp_path: Path, more: dict[str, Any], what: str
) -> None:
    deep = {**RANGE, **more}
    card = {"architecture": "picsnet-context", "options": deep, "lmbda": 0.5}
    export(build("picsnet-context", deep), card, tmp_path / "deep")
    one = build("picsnet-context", {**RANGE, "lambdas": [0.5]})
    with pytest.raises(CheckpointError, match=f"has more {what} than this network") as caught:
        load_weights(one, tmp_path / "deep")
    architecture, options = str(caught.value).split("model.architecture=")[1].split(" ", 1)
    given = OmegaConf.from_dotlist([options.strip("'")])["model"]["options"]
    told = OmegaConf.to_container(given)
    assert isinstance(told, dict) and "lambdas" not in told
    load_weights(build(architecture, {**told, "lambdas": [0.5]}), tmp_path / "deep")


@pytest.mark.parametrize(
    ("spec", "origin"),
    [
        ("sketch_ntc_range", "sketch_ntc_range"),
        ("models/mine", "mine"),
        ("runs/first/checkpoints/last.ckpt", "first"),
    ],
)
def test_a_card_names_what_its_run_started_from(spec: str, origin: str) -> None:
    given = ["data.maps=[maps]", f"init_from={spec}"]
    config = load_config("sketch_ntc_lambda0.5.yaml", given)
    assert card_of(to_dict(config))["init_from"] == origin


@pytest.mark.parametrize(("fingerprint", "was"), sorted(shipped.replaced().items()))
def test_files_of_networks_that_were_replaced_say_where_those_are(
    fingerprint: str, was: dict[str, str], tmp_path: Path
) -> None:
    """The command in the message brings the network, and that reads the file."""
    assert fingerprint not in shipped.networks()
    with pytest.raises(CheckpointError) as refused:
        find_by_fingerprint(bytes.fromhex(fingerprint))
    folder = f"checkpoints/{was['name']}"
    archive = f"git archive {was['revision']} {folder}"
    assert f"mkdir old && {archive} | tar -x -C old," in str(refused.value)
    assert f"--ckpt old/{folder}" in str(refused.value)
    known = ["git", "cat-file", "-e", f"{was['revision']}^{{commit}}"]
    if subprocess.run(known, cwd=REPOSITORY, capture_output=True, check=False).returncode:
        pytest.skip("the revision is not in this checkout's history")
    fetch = f"{archive} | tar -x -C {tmp_path}"
    subprocess.run(fetch, shell=True, cwd=REPOSITORY, check=True)
    assert load_model(tmp_path / folder).fingerprint.hex() == fingerprint


def spoil_card(folder: Path) -> None:
    (folder / shipped.CARD).write_text("{")


def foreign_card(folder: Path) -> None:
    (folder / shipped.CARD).write_text("{}")


def other_architecture(folder: Path) -> None:
    card = json.loads((folder / shipped.CARD).read_text())
    card["options"]["M"] = 8
    (folder / shipped.CARD).write_text(json.dumps(card))


def options_of_another_kind(options: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        card = json.loads((folder / shipped.CARD).read_text())
        (folder / shipped.CARD).write_text(json.dumps(card | {"options": options}))

    return spoil


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
        (options_of_another_kind("none"), "do not suit"),
        (options_of_another_kind({**OPTIONS, "N": -1}), "do not suit"),
        (options_of_another_kind({**OPTIONS, "widths": [1, 2]}), "do not suit"),
        (options_of_another_kind({**OPTIONS, "N": 10**12}), "do not suit"),
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

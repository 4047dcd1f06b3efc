"""Checkpoints are data: a pickle with code in it is refused at every door, and runs nothing."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from picsnet.checkpoints import load_lightning, load_model, load_weights, task_of
from picsnet.cli import main
from picsnet.config import load_config
from picsnet.decoder.identity import signature
from picsnet.errors import PicsnetError
from picsnet.evaluation.baselines.weights import load_averaged
from picsnet.exporting import export_checkpoint
from picsnet.mini.stages import read_stage
from picsnet.ntc import build
from picsnet.sketch.bundled import load_training_checkpoint
from picsnet.sketch.hed import HedSketcher
from tests.conftest import REPOSITORY


class Harm:
    """Makes a folder when it is unpickled by a careless reader."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.witness),)


@pytest.fixture(params=["argument", "environment"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every file that a reader may look for is the same bad pickle."""
    if request.param == "environment":
        # What would turn torch.load's own default off.
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    harm = Harm(tmp_path / "harmed")
    content = {
        "state_dict": {"ema.module.a": torch.zeros(1), "b": harm},
        "config": {"task": "sketch-ntc", "model": {"architecture": "x", "options": harm}},
        "batches_seen": harm,
        "a": torch.zeros(3),
        "norm": harm,
    }
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/last.ckpt", "ControlNetHED.pth", "weights.bin"):
        torch.save(content, tmp_path / name)
    return tmp_path


DOORS: dict[str, Callable[[Path], object]] = {
    "codec": lambda folder: load_model(folder / "checkpoints/last.ckpt"),
    "training checkpoint": lambda folder: load_lightning(folder / "checkpoints/last.ckpt"),
    "start of a run": lambda folder: load_weights(
        build("picsnet-hyperprior"), folder / "checkpoints/last.ckpt"
    ),
    "task": lambda folder: task_of(folder / "checkpoints/last.ckpt"),
    "export": lambda folder: export_checkpoint(folder / "checkpoints/last.ckpt", folder / "out"),
    "edge detector": lambda folder: load_training_checkpoint(folder / "checkpoints/last.ckpt"),
    "stage of the mini decoder": lambda folder: read_stage(folder, "mini-vae"),
    "baseline": lambda folder: load_averaged(
        str(folder / "checkpoints/last.ckpt"), "network.", "photo-ntc"
    ),
    "HED": lambda folder: HedSketcher(str(folder)),
    "decoder's identity": lambda folder: signature([folder / "weights.bin"]),
}


@pytest.mark.parametrize("door", DOORS)
def test_code_is_refused_and_not_run(folder: Path, door: str) -> None:
    with pytest.raises(PicsnetError) as caught:
        DOORS[door](folder)
    assert not (folder / "harmed").exists()
    assert "\n" not in str(caught.value)


def test_code_is_refused_by_the_resumption_of_a_run(folder: Path) -> None:
    from picsnet.training.ntc import NTCModule
    from picsnet.training.run import fit

    config = load_config(
        "sketch_ntc_lambda0.5.yaml",
        ["data.maps=[maps]", f"output={folder.parent}", f"name={folder.name}"],
    )
    with pytest.raises(PicsnetError, match="not a checkpoint"):
        fit(config, NTCModule(config), None)  # type: ignore[arg-type]
    assert not (folder / "harmed").exists()


def test_code_is_refused_by_the_command_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = REPOSITORY / "tests" / "vectors" / "pics-0.png"
    ckpt = str(folder / "checkpoints/last.ckpt")
    out = str(folder / "a.pics")
    assert main(["encode", "--ckpt", ckpt, str(picture), "-o", out, "--mode", "sketch"]) == 1
    assert re.fullmatch(r"picsnet: error: .*last\.ckpt.*\n", capsys.readouterr().err)
    assert not (folder / "harmed").exists()
    assert not Path(out).exists()


def test_every_load_is_of_weights_only() -> None:
    """No call in the sources leaves it to a default, and nothing else unpickles."""
    calls = 0
    for folder in ("picsnet", "datamodules", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name.split(".")[0] for alias in node.names}
                    names.add((getattr(node, "module", None) or "").split(".")[0])
                    assert not names & {"pickle", "dill", "joblib", "shelve", "marshal"}, path
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    calls += 1
                    words = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert words.get("weights_only") == "True", f"{path}:{node.lineno}"
                if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                    assert ast.unparse(node.value) == "False", path
    assert calls >= 8

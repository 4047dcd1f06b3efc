"""What an evaluation's jobs depend on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import features

from picsnet import shipped, stamps
from picsnet.evaluation.config import (
    ClassicalConfig,
    CodecConfig,
    IllmConfig,
    PicsConfig,
    SketchConfig,
    ZooConfig,
)
from picsnet.evaluation.jobs import Picture, make_jobs
from picsnet.shipped import CARD, SPEC_FILE, WEIGHTS
from tests.conftest import WEIGHTS_BY_NAME, write_named_weights
from tests.vectors import FOLDER as VECTORS


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that names an operating point of the network in the folder beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(VECTORS / "picsnet-context", tmp_path / "network")
    folder = tmp_path / "point"
    folder.mkdir()
    _write_card(folder, lmbda=0.5)
    return folder


def _write_card(folder: Path, **card: Any) -> None:
    (folder / CARD).write_text(json.dumps({"model": "network", **card}))


def _key(config: CodecConfig | None = None) -> str:
    stamps.forget()  # a process reads each file once
    named: Any = SimpleNamespace(codec="sketch", setting="one")
    config = config or SketchConfig(ckpt=["point"])
    (job,) = make_jobs("kodak", [Picture("a", "a.png", "digest")], named, config)
    return job.key


def test_an_operating_point_is_done_anew_when_its_networks_weights_change(point: Path) -> None:
    before = _key()
    assert before == _key()
    weights = point.parent / "network" / WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert _key() != before


def test_a_lambda_counts_and_what_was_measured_does_not(point: Path) -> None:
    before = _key()
    _write_card(point, lmbda=0.5, measured={"bpp": 0.01})
    assert _key() == before
    _write_card(point, lmbda=1.0)
    assert _key() != before


@pytest.mark.parametrize("part", WEIGHTS_BY_NAME)
def test_weights_count_wherever_they_are_named(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_named_weights()
    config = PicsConfig(
        ckpt=["models/ckpt"],
        sketcher="hed:~/models/detector",
        decoder="~/models/own.yaml",
        captioner="models/captioner",
    )
    before = _key(config)
    assert _key(config) == before
    Path("models", part, "weights.bin").write_text("other")
    assert _key(config) != before


@pytest.mark.parametrize("config", [ZooConfig(weights=["own"]), IllmConfig(repo="own")])
def test_weights_of_other_codecs_count(
    config: CodecConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own").write_text("one")
    before = _key(config)
    Path("own").write_text("other")
    assert _key(config) != before


@pytest.mark.parametrize(("codec", "feature"), [("WEBP", "webp"), ("JPEG2000", "jpg_2000")])
def test_classical_files_are_coded_anew_by_another_version_of_their_codec(
    codec: str, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "version", {feature: "1.0", "avif": "1.0"}.get)
    before, other = _key(ClassicalConfig(codec=codec)), _key(ClassicalConfig(codec="AVIF"))
    monkeypatch.setattr(features, "version", {feature: "1.1", "avif": "1.0"}.get)
    assert _key(ClassicalConfig(codec=codec)) != before
    assert _key(ClassicalConfig(codec="AVIF")) == other


@pytest.mark.parametrize("codec", ["WEBP", "JXL"])
def test_classical_files_are_coded_anew_by_another_package(
    codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _key(ClassicalConfig(codec=codec))
    package = "pillow-jxl-plugin" if codec == "JXL" else "pillow"
    versions = {"pillow": "1.0", "pillow-jxl-plugin": "1.0", package: "1.1"}
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    assert _key(ClassicalConfig(codec=codec)) != before


def test_words_that_are_folders_by_chance_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    configs = [
        PicsConfig(mode="pics", decoder="sd21-hed", prompt_from="caption", judge="clip"),
        ZooConfig(metric="ms-ssim"),
        IllmConfig(models=["model"]),
    ]
    before = [_key(config) for config in configs]
    words = ("pics", "bundled", "sd21-hed", "caption", "clip", "zoo", "ms-ssim", "illm", "model")
    for name in words:
        Path(name).mkdir()
        Path(name, "notes.txt").write_text("mine")
    assert [_key(config) for config in configs] == before


@pytest.fixture
def ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models that ship: an edge detector and a decoder."""
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "ships")
    for name in (shipped.EDGES, "own"):
        (tmp_path / "ships" / name).mkdir(parents=True)
        (tmp_path / "ships" / name / WEIGHTS).write_text("one")
    (tmp_path / "ships" / "own" / SPEC_FILE).write_text("prompts: none\n")
    return tmp_path / "ships"


@pytest.mark.parametrize("name", ["own", shipped.EDGES])
@pytest.mark.parametrize("config", [PicsConfig(), SketchConfig()])
def test_what_is_taken_where_nothing_is_named_counts(
    name: str, config: CodecConfig, ships: Path
) -> None:
    before = _key(config.resolved())
    assert _key(config.resolved()) == before
    (ships / name / WEIGHTS).write_text("other")
    counts = name == shipped.EDGES or isinstance(config, PicsConfig)
    assert (_key(config.resolved()) != before) == counts

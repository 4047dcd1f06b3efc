"""What a digest of settings depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from picsnet import shipped
from picsnet.scale.settings import EncodeSettings
from tests.conftest import WEIGHTS_BY_NAME, write_named_weights


def test_words_that_are_folders_by_chance_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = EncodeSettings(
        mode="sketch", judge="clip", prompt_from="caption", decoder="sd21-hed"
    )
    before = settings.digest()
    for name in ("sketch", "clip", "caption", "bundled", "sd21-hed"):
        Path(name).mkdir()
        Path(name, "notes.txt").write_text("mine")
    assert settings.digest() == before


@pytest.mark.parametrize("part", WEIGHTS_BY_NAME)
def test_weights_count_wherever_they_are_named(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_named_weights()
    settings = EncodeSettings(
        mode="pics",
        ckpt="models/ckpt",
        sketcher="hed:~/models/detector",
        decoder="models/own.yaml",
        captioner="models/captioner",
    )
    before = settings.digest()
    assert settings.digest() == before
    Path("models", part, "weights.bin").write_text("other")
    assert settings.digest() != before


def test_the_edge_detector_that_ships_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    (tmp_path / shipped.EDGES).mkdir()
    weights = tmp_path / shipped.EDGES / shipped.WEIGHTS
    weights.write_text("one")
    settings, maps = EncodeSettings(), EncodeSettings(sketcher="map")
    before = settings.digest(), maps.digest()
    weights.write_text("other")
    assert settings.digest() != before[0]
    assert maps.digest() == before[1]

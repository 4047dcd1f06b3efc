"""Which decoder is meant where none is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picsnet import shipped
from picsnet.cli import main
from picsnet.decoder.choice import default_decoder, default_is_present, present_decoders
from picsnet.decoder.spec import DEFAULT_DECODER, load_spec


@pytest.fixture
def with_decoder(miniature_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the miniature decoder shipped, beside the sketch models that do."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for path in shipped.FOLDER.iterdir():
        if (path / shipped.CARD).is_file():
            (folder / path.name).symlink_to(path)
    shutil.copytree(miniature_decoder, folder / "small")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((128, 96), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_what_ships_is_the_default_without_a_hub(with_decoder: Path) -> None:
    assert default_decoder() == "small" and default_is_present()
    assert [spec.name for spec in present_decoders()] == ["small"]
    assert load_spec("small").settings.steps == 3


def test_without_any_the_papers_pair_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    assert default_decoder() == DEFAULT_DECODER and not default_is_present()
    assert list(present_decoders()) == []


def test_sender_and_receiver_need_not_name_it(
    with_decoder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, back, named = (str(tmp_path / name) for name in ("a.pics", "back.png", "named.png"))
    few = ["--candidates", "2", "--device", "cpu", "--json"]
    assert main(["encode", str(photo), "--prompt-from", "palette", "-o", coded, *few]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["prompt"] and row["layers"]["sketch"] > 0
    assert main(["decode", coded, "-o", back, "--device", "cpu"]) == 0
    assert "by small" in capsys.readouterr().out
    assert main(["decode", coded, "-o", named, "--decoder", "small", "--device", "cpu"]) == 0
    assert Path(back).read_bytes() == Path(named).read_bytes()


def test_a_file_for_another_decoder(
    with_decoder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded = str(tmp_path / "a.pics")
    other = ["--decoder", "small", "--decoder-set", "steps=2", "--prompt", "a dog"]
    few = ["--candidates", "1", "--device", "cpu", "--quiet"]
    assert main(["encode", str(photo), "-o", coded, *other, *few]) == 0
    assert main(["decode", coded, "-o", str(tmp_path / "back.png"), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "none on this machine is that (small)" in error and error.count("\n") == 1
    assert not (tmp_path / "back.png").exists()
    again = ["decode", coded, "-o", str(tmp_path / "back.png"), "--decoder-set", "steps=2"]
    assert main([*again, "--device", "cpu"]) == 0


def test_models_lists_what_ships(with_decoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "decoder, 3 steps at 128 pixels" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows if row["kind"] == "shipped decoder"] == ["small"]

"""The mini decoder's benchmark: rows for every opponent, measures that measure, a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import mini
from benchmarks.mini import Pixels
from picsnet.files import InputFile
from picsnet.pics import PICS


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def test_report_table_and_sheet(
    miniature_decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(photograph(0, 200, 280)).save(photos / "wide.png")
    Image.fromarray(photograph(1, 280, 200)).save(photos / "tall.png")
    arguments = ["--data", str(photos), "--decoder", str(miniature_decoder), "--device", "cpu"]
    few = ["--candidates", "1", "--prompt-from", "palette"]
    assert mini.main([*arguments, *few, "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "mini.json").read_text())
    ours_and_others = ["picsnet", "one candidate", "no text", "no sketch", "wrong sketch"]
    opponents = [*ours_and_others, "AVIF", "WebP", "mean colour"]
    assert [row["opponent"] for row in report["rows"]] == opponents * 2
    ours = [row for row in report["rows"] if row["opponent"] == "picsnet"]
    assert sum(report["layers"].values()) == pytest.approx(np.mean([r["bytes"] for r in ours]))
    for row in report["rows"]:
        assert row["bpp"] == pytest.approx(8 * row["bytes"] / (200 * 280))
        assert 0 <= row["sketch_f"] <= 1 and 0 <= row["ms_ssim"] <= 1 and row["colour_error"] > 0
    assert "| mean colour | 7 |" in capsys.readouterr().out
    sheet = Image.open(tmp_path / "out" / "contact_sheet.webp")
    assert sheet.size == (9 * mini.SHEET_WIDTH, mini.SHEET_WIDTH)
    assert np.asarray(sheet).std() > 10


def test_what_is_compared_were_drawn_from_one_seed(
    miniature_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One picture has no other whose sketch it could be given."""
    Image.fromarray(photograph(0, 200, 280)).save(tmp_path / "only.png")
    drawn: list[tuple[str, Pixels]] = []
    ablations = mini._ablations

    def seen(*arguments: Any) -> Iterator[tuple[str, int, Pixels]]:
        for name, size, picture in ablations(*arguments):
            drawn.append((name, picture))
            yield name, size, picture

    monkeypatch.setattr(mini, "_ablations", seen)
    arguments = ["--data", str(tmp_path / "only.png"), "--decoder", str(miniature_decoder)]
    few = ["--candidates", "4", "--prompt-from", "palette", "--device", "cpu"]
    assert mini.main([*arguments, *few, "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "mini.json").read_text())
    assert report["helps"]["right sketch, by sketch F"] == "0 of 0"
    assert [name for name, _ in drawn] == ["one candidate", "no text", "no sketch"]
    codec = PICS.from_pretrained(
        "sketch_ntc_lambda0.5",
        str(miniature_decoder),
        prompt_from="palette",
        candidates=1,
        device="cpu",
    )
    encoding = codec.encode_parts([np.asarray(Image.open(tmp_path / "only.png"))])[0]
    assert np.array_equal(drawn[0][1], codec.decode_parts([encoding.data])[0].picture)


def test_pictures_of_one_name_are_told_apart_and_small_ones_are_named(
    miniature_decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [InputFile(tmp_path / folder / "a.png", Path("a.png")) for folder in "xy"]
    assert mini._names(files) == [str(file.path) for file in files]
    assert mini._names(files[:1]) == ["a"]
    Image.fromarray(photograph(0, 150, 280)).save(tmp_path / "low.png")
    arguments = ["--data", str(tmp_path / "low.png"), "--decoder", str(miniature_decoder)]
    assert mini.main([*arguments, "--prompt-from", "palette", "--device", "cpu"]) != 0
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("mini.py: error: ") and "low.png: 280x150 is too small" in error


def test_edge_agreement() -> None:
    line = np.zeros((60, 60), bool)
    line[20, 5:55] = True
    assert mini.edge_agreement(line, line) == 1
    assert mini.edge_agreement(line, np.roll(line, 2, axis=0)) == 1
    assert mini.edge_agreement(line, np.roll(line, 3, axis=0)) == 0
    half = line.copy()
    half[20, 30:] = False
    assert mini.edge_agreement(line, half) == pytest.approx(2 * 25 / 75, abs=0.05)
    nothing = np.zeros_like(line)
    assert mini.edge_agreement(nothing, nothing) == 1 and mini.edge_agreement(line, nothing) == 0


def test_a_broken_picture_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    assert mini.main(["--data", str(tmp_path), "--decoder", "nothing"]) != 0
    assert capsys.readouterr().err.startswith("mini.py: error: ")

"""The loader's benchmarks: a row for each source and number of workers, curves for each seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import loader, shard_curve


def test_report_and_table(
    maps_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loader, "WARM_UP", 2)
    output = tmp_path / "out" / "loader.json"
    few = ["--steps", "3", "--repeat", "1", "--workers", "0", "--crop", "64", "--shard-mb", "0.02"]
    assert loader.main([str(maps_folder), *few, "-o", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [row["name"] for row in rows] == [
        "files",
        "shards",
        "shards, far, cold",
        "shards, far, warm",
        "files, decoded",
        "shards, decoded",
    ]
    assert rows[0]["relative"] == 1 and all(row["crops_per_second"] > 0 for row in rows)
    assert "12 maps in" in capsys.readouterr().out


def test_curves_of_files_and_of_shards_shuffled_whole_are_one(
    maps_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "curve.json"
    monkeypatch.setattr(shard_curve, "MINIATURE", [*shard_curve.MINIATURE, "data.val_count=2"])
    few = ["--steps", "2", "--seeds", "1", "--shard-mb", "0.02"]
    assert shard_curve.main([str(maps_folder), *few, "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert result["steps"] == [1, 2]
    curves = result["curves"]
    assert curves["files"] == curves["shards"] != curves["windows of 2"]


def test_what_cannot_be_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "loader.json"
    assert loader.main([str(tmp_path), "-o", str(output)]) != 0
    assert loader.main([str(tmp_path), "--steps", "1", "-o", str(output)]) == 2
    assert capsys.readouterr().err.count("loader.py: error") == 2 and not output.exists()

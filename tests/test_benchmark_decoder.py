"""The decoder benchmark, on a miniature pipeline in place of the true architecture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decoder


@pytest.fixture
def folder(tmp_path: Path, miniature_decoder: Path) -> Path:
    shutil.copytree(miniature_decoder, tmp_path / "sd")
    (tmp_path / "sd" / "picsnet.yaml").write_text("{}\n")  # it is not built again
    return tmp_path / "sd"


def test_report_and_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "decoder.json"
    small = ["--device", "cpu", "--size", "64", "--steps", "2", "--candidates", "1", "2"]
    assert decoder.main([*small, "--folder", str(folder), "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    rows = {(row["name"], row["candidates"]): row for row in result["rows"]}
    # Those that compile are for GPUs, or for whoever names them.
    plain = ["ours", "channels_last", "fuse_qkv", "vae_bf16", "vae_batch"]
    assert [*rows] == [(name, n) for name in ["stock", *plain, "few"] for n in (1, 2)]
    assert not result["failed"]
    assert rows["ours", 1]["difference"] == 0  # bit by bit the stock pipeline's picture
    assert all(row["difference"] <= 1 and row["peak_gib"] > 0 for row in rows.values())
    assert rows["vae_bf16", 2]["difference"] > 0
    for (name, n), row in rows.items():
        assert row["relative"] == pytest.approx(row["seconds"] / rows["stock", n]["seconds"]), name
    assert "few" in capsys.readouterr().out


def test_differences_are_in_levels() -> None:
    black, grey = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 3, np.uint8)
    assert decoder.difference([black, grey], [grey, grey]) == 1.5


def test_a_compiler_that_fails_costs_one_row(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr("torch.compile", broken)
    output = tmp_path / "decoder.json"
    small = ["--device", "cpu", "--size", "64", "--steps", "1", "--candidates", "1"]
    options = [*small, "--variants", "compile", "few", "--folder", str(folder), "-o", str(output)]
    assert decoder.main(options) == 0
    result = json.loads(output.read_text())
    reason = "no compiler here"
    assert result["failed"] == {"compile": reason, "few, compile": reason}
    assert [row["name"] for row in result["rows"]] == ["stock", "ours", "few"]


def test_options_that_measure_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert decoder.main(["--repeat", "0", "--folder", str(tmp_path / "sd")]) != 0
    assert "--repeat is 0; it must be at least 1" in capsys.readouterr().err
    assert not (tmp_path / "sd").exists()

"""The coding benchmark: every figure that it promises, from two small pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import coding
from tests.conftest import drawn_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return drawn_photos(tmp_path / "photos", 64, 96)


def test_report_and_table(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "coding.json"
    few = ["--repeat", "1", "--runs", "1", "--workers", "2"]
    assert coding.main([str(photos), *few, "-o", str(output)]) == 0
    found = json.loads(output.read_text())
    for verb in ("encode", "decode"):
        ways = found[verb]
        assert ways[0]["times"] == 1 and [w["way"] for w in ways[2:]] == [
            "2 workers",
            "2 processes apart",
        ]
        assert all(row["pictures_a_second"] > 0 for row in ways)
        cold, warm = (found["latency"][verb][kind] for kind in ("cold", "warm"))
        assert set(warm) - {"load"} <= set(cold) and cold["start-up"] > 0.2
    assert list(found["cold"]) == ["--help", "info", "decode --sketch-only", "import torch"]
    assert all(row["min"] <= row["median"] for row in found["cold"].values())
    assert "2 workers" in capsys.readouterr().out


def test_a_broken_picture_ends_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "0.png").write_text("dear diary")
    output = tmp_path / "coding.json"
    assert coding.main([str(photos), "-o", str(output)]) == 1
    assert "0.png" in capsys.readouterr().err
    assert not output.exists()


def test_more_workers_than_photographs_are_one_line(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "0.png").unlink()
    output = tmp_path / "coding.json"
    assert coding.main([str(photos), "--workers", "2", "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("coding.py: error: --workers 2: ") and "at most 1" in line
    assert not output.exists()

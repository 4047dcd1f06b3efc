"""The inversion benchmark: rows for each number of pictures, and for the paper's loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import inversion


def test_report_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "inversion.json"
    few = ["--steps", "3", "--repeat", "1", "--device", "cpu", "-o", str(output)]
    assert inversion.main([*few, "--pictures", "1", "3"]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["name"], row["pictures"]) for row in rows] == [
        ("ours", 1),
        ("ours", 3),
        ("paper's loop", 1),
    ]
    assert rows[0]["relative"] == 1 and all(row["step_seconds"] > 0 for row in rows)
    assert "3 pictures" in capsys.readouterr().out


def test_the_papers_loop_finds_prompts() -> None:
    clip = inversion.make_clip("mini", "cpu")
    target = clip.text_features([[3, 141, 59, 26]])[0]
    few, many = (inversion.papers_loop(clip, target, 4, steps) for steps in (1, 300))
    assert few < many <= 1.0001
    assert many > 0.8


def test_settings_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "inversion.json"
    assert inversion.main(["--steps", "0", "-o", str(output)]) != 0
    assert "inversion: steps is 0" in capsys.readouterr().err
    assert not output.exists()

"""The inversion benchmark: rows for each number of pictures, and for the paper's loop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import inversion


def test_report_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "inversion.json"
    few = ["--prompts", "2", "--directions", "1", "--batch", "4", "--tokens", "4"]
    few += ["--paper-steps", "20", "--timed-steps", "2"]
    options = [*few, "--device", "cpu", "-o", str(output)]
    assert inversion.main(options) == 0
    result = json.loads(output.read_text())
    assert [row["target"] for row in result["rows"]] == ["prompt", "prompt", "direction"]
    for row in result["rows"]:
        assert row["reached"] and row["default_similarity"] >= row["similarity"] - 1e-6
        assert row["paper_seconds"] == pytest.approx(20 * row["paper_step_seconds"])
        assert row["ratio"] == pytest.approx(row["paper_seconds"] / row["seconds"])
    assert result["batch"]["reached"] == result["batch"]["pictures"] == 4
    assert "batch of 4" in capsys.readouterr().out
    # The paper's similarities are kept.
    (kept,) = output.parent.glob("inversion-paper-*.npy")
    before = kept.stat().st_mtime_ns
    assert inversion.main([*options, "--whole"]) == 0
    assert kept.stat().st_mtime_ns == before
    assert json.loads(output.read_text())["paper_steps_timed"] == 20


def test_the_papers_loop_finds_prompts() -> None:
    clip = inversion.make_clip("mini", "cpu")
    target = clip.text_features([[3, 141, 59, 26]])[0]
    few, many = (inversion.papers_loop(clip, target, 4, steps) for steps in (1, 300))
    assert few < many <= 1.0001
    assert many > 0.8


def test_what_is_left_out_of_the_papers_loop_has_no_part_in_it() -> None:
    clip = inversion.make_clip("mini", "cpu")
    targets, _ = inversion.make_targets(clip, 2, 1, 5)
    together = inversion.papers_similarities(clip, targets, 5, 25)[-1]
    for target, similarity in zip(targets, together, strict=True):
        loop = inversion.papers_loop(clip, target, 5, 25)
        assert loop == pytest.approx(similarity, abs=1e-5)


def test_settings_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "inversion.json"
    assert inversion.main(["--steps", "0", "--paper-steps", "1", "-o", str(output)]) != 0
    assert "inversion: steps is 0" in capsys.readouterr().err
    assert not output.exists()

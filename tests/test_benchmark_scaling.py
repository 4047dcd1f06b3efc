"""The paper calculation of scaling, through its command and by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scaling import LINKS, Link, main, step_seconds

MEASURED = {
    "crops_per_second": {"ours": 32.0},
    "batch_size": 8,
    "device": "cpu",
    "architecture": "picsnet-context",
}


def test_table_of_a_measured_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, output = tmp_path / "training.json", tmp_path / "scaling.json"
    training.write_text(json.dumps(MEASURED))
    assert main([str(training), "-o", str(output)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("worked out, not measured: a step of 250.0 ms (measured on cpu")
    result = json.loads(output.read_text())
    assert 9e6 < result["gradient_bytes"] < 10e6
    for row in result["rows"]:
        assert row["gains"][0] == 1
        assert row["gains"] == sorted(row["gains"])
        assert all(gain <= n for gain, n in zip(row["gains"], result["processes"], strict=True))
    slow, fast = result["rows"][0]["gains"][3], result["rows"][-1]["gains"][3]
    assert slow < fast


def test_a_ring_by_hand() -> None:
    link = Link("", bandwidth=1e6, latency=0.001)
    # 4 processes: 6 turns, 6/4 of a megabyte at a megabyte a second.
    assert step_seconds(0.5, 1_000_000, 4, link) == pytest.approx(0.5 + 1.5 + 0.006)
    assert step_seconds(0.5, 1_000_000, 1, LINKS[0]) == 0.5


def test_another_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "other.json"
    wrong.write_text("[1, 2]")
    assert main([str(wrong), "-o", str(tmp_path / "x.json")]) == 1
    assert "not the JSON of benchmarks/training.py" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_a_step_as_given_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training, output = tmp_path / "training.json", tmp_path / "scaling.json"
    training.write_text(json.dumps(MEASURED))
    assert main([str(training), "--step-ms", "20", "-o", str(output)]) == 0
    assert "a step of 20.0 ms (as given)" in capsys.readouterr().out


@pytest.mark.parametrize("step", ["0", "-5", "nan", "inf"])
def test_a_step_that_takes_no_time_is_one_line(
    tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    training, output = tmp_path / "training.json", tmp_path / "scaling.json"
    training.write_text(json.dumps(MEASURED))
    assert main([str(training), f"--step-ms={step}", "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"scaling.py: error: --step-ms {step}: must be above 0")
    assert not output.exists()

"""The benchmark of our sketch network's time against the paper's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import sketch_speed
from tests.conftest import REPOSITORY, drawn_photos
from tests.test_checkpoints import lightning_checkpoint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return drawn_photos(tmp_path / "photos", 80, 96)


def test_both_are_timed_on_the_same_maps(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    paper = lightning_checkpoint(tmp_path / "last.ckpt", "cheng2020-attn-sketch", {"N": 8})
    output = tmp_path / "speed.json"
    given = [str(photos), "--side", "64", "--repeat", "1", "--paper", str(paper)]
    assert sketch_speed.main([*given, "-o", str(output)]) == 0
    assert "the paper's network" in capsys.readouterr().out
    found = json.loads(output.read_text())
    assert found["maps"] == 2 and found["paper"] == str(paper)
    for verb in ("encode", "decode"):
        ours, theirs = (found["seconds"][name][verb] for name in ("ours", "paper"))
        assert ours > 0 and found["times"][verb] == pytest.approx(theirs / ours)


def test_it_runs_as_a_file(photos: Path, tmp_path: Path) -> None:
    script = REPOSITORY / "benchmarks" / "sketch_speed.py"
    command = [sys.executable, script, photos, "--side", "97"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "smaller than --side 97" in result.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--side", "90"], "is smaller than --side 90"),
        (["--repeat", "0"], "at least 1"),
        (["--paper", "missing.ckpt"], "missing.ckpt"),
    ],
)
def test_refusals(
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    message: str,
) -> None:
    output = tmp_path / "speed.json"
    assert sketch_speed.main([str(photos), "--side", "64", *given, "-o", str(output)]) != 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("sketch_speed.py: error: ") and message in last
    assert not output.exists()

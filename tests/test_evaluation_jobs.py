"""What an evaluation's jobs depend on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from picsnet import stamps
from picsnet.evaluation.config import SketchConfig
from picsnet.evaluation.jobs import Picture, make_job
from picsnet.shipped import CARD, WEIGHTS
from tests.vectors import FOLDER as VECTORS


@pytest.fixture
def point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that names an operating point of the network in the folder beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(VECTORS / "picsnet-context", tmp_path / "network")
    folder = tmp_path / "point"
    folder.mkdir()
    _write_card(folder, lmbda=0.5)
    return folder


def _write_card(folder: Path, **card: Any) -> None:
    (folder / CARD).write_text(json.dumps({"model": "network", **card}))


def _key() -> str:
    stamps._stamp_of.cache_clear()  # a process reads each file once
    config = SketchConfig(ckpt=["point"])
    named: Any = SimpleNamespace(codec="sketch", setting="one")
    return make_job("kodak", Picture("a", "a.png", "digest"), named, config).key


def test_an_operating_point_is_done_anew_when_its_networks_weights_change(point: Path) -> None:
    before = _key()
    assert before == _key()
    weights = point.parent / "network" / WEIGHTS
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert _key() != before


def test_a_lambda_counts_and_what_was_measured_does_not(point: Path) -> None:
    before = _key()
    _write_card(point, lmbda=0.5, measured={"bpp": 0.01})
    assert _key() == before
    _write_card(point, lmbda=1.0)
    assert _key() != before

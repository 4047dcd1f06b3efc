"""Training from shards through the public door: the folder's bits, and resumed where it died."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

import train
from picsnet.cli import main
from picsnet.training.run import may_be_one_sketcher
from tests import processes
from tests.conftest import REPOSITORY
from tests.test_training import command, environment, last, saved


@pytest.fixture(scope="module")
def packed(maps_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    options = ["--sketcher", "map", "--shards", str(out), "--shard-mb", "0.015"]
    assert main(["sketch", str(maps_folder), *options]) == 0
    assert len(list(out.glob("*.bin"))) >= 6
    return out


def options(maps: Path, output: Path, *overrides: str) -> list[str]:
    """What the folder's run is told, after ``train.py``."""
    return command(maps, output, *overrides)[2:]


def from_shards(url: str, output: Path, *overrides: str) -> list[str]:
    arguments = options(Path("-"), output, *overrides, f"data.shards_cache={output / 'cache'}")
    return [f"data.shards=[{url}]" if a.startswith("data.maps") else a for a in arguments]


def differing(left: Path, right: Path) -> list[str]:
    first, second = saved(left), saved(right)
    assert first.keys() == second.keys()
    return [key for key in first if not torch.equal(first[key], second[key])]


def test_shards_train_the_network_that_the_folder_trains(
    maps_folder: Path, packed: Path, tmp_path: Path
) -> None:
    steps = ("trainer.max_steps=8", "trainer.val_every=4")
    assert train.main(options(maps_folder, tmp_path / "a", *steps)) == 0
    assert train.main(from_shards(str(packed), tmp_path / "b", *steps)) == 0
    far = from_shards(f"local:{packed}", tmp_path / "c", *steps, "data.workers=1")
    assert train.main(far) == 0
    for name in "bc":
        assert not differing(last(tmp_path / "a"), last(tmp_path / name))
    # The order is what can differ, and does where fewer shards are shuffled together.
    few = from_shards(str(packed), tmp_path / "d", *steps, "data.shards_window=2")
    assert train.main(few) == 0
    assert differing(last(tmp_path / "a"), last(tmp_path / "d"))


def test_a_run_goes_on_from_shards_of_its_folder_and_back(
    maps_folder: Path, packed: Path, tmp_path: Path
) -> None:
    assert train.main(options(maps_folder, tmp_path, "trainer.max_steps=2")) == 0
    assert train.main(from_shards(str(packed), tmp_path, "trainer.max_steps=4")) == 0
    assert train.main(options(maps_folder, tmp_path, "trainer.max_steps=6")) == 0
    assert int(saved(last(tmp_path))["batches_seen"]) == 6


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ("bundled", "bundled-e96271f7", True),
        ("hed:folder/of-weights", "hed-0123abcd", True),
        ("bundled", "map", True),
        ("bundled", "hed", False),
        ("bundled", "hed-0123abcd", False),
        ("bundled-e96271f7", "bundled-0123abcd", False),
        ("hed", "hed:folder", False),
        ("bundled", "bundled-e96271f7, hed-0123abcd", False),
    ],
)
def test_names_that_may_stand_for_one_sketcher(one: str, other: str, may: bool) -> None:
    assert may_be_one_sketcher(one, other) is may and may_be_one_sketcher(other, one) is may


@pytest.mark.timeout(200)
def test_killed_amid_its_shards_training_ends_with_the_same_bits(
    packed: Path, tmp_path: Path
) -> None:
    steps = (
        "trainer.max_steps=50",
        "trainer.checkpoint_every=4",
        "trainer.val_every=25",
        "data.shards_window=2",
    )
    assert train.main(from_shards(str(packed), tmp_path / "whole", *steps)) == 0
    far = from_shards(f"local:{packed}", tmp_path / "killed", *steps, "data.workers=2")
    checkpoint = last(tmp_path / "killed")
    process = processes.Process([*command(packed, tmp_path)[:2], *far], REPOSITORY, environment())
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < int(saved(checkpoint)["batches_seen"]) < 50, "the kill came too late or too early"
    assert train.main(from_shards(str(packed), tmp_path / "killed", *steps, "data.workers=1")) == 0
    assert not differing(last(tmp_path / "whole"), checkpoint)


def test_what_train_says_of_bad_shards(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(from_shards(str(tmp_path / "none"), tmp_path)) == 1
    assert "index.json: cannot be read" in capsys.readouterr().err
    both = [*from_shards(str(packed), tmp_path), f"data.maps=[{tmp_path}]"]
    assert train.main(both) == 2
    assert "one of the three" in capsys.readouterr().err
    small = from_shards(f"local:{packed}", tmp_path, "data.shards_cache_gb=0.00001")
    assert train.main(small) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.shards_cache_gb" in line

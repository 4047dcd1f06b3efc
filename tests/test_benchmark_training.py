"""The training benchmark: our loop and CompressAI's example's, on the same crops."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import training
from picsnet.images import save_png
from tests.conftest import drawn_map


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> argparse.Namespace:
    maps = tmp_path_factory.mktemp("maps")
    for seed in range(6):
        save_png(drawn_map(256, 256, seed), maps / f"{seed}.png")
    return argparse.Namespace(
        maps=str(maps),
        architecture="picsnet-hyperprior",
        init_from="sketch_hyperprior_lambda0.5",
        steps=1,
        batch_size=2,
        workers=0,
        loss_steps=3,
        accelerator="cpu",
        precision="32-true",
    )


def test_both_loops_train_alike(args: argparse.Namespace) -> None:
    """What is timed is the same work: the same crops, noise and rates end at the same loss."""
    ours, theirs = training.loss_of_ours(args), training.loss_of_theirs(args)
    assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)
    untrained = argparse.Namespace(**{**vars(args), "loss_steps": 1})
    assert training.loss_of_ours(untrained)["val_loss"] != pytest.approx(ours["val_loss"], rel=1e-3)


def test_each_is_timed(args: argparse.Namespace) -> None:
    parts = [training.time_ours(args), training.time_theirs(args, 0), training.time_loader(args)]
    assert all(part["crops_per_second"] > 0 for part in parts)


def test_a_folder_without_maps_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "training.json"
    assert training.main(["--maps", str(tmp_path / "none"), "-o", str(output)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("training.py: error: ") and "no such folder" in error
    assert not output.exists()

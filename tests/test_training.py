"""Training through its public door: resumes exactly, stops cleanly, spreads over processes."""

from __future__ import annotations

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
from picsnet.checkpoints import load_model
from picsnet.codec import SketchCodec
from picsnet.config import NTCRunConfig, load_config
from picsnet.losses import RateDistortionLoss
from picsnet.ntc import build
from picsnet.ntc.base import NTCOutput
from picsnet.ntc.noise import uniform_by_map
from picsnet.training.callbacks import RateDistortionPoints, Throughput
from picsnet.training.ntc import NTCModule, RangeNTCModule
from picsnet.training.run import choose_precision, fit, make_loggers
from picsnet.training.wandb_run import mode_left_alone, wandb_mode
from tests import processes
from tests.conftest import REPOSITORY, drawn_map
from train import main as train_main

MINIATURE = [
    "model.options={widths: [8, 8, 8], M: 8, N: 4, features: 8, width: 8}",
    "distortion=mse",
    "lmbda=0.002",
    "data.crop=64",
    "data.batch_size=2",
    "data.val_count=2",
    "data.workers=0",
    "logging.wandb=disabled",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
]


def command(maps: Path, output: Path, *overrides: str) -> list[str]:
    return [
        sys.executable,
        "train.py",
        "--config",
        "sketch_ntc_lambda0.5.yaml",
        f"data.maps=[{maps}]",
        f"output={output}",
        *MINIATURE,
        *overrides,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def train(maps: Path, output: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return processes.run(command(maps, output, *overrides), REPOSITORY, environment())


Here = Callable[..., tuple[int, str]]


@pytest.fixture
def train_here(
    maps_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    """`train` in this process, where no other has to be: its status and what it said."""
    monkeypatch.chdir(REPOSITORY)

    def run(output: Path, *overrides: str) -> tuple[int, str]:
        status = train_main(command(maps_folder, output, *overrides)[2:])
        return status, capsys.readouterr().err

    return run


def last(output: Path) -> Path:
    return output / "sketch_ntc_lambda0.5" / "checkpoints" / "last.ckpt"


def saved(path: Path) -> dict[str, Tensor]:
    checkpoint = torch.load(path, weights_only=True)
    state: dict[str, Tensor] = dict(checkpoint["state_dict"])
    for number, optimizer in enumerate(checkpoint["optimizer_states"]):
        for index, values in optimizer["state"].items():
            state |= {f"optimizer{number}.{index}.{k}": v for k, v in values.items()}
    state["batches_seen"] = torch.tensor(checkpoint["batches_seen"])
    return state


STEPS = ("trainer.max_steps=300", "trainer.checkpoint_every=10", "trainer.val_every=120")


@pytest.mark.parametrize("kept", [True, False], ids=["after-a-checkpoint", "before-any"])
def test_a_run_that_diverges_ends_and_keeps_the_weights_from_before(
    kept: bool, train_here: Here, tmp_path: Path
) -> None:
    every = "trainer.checkpoint_every=1" if kept else "trainer.checkpoint_every=20"
    steep = ("optim.lr=1e30", "optim.warmup_steps=0", "trainer.log_every=10")
    status, errors = train_here(tmp_path, "trainer.max_steps=40", every, *steep)
    assert status == 1
    message = errors.strip().splitlines()[-1]
    assert message.startswith("picsnet: error: ") and "diverged" in message
    assert "optim.lr" in message and "of 40" in message
    assert last(tmp_path).is_file() is kept
    assert (f"init_from={last(tmp_path)}" in message) is kept
    if kept:
        weights = torch.load(last(tmp_path), weights_only=True)["state_dict"].values()
        assert all(tensor.isfinite().all() for tensor in weights)


@pytest.fixture(scope="module")
def uninterrupted(maps_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    result = train(maps_folder, output, *STEPS)
    assert result.returncode == 0, result.stderr
    return last(output)


@pytest.mark.timeout(400)
def test_killed_at_five_points_training_ends_with_the_same_bits(
    maps_folder: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    checkpoint = last(tmp_path)
    rng = np.random.default_rng(7)
    seen = []
    for _ in range(5):
        process = processes.Process(
            command(maps_folder, tmp_path, *STEPS), REPOSITORY, environment()
        )
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            time.sleep(0.005)
        time.sleep(float(rng.uniform(0, 0.25)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen.append(int(saved(checkpoint)["batches_seen"]))
    assert seen == sorted(seen)
    assert 0 < seen[0] < 300, "the first kill came too late to prove anything"
    result = train(maps_folder, tmp_path, *STEPS)
    assert result.returncode == 0, result.stderr
    expected, resumed = saved(uninterrupted), saved(checkpoint)
    assert expected.keys() == resumed.keys()
    differing = [key for key in expected if not torch.equal(expected[key], resumed[key])]
    assert not differing
    assert int(resumed["batches_seen"]) == 300


def to_itself(process: processes.Process) -> None:
    process.send_signal(signal.SIGINT)


def to_its_loader_processes_too(process: processes.Process) -> None:
    """As SLURM does at a time limit: to all that belongs to a job, whatever its group."""
    workers: list[int] = []
    deadline = time.monotonic() + 60
    while len(workers) < 2 and time.monotonic() < deadline:
        workers = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended since
                name, _, rest = status.read_text().partition("(")[2].rpartition(")")
                if name.startswith("pt_data") and rest.split()[3] == str(process.pid):
                    workers.append(int(status.parent.name))
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    time.sleep(0.5)  # the worst order
    process.send_signal(signal.SIGTERM)


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("workers", "interrupt", "said"),
    [(0, to_itself, "SIGINT"), (2, to_its_loader_processes_too, "SIGTERM")],
)
def test_interrupt_saves_and_says_so(
    maps_folder: Path,
    tmp_path: Path,
    workers: int,
    interrupt: Callable[[processes.Process], None],
    said: str,
) -> None:
    steps = ("trainer.max_steps=100000", "trainer.checkpoint_every=100000")
    steps = (*steps, f"data.workers={workers}")
    process = processes.Process(command(maps_folder, tmp_path, *steps), REPOSITORY, environment())
    metrics = tmp_path / "sketch_ntc_lambda0.5" / "csv" / "version_0" / "metrics.csv"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not metrics.exists():
        time.sleep(0.05)
    interrupt(process)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert f"stopped by {said}" in stderr
    assert int(saved(last(tmp_path))["batches_seen"]) > 0
    assert not list(last(tmp_path).parent.glob(".*"))


def test_a_stop_saves_before_it_validates(maps_folder: Path, tmp_path: Path) -> None:
    """Lightning validates once more when a run stops; a second signal or a kill may come in it."""
    seen = []

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, *args: Any) -> None:
            if module.batches_seen == 2:
                signal.raise_signal(signal.SIGINT)

        def on_validation_start(self, *args: Any) -> None:
            seen.append(int(saved(last(tmp_path))["batches_seen"]))

    config = load_config(
        "sketch_ntc_lambda0.5.yaml",
        [*MINIATURE, f"data.maps=[{maps_folder}]", f"output={tmp_path}", "trainer.max_steps=12"],
    )
    assert isinstance(config, NTCRunConfig)
    train_maps, val_maps = split_maps(list_maps(maps_folder), 2, 1)
    settings = MapDataSettings(crop=64, batch_size=2, workers=0, seed=1, total_steps=12)
    data = SketchMapDataModule(train_maps, val_maps, settings)
    fit(config, NTCModule(config), data, [Interrupt()])
    assert seen == [3]


def test_checkpoint_codes_files_as_its_export_does(uninterrupted: Path, tmp_path: Path) -> None:
    exported = tmp_path / "model"
    result = processes.run(
        [sys.executable, "-m", "picsnet", "export", uninterrupted, "-o", exported], REPOSITORY
    )
    assert result.returncode == 0, result.stderr
    sketch = drawn_map(90, 130, 1)
    data = SketchCodec(load_model(uninterrupted)).encode_map(sketch)
    codec = SketchCodec(load_model(exported))
    assert codec.encode_map(sketch) == data
    assert codec.decode_map(data).shape == (90, 130)


def test_everything_that_was_promised_is_logged(uninterrupted: Path) -> None:
    folder = uninterrupted.parent.parent
    with open(folder / "csv" / "version_0" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    logged = {key for row in rows for key, value in row.items() if value}
    assert {
        "train/bpp_y",
        "train/bpp_z",
        "train/distortion",
        "train/loss",
        "train/aux_loss",
        "train/crops_per_second",
        "val/coded_bpp",
        "val/loss",
    } <= logged
    assert (folder / "panel.png").stat().st_size > 0
    assert "revision" in (folder / "environment.json").read_text()


def test_the_coded_rate_is_that_of_files(uninterrupted: Path) -> None:
    """A crop's file has 9 bytes beside its stream."""
    with open(uninterrupted.parent.parent / "csv" / "version_0" / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["val/coded_bpp"]]
    for row in rows:
        more = (float(row["val/coded_bpp"]) - float(row["val/bpp"])) * 64 * 64 / 8
        assert 8 <= more <= 12
    assert rows


def test_training_lowers_the_loss(uninterrupted: Path) -> None:
    with open(uninterrupted.parent.parent / "csv" / "version_0" / "metrics.csv") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])


def spread(maps: Path, output: Path, count: int, *overrides: str) -> list[dict[str, str]]:
    """Train on so many processes, the global batch the same; the rows of the log."""
    output.mkdir()
    result = processes.run(
        [sys.executable, "-m", "tests.ddp_worker", maps, output, str(count), *overrides],
        REPOSITORY,
        environment(),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (log,) = output.glob("*/csv/version_0/metrics.csv")
    with log.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.timeout(400)
def test_two_processes_train_as_one_with_their_batch_does(
    maps_folder: Path, tmp_path: Path
) -> None:
    """Losses, auxiliary loss, clipping, average and validation, with a lambda for each map."""
    settings = [
        "sketch_ntc_range.yaml",
        "model.options={widths: [8, 8, 8], M: 8, N: 4, features: 8, width: 8}",
        "lmbda=0.002",
        "lmbdas=[0.001, 0.002, 0.004]",
        "trainer.max_steps=50",
        "trainer.val_every=25",
    ]
    two = spread(maps_folder, tmp_path / "two", 2, *settings)
    one = spread(maps_folder, tmp_path / "one", 1, *settings)

    curves = ["train/loss", "train/aux_loss", "train/bpp_z", "train/grad_norm", "val/loss"]
    for name in curves:
        expected, found = (
            [float(row[name]) for row in rows if row.get(name)] for rows in (one, two)
        )
        assert len(expected) == (2 if name == "val/loss" else 50)
        assert len(set(expected)) > 1
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=name)

    first, second, alone = (
        torch.load(tmp_path / path, weights_only=True)
        for path in ("two/rank0.pt", "two/rank1.pt", "one/rank0.pt")
    )
    start = torch.load(tmp_path / "two/start0.pt", weights_only=True)
    assert all(torch.equal(first[key], second[key]) for key in first)
    parts = ("network.entropy_bottleneck.quantiles", "network.g_a", "ema.module.g_s")
    for part in parts:
        for key in (key for key in first if key.startswith(part)):
            moved = (alone[key] - start[key]).norm()
            assert (first[key] - alone[key]).norm() < 0.01 * moved, key

    batches = [
        set(map(tuple, torch.load(tmp_path / f"two/batches{rank}.pt", weights_only=True).tolist()))
        for rank in (0, 1)
    ]
    assert not batches[0] & batches[1], "both processes trained on the same crops"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a checkpoint"), (b"text\n" * 50, "not a checkpoint")],
)
def test_resuming_from_rubbish_is_one_line(
    train_here: Here, tmp_path: Path, content: bytes, message: str
) -> None:
    rubbish = tmp_path / "bad.ckpt"
    rubbish.write_bytes(content)
    status, errors = train_here(tmp_path / "out", f"resume={rubbish}")
    assert status == 1
    assert errors.strip().splitlines()[-1].startswith(f"picsnet: error: {rubbish}: {message}")
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.accelerator=abacus", "trainer.accelerator=abacus"),
        ("trainer.accelerator=tpu", "trainer.accelerator=tpu"),
        ("trainer.strategy=none", "strategy=none"),
        ("trainer.devices=many", "devices=many"),
        ("model.options={analysis: [1]}", "do not suit picsnet-context"),
        ("model.options={width: -1}", "do not suit picsnet-context"),
        ("optim.only=[contxt]", "known are context, entropy_bottleneck, "),
        ("logging.wandb=online", "logging.wandb=offline"),
    ],
)
def test_what_this_machine_or_network_has_not_is_one_line(
    train_here: Here, tmp_path: Path, override: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    status, errors = train_here(tmp_path, override)
    error = errors.strip().splitlines()[-1]
    assert status == 2 and error.startswith("picsnet: error: ") and words in error


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_any_seed_is_one(train_here: Here, tmp_path: Path, seed: int) -> None:
    status, errors = train_here(tmp_path, f"seed={seed}", "trainer.max_steps=1")
    assert status == 0, errors


def test_resuming_with_another_network_is_one_line(
    train_here: Here, tmp_path: Path, uninterrupted: Path
) -> None:
    another = "model.options={widths: [8, 8, 8], M: 12, N: 4}"
    status, errors = train_here(tmp_path, f"resume={uninterrupted}", another)
    assert status == 1
    assert "holds another network" in errors.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "setting", ["lr=0.0003", "aux_lr=0.0003", "weight_decay=0.1", "only=[context,gains]"]
)
def test_a_run_that_goes_on_keeps_its_rates_and_says_so(
    train_here: Here, tmp_path: Path, uninterrupted: Path, setting: str
) -> None:
    """The checkpoint's optimisers have them: another one would be taken silently for nothing."""
    status, errors = train_here(tmp_path, f"resume={uninterrupted}", f"optim.{setting}")
    assert status == 1
    last_line = errors.strip().splitlines()[-1]
    name, asked = setting.split("=")
    assert f"its own optim.{name}=" in last_line and f"not {asked}" in last_line
    assert f"init_from={uninterrupted}" in last_line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "own"),
    [
        ("lmbda=0.02", "lmbda=0.002"),
        ("lmbdas=[0.002]", "lmbdas=[]"),
        ("seed=7", "seed=1"),
        ("distortion_warmup=3", "distortion_warmup=1000"),
        ("edge_weight=0.5", "edge_weight=0"),
        ("init_from=sketch_ntc_range", "init_from=null"),
        ("data.val_count=1", "data.val_count=2"),
        ("data.sketcher=hed", "data.sketcher=bundled"),
    ],
)
def test_a_run_does_not_go_on_as_another_one(
    train_here: Here, tmp_path: Path, uninterrupted: Path, setting: str, own: str
) -> None:
    """Its card and its logs would tell of all of it what holds for its end alone."""
    status, errors = train_here(tmp_path, f"resume={uninterrupted}", setting)
    assert status == 1
    last_line = errors.strip().splitlines()[-1]
    assert f"goes on at its own {own}, not " in last_line
    assert f"init_from={uninterrupted}" in last_line
    assert not list(tmp_path.iterdir())


def test_a_finished_run_says_so_and_is_left_as_it_is(train_here: Here, tmp_path: Path) -> None:
    assert train_here(tmp_path, "trainer.max_steps=1")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status, errors = train_here(tmp_path, "trainer.max_steps=1", "logging.tags=[again]")
    assert status == 0
    assert "has all 1 steps and leaves nothing to train" in errors.splitlines()[-1]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_second_training_in_a_folder_is_refused(train_here: Here, tmp_path: Path) -> None:
    folder = last(tmp_path).parent.parent
    folder.mkdir(parents=True)
    hold = "import fcntl, sys; f = open(sys.argv[1], 'ab'); fcntl.lockf(f, 2); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(folder / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        status, errors = train_here(tmp_path, "trainer.max_steps=1")
        other.communicate(b"\n")
    assert status == 1 and f"{folder}: another training is at work" in errors
    assert not last(tmp_path).exists() and not (folder / "config.yaml").exists()
    assert train_here(tmp_path, "trainer.max_steps=1")[0] == 0


def test_a_command_that_cannot_run_leaves_a_run_as_it_is(train_here: Here, tmp_path: Path) -> None:
    assert train_here(tmp_path, "trainer.max_steps=1")[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    status, errors = train_here(tmp_path, "trainer.max_steps=2", "trainer.strategy=none")
    assert status == 2 and "strategy=none" in errors
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("steps", "validated"), [(3, [1, 2]), (4, [1, 3])])
def test_what_a_run_ends_with_is_validated(
    train_here: Here, tmp_path: Path, steps: int, validated: list[int]
) -> None:
    status, errors = train_here(tmp_path, f"trainer.max_steps={steps}", "trainer.val_every=2")
    assert status == 0, errors
    run = tmp_path / "sketch_ntc_lambda0.5"
    (log,) = run.glob("csv/*/metrics.csv")
    with log.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows if row["val/loss"]] == validated
    assert (run / "panel.png").is_file()


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "k"}, "online"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "offline"}, "offline"),
        ({"WANDB_API_KEY": "k", "WANDB_MODE": "dryrun"}, "offline"),
        ({"WANDB_MODE": "disabled"}, "disabled"),
    ],
)
def test_wandb_is_run_as_its_own_variables_say(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wandb_mode("auto") == mode
    assert wandb_mode("online") == "online"
    with mode_left_alone():
        os.environ["WANDB_MODE"] = "dryrun"
    assert os.environ.get("WANDB_MODE") == variables.get("WANDB_MODE")


def test_ctrl_c_while_samples_are_made_is_not_silent(
    train_here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SketchMapDataModule, "train_dataloader", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        status, errors = train_here(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning leaves it ignored
    assert status == 130 and "picsnet: interrupted" in errors.splitlines()[-1]


def test_nothing_to_train_is_said_where_nothing_would_be_written(
    train_here: Here, tmp_path: Path, uninterrupted: Path
) -> None:
    status, errors = train_here(tmp_path, f"resume={uninterrupted}", "trainer.max_steps=300")
    assert status == 1
    last_line = errors.strip().splitlines()[-1]
    assert "has all 300 steps" in last_line and "trainer.max_steps" in last_line


@pytest.mark.parametrize("how", ["auto", "never"])
def test_a_stopped_run_says_which_command_goes_on(
    train_here: Here, tmp_path: Path, how: str
) -> None:
    """The same command with resume=never would begin again, over what was trained."""
    status, errors = train_here(tmp_path, f"resume={how}", "trainer.max_hours=0")
    assert status == 0, errors
    again = {"auto": "the same command goes on", "never": "the same command with resume=auto"}
    assert again[how] in errors


def test_the_log_counts_each_step_once(train_here: Here, tmp_path: Path) -> None:
    steps = ["trainer.max_steps=6", "trainer.val_every=2", "trainer.log_every=1"]
    for more in (["trainer.max_hours=0"], ["trainer.max_hours=0"], []):
        status, errors = train_here(tmp_path, *steps, *more)
        assert status == 0, errors
    found: list[int] = []
    for log in sorted(last(tmp_path).parent.parent.glob("csv/*/metrics.csv")):
        with log.open() as file:
            found += [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert found == [0, 1, 2, 3, 4, 5]


def test_ctrl_c_before_the_first_step_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While maps are made, that is, or the network is."""

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr("picsnet.sketch.extract_folder", interrupted)
    arguments = [a for a in command(tmp_path, tmp_path)[2:] if not a.startswith("data.maps")]
    assert train_main([*arguments, f"data.photos=[{tmp_path}]"]) == 130
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "picsnet: interrupted; what was written is whole"


def test_loss_is_lambda_distortion_plus_rate() -> None:
    x = torch.rand(2, 1, 192, 192)
    x_hat = (x + 0.1).clamp(0, 1)
    likelihoods = {"y": torch.full((2, 3, 4, 4), 0.5), "z": torch.full((2, 8), 0.25)}
    result = RateDistortionLoss(3.0, "mse")(NTCOutput(x_hat, likelihoods), x)
    bpp = (2 * 48 * 1 + 16 * 2) / (2 * 192 * 192)
    assert result.bpp.item() == pytest.approx(bpp)
    expected = 255**2 * torch.mean((x_hat - x) ** 2).item()
    assert result.distortion.item() == pytest.approx(expected, rel=1e-5)
    assert result.loss.item() == pytest.approx(3 * expected + bpp, rel=1e-5)
    same = RateDistortionLoss(3.0, "ms-ssim")(NTCOutput(x, likelihoods), x)
    assert same.distortion.item() == pytest.approx(0, abs=1e-5)


def test_warm_up_lets_a_black_output_learn() -> None:
    """Below black MS-SSIM sees a cut-off output and gives no gradient at all; the warm-up does."""
    x = torch.from_numpy(drawn_map(256, 256, 4)).float()[None, None] / 255
    gradients = {}
    for step in (0, None):
        x_hat = torch.full_like(x, -0.01, requires_grad=True)
        output = NTCOutput(x_hat, {"y": torch.ones(1, 4)})
        RateDistortionLoss(0.5, "ms-ssim", warmup=10)(output, x, step=step).loss.backward()
        assert x_hat.grad is not None
        gradients[step] = x_hat.grad[x > 0.5].abs().mean().item()
    assert gradients[0] > 0
    assert gradients[None] == 0


SMALL = {"widths": [8, 8, 8], "M": 8, "N": 4}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("picsnet-hyperprior", SMALL),
        ("picsnet-context", {**SMALL, "features": 8, "width": 8}),
        ("picsnet-context", {**SMALL, "features": 8, "width": 8, "lambdas": [0.5]}),
        ("picsnet-context", {**SMALL, "features": 8, "width": 8, "phases": 2}),
        ("cheng2020-attn-sketch", {"N": 8}),
    ],
)
def test_each_architecture_trains_a_step(name: str, options: dict[str, Any]) -> None:
    network = build(name, options)
    x = torch.rand(1, 1, 64, 64)
    output = network(x)
    assert output.x_hat.shape == x.shape
    result = RateDistortionLoss(0.01, "mse")(output, x)
    (result.loss + network.aux_loss()).backward()  # type: ignore[operator]
    missing = [n for n, p in network.named_parameters() if p.grad is None]
    assert not missing, "DDP needs a gradient for every parameter"


def test_a_network_for_a_range_trains_at_all_its_lambdas(maps_folder: Path, tmp_path: Path) -> None:
    result = train(
        maps_folder,
        tmp_path,
        "lmbdas=[0.25,0.5,1.0]",
        "lmbda=0.5",
        "name=range",
        "trainer.max_steps=4",
        "trainer.val_every=4",
        "logging.wandb=disabled",
    )
    assert result.returncode == 0, result.stderr
    with (next((tmp_path / "range").rglob("metrics.csv"))).open() as file:
        (row,) = [row for row in csv.DictReader(file) if row.get("val/loss")]
    for lmbda in ("0.25", "0.5", "1"):
        assert float(row[f"val/lambda{lmbda}_bpp"]) > 0
    own = 0.5 * float(row["val/lambda0.5_distortion"]) + float(row["val/lambda0.5_bpp"])
    assert float(row["val/loss"]) == pytest.approx(own, rel=1e-4)
    model = load_model(tmp_path / "range" / "checkpoints" / "last.ckpt")
    assert model.card["lmbdas"] == [0.25, 0.5, 1.0]
    assert (model.network.qualities, model.quality) == (17, 8)


@pytest.mark.parametrize("name", ["picsnet-hyperprior", "picsnet-context"])
def test_half_a_batch_draws_what_it_would_in_the_whole(name: str) -> None:
    """Noise is of a map's place among all processes' maps, not of the process that has it."""
    network = build(name, {**SMALL, **({"features": 8, "width": 8} if "context" in name else {})})
    x = torch.rand(4, 1, 64, 64)
    torch.manual_seed(7)
    whole = network(x)
    torch.manual_seed(7 + 2)
    half = network(x[2:])
    torch.manual_seed(7)
    elsewhere = network(x[2:])
    for stream in ("y", "z"):
        expected, found = whole.likelihoods[stream][2:], half.likelihoods[stream]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(elsewhere.likelihoods["z"], half.likelihoods["z"], rtol=1e-4)
    assert not torch.allclose(whole.likelihoods["z"][0], whole.likelihoods["z"][1], rtol=1e-4)


def test_no_two_uses_steps_or_seeds_share_their_noise(maps_folder: Path, tmp_path: Path) -> None:
    """Of its seed a generator on the CPU takes 32 bits: what makes draws differ must be in them."""
    like, seen = torch.empty(2, 8), []
    for seed in (1, 2):
        overrides = [*MINIATURE, f"data.maps=[{maps_folder}]", f"seed={seed}"]
        config = load_config("sketch_ntc_lambda0.5.yaml", overrides)
        assert isinstance(config, NTCRunConfig)
        module = NTCModule(config)
        for module.batches_seen in (0, 7, 7 + 2**12, 7 + 2**20):
            module.on_train_batch_start(like, 0)
            draws = [uniform_by_map(like, 0), uniform_by_map(like, 1), torch.rand(2, 8)]
            seen += [tuple(row.tolist()) for draw in draws for row in draw]
    assert len(set(seen)) == len(seen)


def test_what_a_trainer_of_ones_own_tries_first_is_no_point_of_a_curve(
    maps_folder: Path, tmp_path: Path
) -> None:
    overrides = [*MINIATURE, f"data.maps=[{maps_folder}]", "trainer.max_steps=2"]
    config = load_config("sketch_ntc_lambda0.5.yaml", overrides)
    assert isinstance(config, NTCRunConfig)
    train_maps, val_maps = split_maps(list_maps(maps_folder), 2, 1)
    settings = MapDataSettings(crop=64, batch_size=2, workers=0, seed=1, total_steps=2)
    run = Mock()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=2,
        val_check_interval=2,
        num_sanity_val_steps=1,
        logger=WandbLogger(experiment=run, offline=True, save_dir=tmp_path),
        callbacks=[RateDistortionPoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with mode_left_alone():
        trainer.fit(NTCModule(config), SketchMapDataModule(train_maps, val_maps, settings))
    points = [call.args[0] for call in run.log.mock_calls if "rd/bpp" in call.args[0]]
    assert len(points) == 1
    assert points[0]["rd/bpp"] == float(trainer.callback_metrics["val/coded_bpp"])


class Waits(TorchDispatchMode):
    """Counts how often the host asks a tensor for its value: on a device each would be a wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("lmbdas", ["[]", "[0.001, 0.002, 0.004]"])
def test_a_step_between_two_logs_waits_for_nothing(
    maps_folder: Path, tmp_path: Path, lmbdas: str
) -> None:
    overrides = [*MINIATURE, f"data.maps=[{maps_folder}]", f"output={tmp_path}", "data.crop=64"]
    overrides += ["trainer.max_steps=12", "trainer.log_every=10", f"lmbdas={lmbdas}"]
    config = load_config("sketch_ntc_lambda0.5.yaml", overrides)
    assert isinstance(config, NTCRunConfig)
    train_maps, val_maps = split_maps(list_maps(maps_folder), 2, 1)
    settings = MapDataSettings(crop=64, batch_size=2, workers=0, seed=1, total_steps=12)
    waits, counts = Waits(), []

    class Count(Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            counts.append(waits.count)

    module = RangeNTCModule(config) if config.lmbdas else NTCModule(config)
    with waits:
        fit(config, module, SketchMapDataModule(train_maps, val_maps, settings), [Count()])
    by_step = np.diff(counts)
    assert by_step[9] > 0  # the step that is logged
    assert by_step[1:9].tolist() == [0] * 8


def test_gradients_of_a_run_in_bf16_are_not_taken_under_autocast(
    maps_folder: Path, tmp_path: Path
) -> None:
    # What is kept in float32 for its precision would have gradients that are products in bf16.
    overrides = [*MINIATURE, f"data.maps=[{maps_folder}]", f"output={tmp_path}"]
    overrides += ["trainer.max_steps=2", "trainer.precision=bf16-mixed"]
    config = load_config("sketch_ntc_lambda0.5.yaml", overrides)
    assert isinstance(config, NTCRunConfig)
    train_maps, val_maps = split_maps(list_maps(maps_folder), 2, 1)
    settings = MapDataSettings(crop=64, batch_size=2, workers=0, seed=1, total_steps=2)
    forward, backward = [], []

    class Watched(NTCModule):
        def code(self, x: Tensor) -> Any:
            forward.append(torch.is_autocast_enabled("cpu"))
            return super().code(x)

    module = Watched(config)
    for parameter in module.main_parameters:
        parameter.register_hook(lambda _: backward.append(torch.is_autocast_enabled("cpu")))
    fit(config, module, SketchMapDataModule(train_maps, val_maps, settings), [])
    assert forward == [True, True]
    assert backward and not any(backward)


def test_throughput_leaves_checkpoints_out(
    maps_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, found = [0.0], []
    monkeypatch.setattr(
        "picsnet.training.callbacks.time", SimpleNamespace(monotonic=lambda: now[0])
    )

    class Slow(NTCModule):
        def on_train_batch_start(self, *args: Any) -> None:
            now[0] += 1
            super().on_train_batch_start(*args)

        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            now[0] += 100

    class Read(Callback):
        def on_train_end(self, trainer: Any, module: Any) -> None:
            found.append(float(trainer.callback_metrics["train/crops_per_second"]))

    overrides = [*MINIATURE, f"data.maps=[{maps_folder}]", f"output={tmp_path}"]
    overrides += ["trainer.max_steps=9", "trainer.log_every=4", "trainer.checkpoint_every=3"]
    config = load_config("sketch_ntc_lambda0.5.yaml", [*overrides, "trainer.keep_every=4"])
    assert isinstance(config, NTCRunConfig)
    train_maps, val_maps = split_maps(list_maps(maps_folder), 2, 1)
    settings = MapDataSettings(crop=64, batch_size=2, workers=0, seed=1, total_steps=9)
    data = SketchMapDataModule(train_maps, val_maps, settings)
    fit(config, Slow(config), data, [Throughput(2), Read()])
    assert found == [2.0]  # two crops a step, of a second each


def test_precision_is_that_of_the_accelerator_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    ampere = True
    # Before Ampere bf16 is there, but emulated.
    monkeypatch.setattr(
        "torch.cuda.is_bf16_supported",
        lambda including_emulation=True: ampere or including_emulation,
    )
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert choose_precision("auto", "auto") == "bf16-mixed"
    assert choose_precision("auto", "cpu") == "32-true"
    ampere = False
    assert choose_precision("auto", "auto") == "32-true"


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "precision"),
    [
        (False, False, "32-true"),
        (False, True, "bf16-mixed"),
        (True, False, "bf16-mixed"),
        (True, True, "bf16-mixed"),
    ],
)
def test_a_cpu_trains_in_bf16_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512_bf16)
    assert choose_precision("auto", "cpu") == precision


def test_the_first_process_alone_names_the_wandb_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun all begin at once: each would make an id, and one would be kept."""
    overrides = [a for a in MINIATURE if "wandb" not in a] + ["data.maps=[maps]"]
    config = load_config("sketch_ntc_lambda0.5.yaml", [*overrides, "logging.wandb=offline"])
    for rank, kept in ((1, False), (0, True)):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        make_loggers(config, tmp_path, anew=True)
        assert (tmp_path / "wandb_id").is_file() is kept


def test_a_run_that_begins_anew_has_a_dashboard_of_its_own(tmp_path: Path) -> None:
    """W&B drops steps that a run has already, so one that goes on in another's would be lost."""
    overrides = [a for a in MINIATURE if "wandb" not in a] + ["data.maps=[maps]"]
    config = load_config("sketch_ntc_lambda0.5.yaml", [*overrides, "logging.wandb=offline"])
    ids = []
    for anew in (True, False, True):  # begun, gone on, begun again with resume=never
        make_loggers(config, tmp_path, anew)
        ids.append((tmp_path / "wandb_id").read_text())
    assert ids[0] == ids[1] != ids[2]


def test_signals_to_the_group_leave_the_loader_to_training(maps_folder: Path) -> None:
    """torchrun and SLURM stop the whole group; saving needs a batch or two more."""
    settings = MapDataSettings(crop=64, batch_size=2, workers=1, seed=1, total_steps=2)
    module = SketchMapDataModule(list_maps(maps_folder), list_maps(maps_folder)[:1], settings)
    loader = module.train_dataloader()
    assert len(list(loader)) == 2
    (worker,) = loader._iterator._workers  # type: ignore[union-attr]
    assert os.getpgid(worker.pid) != os.getpgid(0)


def test_only_what_is_named_is_trained(maps_folder: Path, tmp_path: Path) -> None:
    options = ["optim.only=[context]", "trainer.max_steps=2"]
    result = train(maps_folder, tmp_path, *options)
    assert result.returncode == 0, result.stderr
    overrides = command(maps_folder, tmp_path, *options)[4:]
    config = load_config("sketch_ntc_lambda0.5.yaml", overrides)
    assert isinstance(config, NTCRunConfig)
    start = NTCModule(config).network.state_dict()
    trained = torch.load(last(tmp_path), weights_only=True)["state_dict"]
    moved = {
        key for key, value in start.items() if not torch.equal(value, trained[f"network.{key}"])
    }
    assert any(key.startswith("context.") for key in moved)
    # Quantiles have a loss and an optimiser of their own.
    assert {key.split(".")[0] for key in moved} <= {"context", "entropy_bottleneck"}
    assert all("quantiles" in key for key in moved if not key.startswith("context."))


def test_the_papers_network_trains_as_its_configuration_stands(
    maps_folder: Path, tmp_path: Path
) -> None:
    # With channels_last, torch 2.15 on a CPU corrupts its heap in this network and dies.
    done = processes.run(
        [
            *(sys.executable, "train.py", "--config", "sketch_cheng2020_lambda0.5.yaml"),
            *(f"data.maps=[{maps_folder}]", f"output={tmp_path}", "model.options={N: 16}"),
            *("trainer.max_steps=2", "trainer.val_every=2", "data.val_count=1"),
            *("data.batch_size=1", "data.workers=0", "logging.wandb=disabled", "data.crop=192"),
            *("trainer.accelerator=cpu", "trainer.precision=32-true"),
        ],
        REPOSITORY,
        environment(),
    )
    assert done.returncode == 0, done.stderr

"""One training run: loggers, checkpoints, a time budget, interruption, and where it all lands."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import OmegaConf

from picsnet.config import RunConfig, to_dict
from picsnet.devices import is_fast_in_bf16
from picsnet.errors import CheckpointError, ConfigError, DivergedError, OutputError
from picsnet.files import make_folder, slug
from picsnet.holding import held
from picsnet.launching import found_here, others_there
from picsnet.saved import read_saved
from picsnet.training.environment import save_description
from picsnet.training.stepped import SteppedModule
from picsnet.training.wandb_run import beginning, mode_left_alone, wandb_id, wandb_mode

LAST = "last.ckpt"

SETTLED = (
    *("seed", "lmbda", "lmbdas", "distortion", "distortion_warmup", "edge_weight", "model", "loss"),
    *("init_from", "init_gain", "data.sketcher", "data.val_count"),
    *("optim.lr", "optim.aux_lr", "optim.weight_decay", "optim.only"),
)
"""What a run that goes on keeps: settings that a card or a log tells of it as if all of it had had
them, what decides which pictures are held out, and what a checkpoint's optimisers carry, so that
others would have no effect or not fit. Steps, devices, logs and folders of pictures may change."""

STEPS_TO_AGREE = 10
"""Several processes ask each other every so many steps whether to stop: all wait for all then."""


def run_folder(config: RunConfig) -> Path:
    """Where a run keeps everything: ``<output>/<name>``."""
    return Path(config.output) / config.name


def make_run_folder(config: RunConfig, part: str = "") -> Path:
    """The run's folder, or a part of it, made if it is not there.

    Raises:
        OutputError: it cannot be made.
    """
    folder = run_folder(config) / part
    make_folder(folder, "the run's folder", "set output=FOLDER")
    return folder


def resume_point(config: RunConfig) -> Path | None:
    """The checkpoint that a run goes on from, or None for a fresh start.

    Raises:
        CheckpointError: a checkpoint was named that is not there.
    """
    if config.resume == "never":
        return None
    if config.resume == "auto":
        last = run_folder(config) / "checkpoints" / LAST
        return last if last.is_file() else None
    named = Path(config.resume)
    if not named.is_file():
        raise CheckpointError(
            f"{named}: no checkpoint to resume from; use resume=auto for the run's last one"
        )
    return named


def choose_precision(asked: str, accelerator: str = "auto") -> str:
    """Lightning's precision for this machine, or for its CPU where ``accelerator`` is that.

    ``auto`` takes bf16 where that is fast (CUDA from Ampere on, CPUs with AMX or AVX512_BF16) and
    float32 elsewhere.
    """
    if asked != "auto":
        return asked
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if is_fast_in_bf16("cuda" if on_gpu else "cpu") else "32-true"


class LastCheckpoint(Callback):
    """Writes ``last.ckpt`` every few steps and when the run stops or ends; whole or not at all.

    Weights that have diverged are not written over those from before: the run ends. They are
    looked at before each writing, and at every step that is logged.
    """

    def __init__(self, folder: Path, every: int, keep_every: int) -> None:
        self.folder, self.every, self.keep_every = folder, every, keep_every
        self._saved_at = -1

    def _save(self, trainer: L.Trainer, name: str) -> None:
        target = self.folder / name
        beside = self.folder / f".{name}.part"
        try:
            trainer.save_checkpoint(beside)
            if trainer.is_global_zero:
                os.replace(beside, target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise OutputError(
                f"{target}: cannot write the checkpoint ({error.strerror or error}); "
                "free space or set output=FOLDER, then run the same command again to go on"
            ) from None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, SteppedModule)
        step = pl_module.batches_seen
        # Lightning validates before it stops: whoever sent the signal may not wait for that.
        due = step % self.every == 0 or trainer.should_stop
        # At these steps the device is waited for anyway.
        if due or any(n and step % n == 0 for n in (self.keep_every, pl_module.log_every)):
            self._check_finite(pl_module)
        if due:
            self._save(trainer, LAST)
            self._saved_at = step
        if self.keep_every and step % self.keep_every == 0:
            self._save(trainer, f"step-{step:07d}.ckpt")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SteppedModule)
        if pl_module.batches_seen != self._saved_at:
            self._check_finite(pl_module)
            self._save(trainer, LAST)

    def _check_finite(self, module: SteppedModule) -> None:
        # One number for each tensor, one wait for the device for all.
        sums = [p.detach().sum(dtype=torch.float32) for p in module.network.parameters()]
        if torch.stack(sums).isfinite().all():
            return
        last = self.folder / LAST
        before = f"begin anew, name=NEW_NAME init_from={last}, with" if last.is_file() else "set"
        mend = f"{before} a lower optim.lr or optim.clip_norm"
        raise DivergedError(
            f"{self.folder.parent}: diverged, weights are infinite or no numbers at step "
            f"{module.batches_seen} of {module.total_steps}; {mend}"
        )


class LastValidation(Callback):
    """Has Lightning validate what a run ends with, wherever between two validations that is."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, SteppedModule)
        if pl_module.batches_seen >= pl_module.total_steps:
            trainer.should_stop = True  # before it stops, it validates


class GracefulStop(Callback):
    """Ctrl-C or SIGTERM ends the run after the batch in hand; a second one ends it at once.

    Several processes end within STEPS_TO_AGREE batches, all at the same one.
    """

    def __init__(self, max_hours: float | None) -> None:
        self.max_hours = max_hours
        self.reason: str | None = None
        self._previous: dict[int, Any] = {}
        self._asked: str | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start = time.monotonic()
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number).name
        print(f"picsnet: {self._asked}: saving after this step", file=sys.stderr, flush=True)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, SteppedModule)
        if trainer.world_size > 1 and pl_module.batches_seen % STEPS_TO_AGREE:
            return
        hours = (time.monotonic() - self._start) / 3600
        if self.max_hours is not None and hours >= self.max_hours:
            self._asked = self._asked or f"the time budget of {self.max_hours} h"
        # One rank's signal must stop all, at the same batch.
        if trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            self.reason = self._asked or "another process"
            trainer.should_stop = True

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self._restore()


def make_loggers(config: RunConfig, folder: Path, anew: bool) -> list[Logger]:
    """A CSV log always; W&B by ``logging.wandb`` (offline where no key is set); TensorBoard by
    ``logging.tensorboard``.

    Args:
        config: of the run.
        folder: of the run.
        anew: it begins at its first step and goes on from no checkpoint.

    Raises:
        ConfigError: TensorBoard is asked for and not installed, or W&B does not begin a run.
    """
    loggers: list[Logger] = [CSVLogger(save_dir=str(folder), name="csv")]
    if config.logging.tensorboard:
        loggers.append(_tensorboard(folder))
    mode = wandb_mode(config.logging.wandb)
    # Other processes would only race for the run's id.
    if mode != "disabled" and not getattr(rank_zero_only, "rank", 0):
        from lightning.pytorch.loggers import WandbLogger

        logger = WandbLogger(
            id=wandb_id(folder, anew),
            project=config.logging.project,
            name=config.name,
            save_dir=str(folder),
            offline=mode == "offline",
            group=config.logging.group,
            job_type="training",
            tags=[*config.logging.tags, *_lambda_tag(config)],
            config=to_dict(config),
        )
        if mode == "online":
            with beginning():
                logger.experiment  # noqa: B018  # on the first process
        loggers.append(logger)
    return loggers


def _lambda_tag(config: RunConfig) -> list[str]:
    lmbda = getattr(config, "lmbda", None)
    return [] if lmbda is None else [f"lambda {lmbda:g}"]


def _tensorboard(folder: Path) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(save_dir=str(folder), name="tensorboard", version="")
    except ModuleNotFoundError:
        raise ConfigError(
            "logging.tensorboard: it is not installed; pip install 'picsnet[tensorboard]', or set "
            "logging.tensorboard=false"
        ) from None


def _end_wandb(trainer: L.Trainer, config: RunConfig, checkpoint: Path) -> None:
    """Give W&B the last checkpoint as an artifact, and end its run: what it has is on disk then.

    Offline, ``WandbLogger(log_model=True)`` raises.
    """
    if config.logging.wandb == "disabled" or not trainer.is_global_zero:
        return
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            artifact = wandb.Artifact(f"model-{slug(config.name)}", type="model")
            artifact.add_file(str(checkpoint), policy="immutable")  # not copied first
            logger.experiment.log_artifact(artifact)
            logger.experiment.finish()


def fit(
    config: RunConfig,
    module: SteppedModule,
    datamodule: L.LightningDataModule,
    callbacks: list[Callback] | None = None,
) -> Path:
    """Train, or go on training; print and return the path of the last checkpoint.

    Raises:
        CheckpointError: the checkpoint to resume or start from is missing, damaged, or of another
            network; or the command asks for what a resumed run cannot change, or for no step.
        ConfigError: Lightning or W&B cannot do what is asked for.
        OutputError: the run's folder cannot be written, or another training writes there.
    """
    start = resume_point(config)
    last = run_folder(config) / "checkpoints" / LAST
    if start is not None:
        done = _check_resumable(start, module)
        if done >= config.trainer.max_steps:
            finished = f"{start}: has all {done} steps and leaves nothing to train; raise "
            if not last.is_file():
                raise CheckpointError(f"{finished}trainer.max_steps")
            _tell(f"picsnet: {finished}trainer.max_steps to go on", f"trained: {last}")
            return last
    elif config.init_from is not None:
        module.start_from(config.init_from)
    folder = run_folder(config)
    # Lightning's greetings, and the warnings of its own internals.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*num_workers.*")
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")
    stop = GracefulStop(config.trainer.max_hours)
    settings = config.trainer
    devices: int | str = int(settings.devices) if settings.devices.isdigit() else settings.devices
    with found_here(settings, "trainer."):
        trainer = L.Trainer(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=settings.num_nodes,
            strategy=settings.strategy,
            precision=choose_precision(settings.precision, settings.accelerator),  # type: ignore[arg-type]
            max_steps=settings.max_steps,
            val_check_interval=settings.val_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=settings.log_every,
            logger=False,  # not yet: nothing is written of a run that cannot begin
            enable_checkpointing=False,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
            default_root_dir=str(folder),
            callbacks=[
                stop,
                LastValidation(),
                LastCheckpoint(last.parent, settings.checkpoint_every, settings.keep_every),
                # Each refresh waits for the device, since it prints the loss.
                TQDMProgressBar(refresh_rate=settings.log_every)
                if sys.stderr.isatty()
                else PlainProgress(),
                *(callbacks or []),
            ],
        )
    make_run_folder(config, "checkpoints")
    with _alone(folder, trainer.is_global_zero), mode_left_alone():
        trainer.loggers = make_loggers(config, folder, anew=start is None)
        save_description(OmegaConf.structured(config), folder)
        try:
            with others_there():
                trainer.fit(
                    module,
                    datamodule=datamodule,
                    ckpt_path=None if start is None else str(start),
                    weights_only=True,
                )
        except SystemExit as error:
            # Lightning leaves so, without a word, at Ctrl-C before the first step and at a second.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
        _end_wandb(trainer, config, last)
    note = ""
    if stop.reason:
        again = "the same command" + ("" if config.resume == "auto" else " with resume=auto")
        note = (
            f"picsnet: stopped by {stop.reason} at step {module.batches_seen} of "
            f"{settings.max_steps}; {again} goes on from there"
        )
    _tell(note, f"trained: {last}")
    return last


@contextlib.contextmanager
def _alone(folder: Path, is_first: bool) -> Iterator[None]:
    """Hold a run's folder for its first process: two runs would write over each other's checkpoint.

    The lock is of the process alone: loader workers, which outlive a killed one for some seconds,
    do not have it, so that the next start need not wait for them.

    Raises:
        OutputError: another training holds it, or it cannot be written to.
    """
    if not is_first:
        yield
        return
    busy = OutputError(
        f"{folder}: another training is at work in it; wait for its end, or give this one "
        "another name: name=NAME"
    )
    with held(folder / ".lock", busy, "set output=FOLDER", fcntl.lockf):
        yield


@rank_zero_only
def _tell(note: str, result: str) -> None:
    if note:
        print(note, file=sys.stderr)
    print(result)


def _check_resumable(path: Path, module: SteppedModule) -> int:
    """See that a run can go on from a checkpoint; returns how many steps it has."""
    saved = read_saved(path, "use resume=never to start afresh", "batches_seen")
    weights = saved["state_dict"]
    expected = module.state_dict()
    differing = [
        key
        for key in sorted(set(weights) | set(expected))
        if key not in weights or key not in expected or weights[key].shape != expected[key].shape
    ]
    if differing:
        raise CheckpointError(
            f"{path}: holds another network ({len(differing)} weights differ, first "
            f"{differing[0]}); use the run's own model settings, or resume=never name=NEW_NAME"
        )
    was, now = _by_key(saved["config"]), _by_key(module.config)
    settled = tuple(f"{name}." for name in SETTLED)
    for key in now:
        # A checkpoint from before there was a setting does not have it.
        if not f"{key}.".startswith(settled) or key not in was or was[key] == now[key]:
            continue
        if key != "data.sketcher" or not may_be_one_sketcher(was[key], now[key]):
            raise CheckpointError(
                f"{path}: goes on at its own {key}={_typed(was[key])}, not {_typed(now[key])}; "
                f"give its own, or begin a new run there: name=NEW_NAME init_from={path}"
            )
    return int(saved["batches_seen"])


def may_be_one_sketcher(one: str, other: str) -> bool:
    """Whether two different names can stand for one edge detector.

    Shards are called after their maps' detector with its weights' fingerprint, or "map" where
    whoever packed them did not say; a command has the kind alone. So a run may go on from shards of
    the folder that it began on, or the other way about.
    """
    kinds = {re.split("[:-]", name)[0] for name in (one, other)}
    by_weights = [re.fullmatch("[a-z]+-[0-9a-f]{8}", name) is not None for name in (one, other)]
    return "map" in kinds or (len(kinds) == 1 and by_weights[0] != by_weights[1])


def _by_key(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in sections as one dictionary, by their dotted names."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, dict)
        result.update(_by_key(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value})
    return result


def _typed(value: Any) -> str:
    """A setting's value as a command line has it."""
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return "null" if value is None else str(value)


class PlainProgress(Callback):
    """A line every half minute where there is no terminal to draw a bar on."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.every_seconds = every_seconds
        self._last: tuple[float, int] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        assert isinstance(pl_module, SteppedModule)
        now, step = time.monotonic(), pl_module.batches_seen
        if self._last is None:
            self._last = (now, step)
        elif now - self._last[0] >= self.every_seconds and trainer.is_global_zero:
            speed = (step - self._last[1]) / (now - self._last[0])
            left = (trainer.max_steps - step) / speed / 60
            metrics = "  ".join(
                f"{key} {float(value):.4g}"
                for key, value in sorted(trainer.callback_metrics.items())
            )
            print(
                f"step {step}/{trainer.max_steps}  {speed:.2f} steps/s  {left:.0f} min left  "
                f"{metrics}",
                file=sys.stderr,
                flush=True,
            )
            self._last = (now, step)

"""Runs an evaluation: all jobs, over all devices, then the tables.

    configuration -> originals -> jobs, less those done -> Lightning's predict loop -> rows, summary

Each process codes its share of the jobs and writes their rows; the first one gathers them, whether
Lightning, torchrun or srun started them. What is done is read from the run's folder, so a run that
was killed goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from picsnet.errors import ConfigError, PicsnetError, with_its_kind
from picsnet.evaluation import likeness
from picsnet.evaluation.codecs import make_points
from picsnet.evaluation.config import EvaluationConfig
from picsnet.evaluation.jobs import (
    ROW,
    Job,
    Picture,
    clear_parts,
    code,
    done,
    make_jobs,
    measure,
)
from picsnet.evaluation.likeness import Likeness
from picsnet.evaluation.measures import MEASURES
from picsnet.evaluation.points import Point
from picsnet.evaluation.preparing import Failure, alone, prepare
from picsnet.evaluation.rows import Row, save_rows
from picsnet.evaluation.summary import save_summary, summarise
from picsnet.evaluation.tables import withdraw_tables
from picsnet.evaluation.tracking import track
from picsnet.files import IMAGE_SUFFIXES, atomic_write, expand_inputs
from picsnet.images import load_rgb
from picsnet.launching import Processes, find_processes, found_here, launcher, others_there
from picsnet.stamps import forget
from picsnet.terminal import print_error
from picsnet.training.environment import save_description

WARM_UP_SIDE = 128
"""Of the picture that a point codes first, untimed: it loads the models."""
WARM_UP_PICTURES = 3
"""What fails on so many cannot work; on one, it may be the picture's own fault."""
FAILURE = "failure.json"
UNKNOWN = (
    "no process has left a row or a failure of it in the run's folder, which all must see; run the "
    "same command again"
)


@dataclass(frozen=True)
class Report:
    """What came of a run.

    Attributes:
        folder: of the run.
        rows: of all jobs that are done.
        failures: of the others.
        summary: what ``summary.json`` holds.
    """

    folder: Path
    rows: list[Row]
    failures: list[Failure]
    summary: dict[str, Any]


def evaluate(config: EvaluationConfig, debug: bool = False) -> Report | None:
    """Do what is not done yet, and write ``rows.csv``, ``summary.json`` and ``compressai/``.

    Args:
        config: of the run.
        debug: end with an error of a picture's that is none of ours, in place of going on with the
            others.

    Returns:
        What came of it; None in processes other than the first.

    Raises:
        ConfigError, DataError, OutputError: nothing can be evaluated.
        KeyboardInterrupt: Ctrl-C.
    """
    codecs = {label: codec.resolved() for label, codec in config.codecs.items()}
    config = replace(config, codecs=codecs)
    run = Path(config.output) / config.name
    interrupt = _Interrupt()
    trainer = _trainer(config, [_Progress(), interrupt])
    with contextlib.ExitStack() as held:
        begun = _Begun()
        if trainer.is_global_zero:
            try:
                held.enter_context(alone(run))
                begun = _begin(config, run)
            except PicsnetError as error:
                if launcher() is None and config.num_nodes == 1:
                    raise
                begun = _Begun(problem=error)  # the others wait already, and are to hear of it
        module = _Coding(config, begun, run, debug)
        with interrupt.told(), others_there():
            trainer.predict(module, return_predictions=False)
            trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return None
        return _end(config, module, begun.failures, run)


@dataclass(frozen=True)
class _Begun:
    """What the first process found before any coded; the others have it from there.

    Attributes:
        jobs: all.
        order: their numbers: those to code first, so that what a lost process left is shared by
            all.
        failures: pictures that cannot be read.
        problem: why nothing can be evaluated, or None.
    """

    jobs: list[Job] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    problem: PicsnetError | None = None


def _begin(config: EvaluationConfig, run: Path) -> _Begun:
    references = config.measures.references
    if references and any(MEASURES[name].scope == "set" for name in config.measures.names):
        expand_inputs(references, IMAGE_SUFFIXES)  # they are read last: a mistake is told first
    save_description(OmegaConf.create(asdict(config)), run)
    pictures, failures = prepare(config.dataset, run)
    jobs = _jobs(config, pictures)
    coded = [done(job, run) is not None for job in jobs]
    if not all(coded):  # then pictures change that the tables of an earlier start tell of
        withdraw_tables(run)
    order = sorted(range(len(jobs)), key=lambda number: coded[number])
    return _Begun(jobs, order, failures)


def _end(
    config: EvaluationConfig, module: _Coding, failures: Sequence[Failure], run: Path
) -> Report:
    likenesses = [*module.pictures, *module.sketches]
    rows, coding_failures = _gather(module.jobs, run, config, likenesses)
    failures = [*failures, *coding_failures]
    summary = summarise(config, rows, failures, run, module.left_out)
    withdraw_tables(run)  # or, between the two, an earlier summary would seem to be of these rows
    save_rows(rows, run)
    save_summary(summary, run)
    if rows:
        track(config, rows, summary, run)
    return Report(run, rows, failures, summary)


def _points(config: EvaluationConfig, device: str) -> dict[tuple[str, str], Point]:
    points: dict[tuple[str, str], Point] = {}
    for label, codec in config.codecs.items():
        for point in make_points(label, codec, device):
            if points.setdefault((point.codec, point.setting), point) is not point:
                raise ConfigError(
                    f"codecs.{label}: two settings are called {point.setting!r}; name one only"
                )
    return points


def _jobs(config: EvaluationConfig, pictures: Sequence[Picture]) -> list[Job]:
    """Point by point, so that models are loaded once."""
    forget()
    name = config.dataset.name
    return [
        job
        for point in _points(config, "cpu").values()
        for job in make_jobs(name, pictures, point, config.codecs[point.codec])
    ]


def _trainer(config: EvaluationConfig, callbacks: list[Callback]) -> L.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*num_workers.*")
    warnings.filterwarnings("ignore", message=".*predict returned None.*")
    with found_here(config):
        return L.Trainer(
            accelerator=config.accelerator,
            **_spread(config),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            inference_mode=False,  # prompts are found by gradients
            callbacks=callbacks,
        )


def _spread(config: EvaluationConfig) -> dict[str, Any]:
    """Devices, nodes, strategy and launcher, as a Trainer takes them."""
    if launcher() is None and not config.devices.isdigit():  # "auto", "0,2": Lightning's to read
        own = Processes(None, 2, config.num_nodes)  # one or several, not known here
        return {**own.trainer_options(config.strategy), "devices": config.devices}
    # The defaults are what a launcher may say otherwise.
    devices = int(config.devices) if config.devices.isdigit() and config.devices != "1" else None
    nodes = None if config.num_nodes == 1 else config.num_nodes
    return find_processes(devices, nodes).trainer_options(config.strategy)


class _Coding(L.LightningModule):
    """Codes and measures jobs by their numbers."""

    def __init__(self, config: EvaluationConfig, begun: _Begun, run: Path, debug: bool) -> None:
        super().__init__()
        self.settings, self.run, self.debug = config, run, debug
        self.jobs, self.order, self.problem = begun.jobs, begun.order, begun.problem
        self.warm: dict[tuple[str, str], str] = {}  # why a point cannot be used, or nothing
        self.points: dict[tuple[str, str], Point] = {}
        self.left_out: dict[str, str] = {}
        self.pictures: list[Likeness] = []
        self.sketches: list[Likeness] = []

    def predict_dataloader(self) -> DataLoader[int]:
        """Numbers of jobs.

        One process looked for all: others may have done some by the time that a late one looks.
        The jobs are its own too, and so are the codecs: other machines may have their weights at
        other times, and would choose another decoder.

        Raises:
            PicsnetError: it found that nothing can be evaluated.
        """
        said = (self.problem, self.order, self.jobs, self.settings.codecs)
        self.problem, self.order, self.jobs, codecs = self.trainer.strategy.broadcast(said)
        if self.problem is not None:
            raise self.problem
        self.settings = replace(self.settings, codecs=codecs)
        return DataLoader(self.order, batch_size=1)  # type: ignore[arg-type]

    def on_predict_start(self) -> None:
        device = str(self.device)
        self.points = _points(self.settings, device)
        self.pictures, no_pictures = likeness.load(self.settings.measures, "picture", device)
        self.sketches, no_sketches = likeness.load(self.settings.measures, "sketch", device)
        self.left_out = no_pictures | no_sketches
        # By one process's files, as jobs are: copies on other machines may be of other times.
        own = {one.name: one.made_with for one in [*self.pictures, *self.sketches]}
        made_with = self.trainer.strategy.broadcast(own)
        self.pictures, self.sketches = (
            [replace(one, made_with=made_with.get(one.name, one.made_with)) for one in some]
            for some in (self.pictures, self.sketches)
        )

    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        job = self.jobs[int(batch)]
        path = self.run / job.folder / FAILURE
        try:
            with torch.enable_grad():
                failed = self._do(job)
            reason = self._not_measured(failed)
        except Exception as error:
            failed, reason = {}, self._reason(error)
        if not reason:
            path.unlink(missing_ok=True)
            return
        why = Failure(job.picture.name, job.codec, job.setting, reason, tuple(failed))
        with atomic_write(path) as part:
            part.write_text(json.dumps(asdict(why)) + "\n", encoding="utf-8")

    def _do(self, job: Job) -> dict[str, Exception]:
        """Code and measure what is not; why measures could not be taken, by their names."""
        path = self.run / job.folder / ROW
        clear_parts(job, self.run)
        record = done(job, self.run)
        if record is None:
            record = code(job, self._ready(job), self.run)
            record.save(path)  # coding takes longest: what fails from here on does not cost it
        measured, failed = measure(record, self.run, self.pictures, self.sketches)
        measured.save(path)
        return failed

    def _not_measured(self, failed: Mapping[str, Exception]) -> str:
        """In one line, or nothing; measures that failed alike are told of together."""
        names: dict[str, list[str]] = {}
        for name, error in failed.items():
            names.setdefault(self._reason(error), []).append(name)
        return "; ".join(f"measure {', '.join(some)}: {why}" for why, some in names.items())

    def _ready(self, job: Job) -> Point:
        """The point of a job with its models loaded, so that times are of coding alone."""
        key = (job.codec, job.setting)
        point = self.points[key]
        if key not in self.warm:
            self._release_others(job)
            self.warm[key] = self._warm_up(point)
            if self.warm[key]:
                print_error(f"{job.codec}, {job.setting}: {self.warm[key]}")
        if self.warm[key]:
            raise PicsnetError(self.warm[key])
        return point

    def _warm_up(self, point: Point) -> str:
        """Load a point's models by coding a picture; why it cannot be used, or nothing."""
        reason = ""
        for path in self._warm_up_pictures:
            try:
                small = load_rgb(path)[:WARM_UP_SIDE, :WARM_UP_SIDE]
                point.decode(point.encode(small).data)
            except Exception as error:
                reason = reason or self._reason(error)
            else:
                return ""
        return reason

    @functools.cached_property
    def _warm_up_pictures(self) -> list[Path]:
        """The largest ones, since some codecs cannot code tiny ones."""
        paths = dict.fromkeys(self.run / job.picture.path for job in self.jobs)
        return sorted(paths, key=_warm_up_pixels, reverse=True)[:WARM_UP_PICTURES]

    def _reason(self, error: Exception) -> str:
        """In one line; others' libraries raise what they like, be it for one picture only."""
        if isinstance(error, PicsnetError):
            return str(error)
        if self.debug:
            raise error
        return f"{with_its_kind(error)}; --debug shows where"

    def _release_others(self, job: Job) -> None:
        """Other codecs' models: each may fill a device."""
        others = [key for key in self.points if key[0] != job.codec and key in self.warm]
        if others:
            fresh = _points(self.settings, str(self.device))
            for key in others:
                self.points[key] = fresh[key]
                del self.warm[key]


def _warm_up_pixels(path: Path) -> int:
    """Of the part of a picture that a warm-up codes; by its header, which is quick."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except OSError:  # it is told where it is read
        return 0
    return min(width, WARM_UP_SIDE) * min(height, WARM_UP_SIDE)


class _Progress(Callback):
    """A bar on a terminal, a line every half minute elsewhere."""

    def __init__(self, every_seconds: float = 30.0) -> None:
        self.total, self.every_seconds = 0, every_seconds
        self._bar: Any = None
        self._begun = self._last = time.monotonic()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, _Coding)
        self.total = len(pl_module.jobs)
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(total=self.total, desc="evaluating", unit="picture")
        self._begun = self._last = time.monotonic()

    def on_predict_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if not trainer.is_global_zero:
            return
        count = min(self.total, (args[3] + 1) * trainer.world_size)
        if self._bar is not None:
            self._bar.update(count - self._bar.n)
        elif time.monotonic() - self._last > self.every_seconds:
            self._last = time.monotonic()
            left = (self._last - self._begun) / count * (self.total - count) / 60
            print(
                f"{count} of {self.total}  about {left:.0f} min left", file=sys.stderr, flush=True
            )

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None:
            self._bar.close()


class _Interrupt(Callback):
    """Ctrl-C stays one: Lightning would make of it an exit without a word, and hear no other."""

    came = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        self.came = isinstance(exception, KeyboardInterrupt)

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Around what Lightning runs.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        handler = signal.getsignal(signal.SIGINT)
        try:
            yield
        except SystemExit:
            if not self.came:
                raise
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None


def _gather(
    jobs: Sequence[Job], run: Path, config: EvaluationConfig, likenesses: Sequence[Likeness]
) -> tuple[list[Row], list[Failure]]:
    """Rows in the order of the jobs, and what failed; a point that failed throughout is one.

    A job has both where its picture was coded and could not be measured later. The row then has the
    values that the ``likenesses`` would give again; of measures that cannot be had now, all.
    """
    rows, failures = [], []
    present = {likeness.name: likeness.made_with for likeness in likenesses}
    for job in jobs:
        record = done(job, run)
        path = run / job.folder / FAILURE
        if record is not None:
            measures, made_with = record.row.measures, record.made_with
            kept = {
                name: measures[name]
                for name in MEASURES
                if name in config.measures.names
                and name in measures
                and present.get(name, made_with.get(name)) == made_with.get(name)
            }
            rows.append(replace(record.row, measures=kept))
        if path.is_file():
            failures.append(_load_failure(path))
        elif record is None:
            failures.append(Failure(job.picture.name, job.codec, job.setting, UNKNOWN))
    return rows, _merged(failures, len({job.picture.name for job in jobs}))


def _load_failure(path: Path) -> Failure:
    plain = json.loads(path.read_text(encoding="utf-8"))
    return Failure(**{**plain, "measures": tuple(plain.get("measures", ()))})


def _merged(failures: list[Failure], pictures: int) -> list[Failure]:
    merged: dict[Failure, list[Failure]] = {}
    for failure in failures:
        merged.setdefault(replace(failure, picture="*"), []).append(failure)
    result = []
    for of_all, some in merged.items():
        if len(some) == pictures:
            result.append(of_all)
        else:
            result += some
    return result

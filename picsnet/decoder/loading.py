"""A diffusers pipeline from its folder: which files, in which type, on which device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from picsnet.decoder.files import controlnet_variant
from picsnet.decoder.spec import DecoderSpec
from picsnet.decoder.speed import make_faster
from picsnet.devices import inference_dtype
from picsnet.pretrained import load_whole, loading, quiet

# Beside the weights: activations of one picture at 512x512, with guidance.
_WORKING_BYTES = 2 * 2**30
_LONGEST_PROMPT = 2**16
"""Tokens; CLIP's text towers take 77, and some hundreds where they were made longer."""

_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "unipc": ("UniPCMultistepScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpmsolver": ("DPMSolverMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lcm": ("LCMScheduler", {}),
}


def load_tokenizer(folder: Path) -> Any:
    """The CLIPTokenizer in a pipeline's folder.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import CLIPTokenizer

    with loading(folder / "tokenizer", "--decoder"):
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        # Without the file that says it transformers puts a number beyond all tensors.
        if tokenizer.model_max_length > _LONGEST_PROMPT:
            raise ValueError("tokenizer_config.json is missing, or names no model_max_length")
    return tokenizer


def load_parts(folder: Path, spec: DecoderSpec, tokenizer: Any, device: str) -> dict[str, Any]:
    """All parts of a pipeline but the ControlNet, in the type that the device does well.

    Raises:
        ModelError: one cannot be loaded.
    """
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    parts: dict[str, Any] = {"tokenizer": tokenizer}
    for name, kind in (
        ("text_encoder", CLIPTextModel),
        ("vae", _vae_class(folder / "vae")),
        ("unet", UNet2DConditionModel),
    ):
        parts[name] = _load(kind, folder / name, spec.variant, device)
    parts["scheduler"] = _scheduler(folder / "scheduler", spec.settings.scheduler)
    return parts


def assemble(parts: dict[str, Any], control: Path | None, spec: DecoderSpec, device: str) -> Any:
    """Stable Diffusion's pipeline on its device, with a ControlNet if its folder is given.

    It is made as fast as the spec says, and what other pipelines share of it with it.

    Raises:
        ModelError: the ControlNet cannot be loaded.
    """
    from diffusers import (
        ControlNetModel,
        StableDiffusionControlNetPipeline,
        StableDiffusionPipeline,
    )

    names = ("tokenizer", "text_encoder", "vae", "unet", "scheduler")
    shared = {name: parts[name] for name in names}
    shared |= {"safety_checker": None, "feature_extractor": None}
    with quiet():
        if control is None:
            pipeline: Any = StableDiffusionPipeline(**shared, requires_safety_checker=False)
        else:
            network = _load(ControlNetModel, control, controlnet_variant(spec), device)
            pipeline = StableDiffusionControlNetPipeline(
                **shared, controlnet=network, requires_safety_checker=False
            )
    _placed(pipeline, device)
    make_faster(pipeline, spec.speed, device)
    return pipeline


def for_redrawing(pipeline: Any, device: str) -> Any:
    """The pipeline that begins from a picture, of the parts of one that begins from noise."""
    from diffusers import StableDiffusionControlNetImg2ImgPipeline, StableDiffusionImg2ImgPipeline

    parts = pipeline.components
    controlled = "controlnet" in parts
    kind: Any = (
        StableDiffusionControlNetImg2ImgPipeline if controlled else StableDiffusionImg2ImgPipeline
    )
    with quiet():
        return _placed(kind(**parts, requires_safety_checker=False), device)


def _placed(pipeline: Any, device: str) -> Any:
    if _short_of_memory(pipeline, device):
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline


def _load(kind: Any, folder: Path, variant: str | None, device: str) -> Any:
    with loading(folder, "--decoder"):
        model = load_whole(kind, folder, inference_dtype(device), variant)
    return model.eval().requires_grad_(False)


def _vae_class(folder: Path) -> Any:
    """AutoencoderKL, or the small AutoencoderTiny where the configuration names it."""
    import diffusers

    with loading(folder, "--decoder"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = config.get("_class_name", "AutoencoderKL")
        if name not in ("AutoencoderKL", "AutoencoderTiny"):
            raise ValueError(f"an autoencoder of class {name}")
    return getattr(diffusers, name)


def _scheduler(folder: Path, name: str) -> Any:
    import diffusers

    with loading(folder, "--decoder"):
        config = json.loads((folder / "scheduler_config.json").read_text(encoding="utf-8"))
        kind, changes = _SCHEDULERS.get(name) or (config["_class_name"], {})
        return getattr(diffusers, kind).from_config(config, **changes)


def _short_of_memory(pipeline: Any, device: str) -> bool:
    """Whether the weights leave a CUDA device too little to work with."""
    if not device.startswith("cuda"):
        return False
    parts = [p for p in pipeline.components.values() if isinstance(p, torch.nn.Module)]
    away = [x for part in parts for x in part.parameters() if not x.is_cuda]
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return sum(x.numel() * x.element_size() for x in away) + _WORKING_BYTES > free

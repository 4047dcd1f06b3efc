"""Which files make up a decoder. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path

from picsnet.decoder.spec import DecoderSpec
from picsnet.errors import ModelError


def pipeline_files(spec: DecoderSpec) -> list[str]:
    """What is fetched of a pipeline's repository: one precision, no safety checker."""
    dot = f".{spec.variant}" if spec.variant else ""
    ends = (f"{dot}.safetensors", f"{dot}-*.safetensors", f".safetensors.index{dot}.json")
    stems = ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
    weights = [stem + end for stem in stems for end in ends]
    return ["model_index.json", "*/config.json", "scheduler/*", "tokenizer/*", *weights]


def controlnet_files(spec: DecoderSpec) -> list[str]:
    """What is fetched of a ControlNet's repository."""
    return ["config.json", spec.controlnet_weights]


def controlnet_variant(spec: DecoderSpec) -> str | None:
    """Of the ControlNet's file of weights; one within the pipeline's folder shares its variant."""
    return spec.variant if spec.controlnet is None else _variant_of(spec.controlnet_weights)


def weight_files(folder: Path, variant: str | None) -> list[Path]:
    """The files that hold a component's weights, of one precision.

    Raises:
        ModelError: there are none.
    """
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    ours = [path for path in found if _variant_of(path.name) == variant]
    if not ours:
        raise ModelError(
            f"{folder}: holds no weights{f' of variant {variant}' if variant else ''} "
            "(.safetensors or .bin); fetch it again, or name another folder"
        )
    return ours


def _variant_of(name: str) -> str | None:
    """model.fp16.safetensors and model.fp16-00001-of-00002.safetensors: fp16."""
    parts = name.split(".")
    return parts[1].split("-")[0] if len(parts) == 3 else None


def read_vocabulary(tokenizer: Path) -> dict[str, int]:
    """Token to id, from a tokenizer's folder.

    Older releases of transformers write vocab.json, newer ones tokenizer.json alone.

    Raises:
        ModelError: neither is there.
    """
    try:
        if (tokenizer / "vocab.json").is_file():
            vocabulary = json.loads((tokenizer / "vocab.json").read_text(encoding="utf-8"))
        else:
            whole = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
            added = {token["content"]: token["id"] for token in whole["added_tokens"]}
            vocabulary = whole["model"]["vocab"] | added
        return {str(token): int(index) for token, index in vocabulary.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(
            f"{tokenizer}: no vocabulary in it, so prompts have no ids; a CLIP tokenizer has "
            "vocab.json and merges.txt, or tokenizer.json; fetch it again"
        ) from None

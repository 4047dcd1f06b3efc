"""The mini decoder's folder from its trained stages.

    python -m picsnet.mini.assemble --vae runs/mini_vae --clip runs/mini_clip \\
        --diffusion runs/mini_diffusion -o checkpoints/picsnet-mini

writes what ``StableDiffusionControlNetPipeline.from_pretrained`` reads, in half precision, with the
CLIP pair under ``clip`` and picsnet's settings in ``picsnet.yaml``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from picsnet.config import CLIPModelConfig, DiffusionModelConfig, VAEModelConfig
from picsnet.errors import OutputError, PicsnetError
from picsnet.files import replace_folder
from picsnet.mini.networks import (
    IMAGE_MEAN,
    IMAGE_STD,
    make_clip,
    make_diffusion,
    make_scheduler,
    make_vae,
)
from picsnet.mini.stages import read_stage, under
from picsnet.shipped import SPEC_FILE
from picsnet.terminal import escape_what_cannot_be_written, print_error

ACCOUNT = "training.json"
"""In the folder: how it was trained."""

SETTINGS: dict[str, Any] = {
    "steps": 8,
    "guidance": 1.5,
    "scheduler": "own",
    "suffix": "",
    "negative": "",
    "size": 256,
    "sharpness": 1.0,
    # The U-Net was trained on 128 pixels and knows the whole of a picture best at that size.
    "first_size": 128,
    "last_size": 512,
    "redraw": 0.375,
    # Above 1 outlines are followed more closely: on five photographs sketch F rose from 0.66 to
    # 0.73. At 2.2 lines turn into things of their own.
    "control_scale": 1.7,
}


def assemble(vae_run: Path, clip_run: Path, diffusion_run: Path, folder: Path) -> int:
    """Write the pipeline's folder; returns its size in bytes.

    A folder that is there already is replaced once the new one is whole.

    Raises:
        CheckpointError: a stage is missing.
        OutputError: the folder cannot be written.
    """
    from diffusers import StableDiffusionControlNetPipeline
    from diffusers.utils import logging
    from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging as transformers_logging

    logging.set_verbosity_error()  # notes on halving weights, which is what is wanted
    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()

    vae_weights, vae_config = read_stage(vae_run, "mini-vae")
    clip_weights, clip_config = read_stage(clip_run, "mini-clip")
    weights, config = read_stage(diffusion_run, "mini-diffusion")
    vae_model, clip_model = (
        VAEModelConfig(**vae_config["model"]),
        CLIPModelConfig(**clip_config["model"]),
    )
    vae = make_vae(vae_model)
    vae.load_state_dict(under(vae_weights, "vae"))
    tokenizer = CLIPTokenizer.from_pretrained(clip_run / "tokenizer", local_files_only=True)
    clip = make_clip(clip_model, len(tokenizer))
    clip.load_state_dict(clip_weights)
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    unet, controlnet = make_diffusion(
        DiffusionModelConfig(**config["model"]), vae_model.latent_channels, clip_model.text_width
    )
    unet.load_state_dict(under(weights, "unet"))
    controlnet.load_state_dict(under(weights, "controlnet"))
    pipeline: Any = StableDiffusionControlNetPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        controlnet=controlnet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=torch.float16)
    side = clip_model.image_size
    processor = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=[IMAGE_MEAN] * 3,
        image_std=[IMAGE_STD] * 3,
    )
    beside = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        pipeline.save_pretrained(beside)
        for part in (clip.half(), tokenizer, processor):
            part.save_pretrained(beside / "clip")
        for file in beside.rglob("tokenizer.json"):
            _without_layout(file)
        _save_settings(beside / SPEC_FILE)
        _save_account(beside / ACCOUNT, vae_config, clip_config, config)
        replace_folder(beside, folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); name another with -o"
        ) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _without_layout(path: Path) -> None:
    """Write JSON anew without the indentation that is more than half of a vocabulary's file."""
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n", "utf-8")


def _save_settings(path: Path) -> None:
    from omegaconf import OmegaConf

    spec = {
        "clip": "clip",
        "prompts": "palette",
        "judge": "colour",
        "candidates": 16,
        "licence": "Apache-2.0",
        "settings": SETTINGS,
    }
    OmegaConf.save(OmegaConf.create(spec), path)


def _save_account(path: Path, *configs: dict[str, Any]) -> None:
    account: dict[str, Any] = {}
    for config in configs:
        stage = {key: config[key] for key in ("seed", "model", "loss", "optim") if key in config}
        # A pack by its name: where it lay is of no use to others.
        data = {**config["data"], "pack": Path(config["data"]["pack"]).name}
        account[config["task"]] = {**stage, "data": data, "steps": config["steps"]}
    path.write_text(json.dumps(account, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Assemble; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m picsnet.mini.assemble")
    parser.add_argument("--vae", default="runs/mini_vae", help="the run's folder")
    parser.add_argument("--clip", default="runs/mini_clip", help="the run's folder")
    parser.add_argument("--diffusion", default="runs/mini_diffusion", help="the run's folder")
    parser.add_argument("-o", "--output", required=True, help="folder of the pipeline")
    args = parser.parse_args(arguments)
    try:
        size = assemble(Path(args.vae), Path(args.clip), Path(args.diffusion), Path(args.output))
    except PicsnetError as error:
        print_error(error)
        return error.exit_status
    print(f"{args.output}: {size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    escape_what_cannot_be_written()
    sys.exit(main())

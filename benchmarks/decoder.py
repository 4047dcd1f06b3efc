"""Time and memory of the diffusion decoder in its true size, with random weights.

    python benchmarks/decoder.py --device cuda --candidates 1 4 8
    python benchmarks/decoder.py --device cpu --steps 2 --candidates 1

builds Stable Diffusion 2.1 (base) with the ControlNet that goes with it from their configurations,
saves the folder once (3.4 GB, half precision), loads it through `picsnet.decoder` as a user's
folder is loaded, and draws. Neither time nor memory depends on the weights' values. Writes
``out/decoder.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.spec import DecoderSettings, DecoderSpec
from picsnet.devices import check_device, inference_dtype
from picsnet.errors import PicsnetError
from picsnet.files import atomic_write

VOCABULARY = 49408
TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "projection_dim": 512,
    "hidden_act": "gelu",
    "max_position_embeddings": 77,
    "bos_token_id": VOCABULARY - 2,
    "eos_token_id": VOCABULARY - 1,
    "pad_token_id": VOCABULARY - 1,
}
UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "layers_per_block": 2,
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}


def main(arguments: list[str] | None = None) -> int:
    """Build, load, draw, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--size", type=int, default=512, help="pixels of the square picture")
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--repeat", type=int, default=1, help="runs; the median is reported")
    parser.add_argument("--folder", default="out/sd21-random", help="kept between runs")
    parser.add_argument("-o", "--output", default="out/decoder.json")
    args = parser.parse_args(arguments)
    try:
        device = check_device(args.device)
        build(Path(args.folder))
        result = measure(Path(args.folder), device, args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"decoder.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{result['device']}, {result['dtype']}, {args.size}x{args.size}, {args.steps} steps")
    print(f"load {result['load_seconds']:.1f} s, identity {result['identity_seconds']:.1f} s")
    for row in result["rows"]:
        print(
            f"{row['mode']:<5} {row['candidates']:>3} candidates: {row['seconds']:8.2f} s, "
            f"{row['seconds_per_picture']:7.2f} s a picture, peak {row['peak_gib']:.1f} GiB"
        )
    return 0


def build(folder: Path) -> None:
    """Random weights in the true architecture, saved once."""
    if (folder / "picsnet.yaml").is_file():
        return
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        PNDMScheduler,
        StableDiffusionControlNetPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    try:
        unet = UNet2DConditionModel(**UNET)
        pipeline: Any = StableDiffusionControlNetPipeline(
            tokenizer=_tokenizer(folder),
            text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
            vae=AutoencoderKL(**VAE),
            unet=unet,
            controlnet=ControlNetModel.from_unet(unet),
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                steps_offset=1,
                skip_prk_steps=True,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    finally:
        torch.set_default_dtype(torch.float32)
    pipeline.save_pretrained(folder)
    # Written last: without it the folder is built again.
    (folder / "picsnet.yaml").write_text("{}\n")


def _tokenizer(folder: Path) -> Any:
    """A vocabulary of CLIP's size; which words it has does not matter here."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [f"token{i}</w>" for i in range(VOCABULARY - 2 - len(words))]
    words += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges.write_text("#version: 0.2\n")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=77)


def measure(folder: Path, device: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of PIC and PICS by the number of candidates."""
    settings = DecoderSettings(steps=args.steps)
    spec = DecoderSpec(name="sd21-random", pipeline=str(folder), settings=settings)
    decoder = DiffusionDecoder(spec, device)
    sketch = np.zeros((args.size, args.size), np.uint8)
    sketch[::40] = 200
    identity = _seconds(lambda: decoder.identity(control=True), device)
    load = _seconds(lambda: decoder.load(control=True), device)
    rows = []
    for mode, given in (("pics", sketch), ("pic", None)):
        for count in args.candidates:
            drawings = [Drawing([400] * 16, given, k) for k in range(count)]
            decoder.draw(drawings[:1], [(args.size, args.size)]) if device != "cpu" else None
            _reset_peak(device)
            seconds = statistics.median(
                _seconds(lambda d=drawings: decoder.draw(d, [(args.size, args.size)]), device)  # type: ignore[misc]
                for _ in range(args.repeat)
            )
            rows.append(
                {
                    "mode": mode,
                    "candidates": count,
                    "seconds": seconds,
                    "seconds_per_picture": seconds / count,
                    "peak_gib": _peak_gib(device),
                }
            )
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "dtype": str(inference_dtype(device)).removeprefix("torch."),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "size": args.size,
        "steps": args.steps,
        "load_seconds": load,
        "identity_seconds": identity,
        "rows": rows,
    }


def _seconds(work: Any, device: str) -> float:
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def _peak_gib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())

"""Time, memory and likeness of the diffusion decoder against stock diffusers, in its true size.

    python benchmarks/decoder.py --device cuda --candidates 1 8 --repeat 3          # all, on a GPU
    python benchmarks/decoder.py --device cpu --size 256 --steps 2 --candidates 1 2

builds Stable Diffusion 2.1 (base) with the ControlNet that goes with it from their configurations,
saves the folder once (3.4 GB, half precision), and draws with it, in turn:

* ``stock``: diffusers' own pipeline, from texts, in half precision on a GPU, UniPC, guidance 9,
  candidates one after the other;
* ``ours``: the folder through `picsnet.decoder` as a user's, all candidates at once, with nothing
  of `DecoderSpeed`; then each of its choices by itself, and ``all`` that pay on a GPU together;
* ``few``: one step without guidance (Euler, trailing), as SD-Turbo is run, likewise.

The time of a draw is from prompt and sketch to bytes of pictures; models are loaded and compiled
before. Difference is the mean absolute difference from the stock pictures of the same candidates
(of ``few``: from its plain pictures), in levels of 255. Neither time nor memory depends on the
weights' values, which are random. Writes ``out/decoder.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.spec import DecoderSettings, DecoderSpec, DecoderSpeed
from picsnet.devices import check_device, inference_dtype
from picsnet.errors import ConfigError, PicsnetError, in_one_line
from picsnet.files import atomic_write

PLAIN = DecoderSpeed(layout="contiguous")
VARIANTS: dict[str, DecoderSpeed] = {
    "ours": PLAIN,
    "channels_last": DecoderSpeed(layout="channels_last"),
    "fuse_qkv": DecoderSpeed(layout="contiguous", fuse_qkv=True),
    "vae_bf16": DecoderSpeed(layout="contiguous", vae="bf16"),
    "vae_batch": DecoderSpeed(layout="contiguous", vae_batch=True),
    "compile": DecoderSpeed(layout="contiguous", compile="default"),
    "cuda_graphs": DecoderSpeed(layout="contiguous", compile="reduce-overhead"),
    "all": DecoderSpeed(layout="channels_last", fuse_qkv=True, compile="max-autotune"),
}
"""Of our decoder, by name."""
COMPILED = [name for name, speed in VARIANTS.items() if speed.compile != "none"]
FEW = DecoderSettings(steps=1, guidance=0.0, scheduler="euler-trailing", negative="")
"""As preset sd-turbo-hed."""
Pictures = list[NDArray[np.uint8]]

PROMPT = "a photo of a red house"
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
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeat", type=int, default=1, help="draws; their median is reported")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=[*VARIANTS, "few"],
        help="beside stock and ours (default: all; without a GPU those that compile are left out)",
    )
    parser.add_argument("--folder", default="out/sd21-random", help="kept between runs")
    parser.add_argument("-o", "--output", default="out/decoder.json")
    args = parser.parse_args(arguments)
    try:
        device = check_device(args.device)
        for name in ("repeat", "steps"):
            if getattr(args, name) < 1:
                raise ConfigError(f"--{name} is {getattr(args, name)}; it must be at least 1")
        build(Path(args.folder))
        result = measure(Path(args.folder), device, args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"decoder.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{result['device']}, {result['dtype']}, {args.size}x{args.size}, {args.steps} steps")
    for row in result["rows"]:
        print(
            f"{row['name']:<17} {row['candidates']:>3} candidates: {row['seconds']:8.3f} s, "
            f"{row['seconds_per_picture']:7.3f} s a picture, {row['relative']:5.2f} of the time "
            f"(CPU {row['relative_of_cpu']:5.2f}), peak {row['peak_gib']:5.1f} GiB, "
            f"difference {row['difference']:.3f}/255"
        )
    for name, reason in result["failed"].items():
        print(f"{name}: failed: {reason}")
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
        control = ControlNetModel.from_unet(unet)
        # A new ControlNet's outputs are zero: with those, a sketch would change nothing.
        outputs = (*control.controlnet_down_blocks, control.controlnet_mid_block)
        for block in (*outputs, control.controlnet_cond_embedding.conv_out):
            torch.nn.init.normal_(block.weight, std=0.02)
        pipeline: Any = StableDiffusionControlNetPipeline(
            tokenizer=_tokenizer(folder),
            text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
            vae=AutoencoderKL(**VAE),
            unet=unet,
            controlnet=control,
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
    """Seconds, peak memory and likeness of all variants by the number of candidates."""
    sketch = np.zeros((args.size, args.size), np.uint8)
    sketch[::40] = 200
    names = args.variants or [
        name for name in [*VARIANTS, "few"] if device.startswith("cuda") or name not in COMPILED
    ]
    names = ["ours", *(name for name in names if name != "ours")]
    settings = DecoderSettings(steps=args.steps, size=args.size)
    runs: dict[str, Callable[[], Callable[[int], Pictures]]] = {
        "stock": functools.partial(_stock, folder, device, settings, sketch)
    }
    for name in names:
        if name != "few":
            speed = VARIANTS[name]
            runs[name] = functools.partial(_ours, folder, device, settings, speed, sketch)
    if "few" in names:
        runs["few"] = functools.partial(_ours, folder, device, FEW, PLAIN, sketch)
        for name in names:
            if name in COMPILED:
                speed = VARIANTS[name]
                runs[f"few, {name}"] = functools.partial(_ours, folder, device, FEW, speed, sketch)
    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    reference: dict[tuple[str, int], tuple[Pictures, float, float]] = {}
    for name, make in runs.items():
        try:
            draw = make()
            for count in args.candidates:
                row, pictures = _timed(draw, count, device, args.repeat)
                base = "few" if name.startswith("few") else "stock"
                own = (pictures, row["seconds"], row["cpu_seconds"])
                reference.setdefault((base, count), own)
                # What few steps draw has no counterpart: it is held against stock in time only.
                compared, *_ = reference[base, count]
                _, seconds, of_cpu = reference["stock", count]
                row["relative"] = row["seconds"] / seconds
                row["relative_of_cpu"] = row["cpu_seconds"] / of_cpu
                row["difference"] = difference(pictures, compared)
                rows.append({"name": name, **row})
                print(f"{name}, {count}: {row['seconds']:.3f} s", file=sys.stderr, flush=True)
        except RuntimeError as error:  # a compiler that fails costs one row, not the run
            if name == "stock":
                raise
            failed[name] = in_one_line(error)
        draw = None  # type: ignore[assignment]
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
        torch._dynamo.reset()
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "dtype": str(inference_dtype(device)).removeprefix("torch."),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "size": args.size,
        "steps": args.steps,
        "rows": rows,
        "failed": failed,
    }


def difference(pictures: Pictures, others: Pictures) -> float:
    """Mean absolute difference, levels of 255."""
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, others, strict=True)]
    return float(np.mean(apart))


def _timed(
    draw: Callable[[int], Pictures], count: int, device: str, repeat: int
) -> tuple[dict[str, Any], Pictures]:
    """A row of the table, and what was drawn; on a GPU after one draw to warm up or compile."""
    warm = _seconds(lambda: draw(count), device)[0] if device.startswith("cuda") else None
    _reset_peak(device)
    pictures: Pictures = []

    def once() -> None:
        pictures[:] = draw(count)

    times = [_seconds(once, device) for _ in range(repeat)]
    seconds, of_cpu = (statistics.median(column) for column in zip(*times, strict=True))
    row = {
        "candidates": count,
        "seconds": seconds,
        "seconds_per_picture": seconds / count,
        "cpu_seconds": of_cpu,
        "first_seconds": warm,
        "peak_gib": _peak_gib(device),
    }
    return row, list(pictures)


def _ours(
    folder: Path,
    device: str,
    settings: DecoderSettings,
    speed: DecoderSpeed,
    sketch: NDArray[np.uint8],
) -> Callable[[int], Pictures]:
    spec = DecoderSpec(name="sd21-random", pipeline=str(folder), settings=settings, speed=speed)
    decoder = DiffusionDecoder(spec, device)
    decoder.load(control=True)
    ids = decoder.tokenize(PROMPT)
    height, width = sketch.shape

    def draw(count: int) -> Pictures:
        return decoder.draw([Drawing(ids, sketch, k) for k in range(count)], [(width, height)])

    return draw


def _stock(
    folder: Path, device: str, settings: DecoderSettings, sketch: NDArray[np.uint8]
) -> Callable[[int], Pictures]:
    """As diffusers' documentation runs it, and as often as there are candidates."""
    from diffusers import StableDiffusionControlNetPipeline, UniPCMultistepScheduler
    from torchvision.transforms.functional import adjust_sharpness

    pipeline: Any = StableDiffusionControlNetPipeline.from_pretrained(
        folder, dtype=inference_dtype(device), local_files_only=True
    )
    pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    sharp = adjust_sharpness(torch.tensor(sketch)[None].float() / 255, settings.sharpness)
    control = ((sharp * 255).clamp(0, 255).floor() / 255).expand(3, -1, -1)[None]
    height, width = sketch.shape

    def one(candidate: int) -> NDArray[np.uint8]:
        picture = pipeline(
            f"{PROMPT}, {settings.suffix}",
            image=control,
            negative_prompt=settings.negative,
            guidance_scale=settings.guidance,
            num_inference_steps=settings.steps,
            width=width,
            height=height,
            generator=torch.Generator("cpu").manual_seed(candidate),
            output_type="np",
        ).images[0]
        pixels: NDArray[np.uint8] = np.rint(picture * 255).astype(np.uint8)
        return pixels

    return lambda count: [one(candidate) for candidate in range(count)]


def _seconds(work: Any, device: str) -> tuple[float, float]:
    """Of the clock, and of the processor's cores together."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def _peak_gib(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    sys.exit(main())

"""Time of prompt inversion: pictures in batches, and against the paper's loop.

    python benchmarks/inversion.py --model mini
    python benchmarks/inversion.py --model vit-b --steps 20 --device cuda

A CLIP with random weights is made in memory: ``mini`` (2 layers of 32) shows what a step costs
beside arithmetic, ``vit-b`` has the text tower of ViT-B/32 and its vocabulary of 49,408. Targets
are the features of random prompts. The paper's loop is PEZ as its scripts run it: one picture, one
prompt, float32, 77 positions, two forward passes and a backward pass a step. All are timed in turn
within one run, after a short round to warm up, and the medians of ``--repeat`` rounds count. Writes
``out/inversion.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from picsnet.clip import Clip, matmul_dtype
from picsnet.devices import check_device
from picsnet.errors import PicsnetError
from picsnet.files import atomic_write
from picsnet.prompt.inversion import InversionConfig, invert

SIZES: dict[str, dict[str, int]] = {
    "mini": {
        "vocab_size": 720,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "vit-b": {
        "vocab_size": 49408,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
    },
}


def main(arguments: list[str] | None = None) -> int:
    """Time, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(SIZES), default="mini")
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--swaps", type=int, default=InversionConfig.swaps)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--output", default="out/inversion.json")
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"inversion.py: error: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{args.model} on {result['device']}, {result['dtype']}, {args.tokens} tokens")
    for row in result["rows"]:
        print(
            f"{row['name']:<12} {row['pictures']:>3} pictures: "
            f"{1000 * row['step_seconds']:8.2f} ms a step, {row['relative']:6.2f} of one picture's"
        )
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time all in turn.

    Raises:
        ConfigError: the options make no inversion.
    """
    device = check_device(args.device)
    config = InversionConfig(
        tokens=args.tokens, steps=args.steps, patience=args.steps, swaps=args.swaps
    )
    clip = make_clip(args.model, device)
    usable = sorted(set(clip.vocabulary.values()) - clip.special_ids)
    prompts = np.random.default_rng(0).choice(usable, (max(args.pictures), args.tokens)).tolist()
    targets = clip.text_features(prompts)
    seconds: dict[tuple[str, int], list[float]] = {}
    warm = InversionConfig(tokens=args.tokens, steps=2, patience=2, swaps=args.swaps)
    for round_ in range(-1, args.repeat):
        for count in args.pictures:
            start = _now(clip)
            invert(clip, targets[:count], config if round_ >= 0 else warm)
            if round_ >= 0:
                seconds.setdefault(("ours", count), []).append(_now(clip) - start)
        start = _now(clip)
        papers_loop(clip, targets[0], args.tokens, args.steps if round_ >= 0 else 2)
        if round_ >= 0:
            seconds.setdefault(("paper's loop", 1), []).append(_now(clip) - start)
    medians = {key: statistics.median(values) / args.steps for key, values in seconds.items()}
    one = medians["ours", args.pictures[0]]
    return {
        "device": device if device != "cpu" else f"cpu, {torch.get_num_threads()} threads",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "dtype": str(clip.dtype).removeprefix("torch."),
        "model": args.model,
        "steps": args.steps,
        "swaps": args.swaps,
        "rows": [
            {
                "name": name,
                "pictures": count,
                "step_seconds": value,
                "relative": value / one,
                "step_seconds_of_rounds": [s / args.steps for s in seconds[name, count]],
            }
            for (name, count), value in medians.items()
        ],
    }


def make_clip(name: str, device: str) -> Clip:
    """A CLIP with random weights; the image tower is small, since no picture is looked at."""
    from transformers import CLIPConfig, CLIPModel

    sizes = SIZES[name]
    size = sizes["vocab_size"]
    text = {
        **sizes,
        "max_position_embeddings": 77,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "pad_token_id": size - 1,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(
            text_config=text, vision_config=vision, projection_dim=min(512, sizes["hidden_size"])
        )
    )
    return Clip(model, _Vocabulary(size), None, device, matmul_dtype(device))


class _Vocabulary:
    """Stands in for a tokenizer: plain tokens, then start and end."""

    def __init__(self, size: int) -> None:
        self.bos_token_id, self.eos_token_id = size - 2, size - 1
        self.all_special_ids = [size - 2, size - 1]
        self.added_tokens_decoder: dict[int, str] = {}
        self._tokens = {f"token{i}</w>": i for i in range(size)}

    def get_vocab(self) -> dict[str, int]:
        return self._tokens


def papers_loop(clip: Clip, target: torch.Tensor, tokens: int, steps: int) -> float:
    """PEZ for one picture as in the paper's scripts; the best similarity."""
    table = clip.embedding_table
    unit = F.normalize(table, dim=-1)
    rng = np.random.default_rng(0)
    first = torch.from_numpy(rng.integers(len(table) - 2, size=(1, tokens))).to(table.device)
    prompt = table[first].clone().requires_grad_()
    optimiser = torch.optim.AdamW([prompt], lr=0.1, weight_decay=0.1)
    padding = torch.full((1, clip.max_tokens - tokens), clip.end_id, device=table.device)
    best = -1.0

    def similarity(ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        embeddings = torch.cat([rows, table[padding]], dim=1)
        features = clip.embedded_features(torch.cat([ids, padding], dim=1), embeddings)
        return (features @ target).sum()

    for _ in range(steps):
        ids = (F.normalize(prompt.detach(), dim=-1) @ unit[:-2].T).argmax(-1)
        rows = table[ids].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(1 - similarity(ids, rows), rows)
        prompt.grad = gradient
        optimiser.step()
        with torch.no_grad():
            best = max(best, float(similarity(ids, table[ids])))
    return best


def _now(clip: Clip) -> float:
    if clip.device.type == "cuda":
        torch.cuda.synchronize(clip.device)
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())

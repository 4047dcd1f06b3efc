"""Prompt inversion against the paper's loop: time until the same similarity.

    python benchmarks/inversion.py --model mini
    python benchmarks/inversion.py --model vit-b                  # an hour on two cores
    python benchmarks/inversion.py --model vit-b --device cuda --whole

A CLIP with random weights is made in memory: ``mini`` (2 layers of 32) shows what a step costs
beside arithmetic, ``vit-b`` has the text tower of ViT-B/32 and its vocabulary of 49,408. Targets
are features of random prompts, which can be reached, and random directions, which cannot, as a
picture's features cannot. Both searches begin with the same prompt.

The paper's loop is PEZ as its scripts run it: one picture, one prompt, float32, 77 positions, two
forward passes and a backward pass a step, ``--paper-steps`` of them. The similarity with which it
ends is found for all targets at once, with what has no part in it left out (the positions after the
prompt's end, the second forward pass), and kept beside the output for further runs. Its time is
that of ``--timed-steps`` of its real steps, taken in turn with ours, times their number;
``--whole`` runs it in truth, for each target.

Ours is `picsnet.prompt.inversion.invert` until it has reached that similarity (``enough``), one
picture at a time and ``--batch`` at once, and once more with its defaults from start to end. Writes
``out/inversion.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from picsnet.clip import Clip, matmul_dtype
from picsnet.devices import check_device
from picsnet.errors import ConfigError, PicsnetError
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
    parser.add_argument("--prompts", type=int, default=3, help="targets that can be reached")
    parser.add_argument("--directions", type=int, default=2, help="targets that cannot")
    parser.add_argument(
        "--batch", type=int, default=8, help="pictures at once: the targets in turn"
    )
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--paper-steps", type=int, default=3000)
    parser.add_argument(
        "--timed-steps", type=int, default=10, help="of the paper's, for each target"
    )
    parser.add_argument("--whole", action="store_true", help="time all of the paper's steps")
    parser.add_argument(
        "--steps", type=int, default=600, help="of ours, before it counts as not reached"
    )
    parser.add_argument("--seed", type=int, default=InversionConfig.seed)
    parser.add_argument("--threads", type=int, help="of the CPU")
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
    print(table(result))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Similarities of the paper's loop, then both in turn.

    Raises:
        ConfigError: the options make no inversion.
    """
    device = check_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = InversionConfig(tokens=args.tokens, seed=args.seed)
    reaching = dataclasses.replace(config, steps=args.steps, patience=args.steps)
    for name in ("prompts", "directions", "batch", "paper_steps", "timed_steps"):
        if getattr(args, name) < 1:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{option} is {getattr(args, name)}; it must be at least 1")
    clip = make_clip(args.model, device)
    targets, kinds = make_targets(clip, args.prompts, args.directions, args.tokens)
    history = _kept(
        Path(args.output).parent
        / f"inversion-paper-{args.model}-{args.prompts}-{args.directions}-{args.tokens}-"
        f"{args.paper_steps}.npy",
        lambda: papers_similarities(clip, targets, args.tokens, args.paper_steps),
    )
    final = history[-1]

    invert(clip, targets[:1], dataclasses.replace(config, steps=1))
    papers_loop(clip, targets[0], args.tokens, 2)
    rows: list[dict[str, Any]] = []
    for i, kind in enumerate(kinds):
        steps = args.paper_steps if args.whole else args.timed_steps
        target, one = targets[i], targets[i : i + 1]
        enough = dataclasses.replace(reaching, enough=float(final[i]))
        paper = timed(clip, functools.partial(papers_loop, clip, target, args.tokens, steps))
        ours = timed(clip, functools.partial(invert, clip, one, enough))
        seconds = paper.seconds / steps * args.paper_steps
        (reached,) = ours.result
        rows.append(
            {
                "target": kind,
                "similarity": float(final[i]),
                "paper_step_seconds": paper.seconds / steps,
                "paper_seconds": seconds,
                "paper_seconds_of_cpu": paper.of_cpu / steps * args.paper_steps,
                "paper_similarity_timed": paper.result,
                "reached": reached.similarity >= float(final[i]),
                "steps": reached.steps,
                "seconds": ours.seconds,
                "seconds_of_cpu": ours.of_cpu,
                "ratio": seconds / ours.seconds,
                "ratio_of_cpu": paper.of_cpu / steps * args.paper_steps / ours.of_cpu,
            }
        )
        _note(rows[-1], "target", "similarity", "seconds", "steps", "ratio", "ratio_of_cpu")
    # No picture of a batch sees another: after as many steps as the slowest needs, all are there.
    longest = max(row["steps"] for row in rows)
    together = dataclasses.replace(config, steps=longest, patience=longest)
    turn = [i % len(rows) for i in range(args.batch)]
    batch = timed(clip, functools.partial(invert, clip, targets[turn], together))
    batch_row = {
        "pictures": args.batch,
        "steps": longest,
        "seconds": batch.seconds,
        "reached": sum(
            found.similarity >= float(least) - 1e-5
            for found, least in zip(batch.result, final[turn], strict=True)
        ),
        "ratio": sum(rows[i]["paper_seconds"] for i in turn) / batch.seconds,
        "ratio_of_cpu": sum(rows[i]["paper_seconds_of_cpu"] for i in turn) / batch.of_cpu,
    }
    _note(batch_row, *batch_row)
    for i, row in enumerate(rows):
        whole = timed(clip, functools.partial(invert, clip, targets[i : i + 1], config))
        row["default_seconds"] = whole.seconds
        row["default_steps"] = whole.result[0].steps
        row["default_similarity"] = whole.result[0].similarity
        row["default_ratio"] = row["paper_seconds"] / whole.seconds
        row["default_ratio_of_cpu"] = row["paper_seconds_of_cpu"] / whole.of_cpu
        _note(row, "target", "default_similarity", "default_ratio", "default_ratio_of_cpu")
    return {
        "device": device if device != "cpu" else f"cpu, {torch.get_num_threads()} threads",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "dtype": str(clip.dtype).removeprefix("torch."),
        "model": args.model,
        "tokens": args.tokens,
        "paper_steps": args.paper_steps,
        "paper_steps_timed": args.paper_steps if args.whole else args.timed_steps,
        "config": dataclasses.asdict(config),
        "rows": rows,
        "batch": batch_row,
    }


def table(result: dict[str, Any]) -> str:
    """The rows in words, then what they come to."""
    rows, batch = result["rows"], result["batch"]
    lines = [f"{result['model']} on {result['device']}, {result['dtype']}"]
    for row in rows:
        lines.append(
            f"{row['target']:<9} {row['similarity']:.4f}: paper's {row['paper_seconds']:7.1f} s, "
            f"ours {row['seconds']:6.1f} s ({row['steps']} steps"
            f"{'' if row['reached'] else ', NOT REACHED'}), {row['ratio']:5.1f} times as fast "
            f"(CPU {row['ratio_of_cpu']:.1f}); defaults {row['default_seconds']:6.1f} s to "
            f"{row['default_similarity']:.4f}"
        )
    for name in ("ratio", "ratio_of_cpu", "default_ratio", "default_ratio_of_cpu"):
        values = [row[name] for row in rows]
        median = statistics.median(values)
        lines.append(f"{name}: median {median:.1f}, {min(values):.1f} to {max(values):.1f}")
    lines.append(
        f"batch of {batch['pictures']}: {batch['seconds']:.1f} s, {batch['steps']} steps, "
        f"{batch['reached']} reached, {batch['ratio']:.1f} times as fast "
        f"(CPU {batch['ratio_of_cpu']:.1f})"
    )
    return "\n".join(lines)


class Timed(NamedTuple):
    """How long something took, and what came of it."""

    seconds: float
    of_cpu: float  # seconds, of all threads together
    result: Any


def timed(clip: Clip, work: Callable[[], Any]) -> Timed:
    """Run and time; on CUDA until the device is idle."""
    start, cpu = _now(clip), time.process_time()
    result = work()
    return Timed(_now(clip) - start, time.process_time() - cpu, result)


def _kept(file: Path, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    """An array from a file, which is written if it is not there."""
    if not file.is_file():
        values = make()
        with atomic_write(file) as part, part.open("wb") as out:
            np.save(out, values)
    kept: NDArray[np.float64] = np.load(file)
    return kept


def make_targets(
    clip: Clip, prompts: int, directions: int, tokens: int
) -> tuple[torch.Tensor, list[str]]:
    """Features of random prompts, then random directions; and what each is."""
    usable = sorted(set(clip.vocabulary.values()) - clip.special_ids)
    # The first of this generator's prompts is where the searches begin.
    drawn = np.random.default_rng(0).choice(usable, (prompts + 1, tokens)).tolist()[1:]
    features = clip.text_features(drawn)
    generator = torch.Generator().manual_seed(0)
    nobodys = torch.randn(directions, features.shape[1], generator=generator).to(features)
    kinds = ["prompt"] * prompts + ["direction"] * directions
    return torch.cat([features, F.normalize(nobodys, dim=-1)]), kinds


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


class _Pez:
    """The paper's optimisation of (B, T, E) prompts, whatever evaluates them."""

    def __init__(self, clip: Clip, count: int, tokens: int) -> None:
        self.table = clip.embedding_table
        self._unit = F.normalize(self.table, dim=-1)[:-2]
        rng = np.random.default_rng([0, 0])  # as ours draws its first one
        first = torch.from_numpy(rng.integers(len(self._unit), size=(1, tokens)))
        self._prompts = self.table[first.to(self.table.device)].repeat(count, 1, 1).requires_grad_()
        self._optimiser = torch.optim.AdamW([self._prompts], lr=0.1, weight_decay=0.1)

    def nearest(self) -> torch.Tensor:
        """(B, T) ids."""
        return (F.normalize(self._prompts.detach(), dim=-1) @ self._unit.T).argmax(-1)

    def step(self, gradient: torch.Tensor) -> None:
        """One step of AdamW along the gradient of the loss at the nearest ids."""
        self._prompts.grad = gradient
        self._optimiser.step()


def papers_loop(clip: Clip, target: torch.Tensor, tokens: int, steps: int) -> float:
    """PEZ for one picture as in the paper's scripts; the best similarity."""
    pez = _Pez(clip, 1, tokens)
    padding = torch.full((1, clip.max_tokens - tokens), clip.end_id, device=clip.device)
    best = -1.0

    def similarity(ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        embeddings = torch.cat([rows, pez.table[padding]], dim=1)
        features = clip.embedded_features(torch.cat([ids, padding], dim=1), embeddings)
        return (features @ target).sum()

    for _ in range(steps):
        ids = pez.nearest()
        rows = pez.table[ids].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(1 - similarity(ids, rows), rows)
        pez.step(gradient)
        with torch.no_grad():
            best = max(best, float(similarity(ids, pez.table[ids])))
    return best


def papers_similarities(
    clip: Clip, targets: torch.Tensor, tokens: int, steps: int
) -> NDArray[np.float64]:
    """(steps, B): the best similarity that `papers_loop` has seen after each step.

    For all targets at once and without what changes nothing. Rounding differs from the loop's, so
    that long runs end near its similarities, not at them.
    """
    pez = _Pez(clip, len(targets), tokens)
    seen = []
    for _ in tqdm(range(steps), desc="the paper's loop", unit="step", disable=None, leave=False):
        ids = pez.nearest()
        rows = pez.table[ids].clone().requires_grad_()
        similarity = (clip.embedded_features(ids, rows) * targets).sum(-1)
        (gradient,) = torch.autograd.grad(-similarity.sum(), rows)
        pez.step(gradient)
        seen.append(similarity.detach().cpu().double().numpy())
    history: NDArray[np.float64] = np.maximum.accumulate(np.stack(seen))
    return history


def _note(row: dict[str, Any], *keys: str) -> None:
    """What has been measured so far, for those who wait."""
    values = (f"{row[key]:.4g}" if isinstance(row[key], float) else row[key] for key in keys)
    parts = (f"{key} {value}" for key, value in zip(keys, values, strict=True))
    print(", ".join(parts), file=sys.stderr, flush=True)


def _now(clip: Clip) -> float:
    if clip.device.type == "cuda":
        torch.cuda.synchronize(clip.device)
    return time.perf_counter()


if __name__ == "__main__":
    sys.exit(main())

"""Speed of training: our loop against CompressAI's own example loop.

    python benchmarks/training.py --maps MAPS -o out/training.json

Both train the same network (the default sketch network at lambda 0.5, or --architecture) from the
same weights on the same machine, with batches and crops of the same size, the same loss and the
same rates. Theirs is the `train_one_epoch`, the optimisers and the loader of `examples/train.py` as
it comes with compressai, with its default of 4 loader processes and with as many as ours. Ours is
what `train.py` runs. Each is a process of its own; they take turns, ``--repeat`` times, and medians
count, of the time from the end of the first steps to the end of the last.

Then both train on the same crops for ``--loss-steps`` steps, and the loss on crops held out is
compared: what was made faster must not have been made worse. And our loader runs alone: it must
give crops at twice the rate at which they are trained on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
from picsnet.checkpoints import load_weights
from picsnet.config import NTCRunConfig, load_config
from picsnet.errors import DataError, PicsnetError
from picsnet.files import atomic_write
from picsnet.training.ntc import NTCModule
from picsnet.training.run import fit

WARM = 3
"""Steps before the clock starts: loaders fill, kernels are made."""

THEIR_WORKERS = 4
"""`examples/train.py`'s default."""


def main(arguments: list[str] | None = None) -> int:
    """Measure, report; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", required=True, help="a folder of edge maps (picsnet sketch)")
    parser.add_argument("--architecture", default="picsnet-context")
    parser.add_argument(
        "--init-from",
        default="sketch_hyperprior_lambda0.5",
        help="weights that both start from; none: random ones (default: %(default)s)",
    )
    parser.add_argument("--steps", type=int, default=20, help="timed, of each loop and round")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="our loader's")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--loss-steps", type=int, default=100, help="0 leaves that part out")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", default="auto", help="ours, as trainer.precision")
    parser.add_argument("-o", "--output", default="out/training.json")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # how it calls itself
    args = parser.parse_args(arguments)
    try:
        if args.part:
            print(json.dumps(PARTS[args.part](args)))
            return 0
        result = measure(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"training.py: error: {error}", file=sys.stderr)
        return error.exit_status
    report(result)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All parts, in turn.

    Raises:
        DataError: there are too few maps, or a part failed.
    """
    split_maps(list_maps(Path(args.maps)), _held_out(args.maps), 1)
    loops = ("theirs", "theirs_our_workers", "ours")
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(args.repeat):
        for name in loops:
            rates[name].append(_run(args, name)["crops_per_second"])
            print(f"{name}: {rates[name][-1]:.1f} crops/s", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if args.accelerator == "gpu" else "cpu",
        "torch": torch.__version__,
        "architecture": args.architecture,
        "batch_size": args.batch_size,
        "workers": args.workers,
        "steps": args.steps,
        "crops_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "rounds": rates,
        "loader": _run(args, "loader")["crops_per_second"],
    }
    if args.loss_steps:
        result["loss"] = {
            "steps": args.loss_steps,
            **{name: _run(args, f"loss_{name}")["val_loss"] for name in ("theirs", "ours")},
        }
    return result


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    rates = result["crops_per_second"]
    print(
        f"{result['architecture']} on {result['device']}, {result['threads']} threads, batches of "
        f"{result['batch_size']}"
    )
    names = {
        "theirs": f"CompressAI's example loop, {THEIR_WORKERS} loader processes (its default)",
        "theirs_our_workers": f"CompressAI's example loop, {result['workers']}",
        "ours": f"train.py, {result['workers']}",
    }
    for name, text in names.items():
        print(f"{text:<64} {rates[name]:7.1f} crops/s {rates[name] / rates['theirs']:6.2f}x")
    ratio = result["loader"] / rates["ours"]
    print(
        f"{'our loader alone':<64} {result['loader']:7.1f} crops/s, {ratio:.1f} of train.py's rate"
    )
    if loss := result.get("loss"):
        print(
            f"loss on held-out crops after {loss['steps']} steps on the same crops: theirs "
            f"{loss['theirs']:.5f}, ours {loss['ours']:.5f} "
            f"({loss['ours'] / loss['theirs'] - 1:+.2%})"
        )


def _run(args: argparse.Namespace, part: str) -> dict[str, Any]:
    """A part in a process of its own."""
    command = [sys.executable, __file__, "--part", part]
    for name in ("maps", "architecture", "init_from", "steps", "batch_size", "workers"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    for name in ("loss_steps", "accelerator", "precision"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    root = Path(__file__).resolve().parent.parent
    path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    if done.returncode:
        raise DataError(f"{part}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _held_out(maps: str) -> int:
    return max(1, len(list_maps(Path(maps))) // 6)


def _config(args: argparse.Namespace, output: str, steps: int) -> NTCRunConfig:
    config = load_config(
        "sketch_ntc_lambda0.5.yaml",
        [
            f"output={output}",
            f"data.maps=[{args.maps}]",
            f"model.architecture={args.architecture}",
            f"trainer.max_steps={steps}",
            f"trainer.val_every={steps}",
            f"trainer.checkpoint_every={10 * steps}",
            f"trainer.accelerator={args.accelerator}",
            f"trainer.precision={args.precision}",
            "trainer.devices=1",
            "logging.wandb=disabled",
            "optim.lr=2e-4",
            "optim.schedule=constant",
            "optim.warmup_steps=0",
            "optim.weight_decay=0",
            "optim.clip_norm=1.0",
            "distortion_warmup=0",
        ],
    )
    assert isinstance(config, NTCRunConfig)
    return config


def _module(args: argparse.Namespace, config: NTCRunConfig) -> NTCModule:
    module = NTCModule(config)
    if args.init_from != "none":
        load_weights(module.network, args.init_from)
        module.restart_average()
    return module


def _data(args: argparse.Namespace, steps: int) -> SketchMapDataModule:
    train, val = split_maps(list_maps(Path(args.maps)), _held_out(args.maps), 1)
    settings = MapDataSettings(
        crop=256, batch_size=args.batch_size, workers=args.workers, seed=1, total_steps=steps
    )
    return SketchMapDataModule(train, val, settings)


class _Clock(Callback):
    """When the first steps ended, and the last."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, [0.0, 0.0]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        if trainer.global_step in (WARM, trainer.max_steps):
            self.times[trainer.global_step != WARM] = _now(self.device)


def time_ours(args: argparse.Namespace) -> dict[str, float]:
    """Crops a second of what train.py runs, its validation left out."""
    device = _device(args)
    clock = _Clock(device)
    with tempfile.TemporaryDirectory() as folder:
        steps = WARM + args.steps
        config = _config(args, folder, steps)
        fit(config, _module(args, config), _data(args, steps), [clock])
    return {"crops_per_second": args.steps * args.batch_size / (clock.times[1] - clock.times[0])}


def time_theirs(args: argparse.Namespace, workers: int) -> dict[str, float]:
    """Crops a second of the example's loop and loader."""
    from compressai.datasets import ImageFolder
    from torchvision import transforms

    device = _device(args)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train").mkdir()
        maps = list_maps(Path(args.maps))
        # Each map as often as it takes to make one pass of all steps: on sets that the example is
        # made for, its loader does not start anew after every few.
        for index in range(max(len(maps), (WARM + args.steps) * args.batch_size)):
            path = maps[index % len(maps)]
            (Path(folder) / "train" / f"{index:06d}{path.suffix}").symlink_to(path.resolve())
        crop = transforms.Compose(
            [
                transforms.RandomCrop((256, 256), pad_if_needed=True),
                transforms.Grayscale(),
                transforms.ToTensor(),
            ]
        )
        loader = DataLoader(
            ImageFolder(folder, split="train", transform=crop),
            batch_size=args.batch_size,
            num_workers=workers,
            shuffle=True,
            drop_last=True,
            pin_memory=args.accelerator == "gpu",
        )
        timed = _Timed(loader, WARM + args.steps, device)
        config = _config(args, folder, WARM + args.steps)
        train = _their_loop(_module(args, config).network, config, device)
        train(timed)
        torch.zeros(1, device=device).item()
    return {"crops_per_second": args.steps * args.batch_size / (timed.end - timed.start)}


class _Timed:
    """A loader's batches, epoch after epoch, for so many steps, and when these began and ended."""

    def __init__(self, loader: DataLoader[Any], steps: int, device: torch.device) -> None:
        self.loader, self.steps, self.device = loader, steps, device
        self.dataset = loader.dataset
        self.start = self.end = 0.0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        done = 0
        while done < self.steps:
            for batch in self.loader:
                # Asked for the next batch: the step before has ended.
                if done == WARM:
                    self.start = _now(self.device)
                if done == self.steps:
                    break
                yield batch
                done += 1
        self.end = _now(self.device)


def _their_loop(network: nn.Module, config: NTCRunConfig, device: torch.device) -> Any:
    """`examples/train.py`'s training of a network, as compressai's wheel has it."""
    from compressai.losses import RateDistortionLoss
    from examples.train import configure_optimizers, train_one_epoch

    class Shaped(nn.Module):
        """The network, giving what compressai's give."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> dict[str, Any]:
            output = self.network(x)
            return {"x_hat": output.x_hat.clamp(0, 1), "likelihoods": output.likelihoods}

        def aux_loss(self) -> Tensor:
            loss: Tensor = self.network.aux_loss()  # type: ignore[operator]
            return loss

    class Loss(RateDistortionLoss):  # type: ignore[misc]
        """Its own, with the name that the example prints."""

        def forward(self, output: Any, target: Tensor) -> Any:
            result = super().forward(output, target)
            return {**result, "mse_loss": 1 - result["ms_ssim_loss"]}

    model = Shaped().to(device).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    rates = argparse.Namespace(learning_rate=config.optim.lr, aux_learning_rate=config.optim.aux_lr)
    optimizer, aux_optimizer = configure_optimizers(model, rates)
    criterion = Loss(lmbda=config.lmbda, metric="ms-ssim")

    def train(batches: Any) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            train_one_epoch(
                model, criterion, batches, optimizer, aux_optimizer, 0, config.optim.clip_norm
            )

    return train


def time_loader(args: argparse.Namespace) -> dict[str, float]:
    """Crops a second of our loader alone, after its first pass over the maps."""
    passes = 2 + len(list_maps(Path(args.maps))) // args.batch_size
    steps = max(passes, 2 * args.steps)
    start = 0.0
    for step, _ in enumerate(_data(args, 2 * steps).train_dataloader()):
        if step == steps:
            start = time.perf_counter()
    return {"crops_per_second": (steps - 1) * args.batch_size / (time.perf_counter() - start)}


def loss_of_ours(args: argparse.Namespace) -> dict[str, float]:
    """Held-out loss of our loop's weights (not their average, which the example has none of)."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(args, folder, args.loss_steps)
        module, data = _module(args, config), _data(args, args.loss_steps)
        fit(config, module, data)
        return {"val_loss": _held_out_loss(module, module.network, data)}


def loss_of_theirs(args: argparse.Namespace) -> dict[str, float]:
    """Held-out loss after the example's loop saw our crops, and drew our noise."""
    with tempfile.TemporaryDirectory() as folder:
        config = _config(args, folder, args.loss_steps)
        module, data = _module(args, config), _data(args, args.loss_steps)
        train = _their_loop(module.network, config, _device(args))
        train(_Seeded(data.train_dataloader(), module))
        return {"val_loss": _held_out_loss(module, module.network, data)}


class _Seeded:
    """Batches, each after the seed that ours has for it."""

    def __init__(self, loader: DataLoader[Any], module: NTCModule) -> None:
        self.loader, self.module, self.dataset = loader, module, range(len(loader))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.loader:
            self.module.on_train_batch_start(batch, self.module.batches_seen)
            self.module.batches_seen += 1
            yield batch


@torch.no_grad()
def _held_out_loss(module: NTCModule, network: nn.Module, data: SketchMapDataModule) -> float:
    network.eval()
    device = next(network.parameters()).device
    losses, counts = [], []
    for batch in data.val_dataloader():
        x = batch.to(device)
        losses.append(module.criterion(network(x), x).loss.item())
        counts.append(len(x))
    total: float = sum(a * b for a, b in zip(losses, counts, strict=True))
    return total / sum(counts)


def _device(args: argparse.Namespace) -> torch.device:
    return torch.device("cuda" if args.accelerator == "gpu" else "cpu")


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


PARTS = {
    "theirs": lambda args: time_theirs(args, THEIR_WORKERS),
    "theirs_our_workers": lambda args: time_theirs(args, args.workers),
    "ours": time_ours,
    "loader": time_loader,
    "loss_theirs": loss_of_theirs,
    "loss_ours": loss_of_ours,
}


if __name__ == "__main__":
    sys.exit(main())

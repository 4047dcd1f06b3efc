#!/usr/bin/env python3
"""Train what picsnet trains: ``python train.py --config NAME [key=value ...]``."""

from __future__ import annotations

import argparse
import sys

from picsnet.config import EdgeRunConfig, NTCRunConfig, load_config
from picsnet.errors import PicsnetError


def main(arguments: list[str] | None = None) -> int:
    """Parse, load the configuration, train; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: train.py --config sketch_ntc_lambda0.5.yaml 'data.photos=[photos/]'",
    )
    parser.add_argument("--config", required=True, help="a YAML file, or its name under configs/")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optim.lr=1e-4")
    args = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(args.config, args.overrides)
        # Heavy imports come after the configuration was found good.
        if isinstance(config, EdgeRunConfig):
            train_edge(config)
        elif isinstance(config, NTCRunConfig):
            train_ntc(config)
    except PicsnetError as error:
        if args.debug:
            raise
        print(f"picsnet: error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def train_edge(config: EdgeRunConfig) -> None:
    """Train the bundled edge detector on BSDS500."""
    from pathlib import Path

    from datamodules.bsds import BsdsDataModule, EdgeAugmentation
    from picsnet.training.edge import EdgeModule
    from picsnet.training.run import fit

    data = config.data
    datamodule = BsdsDataModule(
        root=Path(data.root),
        splits=data.splits,
        val_split=data.val_split,
        val_count=data.val_count,
        augmentation=EdgeAugmentation(
            crop=data.crop,
            scale_min=data.scale_min,
            scale_max=data.scale_max,
            rotate_probability=data.rotate_probability,
            jitter=data.jitter,
            consensus=data.consensus,
        ),
        batch_size=data.batch_size,
        workers=data.workers,
        seed=config.seed,
        total_steps=config.trainer.max_steps,
    )
    last = fit(config, EdgeModule(config), datamodule)
    print(f"trained: {last}")


def train_ntc(config: NTCRunConfig) -> None:
    """Train a sketch NTC at one lambda, on maps of photographs or on maps as they are."""
    from pathlib import Path

    from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
    from picsnet.checkpoints import load_weights
    from picsnet.sketch import extract_folder
    from picsnet.training.callbacks import MapPanel, RateDistortionPoints, Throughput
    from picsnet.training.ntc import NTCModule
    from picsnet.training.run import fit, resume_point, run_folder

    data = config.data
    module = NTCModule(config)
    if config.init_from and resume_point(config) is None:
        load_weights(module.network, config.init_from)
        if config.init_gain != 1:
            module.scale_latents(config.init_gain)
        module.restart_average()
    maps = [path for folder in data.maps for path in list_maps(Path(folder))]
    for folder in data.photos:
        report = extract_folder(
            Path(folder),
            data.sketcher,
            Path(data.cache),
            workers=data.extract_workers,
            progress=True,
            max_side=data.max_side,
        )
        maps += report.maps
    train_maps, val_maps = split_maps(maps, data.val_count, config.seed)
    datamodule = SketchMapDataModule(
        train_maps,
        val_maps,
        MapDataSettings(
            crop=data.crop,
            batch_size=data.batch_size,
            workers=data.workers,
            seed=config.seed,
            total_steps=config.trainer.max_steps,
            empty_probability=data.empty_probability,
            scale_min=data.scale_min,
            scale_max=data.scale_max,
        ),
    )
    callbacks = [Throughput(data.batch_size), MapPanel(run_folder(config)), RateDistortionPoints()]
    last = fit(config, module, datamodule, callbacks)
    print(f"trained: {last}")


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Train what picsnet trains: ``python train.py --config NAME [key=value ...]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picsnet.config import (
    CLIPRunConfig,
    DiffusionRunConfig,
    EdgeRunConfig,
    HificRunConfig,
    NTCRunConfig,
    PhotoNTCRunConfig,
    VAERunConfig,
    load_config,
)
from picsnet.ending import ended
from picsnet.errors import DataError, FingerprintError, PicsnetError
from picsnet.terminal import escape_what_cannot_be_written

if TYPE_CHECKING:
    import numpy as np
    from lightning import LightningDataModule
    from numpy.typing import NDArray

    from datamodules.photos import PhotoDataModule

ENCODER_PHOTOS = 300
"""That the mini autoencoder's linear part is fitted to; more change nothing."""


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
        elif isinstance(config, PhotoNTCRunConfig):  # HiFiC's too
            train_photo_ntc(config)
        elif isinstance(config, VAERunConfig):
            train_vae(config)
        elif isinstance(config, CLIPRunConfig):
            train_clip(config)
        elif isinstance(config, DiffusionRunConfig):
            train_diffusion(config)
    except (PicsnetError, KeyboardInterrupt) as error:
        return ended(error, args.debug)
    return 0


def train_edge(config: EdgeRunConfig) -> None:
    """Train the bundled edge detector on BSDS500."""

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
    fit(config, EdgeModule(config), datamodule)


def train_ntc(config: NTCRunConfig) -> None:
    """Train a sketch NTC, on maps of photographs, on maps as they are, or on shards of maps."""

    from picsnet.shards import sketcher_of
    from picsnet.training.callbacks import MapPanel, RateDistortionPoints, Throughput
    from picsnet.training.ntc import NTCModule, RangeNTCModule
    from picsnet.training.run import fit, run_folder

    data = config.data
    if data.shards:  # whoever made them chose the sketcher; the model's card names it
        data.sketcher = sketcher_of(data.shards)
    module = RangeNTCModule(config) if config.lmbdas else NTCModule(config)
    callbacks = [Throughput(data.batch_size), MapPanel(run_folder(config)), RateDistortionPoints()]
    fit(config, module, _maps(config), callbacks)


def _maps(config: NTCRunConfig) -> LightningDataModule:
    from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
    from datamodules.shards import ShardMapDataModule, ShardSettings, list_shards, split_shards
    from picsnet.sketch import extract_folder

    data = config.data
    settings = MapDataSettings(
        crop=data.crop,
        batch_size=data.batch_size,
        workers=data.workers,
        seed=config.seed,
        total_steps=config.trainer.max_steps,
        empty_probability=data.empty_probability,
        stroke_probability=data.stroke_probability,
        scale_min=data.scale_min,
        scale_max=data.scale_max,
    )
    if data.shards:
        split = split_shards(list_shards(data.shards), data.val_count, config.seed)
        cache_bytes = int(data.shards_cache_gb * 2**30)
        shards = ShardSettings(Path(data.shards_cache), cache_bytes, data.shards_window)
        return ShardMapDataModule(split, settings, shards)
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
    return SketchMapDataModule(train_maps, val_maps, settings)


def train_photo_ntc(config: PhotoNTCRunConfig) -> None:
    """Train a baseline on packed photographs: a network of CompressAI's zoo, or HiFiC."""
    from picsnet.training.callbacks import MapPanel, RateDistortionPoints, Throughput
    from picsnet.training.hific import HificModule
    from picsnet.training.photo import PhotoNTCModule
    from picsnet.training.run import fit, run_folder

    module = HificModule(config) if isinstance(config, HificRunConfig) else PhotoNTCModule(config)
    panel = MapPanel(run_folder(config))
    callbacks = [Throughput(config.data.batch_size), panel, RateDistortionPoints()]
    fit(config, module, _photos(config), callbacks)


def train_vae(config: VAERunConfig) -> None:
    """Train the mini decoder's autoencoder on packed photographs."""
    from datamodules.pack import decode
    from picsnet.mini.blocks import fit_encoder
    from picsnet.training.callbacks import MapPanel, Throughput
    from picsnet.training.run import fit, run_folder
    from picsnet.training.vae import VAEModule

    datamodule = _photos(config)
    # From the same photographs each time, so a resumed run has the same encoder.
    photos = (decode(photo) for photo in datamodule.train_photos[:ENCODER_PHOTOS])
    encoder = fit_encoder(photos, config.model.encoder_width, config.model.latent_channels)
    callbacks = [Throughput(config.data.batch_size), MapPanel(run_folder(config))]
    fit(config, VAEModule(config, encoder), datamodule, callbacks)


def train_clip(config: CLIPRunConfig) -> None:
    """Train the mini decoder's CLIP on packed photographs and their palette captions."""
    from picsnet.mini.captions import PaletteCaptioner, save_tokenizer
    from picsnet.training.callbacks import Throughput
    from picsnet.training.clip import CLIPModule
    from picsnet.training.run import fit, make_run_folder

    captioner = PaletteCaptioner(save_tokenizer(make_run_folder(config) / "tokenizer"))
    module = CLIPModule(config, captioner.vocabulary_size)
    datamodule = _photos(config, captioner)
    fit(config, module, datamodule, [Throughput(config.data.batch_size)])


def train_diffusion(config: DiffusionRunConfig) -> None:
    """Train the mini decoder's U-Net and ControlNet on photographs, captions and sketches."""
    from picsnet.bitstream import read
    from picsnet.codec import SketchCodecs
    from picsnet.mini.captions import PaletteCaptioner
    from picsnet.training.callbacks import MapPanel, Throughput
    from picsnet.training.diffusion import DiffusionModule
    from picsnet.training.run import fit, run_folder

    codecs = SketchCodecs(None, "cpu")

    def decode_sketch(data: bytes) -> NDArray[np.uint8]:
        file = read(data, name=config.data.pack)
        if file.sketch is None:
            raise DataError(f"{config.data.pack}: a file without a sketch; make it: python pack.py")
        try:
            codec = codecs.get(file.sketch.fingerprint, config.data.pack)
        except FingerprintError:
            raise DataError(
                f"{config.data.pack}: holds sketches of a network that ships no more; make it "
                "again: python pack.py"
            ) from None
        return codec.decode_file(file)

    captioner = PaletteCaptioner(Path(config.clip) / "tokenizer")
    module = DiffusionModule(config, captioner.ids(""))
    datamodule = _photos(config, captioner, decode_sketch)
    callbacks = [Throughput(config.data.batch_size), MapPanel(run_folder(config))]
    fit(config, module, datamodule, callbacks)


def _photos(
    config: PhotoNTCRunConfig | VAERunConfig | CLIPRunConfig | DiffusionRunConfig,
    caption: Any = None,
    decode_sketch: Any = None,
) -> PhotoDataModule:
    from datamodules.photos import PhotoDataModule, PhotoDataSettings

    data = config.data
    settings = PhotoDataSettings(
        crop=data.crop,
        batch_size=data.batch_size,
        workers=data.workers,
        seed=config.seed,
        total_steps=config.trainer.max_steps,
        jitter=data.jitter,
        pool=data.pool,
    )
    return PhotoDataModule(Path(data.pack), data.val_count, settings, caption, decode_sketch)


if __name__ == "__main__":
    escape_what_cannot_be_written()
    sys.exit(main())

"""Sketch maps as training data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.sampling import PositionSampler, epoch_permutation_index, position_seed
from picsnet.errors import DataError, ImageError
from picsnet.files import IMAGE_SUFFIXES, expand_inputs
from picsnet.images import load_grey

Map = NDArray[np.uint8]


@dataclass(frozen=True)
class MapDataSettings:
    """How maps become crops.

    Attributes:
        crop: side of the square crops, pixels.
        batch_size: crops a step and process.
        workers: loader processes.
        seed: of order and augmentation.
        total_steps: length of the run.
        empty_probability: share of crops that are all black, so that empty maps stay cheap.
        scale_min, scale_max: maps are downscaled by a factor from this range before the crop.
        cache_bytes: decoded maps are kept in memory up to this much, in each process.
    """

    crop: int
    batch_size: int
    workers: int
    seed: int
    total_steps: int
    empty_probability: float = 0.02
    scale_min: float = 0.5
    scale_max: float = 1.0
    cache_bytes: int = 2 * 2**30


def list_maps(folder: Path) -> list[Path]:
    """Maps in a folder and below.

    Raises:
        DataError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of maps; check data.maps")
    return [item.path for item in expand_inputs([folder], IMAGE_SUFFIXES)]


def split_maps(
    maps: Sequence[Path], val_count: int, seed: int
) -> tuple[list[Path], list[Path]]:
    """(training, validation): a fixed draw of ``val_count`` maps is held out.

    Raises:
        DataError: there are too few maps for that.
    """
    if len(maps) <= val_count:
        raise DataError(
            f"{len(maps)} maps cannot spare {val_count} for validation; "
            "give more pictures or lower data.val_count"
        )
    order = np.random.default_rng(seed).permutation(len(maps))
    held_out = set(order[:val_count].tolist())
    train = [path for index, path in enumerate(maps) if index not in held_out]
    return train, [maps[index] for index in sorted(held_out)]


class _MapCache:
    """Decoded maps, kept up to a limit."""

    def __init__(self, paths: Sequence[Path], limit: int) -> None:
        self.paths, self.limit = list(paths), limit
        self._kept: dict[int, Map] = {}
        self._bytes = 0

    def __getitem__(self, index: int) -> Map:
        if index not in self._kept:
            try:
                pixels = load_grey(self.paths[index])
            except ImageError as error:
                raise DataError(f"{error}; delete the map and start again") from None
            if self._bytes + pixels.nbytes > self.limit:
                return pixels
            self._kept[index] = pixels
            self._bytes += pixels.nbytes
        return self._kept[index]


class SketchMapDataset(Dataset[Tensor]):
    """Position -> random crop (1, crop, crop) in 0..1; the same position, the same crop."""

    def __init__(self, paths: Sequence[Path], settings: MapDataSettings) -> None:
        self.settings = settings
        self.count = len(paths)
        self._maps = _MapCache(paths, settings.cache_bytes)

    def __getitem__(self, position: int) -> Tensor:
        s = self.settings
        rng = np.random.default_rng(position_seed(s.seed, position))
        if rng.random() < s.empty_probability:
            return torch.zeros(1, s.crop, s.crop)
        pixels = self._maps[epoch_permutation_index(s.seed, position, self.count)]
        scale = math.exp(rng.uniform(math.log(s.scale_min), math.log(s.scale_max)))
        crop = random_crop(pixels, s.crop, scale, rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.5:
            crop = crop[::-1]
        return torch.from_numpy(np.ascontiguousarray(crop)).float().div(255)[None]


def random_crop(pixels: Map, side: int, scale: float, rng: np.random.Generator) -> Map:
    """A crop of a map downscaled by ``scale``; black where the map ends.

    Only the part of the map that the crop shows is scaled.
    """
    height, width = pixels.shape
    reach = min(round(side / scale), max(height, width))
    scaled = round(reach * scale) if reach < side / scale else side
    top = int(rng.integers(0, max(0, height - reach) + 1))
    left = int(rng.integers(0, max(0, width - reach) + 1))
    part = pixels[top : top + reach, left : left + reach]
    if scale < 1:
        factor = scaled / reach
        size = (max(1, round(part.shape[1] * factor)), max(1, round(part.shape[0] * factor)))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return centre_crop(part, side)


def centre_crop(pixels: Map, side: int) -> Map:
    """The middle of a map, with black around it where it is smaller."""
    height, width = pixels.shape
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    part = pixels[top : top + side, left : left + side]
    if part.shape == (side, side):
        return part
    result = np.zeros((side, side), dtype=np.uint8)
    result[: part.shape[0], : part.shape[1]] = part
    return result


class FixedCropDataset(Dataset[Tensor]):
    """Centre crops (1, crop, crop) in 0..1, for validation."""

    def __init__(self, paths: Sequence[Path], crop: int) -> None:
        self.crop = crop
        self._maps = _MapCache(paths, 2**30)

    def __len__(self) -> int:
        return len(self._maps.paths)

    def __getitem__(self, index: int) -> Tensor:
        pixels = centre_crop(self._maps[index], self.crop)
        return torch.from_numpy(pixels.copy()).float().div(255)[None]


class SketchMapDataModule(L.LightningDataModule):
    """Random crops for training, fixed ones for validation.

    Args:
        train_maps: 8-bit grey pictures.
        val_maps: others.
        settings: crops, batches, augmentation.
    """

    def __init__(
        self, train_maps: Sequence[Path], val_maps: Sequence[Path], settings: MapDataSettings
    ) -> None:
        super().__init__()
        if not train_maps or not val_maps:
            raise DataError("no maps to train or validate on; give data.photos or data.maps")
        self.train_maps, self.val_maps, self.settings = train_maps, val_maps, settings

    def train_dataloader(self) -> DataLoader[Tensor]:
        trainer = self.trainer
        assert trainer is not None
        sampler = PositionSampler(
            batch_size=self.settings.batch_size,
            total_steps=self.settings.total_steps,
            start_step=int(getattr(trainer.lightning_module, "batches_seen", 0)),
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return DataLoader(
            SketchMapDataset(self.train_maps, self.settings),
            batch_size=self.settings.batch_size,
            sampler=sampler,
            num_workers=self.settings.workers,
            persistent_workers=self.settings.workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Tensor]:
        # Each process validates on all of it: the set is small, and the figures are then those of
        # one process.
        return DataLoader(FixedCropDataset(self.val_maps, self.settings.crop), batch_size=8)

"""Sketch maps as training data."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import training_loader
from datamodules.sampling import epoch_permutation_index, position_seed
from datamodules.strokes import lone_strokes
from picsnet.errors import DataError, ImageError
from picsnet.files import IMAGE_SUFFIXES, expand_inputs
from picsnet.images import load_grey
from picsnet.shards import is_grey_png

Map = NDArray[np.uint8]
T = TypeVar("T")


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
        stroke_probability: share of crops that are black but for a stroke or two
            (`datamodules.strokes`).
        scale_min, scale_max: maps are downscaled by a factor from this range, 0 < factor <= 1,
            before the crop; less where the map would become smaller than the crop.
        val_batch_size: crops a validation batch.
        cache_bytes: decoded maps are kept in memory up to this much, in all workers together.
    """

    crop: int
    batch_size: int
    workers: int
    seed: int
    total_steps: int
    empty_probability: float = 0.02
    stroke_probability: float = 0.0
    scale_min: float = 0.5
    scale_max: float = 1.0
    val_batch_size: int = 8
    cache_bytes: int = 2 * 2**30


def list_maps(folder: Path) -> list[Path]:
    """Maps in a folder and below, in a fixed order.

    Raises:
        DataError: there is no such folder, or nothing in it.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: no such folder of maps; check data.maps")
    return [item.path for item in expand_inputs([folder], IMAGE_SUFFIXES)]


def split_maps(maps: Sequence[Path], val_count: int, seed: int) -> tuple[list[Path], list[Path]]:
    """(training, validation), each sorted: a fixed draw of ``val_count`` maps is held out.

    It depends on which maps there are, not on their order; a map named twice counts once.

    Raises:
        DataError: there are too few maps for that.
    """
    ordered = sorted(set(maps))
    held_out = set(held_out_indices(len(ordered), val_count, seed).tolist())
    train = [path for index, path in enumerate(ordered) if index not in held_out]
    return train, [ordered[index] for index in sorted(held_out)]


def held_out_indices(count: int, val_count: int, seed: int) -> NDArray[np.int64]:
    """Which ``val_count`` of ``count`` maps are held out for validation, in rising order.

    Raises:
        DataError: there are too few maps for that.
    """
    if count <= val_count:
        raise DataError(
            f"{count} maps cannot spare {val_count} for validation; "
            "give more pictures or lower data.val_count"
        )
    # As everywhere: numpy takes no seeds below zero.
    return np.sort(np.random.default_rng(seed % 2**32).permutation(count)[:val_count])


def load_map(path: Path) -> Map:
    """A map from its file, as `picsnet.images.load_grey` reads it.

    Raises:
        DataError: it cannot be read.
    """
    try:
        data = path.read_bytes()
        pixels = decode_grey_png(data) if is_grey_png(data) else None
        return load_grey(path) if pixels is None else pixels
    except ImageError as error:
        raise DataError(f"broken map: {error}") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); check the path and permissions"
        ) from None


def decode_grey_png(data: bytes) -> Map | None:
    """Pixels of a file for which `picsnet.shards.is_grey_png` is true; None if they are damaged."""
    # A fifth faster than Pillow; what it would print about damage, the checksums have found.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return None if pixels is None else np.asarray(pixels, dtype=np.uint8)


class MapCache:
    """Decoded maps, kept up to a limit of bytes: decoding costs more than cropping."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: dict[int, Map] = {}
        self._bytes = 0

    def get(self, key: int, load: Callable[[], Map]) -> Map:
        """The map of a key, from memory or loaded."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        pixels = load()
        if self._bytes + pixels.nbytes <= self.limit:
            self._kept[key] = pixels
            self._bytes += pixels.nbytes
        return pixels


class RandomCrops(Dataset[Tensor], ABC):
    """Position -> random crop (1, crop, crop), float32 in 0..1; the same position, the same crop.

    Raises:
        DataError: the map at a position cannot be read.
    """

    def __init__(self, settings: MapDataSettings) -> None:
        self.settings = settings
        # Each worker gets its copy of this object and fills its own cache.
        self.cache = MapCache(settings.cache_bytes // max(1, settings.workers))

    @abstractmethod
    def map_at(self, position: int) -> Map:
        """The map that is due at a position.

        Raises:
            DataError: it cannot be read.
        """

    def __getitem__(self, position: int) -> Tensor:
        s = self.settings
        rng = np.random.default_rng(position_seed(s.seed, position))
        kind = rng.random()
        if kind < s.empty_probability:
            return torch.zeros(1, s.crop, s.crop)
        if kind < s.empty_probability + s.stroke_probability:
            return _to_tensor(lone_strokes(s.crop, rng))
        pixels = self.map_at(position)
        scale = math.exp(rng.uniform(math.log(s.scale_min), math.log(s.scale_max)))
        crop = random_crop(pixels, s.crop, scale, rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if rng.random() < 0.5:
            crop = crop[::-1]
        return _to_tensor(crop)


class SketchMapDataset(RandomCrops):
    """Crops of maps that are files of their own, all of them shuffled together."""

    def __init__(self, paths: Sequence[Path], settings: MapDataSettings) -> None:
        super().__init__(settings)
        self.paths = list(paths)

    def map_at(self, position: int) -> Map:
        index = epoch_permutation_index(self.settings.seed, position, len(self.paths))
        return self.cache.get(index, lambda: load_map(self.paths[index]))


def random_crop(pixels: Map, side: int, scale: float, rng: np.random.Generator) -> Map:
    """A (side, side) crop of a map downscaled by ``scale``, at a random place.

    A map is downscaled no further than to the crop's side, and has black to its right and below it
    where it is smaller. Only the part that the crop shows is scaled, by area averages.
    """
    height, width = pixels.shape
    reach = max(side, min(round(side / scale), height, width))
    top = int(rng.integers(0, max(0, height - reach) + 1))
    left = int(rng.integers(0, max(0, width - reach) + 1))
    part = pixels[top : top + reach, left : left + reach]
    if reach > side:
        part = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return _filled(part, side)


def centre_crop(pixels: Map, side: int) -> Map:
    """The middle (side, side) of a map, black to the right and below where it is smaller."""
    height, width = pixels.shape
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return _filled(pixels[top : top + side, left : left + side], side)


def _filled(pixels: Map, side: int) -> Map:
    # Right and below is where the codec pads, too.
    height, width = pixels.shape
    if (height, width) == (side, side):
        return pixels
    return np.pad(pixels, ((0, side - height), (0, side - width)))


def _to_tensor(pixels: Map) -> Tensor:
    return torch.from_numpy(pixels.copy()).float().div(255)[None]


class FixedCropDataset(Dataset[Tensor]):
    """Centre crops (1, crop, crop), float32 in 0..1, for validation.

    Args:
        maps: what names a map.
        crop: side, pixels.
        load: from that to the map.

    Raises:
        DataError: a map cannot be read.
    """

    def __init__(
        self,
        maps: Sequence[T],
        crop: int,
        load: Callable[[T], Map] = load_map,  # type: ignore[assignment]
    ) -> None:
        self.maps, self.crop, self.load = list(maps), crop, load
        self._crops: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._crops:
            pixels = self.load(self.maps[index])
            self._crops[index] = _to_tensor(centre_crop(pixels, self.crop))
        return self._crops[index]


def crops_loader(module: L.LightningDataModule, crops: RandomCrops) -> DataLoader[Tensor]:
    """Batches of a run, as `training_loader` gives them.

    Args:
        module: the data module, attached to a trainer or not.
        crops: by position.
    """
    s = crops.settings
    return training_loader(
        module,
        crops,
        batch_size=s.batch_size,
        total_steps=s.total_steps,
        workers=s.workers,
        seed=s.seed,
    )


class SketchMapDataModule(L.LightningDataModule):
    """Random crops for training, fixed ones for validation.

    Training goes on at the step that the attached LightningModule's ``batches_seen`` names, so that
    a resumed run sees the batches that it would have seen.

    Args:
        train_maps: 8-bit grey pictures.
        val_maps: others.
        settings: crops, batches, augmentation.

    Raises:
        DataError: one of the two is empty.
    """

    def __init__(
        self, train_maps: Sequence[Path], val_maps: Sequence[Path], settings: MapDataSettings
    ) -> None:
        super().__init__()
        if not train_maps or not val_maps:
            raise DataError("no maps to train or validate on; give data.photos or data.maps")
        self.train_maps, self.val_maps, self.settings = train_maps, val_maps, settings

    def train_dataloader(self) -> DataLoader[Tensor]:
        return crops_loader(self, SketchMapDataset(self.train_maps, self.settings))

    def val_dataloader(self) -> DataLoader[Tensor]:
        # Each process validates on all of it: the set is small, and the figures are then those of
        # one process.
        return DataLoader(
            FixedCropDataset(self.val_maps, self.settings.crop),
            batch_size=self.settings.val_batch_size,
        )

"""Crops of packed photographs as training data, with captions and decoded sketches where wanted.

A sample is a dictionary: ``photo`` (3, S, S) uint8; ``ids`` (77,) int64, the caption's tokens; and
``sketch`` (1, S, S) uint8, the same window of a map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from datamodules.loading import start_worker, training_loader
from datamodules.pack import Pack, decode, read_pack
from datamodules.sampling import epoch_permutation_index, position_seed
from picsnet.errors import DataError

Pixels = NDArray[np.uint8]
Sample = dict[str, Tensor]
Captioner = Callable[[Pixels], Sequence[int]]
"""(S, S, 3) uint8 to the token ids of a caption, padded to one length."""
Maps = Sequence[Sequence[Pixels]]
"""For each photograph its maps, (H, W) uint8 of the photograph's size."""


@dataclass(frozen=True)
class PhotoDataSettings:
    """How photographs become crops.

    Attributes:
        crop: side of the square crops, pixels.
        batch_size: crops a step and process.
        workers: loader processes.
        seed: of order and augmentation.
        total_steps: length of the run.
        jitter: of brightness, contrast and colour, as a share.
        val_batch_size: crops a validation batch.
        pool: samples that are made once, before training, and then taken in ever new orders; 0
            makes a fresh one each time. For small models, for which a caption costs as much as a
            step.
    """

    crop: int
    batch_size: int
    workers: int
    seed: int
    total_steps: int
    jitter: float = 0.1
    val_batch_size: int = 8
    pool: int = 0


class PhotoDataset(Dataset[Sample]):
    """Position -> sample with a random crop; the same position, the same sample.

    Args:
        photos: JPEG data.
        settings: crops and augmentation.
        caption: of a crop as it is shown, so that colours that were changed are named as they are.
        maps: of the photographs; one of each is drawn by chance.
    """

    def __init__(
        self,
        photos: Sequence[bytes],
        settings: PhotoDataSettings,
        caption: Captioner | None = None,
        maps: Maps | None = None,
    ) -> None:
        self.photos, self.settings = photos, settings
        self.caption, self.maps = caption, maps

    def __getitem__(self, position: int) -> Sample:
        s = self.settings
        rng = np.random.default_rng(position_seed(s.seed, position))
        index = epoch_permutation_index(s.seed, position, len(self.photos))
        photo = decode(self.photos[index])
        window = random_window(photo.shape[0], photo.shape[1], s.crop, rng)
        crop = jittered(window.cut(photo, s.crop), s.jitter, rng)
        sketch = None
        if self.maps is not None:
            some = self.maps[index]
            sketch = window.cut(some[int(rng.integers(len(some)))], s.crop)
        return _sample(crop, sketch, self.caption)


class SamplePool(Dataset[Sample]):
    """The first so many samples of a dataset, kept in memory; positions beyond take them again.

    Args:
        samples: position -> sample.
        size: how many are kept.
        seed: of the orders in which they come.
        workers: processes that make them.
    """

    def __init__(self, samples: Dataset[Sample], size: int, seed: int, workers: int) -> None:
        loader: DataLoader[Sample] = DataLoader(
            samples,
            batch_size=64,
            sampler=range(size),
            num_workers=workers,
            worker_init_fn=start_worker,
        )
        self._kept: Sample = {}
        done = 0
        with tqdm(total=size, desc="making samples", disable=None) as bar:
            for batch in loader:
                count = len(next(iter(batch.values())))
                for key, values in batch.items():
                    # Room for all at once: twice of it would be too much.
                    kept = self._kept.setdefault(key, values.new_empty((size, *values.shape[1:])))
                    kept[done : done + count] = values
                done += count
                bar.update(count)
        self._size, self._seed = size, seed

    def __getitem__(self, position: int) -> Sample:
        index = epoch_permutation_index(self._seed, position, self._size)
        return {key: values[index] for key, values in self._kept.items()}


@dataclass(frozen=True)
class Window:
    """A square part of a picture, mirrored or not."""

    top: int
    left: int
    side: int
    mirrored: bool = False

    def cut(self, picture: Pixels, side: int) -> Pixels:
        """That part, scaled to (side, side) or (side, side, 3)."""
        rows = slice(self.top, self.top + self.side)
        part = _scaled(picture[rows, self.left : self.left + self.side], side)
        return part[:, ::-1] if self.mirrored else part


def random_window(height: int, width: int, side: int, rng: np.random.Generator) -> Window:
    """A window at a random place and scale, from ``side`` pixels to all that the picture has."""
    least = min(side, height, width)
    reach = round(math.exp(rng.uniform(math.log(least), math.log(min(height, width)))))
    top = int(rng.integers(0, height - reach + 1))
    left = int(rng.integers(0, width - reach + 1))
    return Window(top, left, reach, bool(rng.random() < 0.5))


def centre_window(height: int, width: int) -> Window:
    """The middle of a picture, all of its shorter side."""
    reach = min(height, width)
    return Window((height - reach) // 2, (width - reach) // 2, reach)


def jittered(crop: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Brightness, contrast and the balance of the channels, each changed by up to ``strength``."""
    if strength == 0:
        return crop
    gains = 1 + rng.uniform(-strength, strength) + rng.uniform(-strength, strength, 3) / 2
    shift = rng.uniform(-strength, strength) * 128
    mean = crop.mean()
    values = (crop - mean) * gains * (1 + rng.uniform(-strength, strength)) + mean + shift
    result: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


def _scaled(part: Pixels, side: int) -> Pixels:
    if part.shape[0] == side:
        return part
    way = cv2.INTER_AREA if part.shape[0] > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(part, (side, side), interpolation=way), dtype=np.uint8)


def _sample(crop: Pixels, sketch: Pixels | None, caption: Captioner | None) -> Sample:
    sample = {"photo": torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)}
    if caption is not None:
        sample["ids"] = torch.tensor(caption(crop))
    if sketch is not None:
        sample["sketch"] = torch.from_numpy(np.ascontiguousarray(sketch))[None]
    return sample


class FixedPhotoDataset(Dataset[Sample]):
    """Samples of centre squares, for validation; maps are taken in turn."""

    def __init__(
        self,
        photos: Sequence[bytes],
        crop: int,
        caption: Captioner | None = None,
        maps: Maps | None = None,
    ) -> None:
        self.photos, self.crop, self.caption, self.maps = photos, crop, caption, maps

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        photo = decode(self.photos[index])
        window = centre_window(*photo.shape[:2])
        sketch = None
        if self.maps is not None:
            some = self.maps[index]
            sketch = window.cut(some[index % len(some)], self.crop)
        return _sample(window.cut(photo, self.crop), sketch, self.caption)


def _decoded(path: Path, pack: Pack, decode_sketch: Callable[[bytes], Pixels]) -> Maps:
    """All maps of a pack; 0.1 MB each."""
    if not pack.sketches[0]:
        raise DataError(f"{path}: holds no sketches; make it again, with models: python pack.py")
    bar = tqdm(pack.sketches, "decoding sketches", disable=None)
    return [[decode_sketch(data) for data in some] for some in bar]


class PhotoDataModule(L.LightningDataModule):
    """Random crops for training, fixed ones of every so many photographs for validation.

    Training goes on at the step that the attached LightningModule's ``batches_seen`` names.

    Args:
        pack: as `datamodules.pack` writes it.
        val_count: photographs held out.
        settings: crops, batches, augmentation.
        caption: makes the samples' ``ids``.
        decode_sketch: decodes the pack's sketches for the samples' ``sketch``; None leaves them.

    Raises:
        DataError: the pack cannot be used.
    """

    def __init__(
        self,
        pack: Path,
        val_count: int,
        settings: PhotoDataSettings,
        caption: Captioner | None = None,
        decode_sketch: Callable[[bytes], Pixels] | None = None,
    ) -> None:
        super().__init__()
        packed = read_pack(pack)
        photos = packed.photos
        if len(photos) <= val_count:
            raise DataError(
                f"{pack}: {len(photos)} photographs cannot spare {val_count} for validation; "
                "pack more, or lower data.val_count"
            )
        held_out = np.linspace(0, len(photos) - 1, val_count).round().astype(int).tolist()
        kept = [i for i in range(len(photos)) if i not in set(held_out)]
        self.val_photos = [photos[i] for i in held_out]
        self.train_photos = [photos[i] for i in kept]
        maps = None if decode_sketch is None else _decoded(pack, packed, decode_sketch)
        self.val_maps = None if maps is None else [maps[i] for i in held_out]
        self.train_maps = None if maps is None else [maps[i] for i in kept]
        self.caption = caption
        self.settings = settings

    def train_dataloader(self) -> DataLoader[Sample]:
        s = self.settings
        samples: Dataset[Sample] = PhotoDataset(self.train_photos, s, self.caption, self.train_maps)
        if s.pool:
            samples = SamplePool(samples, s.pool, s.seed, s.workers)
        return training_loader(
            self,
            samples,
            batch_size=s.batch_size,
            total_steps=s.total_steps,
            workers=0 if s.pool else s.workers,
            seed=s.seed,
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(
            FixedPhotoDataset(self.val_photos, self.settings.crop, self.caption, self.val_maps),
            batch_size=self.settings.val_batch_size,
        )

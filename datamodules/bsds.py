"""BSDS500's boundaries as training data for an edge detector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading import training_loader
from datamodules.sampling import epoch_permutation_index, position_seed
from picsnet.errors import DataError
from picsnet.images import load_rgb

IGNORE = 255
"""Label of pixels that some annotators drew, but too few: they teach nothing (as in RCF, 2017)."""


@dataclass(frozen=True)
class BsdsItem:
    """A photograph and how far its annotators agree on each pixel."""

    image: NDArray[np.uint8]  # (H, W, 3)
    agreement: NDArray[np.float32]  # (H, W), share of annotators with a boundary within a pixel


@dataclass(frozen=True)
class EdgeAugmentation:
    """Flips, rotations, scales and colour jitter; see ``configs/edge_bsds500.yaml``."""

    crop: int
    scale_min: float
    scale_max: float
    rotate_probability: float
    jitter: float
    consensus: float


def load_item(image_path: Path, truth_path: Path) -> BsdsItem:
    """One picture of BSDS500 with its annotators' boundaries.

    Raises:
        DataError: the boundary file is missing or is not BSDS500's.
    """
    image = load_rgb(image_path)
    try:
        truth = scipy.io.loadmat(truth_path)["groundTruth"]
        drawings = [truth[0][k]["Boundaries"][0, 0] for k in range(truth.shape[1])]
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise DataError(
            f"{truth_path}: not a boundary file of BSDS500 ({error}); fetch the dataset again"
        ) from None
    # Annotators miss one another by a pixel: a cross-shaped dilation lets them agree.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    near = [cv2.dilate(drawing.astype(np.uint8), cross) for drawing in drawings]
    return BsdsItem(image, np.mean(near, axis=0, dtype=np.float32))


def list_pairs(root: Path, splits: list[str]) -> list[tuple[Path, Path]]:
    """(photograph, boundaries) pairs of some splits, in a fixed order.

    Raises:
        DataError: the folder does not have BSDS500's layout.
    """
    pairs = []
    for split in splits:
        images = sorted((root / "images" / split).glob("*.jpg"))
        if not images:
            raise DataError(
                f"{root}: no photographs under images/{split}; data.root must hold BSDS500's "
                "images/ and groundTruth/"
            )
        pairs += [(p, root / "groundTruth" / split / f"{p.stem}.mat") for p in images]
    return pairs


def augment(
    item: BsdsItem, how: EdgeAugmentation, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A random view: (crop, crop, 3) picture and (crop, crop) labels 0, 1 or ``IGNORE``."""
    height, width = item.agreement.shape
    angle = 0.0
    if rng.random() < how.rotate_probability:
        angle = 2 * math.pi * int(rng.integers(16)) / 16
    scale = math.exp(rng.uniform(math.log(how.scale_min), math.log(how.scale_max)))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    linear = np.array([[flip * cos, -sin], [flip * sin, cos]], dtype=np.float64)
    # Where the crop's centre falls: anywhere that keeps it inside the picture as far as it goes.
    reach = how.crop / 2 / scale
    low = np.minimum([reach, reach], [width / 2, height / 2])
    high = np.maximum([width - reach, height - reach], [width / 2, height / 2])
    centre = rng.uniform(low, high)
    matrix = np.column_stack([linear, how.crop / 2 - linear @ centre])
    size = (how.crop, how.crop)
    image: NDArray[np.uint8] = cv2.warpAffine(  # type: ignore[assignment]
        item.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    agreement = cv2.warpAffine(
        item.agreement, matrix, size, flags=cv2.INTER_LINEAR, borderValue=(-10.0,)
    )
    labels = np.full(size, IGNORE, dtype=np.uint8)
    labels[(agreement >= 0) & (agreement < 1e-3)] = 0
    labels[agreement >= how.consensus] = 1
    return _jitter(image, how.jitter, rng), labels


def _jitter(
    image: NDArray[np.uint8], strength: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Contrast, brightness, saturation and the odd grey picture."""
    x = image.astype(np.float32)
    grey = x.mean(axis=2, keepdims=True)
    saturation = 0.0 if rng.random() < 0.1 else rng.uniform(1 - strength, 1 + strength)
    x = grey + (x - grey) * np.float32(saturation)
    x = (x - 128) * np.float32(rng.uniform(1 - strength, 1 + strength)) + 128
    x += rng.uniform(-60 * strength, 60 * strength, size=3).astype(np.float32)
    jittered: NDArray[np.uint8] = np.clip(x, 0, 255).astype(np.uint8)
    return jittered


class BsdsCrops(Dataset[tuple[Tensor, Tensor]]):
    """Position -> augmented crop; the same position gives the same crop, always."""

    def __init__(self, items: list[BsdsItem], how: EdgeAugmentation, seed: int) -> None:
        self.items, self.how, self.seed = items, how, seed

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(position_seed(self.seed, position))
        item = self.items[epoch_permutation_index(self.seed, position, len(self.items))]
        image, labels = augment(item, self.how, rng)
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels)[None]


class BsdsWhole(Dataset[tuple[Tensor, Tensor]]):
    """Whole pictures, cut to multiples of 16 (320x480 of 321x481), landscape."""

    def __init__(self, items: list[BsdsItem], consensus: float) -> None:
        self.items, self.consensus = items, consensus

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        item = self.items[index]
        image, agreement = item.image, item.agreement
        if image.shape[0] > image.shape[1]:
            image, agreement = np.rot90(image), np.rot90(agreement)
        height, width = (side - side % 16 for side in agreement.shape)
        labels = np.full((height, width), IGNORE, dtype=np.uint8)
        cut = agreement[:height, :width]
        labels[cut == 0] = 0
        labels[cut >= self.consensus] = 1
        pixels = np.ascontiguousarray(image[:height, :width])
        return torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels)[None]


class BsdsDataModule(L.LightningDataModule):
    """Augmented crops of BSDS500 for training, whole test pictures to watch the loss on."""

    def __init__(
        self,
        root: Path,
        splits: list[str],
        val_split: str,
        val_count: int,
        augmentation: EdgeAugmentation,
        batch_size: int,
        workers: int,
        seed: int,
        total_steps: int,
    ) -> None:
        super().__init__()
        self.train_pairs = list_pairs(root, splits)
        self.val_pairs = list_pairs(root, [val_split])[:val_count]
        self.augmentation = augmentation
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.total_steps = total_steps

    def setup(self, stage: str) -> None:
        self.train_items = [load_item(*pair) for pair in self.train_pairs]
        self.val_items = [load_item(*pair) for pair in self.val_pairs]

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return training_loader(
            self,
            BsdsCrops(self.train_items, self.augmentation, self.seed),
            batch_size=self.batch_size,
            total_steps=self.total_steps,
            workers=self.workers,
            seed=self.seed,
        )

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(BsdsWhole(self.val_items, self.augmentation.consensus), batch_size=4)

"""FID and KID of a set of pictures against a set of references, by torchmetrics.

    pictures -> squares or whole -> feature network -> (N, D) features -> FID, KID and intervals

Features are computed once a set; intervals resample them. The network is torch-fidelity's Inception
with its own (TensorFlow 1) resizing, which is what the paper's figures were made with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from picsnet.errors import DataError
from picsnet.evaluation.fetched import fetched
from picsnet.images import load_rgb

Pixels = NDArray[np.uint8]

KID_SUBSETS = 100
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
BATCH = 32
FEWEST = 2
"""Features in a set: of one there is neither covariance nor a pair to compare."""


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its 95 % interval; None where there is none."""

    mean: float
    low: float | None
    high: float | None


def load_inception(device: str = "cpu") -> nn.Module:
    """torch-fidelity's Inception: (B, 3, H, W) uint8 to (B, 2048) features.

    Raises:
        ModelError: its weights are not here and cannot be fetched, or are damaged.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    with fetched(INCEPTION_FILE, "github.com/toshas/torch-fidelity"):
        metric = FrechetInceptionDistance(feature=2048, antialias=False)
    return metric.inception.eval().to(device)


def features(
    pictures: Iterable[Pixels], network: nn.Module, device: str = "cpu", patch: int | None = None
) -> list[Tensor]:
    """Features of pictures, (P, D) each: of the whole, or of squares.

    Args:
        pictures: (H, W, 3) uint8.
        network: (B, 3, h, w) uint8 to (B, D).
        device: where the network is.
        patch: side of squares that tile the picture, and tile it again half a side further on
            (HiFiC, arXiv 2006.09965, appendix A.7); None takes it whole. A picture with a smaller
            side has none.
    """
    return [_of_one(picture, network, device, patch) for picture in pictures]


def features_of_set(
    paths: Sequence[Path], network: nn.Module, device: str = "cpu", patch: int | None = None
) -> list[Tensor]:
    """Features of pictures on disk that together are a set, (P, D) each; none of them is empty.

    Args:
        paths: of the pictures.
        network, device, patch: as `features` takes them.

    Raises:
        ImageError: a picture cannot be read.
        DataError: they have fewer than two features, which is no set.
    """
    found = [one for one in features(map(load_rgb, paths), network, device, patch) if len(one)]
    if (count := sum(map(len, found))) >= FEWEST:
        return found
    if patch is None:
        raise DataError(f"pictures: {count}, and a set has {FEWEST} or more; give more pictures")
    raise DataError(
        f"squares of {patch} pixels: {count}, and a set has {FEWEST} or more; give more or larger "
        "pictures, or a smaller measures.patch"
    )


def _of_one(picture: Pixels, network: nn.Module, device: str, patch: int | None) -> Tensor:
    x = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)
    parts = [x] if patch is None else list(_squares(x, patch))
    with torch.inference_mode():
        found = [
            network(torch.stack(parts[start : start + BATCH]).to(device)).float().cpu()
            for start in range(0, len(parts), BATCH)
        ]
    return torch.cat(found) if found else torch.zeros(0, 0)


def _squares(x: Tensor, side: int) -> Iterator[Tensor]:
    for shift in (0, side // 2):
        for top in range(shift, x.shape[1] - side + 1, side):
            for left in range(shift, x.shape[2] - side + 1, side):
                yield x[:, top : top + side, left : left + side]


def fid(references: Tensor, found: Tensor) -> float:
    """Frechet distance of two sets of features, (N, D) each."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(references.shape[1])).set_dtype(torch.float64)
    metric.update(references.double(), real=True)
    metric.update(found.double(), real=False)
    return float(metric.compute())


def kid(references: Tensor, found: Tensor, subset: int, seed: int) -> float:
    """Kernel distance of two sets of features, (N, D) each: the mean over 100 subsets.

    Args:
        references, found: more than one each.
        subset: features in each subset; never more than there are.
        seed: of the choice of subsets.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # of memory: features are small
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(
            feature=_Given(references.shape[1]),
            subsets=KID_SUBSETS,
            subset_size=min(subset, len(references), len(found)),
        )
        metric.update(references, real=True)
        metric.update(found, real=False)
        return float(metric.compute()[0])


def with_interval(
    references: Tensor,
    found: list[Tensor],
    distance: Callable[[Tensor, Tensor], float],
    resamples: int,
    seed: int,
) -> Interval:
    """A distance and its 95 % interval over pictures, by resampling.

    Drawing with replacement, as a bootstrap does, puts equal pictures into a set, which both
    distances take for a narrower one: every resample would lie above the value. So halves are
    drawn without replacement (the delete-half jackknife, Shao and Wu 1989); their spread is the
    standard error of the whole.

    Args:
        references: (N, D).
        found: (P, D) of each picture; its squares stay together.
        distance: of two sets of features.
        resamples: how many halves are drawn; below 10, or of fewer than 8 pictures, gives no
            interval.
        seed: of the draws.
    """
    value = distance(references, torch.cat(found))
    if resamples < 10 or len(found) < 8:
        return Interval(value, None, None)
    draw = np.random.default_rng(seed)
    halves = [draw.permutation(len(found))[: len(found) // 2] for _ in range(resamples)]
    spread = np.std([distance(references, torch.cat([found[i] for i in half])) for half in halves])
    return Interval(value, value - 1.96 * float(spread), value + 1.96 * float(spread))


class _Given(nn.Module):
    """Stands for a feature network where features are at hand."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x

"""The mini decoder's latents: a linear transform of blocks of 8x8 pixels, learned in closed form.

An autoencoder that is trained from nothing sees a hundred million pixels before its code carries
more than mean colours; with little compute that is most of the training. The best linear code is
known at once: the principal components of blocks. 16 of 192 keep photographs of 256 pixels at
28 dB, and what is trained is the decoder alone, on inputs that stand still.

The transform goes in three halvings, each keeping the components that matter most, so that it fits
an `AutoencoderTiny` encoder without blocks between its strided convolutions, which is linear.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SCALING_FACTOR = 3.0
"""Of the autoencoder's latents to those that are diffused, which have a deviation of about 1. The
decoder begins with 3 tanh(x / 3), so its own must be small."""

_FLATTENING = 0.5
"""Each component is divided by this power of its deviation. At 1 all would be equal, and edges as
loud as colours; at 0 a few steps of sampling would hardly come to the edges."""


def fit_encoder(
    photos: Iterable[NDArray[np.uint8]], width: int, latent_channels: int
) -> dict[str, Tensor]:
    """Weights of an `AutoencoderTiny` encoder from photographs.

    Args:
        photos: (H, W, 3) uint8, 8 pixels and more each way.
        width: components that each halving keeps, 12 and more.
        latent_channels: those that are left at the end, up to ``width``.

    Returns:
        Weights by their names in ``AutoencoderTiny.encoder``, for ``num_encoder_blocks`` of zeros.
    """
    pictures = [torch.from_numpy(np.array(p)).permute(2, 0, 1).double() / 255 for p in photos]
    cropped = [p[:, : p.shape[1] // 8 * 8, : p.shape[2] // 8 * 8] for p in pictures]
    first, cropped = _halve(cropped, width)
    second, cropped = _halve(cropped, width)
    third, cropped = _halve(cropped, width)
    points = torch.cat([p.flatten(1) for p in cropped], dim=1)[:latent_channels]
    means, deviations = points.mean(1), points.std(1)
    # One factor for all makes the mean variance of what is diffused 1.
    scale = deviations**-_FLATTENING
    scale = scale / (scale * deviations).square().mean().sqrt() / SCALING_FACTOR
    start = torch.zeros(width, 3, 3, 3, dtype=torch.double)
    start[:3, :, 1, 1] = torch.eye(3)
    end = torch.zeros(latent_channels, width, 3, 3, dtype=torch.double)
    end[:, :latent_channels, 1, 1] = torch.diag(scale)
    weights = {
        "layers.0.weight": start,
        "layers.0.bias": torch.zeros(width),
        "layers.1.weight": _strided(first, 3, width),
        "layers.2.weight": _strided(second, 12, width),
        "layers.3.weight": _strided(third, width, width),
        "layers.4.weight": end,
        "layers.4.bias": -means * scale,
    }
    return {name: value.float() for name, value in weights.items()}


def encoder_options(width: int, latent_channels: int) -> dict[str, Any]:
    """`AutoencoderTiny`'s arguments for such an encoder."""
    return {
        "encoder_block_out_channels": [width] * 4,
        "num_encoder_blocks": [0, 0, 0, 0],
        "latent_channels": latent_channels,
        "scaling_factor": SCALING_FACTOR,
    }


@torch.no_grad()
def as_one_convolution(encoder: Any) -> tuple[Tensor, Tensor]:
    """The encoder as a convolution of 8x8 pixels and stride 8, which is many times less work.

    Args:
        encoder: of an `AutoencoderTiny` with such weights.

    Returns:
        (C, 3, 8, 8) and (C,), for pictures in -1..1.
    """
    points = torch.eye(3 * 8 * 8).view(-1, 3, 8, 8)
    bias = encoder(torch.zeros(1, 3, 8, 8)).flatten()
    responses = encoder(points).flatten(1) - bias
    return responses.T.reshape(-1, 3, 8, 8).contiguous(), bias


def _halve(pictures: Sequence[Tensor], channels: int) -> tuple[Tensor, list[Tensor]]:
    """Components of 2x2 neighbours: ((kept, 4 C), and (kept, H / 2, W / 2) of each picture)."""
    halves = [torch.nn.functional.pixel_unshuffle(p, 2) for p in pictures]
    total = halves[0].shape[0]
    if total <= channels:
        return torch.eye(total, dtype=torch.double), halves
    count = sum(h[0].numel() for h in halves)
    mean = torch.stack([h.flatten(1).sum(1) for h in halves]).sum(0) / count
    centred = (h.flatten(1) - mean[:, None] for h in halves)
    covariance = torch.stack([c @ c.T for c in centred]).sum(0) / count
    vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :channels]
    # A component's sign is free; with its largest weight positive, all machines choose alike.
    largest = vectors.abs().argmax(0)
    vectors = vectors * vectors[largest, torch.arange(channels)].sign()
    return vectors.T, [torch.einsum("kc,chw->khw", vectors.T, h) for h in halves]


def _strided(matrix: Tensor, inputs: int, width: int) -> Tensor:
    """A matrix on pixel-unshuffled neighbours as a 3x3 convolution of stride 2 and padding 1."""
    kernel = torch.zeros(width, width, 3, 3, dtype=torch.double)
    by_place = matrix.view(matrix.shape[0], inputs, 2, 2)
    kernel[: matrix.shape[0], :inputs, 1:, 1:] = by_place
    return kernel

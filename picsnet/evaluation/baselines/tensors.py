"""Photographs as networks take and give them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from picsnet.evaluation.points import Pixels


def to_tensor(picture: Pixels) -> Tensor:
    """(H, W, 3) uint8 as (1, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]


def to_picture(x_hat: Tensor, width: int, height: int) -> Pixels:
    """(1, 3, H, W) in 0..1 but for overshoot as (height, width, 3) uint8, cut off at the right and
    bottom."""
    pixels = (x_hat[0, :, :height, :width] * 255).round().clamp(0, 255).byte().cpu()
    picture: Pixels = pixels.permute(1, 2, 0).numpy()
    return picture

"""MS-SSIM to train on: the library's figures, at a fraction of its time.

"Multiscale structural similarity for image quality assessment" (Wang, Simoncelli and Bovik, 2003),
with the constants and borders of pytorch_msssim, whose figures these are to rounding
(tests/test_ms_ssim.py). That library blurs by convolutions of single channels, which took half of a
training step of a sketch network on a CPU. A blur along a side is also a product with a banded
matrix, and products are what machines do best; off the band there is nothing to multiply.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales, from the finest (Wang et al., section 4)."""

WINDOW = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2

BAND = 32
"""Outputs of one product. A whole side at once takes 3 times as long at 256 pixels, 7 at 768."""

SHORTEST_SIDE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1
"""Below it the coarsest scale is smaller than the window."""


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of each picture.

    Float32 whatever autocast does around it: variances are small differences of large numbers.

    Args:
        x, y: (B, C, H, W) in 0..1; the gradient is x's.

    Returns:
        (B,), 0..1, means over channels.

    Raises:
        ValueError: a side is shorter than SHORTEST_SIDE.
    """
    if min(x.shape[-2:]) < SHORTEST_SIDE:
        raise ValueError(
            f"MS-SSIM needs sides of {SHORTEST_SIDE} and more, these are {tuple(x.shape[-2:])}"
        )
    batch, channels = x.shape[:2]
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.flatten(0, 1).float(), y.detach().flatten(0, 1).float()
        similarity = torch.ones(len(x), device=x.device)
        for scale, weight in enumerate(WEIGHTS):
            if scale:
                x, y = _halved(x), _halved(y)
            contrast, luminance = _similarity(x, y)
            last = scale == len(WEIGHTS) - 1
            of_scale = (contrast * luminance if last else contrast).mean((-2, -1))
            similarity = similarity * F.relu(of_scale) ** weight
        return similarity.view(batch, channels).mean(1)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(contrast and structure, luminance) of (n, H, W), where the window fits."""
    mean_x, square_x, product = _blurred(torch.stack([x, x * x, x * y]))
    with torch.no_grad():
        mean_y, square_y = _blurred(torch.stack([y, y * y]))
        variance_y = square_y - mean_y * mean_y
    variance_x = square_x - mean_x * mean_x
    covariance = product - mean_x * mean_y
    contrast = (2 * covariance + C2) / (variance_x + variance_y + C2)
    luminance = (2 * mean_x * mean_y + C1) / (mean_x * mean_x + mean_y * mean_y + C1)
    return contrast, luminance


def _halved(x: Tensor) -> Tensor:
    odd = (x.shape[-2] % 2, x.shape[-1] % 2)
    return F.avg_pool2d(x[:, None], 2, padding=odd)[:, 0]


def _blurred(x: Tensor) -> Tensor:
    """(..., H, W) to (..., H - 10, W - 10), under a Gaussian window."""
    blurred: Tensor = _Blur.apply(x)
    return blurred


class _Blur(torch.autograd.Function):
    """A window that is its own mirror image: its gradient is a blur, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _convolved(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        with torch.autocast(gradient.device.type, enabled=False):
            return _convolved(F.pad(gradient, (WINDOW - 1,) * 4))


def _convolved(x: Tensor) -> Tensor:
    """The blur, along both sides in bands of `BAND` outputs that overlap in what they read."""
    height, width = (side - WINDOW + 1 for side in x.shape[-2:])
    rows, columns = (-(-side // BAND) for side in (height, width))
    reads = BAND + WINDOW - 1
    missing = (columns * BAND - width, rows * BAND - height)
    matrix = _band_matrix(x.device)
    stack = F.pad(x.flatten(0, -3), (0, missing[0], 0, missing[1]))
    # Bands are copied out: of views that overlap, each would be a product of its own.
    bands = stack.unfold(2, reads, BAND).contiguous()
    stack = (bands.flatten(0, 2) @ matrix.T).view(*bands.shape[:2], -1)
    bands = stack.unfold(1, reads, BAND).transpose(2, 3).contiguous().flatten(0, 1)
    stack = torch.bmm(matrix.expand(len(bands), -1, -1), bands).view(len(stack), rows * BAND, -1)
    return stack[:, :height, :width].reshape(*x.shape[:-2], height, width)


@functools.lru_cache(maxsize=8)
def _band_matrix(device: torch.device) -> Tensor:
    """(BAND, BAND + 10): each row a window, one further on than the row above."""
    # Also where the first to ask is in inference mode, gradients pass through it later.
    with torch.inference_mode(False):
        offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
        window = torch.exp(-(offsets**2) / (2 * SIGMA**2))
        matrix = torch.zeros(BAND, BAND + WINDOW - 1, dtype=torch.float64)
        for row in range(BAND):
            matrix[row, row : row + WINDOW] = window / window.sum()
        return matrix.float().to(device)

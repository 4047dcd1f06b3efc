"""Layers of the transforms and of the entropy parameters, in plain torch.

They compute what compressai's layers of the same names compute, and their weights have the same
names. They stand here because importing anything of compressai brings all of it, its data sets and
model zoo included, and takes longer than decoding a file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with padding: sides stay, or are divided by the stride."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def subpel_conv3x3(inputs: int, outputs: int, factor: int) -> nn.Sequential:
    """A 3x3 convolution whose outputs are shuffled to pixels: sides grow by the factor."""
    return nn.Sequential(conv3x3(inputs, outputs * factor**2), nn.PixelShuffle(factor))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with a leaky ReLU, around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.conv2 = conv3x3(channels, channels)
        self.leaky_relu = nn.LeakyReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to the same."""
        out: Tensor = self.leaky_relu(self.conv1(x))
        out = self.leaky_relu(self.conv2(out))
        return out + x


class LowerBound(nn.Module):
    """max(x, bound); below the bound, gradients still pass if descent would raise x."""

    bound: Tensor

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.register_buffer("bound", torch.tensor([float(bound)]))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        bounded: Tensor = _LowerBound.apply(x, self.bound)
        return bounded


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(x, bound)
        return torch.max(x, bound)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, bound = ctx.saved_tensors
        return ((x >= bound) | (gradient < 0)) * gradient, None

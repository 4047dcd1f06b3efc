"""The bundled edge detector's network.

A small residual encoder over half-size pixels, a top-down fusion, one side output a stage. Side
outputs and deep supervision are those of "Holistically-Nested Edge Detection" (Xie and Tu, 2015);
here the stages share information top-down before they vote, which lets a network of one million
weights do without ImageNet pre-training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation around an identity."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(h)))


def _stage(inputs: int, outputs: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        *(ResidualBlock(outputs, dilation) for _ in range(blocks)),
    )


class EdgeNetwork(nn.Module):
    """Soft edges of a photograph.

        x (B, 3, H, W) -> unshuffle 2 -> stage 1/2 -> stage 1/4 -> stage 1/8 -> stage 1/16
                                            |            |            |            |
                                          lateral <-up- lateral <-up- lateral <-up- lateral
                                            |            |            |            |
                                          side 1       side 2       side 3       side 4
                                            '-----------  fuse (1x1) --------------'

    H and W must be multiples of 16 (``MULTIPLE``). There is no global pooling, so an output pixel
    depends on a bounded neighbourhood and large pictures can be run in strips.
    """

    MULTIPLE = 16

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96, 96),
        blocks: Sequence[int] = (1, 2, 2, 1),
        fusion: int = 32,
    ) -> None:
        super().__init__()
        inputs = [12, *widths[:-1]]
        self.stages = nn.ModuleList(
            _stage(i, o, n, stride=1 if k == 0 else 2, dilation=2 if k == 3 else 1)
            for k, (i, o, n) in enumerate(zip(inputs, widths, blocks, strict=True))
        )
        self.laterals = nn.ModuleList(nn.Conv2d(w, fusion, 1) for w in widths)
        self.smooths = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(fusion, fusion, 3, padding=1, bias=False),
                nn.BatchNorm2d(fusion),
                nn.ReLU(),
            )
            for _ in widths
        )
        # Four outputs a half-size pixel, shuffled to full size: edges stay crisp at no cost.
        self.sides = nn.ModuleList(nn.Conv2d(fusion, 4, 1) for _ in widths)
        self.fuse = nn.Conv2d(len(widths), 1, 1)
        nn.init.constant_(self.fuse.weight, 1 / len(widths))
        assert self.fuse.bias is not None
        nn.init.zeros_(self.fuse.bias)

    def features(self, x: Tensor, stages: int) -> list[Tensor]:
        """What the first stages see: (B, width, H / 2^k, W / 2^k) each, k from 1.

        Args:
            x: (B, 3, H, W), RGB in 0..1.
            stages: how many.
        """
        h = F.pixel_unshuffle((x - 0.5) * 4, 2)
        seen = []
        for stage in self.stages[:stages]:
            h = stage(h)
            seen.append(h)
        return seen

    def forward(self, x: Tensor) -> list[Tensor]:
        """Logits of the side outputs, finest first, and last the fused one.

        Args:
            x: (B, 3, H, W), RGB in 0..1.

        Returns:
            ``len(widths) + 1`` tensors (B, 1, H, W); a sigmoid gives edge strength in 0..1.
        """
        size = x.shape[-2:]
        features = self.features(x, len(self.stages))
        top: Tensor | None = None
        sides: list[Tensor] = []
        for feature, lateral, smooth, side in zip(
            reversed(features),
            reversed(self.laterals),
            reversed(self.smooths),
            reversed(self.sides),
            strict=True,
        ):
            merged = lateral(feature)
            if top is not None:
                merged = merged + F.interpolate(top, scale_factor=2, mode="nearest")
            top = smooth(merged)
            logits = F.pixel_shuffle(side(top), 2)
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            sides.append(logits)
        sides.reverse()
        return [*sides, self.fuse(torch.cat(sides, dim=1))]

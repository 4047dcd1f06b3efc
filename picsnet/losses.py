"""Rate-distortion losses of sketch networks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from picsnet.edge_presence import edge_disagreement
from picsnet.ms_ssim import ms_ssim
from picsnet.ntc.base import NTCOutput


class RateDistortion(NamedTuple):
    """A loss and its parts, all scalars.

    Attributes:
        loss: lmbda * distortion + bpp, the thing to minimise; means over the batch, all of them.
        distortion: 1 - MS-SSIM, or 255^2 * MSE as compressai scales it (or their blend in warm-up),
            and the weighted edges beside it.
        bpp: estimated rate, bits a pixel of the map.
        streams: rate by stream, bits a pixel.
    """

    loss: Tensor
    distortion: Tensor
    bpp: Tensor
    streams: dict[str, Tensor]


MSE_WARMUP_WEIGHT = 4.0
"""Weight of MSE (on 0..1) while it stands in for 1 - MS-SSIM.

MS-SSIM sees outputs cut off at black, so where a network's output lies below it there is no
gradient, and training on it alone from the start can stay black for ever; MSE sees them as they
are. On edge maps this factor makes both of like size.
"""


class RateDistortionLoss(torch.nn.Module):
    """lmbda * D + R, the Lagrangian of rate-distortion optimisation.

    Args:
        lmbda: weight of the distortion; its meaning depends on the distortion.
        distortion: "ms-ssim" (the paper's, 1 - MS-SSIM on 0..1) or "mse" (255^2 * MSE).
        warmup: batches over which MSE gives way to MS-SSIM, linearly.
        edge_weight: of `edge_disagreement`, added to the distortion.
    """

    def __init__(
        self, lmbda: float, distortion: str, warmup: int = 0, edge_weight: float = 0.0
    ) -> None:
        super().__init__()
        if distortion not in ("ms-ssim", "mse"):
            raise ValueError(f"unknown distortion {distortion!r}")
        self.lmbda, self.distortion, self.warmup = lmbda, distortion, warmup
        self.edge_weight = edge_weight

    def forward(
        self,
        output: NTCOutput,
        x: Tensor,
        step: int | None = None,
        lmbda: Tensor | None = None,
    ) -> RateDistortion:
        """Loss of a forward pass.

        Args:
            output: of the network.
            x: (B, 1, H, W), the maps that went in, 0..1; sides above 160 for MS-SSIM.
            step: batches trained so far, for the warm-up; None means past it.
            lmbda: (B,), one for each map, in place of the one for all. Maps then count by
                1 / sqrt(lmbda), since losses grow with lambda and high ones would drown low ones.
        """
        pixels = x.shape[-2] * x.shape[-1]
        streams = {
            name: likelihoods.float().log().flatten(1).sum(1) / (-math.log(2) * pixels)
            for name, likelihoods in output.likelihoods.items()
        }
        bpp = torch.stack(list(streams.values())).sum(0)
        distortion = self._distortion(output.x_hat.float(), x.float(), step)
        if self.edge_weight:
            edges = edge_disagreement(output.x_hat.float(), x.float())
            distortion = distortion + self.edge_weight * edges
        if lmbda is None:
            loss = self.lmbda * distortion + bpp
        else:
            loss = (lmbda * distortion + bpp) / lmbda.sqrt()
        means = {name: rate.mean() for name, rate in streams.items()}
        return RateDistortion(loss.mean(), distortion.mean(), bpp.mean(), means)

    def _distortion(self, x_hat: Tensor, x: Tensor, step: int | None) -> Tensor:
        error = (x_hat - x).square().flatten(1).mean(1)
        if self.distortion == "mse":
            return 255**2 * error
        # MS-SSIM is undefined for negative pixels: outputs are cut off as decoding does.
        similarity = ms_ssim(x_hat.clamp(0, 1), x)
        share = 1.0 if step is None or self.warmup == 0 else min(1.0, step / self.warmup)
        distortion = share * (1 - similarity)
        if share < 1:
            distortion = distortion + (1 - share) * MSE_WARMUP_WEIGHT * error
        return distortion

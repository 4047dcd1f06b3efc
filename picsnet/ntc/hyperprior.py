"""A sketch network for one lambda: a small mean-scale hyperprior with an exact entropy model.

After "Joint Autoregressive and Hierarchical Priors for Learned Image Compression" (Minnen, Balle
and Toderici, 2018), without the autoregressive part, trained with compressai's entropy models.
Three things differ from compressai's ``mbt2018-mean``:

* one channel in and out, behind a 4x4 pixel unshuffle: no layer works at full size, where sketches
  hold little, and all the work goes where the receptive field is wide;
* the hyper-synthesis is exact fixed-point arithmetic (`picsnet.ntc.fixedpoint`): its output is an
  integer index of a coding table and a mean on a grid of 1/64;
* hyper-latents are integers without medians, and pictures are padded to multiples of 16, not 64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from picsnet.ntc.base import FileNTC, Latents, Limits, NTCOutput, Part, Read
from picsnet.ntc.fixedpoint import (
    ACTIVATION_BITS,
    FixedPointConv2d,
    fixed_point_relu,
    round_through,
    snap,
)
from picsnet.ntc.layers import LowerBound, ResidualBlock, conv3x3, subpel_conv3x3

if TYPE_CHECKING:
    from compressai.entropy_models import GaussianConditional

SCALE_MIN = 0.11
SCALE_LEVELS = 64
SCALE_STEP = math.log(64.0 / SCALE_MIN) / (SCALE_LEVELS - 1)
"""Coding tables are those of Gaussians with scales SCALE_MIN * exp(index * SCALE_STEP)."""

INDEX_GAIN = 4
"""Table indexes for a unit of the hyper-synthesis's output."""

Z_LIMIT = 127
MEAN_LIMIT = 2**14 - 1


def scale_of_index(index: Tensor) -> Tensor:
    """Standard deviation that an index of a coding table stands for."""
    return SCALE_MIN * torch.exp(index * SCALE_STEP)


class EntropyParameters(NamedTuple):
    """What the hyper-synthesis says of the latents.

    Attributes:
        means: (B, M, h, w), on the grid 1/64.
        indexes: (B, M, h, w), coding table of each latent, 0..SCALE_LEVELS - 1: integers in
            evaluation, real numbers (for the gradient's sake) in training.
    """

    means: Tensor
    indexes: Tensor


class HyperSynthesis(nn.Module):
    """h_s: hyper-latents to means and table indexes, exact in evaluation.

    z_hat (B, N, h/4, w/4) integers -> conv, x2 -> relu -> conv, x2 -> relu -> conv -> means, s
    """

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        self.conv1 = FixedPointConv2d(N, 4 * N)
        self.conv2 = FixedPointConv2d(N, 4 * N)
        self.conv3 = FixedPointConv2d(N, 2 * M)
        self.lowest = LowerBound(0.0)

    def forward(self, z_hat: Tensor) -> EntropyParameters:
        """Map hyper-latents to entropy parameters.

        In evaluation the arithmetic is float64 on integers whatever autocast says, and the result
        is the same on every machine.
        """
        device = z_hat.device
        with torch.autocast(device.type, enabled=False):
            if self.training:
                return self._run(z_hat.float())
            with torch.no_grad():
                return self._run(z_hat.double())

    def scale(self, gain: float) -> None:
        """Follow scaled latents: means by the gain, table indexes by its logarithm."""
        weight, bias = self.conv3.weight, self.conv3.bias
        assert bias is not None
        means = weight.shape[0] // 2
        weight[:means].mul_(gain)
        bias[:means].mul_(gain)
        bias[means:].add_(math.log(gain) / SCALE_STEP / INDEX_GAIN)

    def _run(self, z_hat: Tensor) -> EntropyParameters:
        x = torch.clamp(z_hat, -Z_LIMIT, Z_LIMIT)
        x = fixed_point_relu(F.pixel_shuffle(self.conv1(x), 2))
        x = fixed_point_relu(F.pixel_shuffle(self.conv2(x), 2))
        return entropy_parameters(self.conv3(x), self.lowest, exact=not self.training)


def entropy_parameters(sums: Tensor, lowest: LowerBound, exact: bool) -> EntropyParameters:
    """Means and table indexes from the sums of a last layer, (B, 2M, h, w).

    Args:
        sums: on their grid; float64 where they are to be exact.
        lowest: at 0; a layer of the caller's, so that it is where the caller is.
        exact: whether indexes are to be integers; in training they are real numbers.
    """
    means, s = sums.chunk(2, dim=1)
    # The offset starts training at scales near one half, as a bias would. At the lower bound the
    # gradient still passes upwards: a silent channel can come back.
    indexes = lowest(s * INDEX_GAIN + 16).clamp(max=SCALE_LEVELS - 1)
    means = snap(means, ACTIVATION_BITS, MEAN_LIMIT)
    if exact:
        return EntropyParameters(means.float(), indexes.round().to(torch.int32))
    return EntropyParameters(means, indexes)


def hyper_analysis(M: int, N: int) -> nn.Sequential:
    """h_a: latents (B, M, h, w) to hyper-latents (B, N, ceil(h/4), ceil(w/4))."""
    return nn.Sequential(
        conv3x3(M, N),
        nn.LeakyReLU(),
        conv3x3(N, N, stride=2),
        nn.LeakyReLU(),
        conv3x3(N, N, stride=2),
    )


def hyper_part(z: Tensor) -> Part:
    """Hyper-latents (B, N, hz, wz) as part of a stream: each channel has its table."""
    indexes = torch.from_numpy(_channel_indexes(tuple(z.shape[1:])))
    return Part("z", z.flatten(1).to(torch.int32), indexes.expand(len(z), -1))


def read_hyper_latents(N: int, size: tuple[int, int], read: Read) -> Tensor:
    """Hyper-latents (1, N, ceil(h/4), ceil(w/4)) int32 for latents of a size, from a stream."""
    shape = (N, -(-size[0] // 4), -(-size[1] // 4))
    return torch.from_numpy(read("z", _channel_indexes(shape)).reshape(1, *shape))


def _channel_indexes(shape: tuple[int, ...]) -> NDArray[np.int32]:
    channels, height, width = shape
    return np.repeat(np.arange(channels, dtype=np.int32), height * width)


class SketchHyperprior(FileNTC):
    """Mean-scale hyperprior for sketch maps.

        x (B,1,H,W) -> g_a -> y (B,M,H/16,W/16) -----------> round(y - means) -> stream
                              |                                     ^ tables, means
                              h_a -> z (B,N,H/64,W/64) -> round -> h_s (exact)
        x_hat <- g_s <- y_hat = round(y - means) + means

    Args:
        widths: channels at 1/4, 1/8 and 1/16 of the size.
        M: channels of the latents y.
        N: channels of the hyper-latents z.
        prior: whether to make what training and `forward` need beside what codes files.
    """

    MULTIPLE = 16
    PRIOR = ("entropy_bottleneck.", "gaussian_conditional.")
    gaussian_conditional: GaussianConditional

    def __init__(
        self,
        widths: tuple[int, int, int] | list[int] = (48, 80, 96),
        M: int = 48,
        N: int = 32,
        prior: bool = True,
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.M, self.N = M, N
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv3x3(16, a),
            ResidualBlock(a),
            conv3x3(a, b, stride=2),
            ResidualBlock(b),
            conv3x3(b, c, stride=2),
            ResidualBlock(c),
            conv3x3(c, M),
        )
        self.g_s = nn.Sequential(
            conv3x3(M, c),
            ResidualBlock(c),
            subpel_conv3x3(c, b, 2),
            ResidualBlock(b),
            subpel_conv3x3(b, a, 2),
            ResidualBlock(a),
            conv3x3(a, 16),
            nn.PixelShuffle(4),
        )
        self.h_a = hyper_analysis(M, N)
        self.h_s = HyperSynthesis(N, M)
        if prior:
            from picsnet.ntc.prior import IntegerEntropyBottleneck, NoisyByMapGaussian

            self.entropy_bottleneck = IntegerEntropyBottleneck(N)
            self.gaussian_conditional = NoisyByMapGaussian(None, scale_bound=SCALE_MIN)

    @torch.no_grad()
    def scale_latents(self, gain: float) -> None:
        """Scale y without changing what the network computes but for rounding.

        A gain below 1 quantises more coarsely: a lower rate and a start nearer to the optimum of a
        lower lambda than the weights themselves.
        """
        for layer in (self.g_a[-1], self.g_s[0], self.h_a[0]):
            assert isinstance(layer, nn.Conv2d)
        self.g_a[-1].weight.mul_(gain)  # type: ignore[union-attr,operator]
        self.g_a[-1].bias.mul_(gain)  # type: ignore[union-attr,operator]
        self.g_s[0].weight.div_(gain)  # type: ignore[union-attr,operator]
        self.h_a[0].weight.div_(gain)  # type: ignore[union-attr,operator]
        self.h_s.scale(gain)

    def forward(self, x: Tensor, quality: Tensor | None = None) -> NTCOutput:
        """Code (B, 1, H, W) maps in 0..1; H and W multiples of 16. There is one operating point.

        In training, rates are those of noisy latents (Balle et al., 2018) while synthesis and
        hyper-synthesis see rounded ones, with straight-through gradients (Minnen and Singh, 2020).
        """
        y = self.g_a(x)
        z = self.h_a(y)
        # Likelihoods span many orders of magnitude: float32, whatever autocast does around them.
        with torch.autocast(x.device.type, enabled=False):
            y, z = y.float(), z.float()
            _, z_likelihoods = self.entropy_bottleneck(z)
            means, indexes = self._cropped(round_through(z), y)
            y_hat = round_through(y - means) + means
            _, y_likelihoods = self.gaussian_conditional(y, scale_of_index(indexes), means)
        return NTCOutput(self.g_s(y_hat), {"y": y_likelihoods, "z": z_likelihoods})

    def _cropped(self, z_hat: Tensor, y: Tensor) -> EntropyParameters:
        """Entropy parameters for latents of y's size: hyper-latents cover it, rounded up."""
        return self.entropy_parameters(z_hat, (y.shape[-2], y.shape[-1]))

    def entropy_parameters(self, z_hat: Tensor, size: tuple[int, int]) -> EntropyParameters:
        """Means and table indexes for latents of a size, from hyper-latents.

        Args:
            z_hat: (B, N, ceil(h/4), ceil(w/4)), integers.
            size: (h, w) of the latents.
        """
        means, indexes = self.h_s(z_hat)
        h, w = size
        return EntropyParameters(means[..., :h, :w], indexes[..., :h, :w])

    @torch.no_grad()
    def analyse(self, x: Tensor, limits: Limits, quality: Tensor) -> list[Part]:
        """As `FileNTC.analyse` says."""
        y = self.g_a(x).float()
        z = self.h_a(y).float().round()
        low, high = (bound.to(z).view(1, -1, 1, 1) for bound in (limits.z_low, limits.z_high))
        z = torch.clamp(z, low, high)
        means, indexes = self._cropped(z, y)
        reach = limits.y_reach.to(y.device)[indexes.long()].to(y)
        symbols = torch.clamp((y - means).round(), -reach, reach)
        return [hyper_part(z), Part("y", symbols.flatten(1).to(torch.int32), indexes.flatten(1))]

    @torch.no_grad()
    def read(self, size: tuple[int, int], quality: int, read: Read) -> Latents:
        """As `FileNTC.read` says."""
        device = self.device
        z_hat = read_hyper_latents(self.N, size, read).to(device)
        means, indexes = self.entropy_parameters(z_hat, size)
        symbols = torch.from_numpy(read("y", indexes.flatten().cpu().numpy()))
        y_hat = symbols.to(means).view_as(means) + means
        return Latents(y_hat, torch.tensor([quality], device=device))

    @torch.no_grad()
    def synthesise(self, latents: Latents) -> Tensor:
        """As `FileNTC.synthesise` says."""
        x_hat: Tensor = self.g_s(latents.y_hat)
        return x_hat.float().clamp(0, 1)

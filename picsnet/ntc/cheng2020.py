"""The paper's sketch network, for comparison.

compressai's ``Cheng2020Attention`` ("Learned Image Compression with Discretized Gaussian Mixture
Likelihoods and Attention Modules", Cheng et al., 2020) with one channel in and out, as used by
"Text + Sketch" (arXiv 2307.01944). Its entropy parameters come from a floating-point
autoregressive context: a stream of it is only sure to decode on the machine that wrote it, so
picsnet trains and measures it but writes no files with it.
"""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck
from compressai.layers import ResidualBlockWithStride, subpel_conv3x3
from compressai.models import Cheng2020Attention
from torch import Tensor

from picsnet.ntc.base import NTCOutput
from picsnet.ntc.fixedpoint import round_through
from picsnet.ntc.rounded import rounded_log_likelihoods


class Cheng2020Sketch(Cheng2020Attention):
    """Cheng2020Attention for one-channel maps.

    Args:
        N: channels of every layer; the paper has 192.
        init_scale: width of the hyper-latents' prior before training. compressai's 10 is for
            natural pictures at far higher rates: hyper-latents of an untrained network then cost
            0.25 bits a pixel, and thousands of steps pass before the prior has narrowed.
        straight_through: train with rounded latents, as picsnet's own networks are, in place of the
            noise of compressai and the paper. At the rates of sketches noise hides from g_s and the
            context what rounding will leave (`picsnet.ntc.rounded`), which takes long to unlearn.
    """

    MULTIPLE = 64

    def __init__(
        self, N: int = 192, init_scale: float = 10.0, straight_through: bool = False
    ) -> None:
        super().__init__(N=N)
        self.straight_through = straight_through
        self.entropy_bottleneck = EntropyBottleneck(N, init_scale=init_scale)
        self.g_a[0] = ResidualBlockWithStride(1, N, stride=2)
        self.g_s[-1] = subpel_conv3x3(N, 1, 2)

    def forward(self, x: Tensor) -> NTCOutput:
        """Code (B, 1, H, W) maps in 0..1; H and W multiples of 64."""
        if self.straight_through:
            return self._coded_by_rounding(x)
        out = super().forward(x)
        return NTCOutput(out["x_hat"], out["likelihoods"])

    def _coded_by_rounding(self, x: Tensor) -> NTCOutput:
        """Latents, rates and maps as files have them, with gradients."""
        y = self.g_a(x)
        z = self.h_a(y)
        _, z_likelihoods = self.entropy_bottleneck(z)
        medians = self.entropy_bottleneck.quantiles[:, :, 1].detach().reshape(1, -1, 1, 1)
        hyper = self.h_s(round_through(z - medians) + medians)
        y_hat = self._settled(y, hyper)
        scales, means = self._entropy_of(hyper, y + (y_hat - y).detach())
        rest = y.float() - means
        entropy = self.gaussian_conditional
        costs = rounded_log_likelihoods(rest, entropy.lower_bound_scale(scales))
        y_likelihoods = entropy.likelihood_lower_bound(torch.exp(costs))
        x_hat = self.g_s(round_through(rest) + means)
        return NTCOutput(x_hat, {"y": y_likelihoods, "z": z_likelihoods})

    @torch.no_grad()
    def _settled(self, y: Tensor, hyper: Tensor) -> Tensor:
        """round(y - means) + means, with means from the latents before, as a file has them.

        Passes over all latents at once, in place of one position after another: those whose context
        is settled settle. The context reaches two rows up and two positions to either side, so each
        pass settles at least those with one more of column + 3 * row.
        """
        y_hat = y.round()
        height, width = y.shape[-2:]
        for _ in range(width + 3 * height):
            _, means = self._entropy_of(hyper, y_hat)
            before, y_hat = y_hat, (y - means).round() + means
            if torch.equal(before, y_hat):
                break
        return y_hat

    def _entropy_of(self, hyper: Tensor, y_hat: Tensor) -> tuple[Tensor, Tensor]:
        context = self.context_prediction(y_hat)
        found = self.entropy_parameters(torch.cat((hyper, context), dim=1)).float()
        scales, means = found.chunk(2, 1)
        return scales, means

"""The paper's sketch network, for comparison.

compressai's ``Cheng2020Attention`` ("Learned Image Compression with Discretized Gaussian Mixture
Likelihoods and Attention Modules", Cheng et al., 2020) with one channel in and out, as used by
"Text + Sketch" (arXiv 2307.01944). Its entropy parameters come from a floating-point
autoregressive context: a stream of it is only sure to decode on the machine that wrote it, so
picsnet trains and measures it but writes no files with it.
"""

from __future__ import annotations

from compressai.entropy_models import EntropyBottleneck
from compressai.layers import ResidualBlockWithStride, subpel_conv3x3
from compressai.models import Cheng2020Attention
from torch import Tensor

from picsnet.ntc.base import NTCOutput


class Cheng2020Sketch(Cheng2020Attention):
    """Cheng2020Attention for one-channel maps.

    Args:
        N: channels of every layer; the paper has 192.
        init_scale: width of the hyper-latents' prior before training. compressai's 10 is for
            natural pictures at far higher rates: hyper-latents of an untrained network then cost
            0.25 bits a pixel, and thousands of steps pass before the prior has narrowed.
    """

    MULTIPLE = 64

    def __init__(self, N: int = 192, init_scale: float = 10.0) -> None:
        super().__init__(N=N)
        self.entropy_bottleneck = EntropyBottleneck(N, init_scale=init_scale)
        self.g_a[0] = ResidualBlockWithStride(1, N, stride=2)
        self.g_s[-1] = subpel_conv3x3(N, 1, 2)

    def forward(self, x: Tensor) -> NTCOutput:
        """Code (B, 1, H, W) maps in 0..1; H and W multiples of 64."""
        out = super().forward(x)
        return NTCOutput(out["x_hat"], out["likelihoods"])

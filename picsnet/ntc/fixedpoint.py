"""Convolutions whose results are integers, the same on every machine.

The entropy model must give sender and receiver the same numbers to the last bit: one differing
index of a coding table turns the rest of a stream into noise. Floating-point convolutions do not
promise that (thread counts, batch sizes, memory formats and libraries change the order of sums).
So the path from hyper-latents to coding tables keeps weights and activations on fixed-point grids,
where every product and every sum is an integer:

    activation  a = n / 2**ACTIVATION_BITS,   0 <= n <= ACTIVATION_MAX
    weight      w = m / 2**WEIGHT_BITS,       |m| <= WEIGHT_MAX

In float64 the sums stay far below 2**53 (bound in `FixedPointConv2d.check_exact`), so whatever the
order of summation they carry no rounding at all; and the rounding after each layer returns to the
grid even if a library were to compute them through a transform that errs by a little.

In training the same arithmetic runs in float32 with straight-through rounding, so the weights that
are trained are the weights that will be used.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATION_BITS = 6
ACTIVATION_MAX = 2**14 - 1
WEIGHT_BITS = 10
WEIGHT_MAX = 2**15 - 1


def round_through(x: Tensor) -> Tensor:
    """Round half to even; where a gradient is wanted, it is that of the identity."""
    return x + (x.round() - x).detach() if x.requires_grad else x.round()


def snap(x: Tensor, bits: int, limit: int, low: int | None = None) -> Tensor:
    """Nearest point of the grid 2**-bits within [low, limit] / 2**bits, gradients passed through.

    Gradients stop where the value is cut off at a limit.
    """
    scaled = torch.clamp(x * 2.0**bits, -limit if low is None else low, limit)
    return round_through(scaled) * 2.0**-bits


class FixedPointConv2d(nn.Conv2d):
    """A convolution, 3x3 unless told otherwise, with weights on the grid 2**-WEIGHT_BITS.

    The bias lies on the grid of the products, 2**-(WEIGHT_BITS + ACTIVATION_BITS), so that it adds
    to the sums without rounding.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)

    def grid_weight(self) -> Tensor:
        """Weights on their grid, in the parameters' type."""
        return snap(self.weight, WEIGHT_BITS, WEIGHT_MAX)

    def grid_bias(self) -> Tensor:
        """Biases on the grid of the sums."""
        assert self.bias is not None
        return snap(self.bias, WEIGHT_BITS + ACTIVATION_BITS, 2**22)

    def check_exact(self) -> None:
        """Prove that no sum can leave the integers that float64 holds.

        Raises:
            ValueError: the weights are so large that it could.
        """
        magnitude = self.grid_weight().detach().abs().double().sum(dim=(1, 2, 3)) * 2.0**WEIGHT_BITS
        bound = float(magnitude.max()) * ACTIVATION_MAX + 2**22
        # Three bits are left for eighths of what is added to sums (`picsnet.ntc.context.Levels`).
        if not bound < 2**49:
            raise ValueError(f"fixed-point sums may reach {bound:.3g}, beyond exact float64")

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) on the activation grid -> (B, outputs, H, W) on the grid of sums."""
        weight, bias = self.grid_weight(), self.grid_bias()
        sums = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), padding=self.padding)
        if x.dtype == torch.float64:
            # Sums are on this grid already, unless a library went by way of a transform (Winograd,
            # FFT): then they are off by far less than half a step, and this repairs them.
            step = 2.0 ** (WEIGHT_BITS + ACTIVATION_BITS)
            sums = (sums * step).round() / step
        return sums


def fixed_point_relu(x: Tensor) -> Tensor:
    """ReLU, then back to the activation grid."""
    return snap(x, ACTIVATION_BITS, ACTIVATION_MAX, low=0)

"""Entropy models of training, compressai's. Coding needs only the tables made from them, so
networks import this module when they are made with a prior."""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from torch import Tensor

from picsnet.ntc.noise import uniform_by_map

Z_NOISE, Y_NOISE = 0, 1
"""Streams of noise (`picsnet.ntc.noise`)."""


class IntegerEntropyBottleneck(EntropyBottleneck):
    """compressai's factorised prior, with hyper-latents on the integers.

    Its quantisation offsets (medians) are fixed at zero, so that what the hyper-synthesis reads is
    an integer. The quantiles are still learned, as compressai learns them, but coding tables are
    cut where the prior's own mass ends (`picsnet.ntc.tables`), so a short training need not wait
    for them.
    """

    def _get_medians(self) -> Tensor:
        return torch.zeros_like(super()._get_medians())

    def forward(self, x: Tensor, training: bool | None = None) -> tuple[Tensor, Tensor]:
        """Quantised hyper-latents and their likelihoods, both (B, N, h, w); noisy in training.

        compressai's, but for two things: the noise is drawn by map (`picsnet.ntc.noise`), and the
        host does not wait for the device (compressai's takes axes from a tensor on it).
        """
        if training is None:
            training = self.training
        outputs = x + uniform_by_map(x, Z_NOISE) if training else x.round()
        return outputs, self.likelihoods(outputs)

    def likelihoods(self, z: Tensor) -> Tensor:
        """Probabilities of hyper-latents (B, N, h, w) as they are: neither rounded nor noisy."""
        values = z.transpose(0, 1).reshape(len(z[0]), 1, -1)
        found: Tensor = self.likelihood_lower_bound(self._likelihood(values)[0])
        return found.view(len(z[0]), len(z), *z.shape[2:]).transpose(0, 1)


class NoisyByMapGaussian(GaussianConditional):
    """compressai's Gaussian conditional, with noise drawn by map (`picsnet.ntc.noise`)."""

    def quantize(self, inputs: Tensor, mode: str, means: Tensor | None = None) -> Tensor:
        """As compressai's."""
        if mode == "noise":
            return inputs + uniform_by_map(inputs, Y_NOISE)
        quantised: Tensor = super().quantize(inputs, mode, means)
        return quantised

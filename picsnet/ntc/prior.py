"""The learned prior of hyper-latents, compressai's. Coding needs only the tables made from it, so
networks import this module when they are made with a prior."""

from __future__ import annotations

import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor


class IntegerEntropyBottleneck(EntropyBottleneck):
    """compressai's factorised prior, with hyper-latents on the integers.

    Its quantisation offsets (medians) are fixed at zero, so that what the hyper-synthesis reads is
    an integer. The quantiles are still learned, as compressai learns them, but coding tables are
    cut where the prior's own mass ends (`picsnet.ntc.tables`), so a short training need not wait
    for them.
    """

    def _get_medians(self) -> Tensor:
        return torch.zeros_like(super()._get_medians())

    def likelihoods(self, z: Tensor) -> Tensor:
        """Probabilities of hyper-latents (B, N, h, w) as they are: neither rounded nor noisy."""
        values = z.transpose(0, 1).reshape(len(z[0]), 1, -1)
        found: Tensor = self.likelihood_lower_bound(self._likelihood(values)[0])
        return found.view(len(z[0]), len(z), *z.shape[2:]).transpose(0, 1)

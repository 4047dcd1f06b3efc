"""HiFiC's autoencoder, by NeuralCompression, as the training sees it.

"High-Fidelity Generative Image Compression", Mentzer et al., 2020 (arXiv 2006.09965).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from picsnet.errors import ConfigError
from picsnet.ntc.base import NTCOutput


class HificNTC(nn.Module):
    """NeuralCompression's ``HiFiCAutoencoder``.

    Args:
        options: of its class, e.g. ``{latent_features: 220}``.

    Raises:
        ConfigError: the library is not installed, or the options do not suit it.
    """

    MULTIPLE = 64

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = make_hific(options)

    def forward(self, x: Tensor) -> NTCOutput:
        """Code (B, 3, H, W) photographs in 0..1; H and W multiples of 64."""
        out = self.net(x)
        likelihoods = {"y": out.latent_likelihoods, "z": out.hyper_latent_likelihoods}
        return NTCOutput(out.image, likelihoods)

    def aux_loss(self) -> Tensor:
        """Loss of the entropy bottleneck's quantiles."""
        loss: Tensor = self.net.hyper_bottleneck.loss()
        return loss


def make_hific(options: Mapping[str, Any]) -> Any:
    """A freshly initialised autoencoder.

    Raises:
        ConfigError: as `HificNTC`.
    """
    try:
        from importlib import import_module

        models: Any = import_module("neuralcompression.models")
    except ImportError as error:
        raise ConfigError(
            f"HiFiC needs NeuralCompression, which is not installed whole ({error}); its pins are "
            "old, so: pip install --no-deps neuralcompression fvcore iopath portalocker termcolor "
            "tabulate lpips"
        ) from None
    try:
        return models.HiFiCAutoencoder(**dict(options))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.options {dict(options)} do not suit HiFiCAutoencoder: {error}"
        ) from None

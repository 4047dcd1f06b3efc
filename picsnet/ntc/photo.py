"""Networks of CompressAI's zoo on photographs, as the training sees them: baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from picsnet.errors import ConfigError
from picsnet.ntc.base import NTCOutput


class PhotoNTC(nn.Module):
    """A network of CompressAI's zoo.

    Args:
        architecture: its name there, e.g. "cheng2020-attn".
        options: of its class, e.g. ``{N: 192}``.

    Raises:
        ConfigError: there is no such network, or the options do not suit it.
    """

    MULTIPLE = 64

    def __init__(self, architecture: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = make(architecture, options)

    def forward(self, x: Tensor) -> NTCOutput:
        """Code (B, 3, H, W) photographs in 0..1; H and W multiples of 64."""
        out = self.net(x)
        return NTCOutput(out["x_hat"], out["likelihoods"])

    def aux_loss(self) -> Tensor:
        """Loss of the entropy bottleneck's quantiles."""
        loss: Tensor = self.net.aux_loss()
        return loss


def make(architecture: str, options: Mapping[str, Any]) -> Any:
    """A freshly initialised network of CompressAI's zoo.

    Raises:
        ConfigError: as `PhotoNTC`.
    """
    from compressai.zoo.image import model_architectures

    if architecture not in model_architectures:
        raise ConfigError(
            f"model.architecture {architecture!r}: not in CompressAI's zoo, which has "
            f"{', '.join(model_architectures)}"
        )
    try:
        return model_architectures[architecture](**dict(options))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.options {dict(options)} do not suit {architecture}: {error}"
        ) from None

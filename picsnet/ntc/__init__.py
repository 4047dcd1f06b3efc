"""Nonlinear transform codes for sketch maps, by name.

To add one: a module with a network that satisfies `picsnet.ntc.base.SketchNTC`, a line in
``ARCHITECTURES``, a YAML under configs/, a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from picsnet.errors import ConfigError
from picsnet.ntc.cheng2020 import Cheng2020Sketch
from picsnet.ntc.context import SketchContext
from picsnet.ntc.hyperprior import SketchHyperprior

ARCHITECTURES: dict[str, type[nn.Module]] = {
    "picsnet-context": SketchContext,
    "picsnet-hyperprior": SketchHyperprior,
    "cheng2020-attn-sketch": Cheng2020Sketch,
}


def build(architecture: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A freshly initialised network.

    Raises:
        ConfigError: unknown architecture, or options that it does not take.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            f"model.architecture {architecture!r} is unknown; one of {', '.join(ARCHITECTURES)}"
        )
    try:
        return ARCHITECTURES[architecture](**dict(options or {}))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.options {dict(options or {})} do not suit {architecture}: {error}"
        ) from None

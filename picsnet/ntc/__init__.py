"""Nonlinear transform codes for sketch maps, by name.

To add one: a module with a network that satisfies `picsnet.ntc.base.SketchNTC`, a line in
``ARCHITECTURES``, a YAML under configs/, a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from picsnet.errors import ConfigError, in_one_line
from picsnet.ntc.base import FileNTC

ARCHITECTURES: dict[str, str] = {
    "picsnet-context": "picsnet.ntc.context.SketchContext",
    "picsnet-hyperprior": "picsnet.ntc.hyperprior.SketchHyperprior",
    "cheng2020-attn-sketch": "picsnet.ntc.cheng2020.Cheng2020Sketch",
}
"""Where each network is. Its module is imported when the network is built: some bring what others
do without."""


def build(
    architecture: str, options: Mapping[str, Any] | None = None, prior: bool = True
) -> nn.Module:
    """A freshly initialised network.

    Args:
        architecture: one of ``ARCHITECTURES``.
        options: of its class.
        prior: False leaves out what coding files does not need (`picsnet.ntc.base.FileNTC.PRIOR`),
            and the import of compressai with it. Networks that code no files are built whole.

    Raises:
        ConfigError: unknown architecture, or options that it does not take.
    """
    if architecture not in ARCHITECTURES:
        raise ConfigError(
            f"model.architecture {architecture!r} is unknown; one of {', '.join(ARCHITECTURES)}"
        )
    module, _, name = ARCHITECTURES[architecture].rpartition(".")
    made = getattr(import_module(module), name)
    parts = {"prior": prior} if issubclass(made, FileNTC) else {}
    try:
        network: nn.Module = made(**dict(options or {}), **parts)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        # Torch's own: negative sizes, and those that no memory holds.
        reason = in_one_line(error)
        raise ConfigError(f"model.options {options} do not suit {architecture}: {reason}") from None
    return network

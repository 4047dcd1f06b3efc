"""HiFiC and MS-ILLM by NeuralCompression: one architecture, trained here or through torch.hub.

"High-Fidelity Generative Image Compression", Mentzer et al., 2020 (arXiv 2006.09965); "Improving
Statistical Fidelity for Neural Image Compression with Implicit Local Likelihood Models", Muckley
et al., 2023 (arXiv 2301.11189). The library is MIT, **MS-ILLM's weights are CC-BY-NC 4.0**. For
its old pins it is installed without its dependencies:
``pip install --no-deps neuralcompression fvcore iopath portalocker termcolor tabulate lpips``.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from picsnet.errors import ModelError, with_its_kind
from picsnet.evaluation.baselines.strings import read_strings, write_strings
from picsnet.evaluation.baselines.tensors import to_picture, to_tensor
from picsnet.evaluation.baselines.weights import load_averaged
from picsnet.evaluation.points import Decoded, Encoded, Pixels

REPOSITORY = "facebookresearch/NeuralCompression"
STREAMS = 2


class _HificCodec:
    """Codes with a ``HiFiCAutoencoder``, which a subclass gives as ``_network``."""

    device: str
    _network: Any

    @torch.no_grad()
    def encode(self, picture: Pixels) -> Encoded:
        """The file of a photograph."""
        height, width = picture.shape[:2]
        x = to_tensor(picture)
        coded = self._network.compress(x.to(self.device), force_cpu=False)
        strings = [_only(coded.latent_strings), _only(coded.hyper_latent_strings)]
        return Encoded(write_strings(width, height, strings))

    @torch.no_grad()
    def decode(self, data: bytes) -> Decoded:
        """The photograph of a file."""
        width, height, (latents, hyper_latents) = read_strings(data, STREAMS)
        factor = self._network.factor
        coded = SimpleNamespace(  # it reads these fields of its own named tuple
            latent_strings=[latents],
            hyper_latent_strings=[hyper_latents],
            image_size=(height, width),
            padded_size=tuple(-(-side // factor) * factor for side in (height, width)),
        )
        x_hat = self._network.decompress(coded, force_cpu=False)
        return Decoded(to_picture(x_hat, width, height))

    def _ready(self, network: Any) -> Any:
        network = network.eval().to(self.device)
        network.update_tensor_devices("compress")  # refreshes the tables, too
        return network


@dataclass
class IllmPoint(_HificCodec):
    """One of MS-ILLM's models.

    Attributes:
        codec: the series that it belongs to.
        model: its name in the hub, e.g. ``msillm_quality_vlo1`` (0.002 bpp).
        repo: a local clone with its hubconf.py; None takes the one on GitHub.
        device: where encoder and generator run; the entropy model stays on the CPU.
    """

    codec: str
    model: str
    repo: str | None
    device: str
    lmbda: float | None = None
    suffix: str = ".illm"

    @property
    def setting(self) -> str:
        """The model's name."""
        return self.model

    @functools.cached_property
    def _network(self) -> Any:
        local = self.repo is not None
        if local and not os.path.isfile(Path(str(self.repo)) / "hubconf.py"):
            raise ModelError(f"{self.repo}: holds no hubconf.py; name a clone of {REPOSITORY}")
        try:
            network: Any = torch.hub.load(
                self.repo or REPOSITORY,
                self.model,
                source="local" if local else "github",
                trust_repo=True,
                pretrained=True,
            )
        except Exception as error:  # whatever somebody's hubconf.py raises
            raise ModelError(
                f"{self.model} of {self.repo or REPOSITORY} cannot be had "
                f"({with_its_kind(error)}); clone it, "
                "install neuralcompression, fetch its weights (CC-BY-NC) into "
                "$TORCH_HOME/hub/checkpoints and name the clone: repo"
            ) from None
        return self._ready(network)


@dataclass
class HificPoint(_HificCodec):
    """HiFiC as a run here trained it (``hific.yaml``).

    Attributes:
        codec: the series that it belongs to.
        weights: the run's checkpoint.
        device: where encoder and generator run; the entropy model stays on the CPU.
    """

    codec: str
    weights: str
    device: str
    lmbda: float | None = None
    suffix: str = ".hific"

    @property
    def setting(self) -> str:
        """The run's name."""
        return Path(self.weights).parent.parent.name or self.weights

    @functools.cached_property
    def _network(self) -> Any:
        return self._ready(load_averaged(self.weights, "codec.net.", "hific"))


def _only(strings: Any) -> bytes:
    """The string of the one picture in a batch, of which a codec may make lists."""
    while isinstance(strings, list | tuple):
        (strings,) = strings
    return bytes(strings)

"""Codecs of CompressAI's zoo, pretrained or trained here (``photo_ntc_cheng2020.yaml``).

Their floating-point entropy parameters make files that are only sure to decode on the machine that
wrote them, and their coder does not check the length of what it reads: baselines to measure, not
formats to keep.
"""

from __future__ import annotations

import functools
import math
import urllib.error
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from picsnet.errors import ModelError, in_one_line
from picsnet.evaluation.baselines.strings import read_strings, write_strings
from picsnet.evaluation.baselines.tensors import to_picture, to_tensor
from picsnet.evaluation.baselines.weights import load_averaged
from picsnet.evaluation.points import Decoded, Encoded, Pixels

MULTIPLE = 64
STREAMS = 2
"""Strings of a hyperprior: latents, hyper-latents."""


@dataclass
class ZooPoint:
    """A network with a hyperprior at one quality.

    Attributes:
        codec: the series that it belongs to.
        architecture: its name in the zoo.
        metric: "mse" or "ms-ssim", what it was trained for.
        quality: 1 (lowest) to 8, of the pretrained ones.
        weights: a checkpoint of a run here, in place of a quality.
        device: where it runs.
    """

    codec: str
    architecture: str
    metric: str
    quality: int | None
    weights: str | None
    device: str
    lmbda: float | None = None
    suffix: str = ".ntc"

    @property
    def setting(self) -> str:
        """E.g. ``quality 1``, or the run's name."""
        if self.weights is None:
            return f"quality {self.quality}"
        return Path(self.weights).parent.parent.name or self.weights

    @torch.no_grad()
    def encode(self, picture: Pixels) -> Encoded:
        """The file of a photograph."""
        height, width = picture.shape[:2]
        x = to_tensor(picture)
        padded = torch.nn.functional.pad(
            x, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate"
        )
        strings = self._network.compress(padded.to(self.device))["strings"]
        return Encoded(write_strings(width, height, [bytes(one[0]) for one in strings]))

    @torch.no_grad()
    def decode(self, data: bytes) -> Decoded:
        """The photograph of a file."""
        width, height, strings = read_strings(data, STREAMS)
        shape = [math.ceil(side / MULTIPLE) for side in (height, width)]
        x_hat = self._network.decompress([[one] for one in strings], shape)["x_hat"]
        return Decoded(to_picture(x_hat, width, height))

    @functools.cached_property
    def _network(self) -> Any:
        network = (
            self._pretrained()
            if self.weights is None
            else load_averaged(self.weights, "net.", "photo-ntc")
        )
        network.update(force=True)
        return network.eval().to(self.device)

    def _pretrained(self) -> Any:
        from compressai.zoo.image import model_urls

        try:
            url = model_urls[self.architecture][self.metric][self.quality]
        except KeyError:
            raise ModelError(
                f"CompressAI's zoo has no {self.architecture} for {self.metric} at quality "
                f"{self.quality}; name another: architecture, metric, quality"
            ) from None
        from compressai.zoo import image_models

        try:
            return image_models[self.architecture](
                quality=self.quality, metric=self.metric, pretrained=True, progress=False
            )
        except (urllib.error.URLError, OSError) as error:
            raise ModelError(
                f"{url}: cannot be fetched ({in_one_line(error)}); put it into "
                "$TORCH_HOME/hub/checkpoints, or train one: photo_ntc_cheng2020.yaml"
            ) from None

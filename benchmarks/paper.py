"""The paper's sketch network as a codec to compare with.

It has a floating-point entropy model: its files are decoded by the process that wrote them, and
would be by no other machine for sure.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from picsnet.checkpoints import load_lightning
from picsnet.errors import UsageError
from picsnet.evaluation.baselines.strings import read_strings, write_strings
from picsnet.ntc.cheng2020 import Cheng2020Sketch

Map = NDArray[np.uint8]


class PaperCodec:
    """Codes maps to files of compressai's two strings, and the size.

    Args:
        network: trained or not; put into evaluation, with fresh tables.
    """

    def __init__(self, network: Cheng2020Sketch) -> None:
        paper: Any = network.eval().requires_grad_(False)
        paper.update(force=True)
        self._network = paper

    def encode(self, sketch: Map) -> bytes:
        """A file for a map (H, W)."""
        height, width = sketch.shape
        multiple = self._network.MULTIPLE
        x = torch.from_numpy(sketch.astype(np.float32))[None, None] / 255
        x = torch.nn.functional.pad(x, (0, -width % multiple, 0, -height % multiple))
        strings = self._network.compress(x)["strings"]
        return write_strings(width, height, [bytes(one[0]) for one in strings])

    def decode(self, data: bytes) -> Map:
        """The map in such a file."""
        width, height, strings = read_strings(data, 2)
        shape = [-(-side // self._network.MULTIPLE) for side in (height, width)]
        x_hat = self._network.decompress([[one] for one in strings], shape)["x_hat"]
        levels = x_hat[0, 0, :height, :width].clamp(0, 1).mul(255).round()
        decoded: Map = levels.numpy().astype(np.uint8)
        return decoded


def load_paper(spec: str) -> tuple[Cheng2020Sketch, float]:
    """Network and lambda of a training checkpoint.

    Raises:
        CheckpointError: it cannot be loaded.
        UsageError: it is of another architecture.
    """
    network, card, _ = load_lightning(Path(spec))
    if not isinstance(network, Cheng2020Sketch):
        raise UsageError(f"--paper {spec}: is a {card['architecture']}; give it to --ckpt")
    return network, float(card["lmbda"])

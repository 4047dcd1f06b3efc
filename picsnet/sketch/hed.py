"""HED edge maps by controlnet_aux's detector, at a picture's own size."""

from __future__ import annotations

import hashlib
import textwrap
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from picsnet.devices import unseen_by_the_caller
from picsnet.errors import ModelError, SketcherError
from picsnet.hub import resolve
from picsnet.sketch.strips import in_strips

DEFAULT_SOURCE = "lllyasviel/Annotators"
WEIGHTS = "ControlNetHED.pth"

MULTIPLE = 64
"""Sides are padded to a multiple of this, where controlnet_aux would resize."""

STRIP_PIXELS = 2**20
"""Pictures with more pixels are run in strips: a million need about 1 GB."""

MARGIN = 128
"""Rows around a strip. The deepest side output sees 98 pixels to each side and is upsampled by 16:
with these, strips leave no trace."""


class HedSketcher:
    """controlnet_aux's HED: the sigmoid of the mean of its five side outputs.

    The method is "Holistically-Nested Edge Detection" (Xie and Tu, 2015), the network and the
    weights are controlnet_aux's, which ControlNets were trained with. `HEDdetector` itself resizes
    to 512 pixels and multiples of 64; here the map has the picture's size, and is the same where
    the picture's shorter side is 512 and the other a multiple of 64.

    Args:
        source: a folder that holds ``ControlNetHED.pth``, or a hub id OWNER/NAME[@REVISION].
        device: where to run.

    Raises:
        SketcherError: the weights, or controlnet_aux, cannot be had.
    """

    def __init__(self, source: str = DEFAULT_SOURCE, device: str = "cpu") -> None:
        weights = _find_weights(source)
        with unseen_by_the_caller():
            self.network = _load_network(weights).to(device)
        self.device = torch.device(device)
        with weights.open("rb") as file:
            self.name = f"hed-{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Edge strength of each pixel.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (H, W) uint8; 255 is a sure edge.
        """
        return in_strips(rgb, self._whole, limit=STRIP_PIXELS, margin=MARGIN, multiple=MULTIPLE)

    @torch.inference_mode()
    def _whole(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """controlnet_aux's arithmetic, step by step, so that maps are equal and not just alike."""
        x = torch.from_numpy(rgb).to(self.device).permute(2, 0, 1)[None].float()
        size = (rgb.shape[1], rgb.shape[0])
        sides = [
            cv2.resize(side[0, 0].cpu().numpy(), size, interpolation=cv2.INTER_LINEAR)
            for side in self.network(x)
        ]
        mean = np.mean(np.stack(sides, axis=2), axis=2).astype(np.float64)
        with np.errstate(over="ignore"):
            strength = 1 / (1 + np.exp(-mean))
        map_: NDArray[np.uint8] = (strength * 255).clip(0, 255).astype(np.uint8)
        return map_


def _find_weights(source: str) -> Path:
    """The weights' file on this machine, fetched from the hub if need be."""
    try:
        folder = resolve(
            source, what="the HED detector", option="--sketcher hed:FOLDER", patterns=[WEIGHTS]
        )
    except ModelError as error:
        raise SketcherError(f"{error}, or use the sketcher that ships: bundled") from None
    if not (folder / WEIGHTS).is_file():
        raise SketcherError(
            f"{folder}: holds no {WEIGHTS}; put it there, for one with: "
            f"hf download {DEFAULT_SOURCE} {WEIGHTS} --local-dir {folder}"
        )
    return folder / WEIGHTS


def _load_network(weights: Path) -> torch.nn.Module:
    try:
        with warnings.catch_warnings():
            # The package imports all its detectors, and warns of what those lack.
            warnings.simplefilter("ignore")
            from controlnet_aux.hed import ControlNetHED_Apache2
    except ImportError as error:
        raise SketcherError(
            f"hed: controlnet_aux cannot be imported ({_short(error)}); pip install "
            "'controlnet-aux>=0.0.10', or use the sketcher that ships: bundled"
        ) from None
    try:
        # The file is a pickle: only tensors may come out of it, whatever the environment says.
        state = torch.load(weights, map_location="cpu", weights_only=True)
        network: torch.nn.Module = ControlNetHED_Apache2()
        network.load_state_dict(state)
    except Exception as error:
        raise SketcherError(
            f"{weights}: not the weights of controlnet_aux's HED ({type(error).__name__}); fetch "
            f"them again: hf download --force-download {DEFAULT_SOURCE} {WEIGHTS}"
        ) from None
    return network.float().eval().requires_grad_(False)


def _short(error: Exception) -> str:
    return textwrap.shorten(str(error), 120, placeholder=" ...") or type(error).__name__

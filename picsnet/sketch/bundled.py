"""The edge detector that ships: no download, soft edges in the manner of HED."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from picsnet import shipped
from picsnet.devices import unseen_by_the_caller
from picsnet.errors import CheckpointError, SketcherError, in_one_line, with_its_kind
from picsnet.files import atomic_write
from picsnet.saved import averaged
from picsnet.shipped import CARD, WEIGHTS
from picsnet.sketch.network import EdgeNetwork
from picsnet.sketch.strips import in_strips

SHIPPED = shipped.FOLDER / shipped.EDGES

SCALES = (0.5, 1.0, 1.5)
"""The picture is seen at these scales and the maps are averaged, as in RCF (Liu et al., 2017)."""

STRIP_PIXELS = 2**22
"""Pictures with more pixels are run in strips, so that memory stays bounded."""

MARGIN = 512
"""Rows around a strip: more than half the receptive field at the smallest scale, so that strips
leave no trace."""

_STEP = 2 * EdgeNetwork.MULTIPLE
"""Strips begin at multiples of this, and so on the network's grid at every scale."""

LOGIT_SHIFT = 1.5
"""Taken off the fused logits at export.

The class-balanced loss trains a detector to overrate edges, which are 6 % of BSDS500's pixels: by
log((1 - 0.06) / (1.1 * 0.06)) = 2.7 in the logit. Taking back about half of it gives maps that read
as HED's do, sure edges white and texture dark. A shift moves no pixel past another, so ODS, OIS and
AP stay what they were.
"""


class BundledSketcher:
    """Soft edge maps by `picsnet.sketch.network.EdgeNetwork`.

    Args:
        device: where to run.
        folder: an exported model; the one that ships if not given.

    Raises:
        SketcherError: the weights are missing or damaged.
    """

    @unseen_by_the_caller()
    def __init__(self, device: str = "cpu", folder: Path = SHIPPED) -> None:
        try:
            card = json.loads((folder / CARD).read_text())
            self.network = EdgeNetwork(**card["options"])
            self.scales = tuple(float(scale) for scale in card["scales"])
            state = {key: value.float() for key, value in load_file(folder / WEIGHTS).items()}
            absent = self.network.load_state_dict(state, strict=False).missing_keys
            # Counters of batch normalisation are not exported; anything else must be there.
            if lost := [key for key in absent if not key.endswith(".num_batches_tracked")]:
                raise ValueError(f"{len(lost)} weights are missing, the first {lost[0]}")
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            reason = in_one_line(error)
            raise SketcherError(
                f"{folder}: the edge detector's weights cannot be read ({reason}); restore the "
                "folder from the repository, or train it: train.py --config edge_bsds500.yaml"
            ) from None
        self.name = f"bundled-{card['fingerprint'][:8]}"
        self.device = torch.device(device)
        self.network.eval().requires_grad_(False).to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Edge strength of each pixel.

        Args:
            rgb: (H, W, 3) uint8.

        Returns:
            (H, W) uint8; 255 is a sure edge.
        """
        return in_strips(rgb, self._whole, limit=STRIP_PIXELS, margin=MARGIN, multiple=_STEP)

    def _whole(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x = torch.from_numpy(rgb).to(self.device).permute(2, 0, 1)[None].float() / 255
        strength = self.strength(x)[0, 0]
        result: NDArray[np.uint8] = (strength * 255).round().to(torch.uint8).cpu().numpy()
        return result

    @torch.inference_mode()
    def strength(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1, sides multiples of 32 -> (B, 1, H, W) in 0..1."""
        maps = [self._at_scale(x, scale) for scale in self.scales]
        return torch.stack(maps).mean(dim=0)

    def _at_scale(self, x: Tensor, scale: float) -> Tensor:
        size = x.shape[-2:]
        if scale != 1:
            scaled = [round(side * scale) for side in size]
            x = F.interpolate(x, size=scaled, mode="bilinear", antialias=scale < 1)
        strength: Tensor = self.network(x.contiguous(memory_format=torch.channels_last))[-1]
        strength = strength.float().sigmoid()
        return strength if scale == 1 else F.interpolate(strength, size=size, mode="bilinear")


def export(network: EdgeNetwork, card: dict[str, Any], folder: Path) -> None:
    """Write an edge detector's folder, weights in half precision."""
    tensors = {
        key: value.detach().cpu().half().contiguous()
        for key, value in network.state_dict().items()
        if value.is_floating_point()
    }
    digest = hashlib.sha256(json.dumps(card["scales"]).encode())
    for key in sorted(tensors):
        digest.update(key.encode() + tensors[key].numpy().tobytes())
    with atomic_write(folder / WEIGHTS) as part:
        save_file(tensors, part, metadata={"format": "picsnet-edge-1"})
        part.chmod(0o644)  # safetensors makes files that only their owner can read
    with atomic_write(folder / CARD) as part:
        card = {**card, "fingerprint": digest.hexdigest()[:16]}
        part.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


def load_training_checkpoint(path: Path) -> tuple[EdgeNetwork, dict[str, Any]]:
    """The averaged network of a training run, and the card that its export gets.

    Raises:
        CheckpointError: not a checkpoint of an edge detector.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        config = saved["config"]
        network = EdgeNetwork(**config["model"])
        network.load_state_dict(averaged(saved))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint; train one with train.py") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a checkpoint of an edge detector ({with_its_kind(error)})"
        ) from None
    assert network.fuse.bias is not None
    with torch.no_grad():
        network.fuse.bias.sub_(LOGIT_SHIFT)
    card = {
        "architecture": "edge-network",
        "options": config["model"],
        "logit_shift": LOGIT_SHIFT,
        "scales": list(SCALES),
        "steps": saved["batches_seen"],
        "batch_size": config["data"]["batch_size"],
        "crop": config["data"]["crop"],
        "data": f"BSDS500 {' and '.join(config['data']['splits'])}",
        "environment": saved.get("environment", {}),
    }
    return network, card

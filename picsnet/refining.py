"""Latents made better for one picture, at the sender; the receiver does not know.

g_a and h_a were trained to be good on average. For a picture at hand, descent on its own
rate-distortion loss finds latents that serve it better ("Content Adaptive Optimization for Neural
Image Compression", Campos et al., 2019). It begins at the best of eight orientations, which takes
about as long as eight steps. Where latents are synthesised their rounding is soft, harder from
step to step, and its gradients pass straight through; what latents cost is told as in training
(`picsnet.ntc.context`). The noise that stands for the rounding of hyper-latents is the same for
every picture: files do not depend on what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from picsnet.devices import is_fast_in_bf16
from picsnet.errors import UsageError
from picsnet.losses import RateDistortionLoss
from picsnet.metrics import MS_SSIM_SHORTEST_SIDE
from picsnet.ntc.base import FileNTC, NTCOutput
from picsnet.ntc.context import SketchContext
from picsnet.orientation import AS_IT_IS, turned

STEPS = (0, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""Steps of descent by effort, 0 to 9."""

LEARNING_RATE = 0.005
BETAS = (0.8, 0.95)
"""Steps are few and their gradients jump with what is rounded otherwise: a short memory serves."""
HARDNESS = (6.0, 20.0)
"""Of soft rounding, at the first step and the last, rising by the same factor each step. Against
plain rounding it takes half the steps for the same loss (docs/training.md)."""
SEED = 0
MAX_PIXELS = 2**24
"""Of a map that efforts are made for: descent keeps some 500 bytes a pixel, 8 GiB at this size."""
LOOK_EVERY = 5
"""Steps between two looks at the loss as files are coded; the best look counts."""


class Refined(NamedTuple):
    """Latents before rounding, of the map as it is turned.

    Attributes:
        y: (1, M, h, w), scaled by the gains.
        z: (1, N, ceil(h/4), ceil(w/4)).
        orientation: how the map is turned (`picsnet.orientation`).
        before, after: the rate-distortion loss as files are coded, of the map as it is and of the
            best that was found.
    """

    y: Tensor
    z: Tensor
    orientation: int
    before: float
    after: float


def check_effort(effort: int, network: FileNTC, name: str) -> None:
    """Refuse an effort that there is not, or that a network cannot make.

    Raises:
        UsageError: it is no whole number of 0..9, the network is another than `SketchContext`, or
            it was loaded without its prior.
    """
    last = len(STEPS) - 1
    whole = isinstance(effort, Integral) and not isinstance(effort, bool)
    if not whole or not 0 <= effort <= last:
        raise UsageError(f"--effort {effort!r}: must be 0 to {last}, a whole number")
    if not isinstance(network, SketchContext):
        raise UsageError(f"--effort {effort}: {name} codes with effort 0 only; leave it out")
    if not hasattr(network, "entropy_bottleneck"):
        raise UsageError(f"--effort {effort}: {name} was loaded without its prior (prior=False)")


def refine(
    network: SketchContext,
    x: Tensor,
    quality: int,
    effort: int,
    orientations: Sequence[float] = (0.0,),
    distortion: str = "ms-ssim",
    edge_weight: float = 0.0,
) -> Refined:
    """Descend on lmbda * distortion + bpp of one map, from the best of its orientations.

    Args:
        network: in evaluation mode.
        x: (1, 1, H, W) in 0..1.
        quality: operating point.
        effort: 1 .. 9.
        orientations: bits that each one costs of those that the model's files may have.
        distortion, edge_weight: that the network was trained on (`picsnet.losses`).

    Raises:
        UsageError: the map has more than `MAX_PIXELS`.
        ValueError: the network has no such operating point.
    """
    height, width = x.shape[-2:]
    if height * width > MAX_PIXELS:
        raise UsageError(
            f"--effort {effort}: a sketch of {width}x{height} would take too much memory; "
            f"beyond {MAX_PIXELS} pixels leave it out"
        )
    # The caller may be in a mode without gradients.
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone()
        best, before, orientation = None, [], AS_IT_IS
        for way, bits in enumerate(orientations):
            found = Lagrangian(network, turned(x, way), quality, bits, distortion, edge_weight)
            before.append(found.as_coded())
            if best is None or before[way] < before[orientation]:
                best, orientation = found, way
        assert best is not None
        y, z, after = _descend(best, before[orientation], STEPS[effort])
        return Refined(y, z, orientation, before[AS_IT_IS], after)


class Lagrangian:
    """The rate-distortion loss of one map, by its latents.

    Args:
        network: in evaluation mode.
        x: (1, 1, H, W) in 0..1.
        quality: operating point.
        bits: that a file spends besides latents.
        distortion, edge_weight: `picsnet.losses` has them.

    Raises:
        ValueError: the network has no such operating point.
    """

    def __init__(
        self,
        network: SketchContext,
        x: Tensor,
        quality: int,
        bits: float = 0.0,
        distortion: str = "ms-ssim",
        edge_weight: float = 0.0,
    ) -> None:
        self.network, self.size = network, (x.shape[-2], x.shape[-1])
        self.points = torch.tensor([quality], device=x.device)
        lmbda = network.lmbda_at(quality)
        self.criterion = RateDistortionLoss(lmbda, distortion, edge_weight=edge_weight)
        with torch.no_grad():
            self.y, self.z = network.latents(network.padded(x), self.points)
        # MS-SSIM's five scales need 161 pixels; smaller maps are compared with black around them.
        low, right = (max(0, MS_SSIM_SHORTEST_SIDE - side) for side in self.size)
        self._black = (0, right, 0, low)
        self.target = F.pad(x, self._black)
        self._more = bits / self.target.numel()
        # Directions may be coarse, as in training; what counts is looked at in float32.
        self._coarse = is_fast_in_bf16(x.device.type)

    def as_coded(self) -> float:
        """Of a file with these latents."""
        with torch.no_grad():
            return float(self._loss(relaxed=False)) + self._more

    def relaxed(self, noise: Tensor, hardness: float) -> Tensor:
        """With gradients.

        Args:
            noise: for the rounding of hyper-latents, like z, -1/2..1/2.
            hardness: of soft rounding of latents.
        """
        return self._loss(relaxed=True, noise=noise, hardness=hardness)

    def _loss(
        self, relaxed: bool, noise: Tensor | None = None, hardness: float | None = None
    ) -> Tensor:
        height, width = self.size
        restored, likelihoods = self.network.coded(
            self.y, self.z, self.points, relaxed, noise, hardness
        )
        coarse = relaxed and self._coarse
        with torch.autocast(restored.device.type, torch.bfloat16, enabled=coarse):
            x_hat = self.network.g_s(restored)
        x_hat = F.pad(x_hat[..., :height, :width], self._black)
        result: Tensor = self.criterion(NTCOutput(x_hat, likelihoods), self.target).loss
        return result


def _descend(loss: Lagrangian, before: float, steps: int) -> tuple[Tensor, Tensor, float]:
    """The best latents found, and their loss as coded."""
    best = (loss.y.clone(), loss.z.clone(), before)
    y, z = loss.y.requires_grad_(), loss.z.requires_grad_()
    optimizer = torch.optim.Adam([y, z], lr=LEARNING_RATE, betas=BETAS)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    # Of its own: other threads may be at other pictures.
    generator = torch.Generator(z.device).manual_seed(SEED)
    softest, hardest = HARDNESS
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        noise = torch.empty_like(z).uniform_(-0.5, 0.5, generator=generator)
        loss.relaxed(noise, softest * (hardest / softest) ** (step / steps)).backward()
        optimizer.step()
        scheduler.step()
        if step % LOOK_EVERY == 0 or step == steps:
            now = loss.as_coded()
            if now < best[2]:
                best = (y.detach().clone(), z.detach().clone(), now)
    return best

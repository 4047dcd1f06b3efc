"""Latents made better for one picture, at the sender; the receiver does not know.

g_a and h_a were trained to be good on average. For a picture at hand, descent on its own
rate-distortion loss finds latents that serve it better ("Content Adaptive Optimization for Neural
Image Compression", Campos et al., 2019). Rounding is passed straight through where latents are
synthesised; what latents cost is told as in training (`picsnet.ntc.context`). The noise that stands
for the rounding of hyper-latents is the same for every picture: files do not depend on what came
before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from picsnet.devices import trains_in_bf16
from picsnet.errors import UsageError
from picsnet.losses import RateDistortionLoss
from picsnet.metrics import MS_SSIM_SHORTEST_SIDE
from picsnet.ntc.base import FileNTC, NTCOutput
from picsnet.ntc.context import SketchContext

STEPS = (0, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""Steps of descent by effort, 0 to 9."""

LEARNING_RATE = 0.005
BETAS = (0.8, 0.95)
"""Steps are few and their gradients jump with what is rounded otherwise: a short memory serves."""
SEED = 0
MAX_PIXELS = 2**24
"""Of a map that efforts are made for: descent keeps some 500 bytes a pixel, 8 GiB at this size."""
LOOK_EVERY = 5
"""Steps between two looks at the loss as files are coded; the best look counts."""


class Refined(NamedTuple):
    """Latents before rounding.

    Attributes:
        y: (1, M, h, w), scaled by the gains.
        z: (1, N, ceil(h/4), ceil(w/4)).
        before, after: the rate-distortion loss as files are coded, at the start and at the best.
    """

    y: Tensor
    z: Tensor
    before: float
    after: float


def check_effort(effort: int, network: FileNTC, name: str) -> None:
    """Refuse an effort that there is not, or that a network cannot make.

    Raises:
        UsageError: it is outside 0..9, or the network is another than `SketchContext`.
    """
    last = len(STEPS) - 1
    if not 0 <= effort <= last:
        raise UsageError(f"--effort {effort}: must be 0 to {last}")
    if not isinstance(network, SketchContext):
        raise UsageError(f"--effort {effort}: {name} codes with effort 0 only; leave it out")


def refine(
    network: SketchContext,
    x: Tensor,
    size: tuple[int, int],
    quality: int,
    effort: int,
) -> Refined:
    """Descend on lmbda * (1 - MS-SSIM) + bpp of one map.

    Args:
        network: in evaluation mode.
        x: (1, 1, H, W) in 0..1, padded to multiples of 16.
        size: of the map within, from the top left: what is compared.
        quality: operating point.
        effort: 1 .. 9.

    Raises:
        UsageError: the map has more than `MAX_PIXELS`.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise UsageError(
            f"--effort {effort}: a sketch of {size[1]}x{size[0]} would take too much memory; "
            f"beyond {MAX_PIXELS} pixels leave it out"
        )
    # The caller may be in a mode without gradients.
    with torch.inference_mode(False), torch.enable_grad():
        return _descend(network, x.clone(), size, quality, STEPS[effort])


def _descend(
    network: SketchContext, x: Tensor, size: tuple[int, int], quality: int, steps: int
) -> Refined:
    points = torch.tensor([quality], device=x.device)
    criterion = RateDistortionLoss(float(network.lmbda_of(points)), "ms-ssim")
    with torch.no_grad():
        y, z = network.latents(x, points)
    y, z = y.clone().requires_grad_(), z.clone().requires_grad_()
    optimizer = torch.optim.Adam([y, z], lr=LEARNING_RATE, betas=BETAS)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    # MS-SSIM's five scales need 161 pixels; smaller maps are compared with black around them.
    low, right = (max(0, MS_SSIM_SHORTEST_SIDE - side) for side in size)
    target = F.pad(x[..., : size[0], : size[1]], (0, right, 0, low))

    # Of its own: other threads may be at other pictures.
    generator = torch.Generator(x.device).manual_seed(SEED)

    # Directions may be coarse, as in training; what counts is looked at in float32.
    coarse = _is_fast_in_bf16(x.device)

    def loss(relaxed: bool) -> Tensor:
        noise = torch.empty_like(z).uniform_(-0.5, 0.5, generator=generator) if relaxed else None
        restored, likelihoods = network.coded(y, z, points, relaxed, noise)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=relaxed and coarse):
            synthesised = network.g_s(restored)
        x_hat = F.pad(synthesised[..., : size[0], : size[1]], (0, right, 0, low))
        result: Tensor = criterion(NTCOutput(x_hat, likelihoods), target).loss
        return result

    def looked_at() -> float:
        with torch.no_grad():
            return float(loss(relaxed=False))

    before = looked_at()
    best = Refined(y.detach().clone(), z.detach().clone(), before, before)
    if not target.any():
        return best  # an all-black map is sent without symbols
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(relaxed=True).backward()
        optimizer.step()
        scheduler.step()
        if step % LOOK_EVERY == 0 or step == steps:
            now = looked_at()
            if now < best.after:
                best = Refined(y.detach().clone(), z.detach().clone(), before, now)
    return best


def _is_fast_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and trains_in_bf16()

"""A sketch network whose latents are coded in four steps, each seeing those before, at any rate.

The hyperprior of `picsnet.ntc.hyperprior` tells of a block only what hyper-latents were paid for.
Edges, though, run on from block to block. So here the latents of each cell of 2x2 positions come in
four steps, a quarter of the channels of every position in each, and each step's means and tables
come from the hyper-latents and all steps before it, of this cell and its neighbours:

             step of channel group        after the quadtree partition of "Neural Video Compression
    position   0   1   2   3              with Diverse Contexts" (DCVC-DC, Li, Li and Lu, 2023): at
    (0, 0)     0   1   2   3              every step every position says something, and no step
    (0, 1)     2   3   0   1              waits for its neighbours one by one, as an autoregressive
    (1, 0)     3   0   1   2              context does.
    (1, 1)     1   2   3   0

A step may come in two phases: first the cells of one colour of a chessboard, then the others, which
see what the first phase said of the cells around them ("Checkerboard Context Model for Efficient
Learned Image Compression", He et al., 2021). All of that is exact fixed-point arithmetic, as the
hyper-synthesis is.

One network serves all rates: latents are scaled by a gain for each channel and lambda before they
are rounded and scaled back after ("Asymmetric Gained Deep Image Compression With Continuous Rate
Adaptation", Cui et al., 2021); between two lambdas, gains are interpolated on a logarithmic scale.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picsnet.entropy import PRECISION
from picsnet.ntc.base import FileNTC, Latents, Limits, NTCOutput, Part, Read
from picsnet.ntc.fixedpoint import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    WEIGHT_BITS,
    FixedPointConv2d,
    fixed_point_relu,
    round_through,
    snap,
)
from picsnet.ntc.hyperprior import (
    Z_LIMIT,
    EntropyParameters,
    SketchHyperprior,
    entropy_parameters,
    hyper_analysis,
    hyper_part,
    read_hyper_latents,
    scale_of_index,
)
from picsnet.ntc.layers import LowerBound, ResidualBlock, conv3x3, subpel_conv3x3
from picsnet.ntc.rounded import rounded_log_likelihoods, softly_rounded
from picsnet.orientation import ORIENTATIONS

STEPS = 4
MIN_LOG_LIKELIHOOD = -60.0
"""In training; gradients stay finite below it."""

MIN_LOG_PROBABILITY = -PRECISION * math.log(2)
"""As files are coded: tables count in units of 2^-24, and symbols beyond their ends are clipped."""

_STEP_OF_POSITION = (0, 2, 3, 1)
"""Step in which channel group 0 of a cell's position comes; group g comes g steps later."""


class Levels(nn.Module):
    """A vector for each lambda, interpolated between neighbours in eighths.

    On a fixed-point grid the interpolation is exact in float64.

    Args:
        levels: how many lambdas.
        channels: of the vectors.
        bits: of the grid's fraction; None leaves them as they are.
    """

    def __init__(self, levels: int, channels: int, bits: int | None = None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(levels, channels))
        self.bits = bits

    def grid(self) -> Tensor:
        """The vectors on their grid."""
        return self.vectors if self.bits is None else snap(self.vectors, self.bits, 2**22)

    def forward(self, quality: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) operating points to (B, channels, 1, 1)."""
        place = quality.to(dtype)[:, None] / FileNTC.QUALITY_STEPS
        level = torch.arange(len(self.vectors), dtype=dtype, device=quality.device)
        shares = (1 - (place - level).abs()).clamp(min=0)
        vectors: Tensor = shares @ self.grid().to(dtype)
        return vectors[..., None, None]


class RateGains(nn.Module):
    """Gains before rounding, and what undoes them after, by operating point and channel."""

    def __init__(self, lambdas: Sequence[float], channels: int) -> None:
        super().__init__()
        self.log_gain = Levels(len(lambdas), channels)
        self.log_inverse = Levels(len(lambdas), channels)
        self.offset = Levels(len(lambdas), channels)
        with torch.no_grad():
            # Where rate falls with lambda in models that were trained one by one, latents shrink
            # so: a start, to be trained.
            start = 0.6 * torch.tensor([math.log(lmbda / 0.5) for lmbda in lambdas])
            self.log_gain.vectors.add_(start[:, None])
            self.log_inverse.vectors.sub_(start[:, None])

    def scale(self, y: Tensor, quality: Tensor) -> Tensor:
        """Latents as they are to be rounded."""
        return y * torch.exp(self.log_gain(quality, y.dtype))

    def restore(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """Rounded latents as the synthesis takes them."""
        inverse = torch.exp(self.log_inverse(quality, y_hat.dtype))
        restored: Tensor = y_hat * inverse + self.offset(quality, y_hat.dtype)
        return restored


class StepParameters(nn.Module):
    """One step's entropy parameters, from the hyper-latents and the steps before.

    (B, inputs, hc, wc) -> 3x3 conv + vector of the lambda -> relu -> 1x1 -> relu -> 1x1 -> means, s
                                    + 3x3 conv of the phase before, in the second

    Args:
        inputs: channels of the features and the steps before.
        width: channels within.
        outputs: latents of a cell.
        levels: how many lambdas.
        phases: 1, or 2.
    """

    def __init__(self, inputs: int, width: int, outputs: int, levels: int, phases: int) -> None:
        super().__init__()
        self.conv1 = FixedPointConv2d(inputs, width)
        self.around = FixedPointConv2d(outputs, width) if phases > 1 else None
        self.level = Levels(levels, width, WEIGHT_BITS + ACTIVATION_BITS)
        self.conv2 = FixedPointConv2d(width, width, kernel=1)
        self.conv3 = FixedPointConv2d(width, 2 * outputs, kernel=1)
        self.lowest = LowerBound(0.0)

    def begin(self, seen: list[Tensor], quality: Tensor) -> Tensor:
        """What all phases of the step have in common, (B, width, hc, wc).

        Args:
            seen: the features, then y_hat of each step before, as `ContextModel.as_seen` gives it.
            quality: (B,).
        """
        x = torch.cat(seen, dim=1)
        sums: Tensor = self.conv1(x) + self.level(quality, x.dtype)
        return sums

    def forward(self, begun: Tensor, first: Tensor | None, exact: bool) -> EntropyParameters:
        """Parameters of the step's latents (B, outputs, hc, wc).

        Args:
            begun: as `begin` says.
            first: y_hat of the first phase as later steps see it, zero where the second's cells
                are; None in the first phase.
            exact: whether indexes are to be integers.
        """
        if first is not None:
            assert self.around is not None
            begun = begun + self.around(first)
        x = fixed_point_relu(begun)
        x = fixed_point_relu(self.conv2(x))
        return entropy_parameters(self.conv3(x), self.lowest, exact)


class ContextModel(nn.Module):
    """Entropy parameters of all latents, step by step; exact in evaluation.

    Args:
        N: channels of the hyper-latents.
        M: channels of the latents, a multiple of 4.
        levels: how many lambdas.
        features: channels of what the hyper-latents tell every step.
        width: channels within a step.
        phases: of each step, 1 or 2.
    """

    def __init__(self, N: int, M: int, levels: int, features: int, width: int, phases: int) -> None:
        super().__init__()
        self.phases = phases
        self.conv1 = FixedPointConv2d(N, 4 * features)
        self.level = Levels(levels, features, WEIGHT_BITS + ACTIVATION_BITS)
        self.conv2 = FixedPointConv2d(features, features)
        self.steps = nn.ModuleList(
            StepParameters(features + step * M, width, M, levels, phases) for step in range(STEPS)
        )

    def features(self, z_hat: Tensor, size: tuple[int, int], quality: Tensor) -> Tensor:
        """What hyper-latents (B, N, hz, wz) tell of cells (B, features, hc, wc)."""
        x = torch.clamp(z_hat, -Z_LIMIT, Z_LIMIT)
        x = F.pixel_shuffle(self.conv1(x), 2)[..., : size[0], : size[1]]
        x = fixed_point_relu(x + self.level(quality, x.dtype))
        return fixed_point_relu(self.conv2(x))

    def walk(
        self,
        features: Tensor,
        masks: Sequence[Tensor],
        quality: Tensor,
        exact: bool,
        code: Callable[[int, int, EntropyParameters], Tensor],
    ) -> list[Tensor]:
        """Go through steps and phases as sender and receiver both do.

        Args:
            features: as `features` gives them, in the type of the arithmetic.
            masks: for each phase, its cells: (hc, wc), 1 or 0.
            quality: (B,).
            exact: whether indexes are to be integers.
            code: takes step, phase and the parameters of all latents of the step; returns their
                y_hat (B, M, hc, wc), of which those of the phase count.

        Returns:
            y_hat of each step, (B, M, hc, wc).
        """
        seen: list[Tensor] = [features]
        coded: list[Tensor] = []
        for step, parameters in enumerate(self.steps):
            assert isinstance(parameters, StepParameters)
            begun = parameters.begin(seen, quality)
            y_hat: Tensor | None = None
            for phase, mask in enumerate(masks):
                first = None if y_hat is None else self.as_seen(y_hat).to(begun.dtype)
                found = code(step, phase, parameters(begun, first, exact)) * mask
                y_hat = found if y_hat is None else y_hat + found
            assert y_hat is not None
            coded.append(y_hat)
            seen.append(self.as_seen(y_hat).to(begun.dtype))
        return coded

    @staticmethod
    def as_seen(y_hat: Tensor) -> Tensor:
        """Latents as later steps see them: on the activation grid, cut off far out."""
        return snap(y_hat, ACTIVATION_BITS, ACTIVATION_MAX)


class _Cells(NamedTuple):
    """How latents (B, M, h, w) are laid out in cells (B, 4M, hc, wc), and which of them exist.

    Attributes:
        size: (h, w).
        grid: (hc, wc).
        channels: for each step, the M cell channels that it codes.
        masks: for each phase, its cells: (hc, wc), 1 or 0.
    """

    size: tuple[int, int]
    grid: tuple[int, int]
    channels: list[Tensor]
    masks: Sequence[Tensor]

    def split(self, y: Tensor) -> list[Tensor]:
        """Latents by step, (B, M, hc, wc) each, zero where a cell sticks out of the picture."""
        (h, w), (hc, wc) = self.size, self.grid
        cells = F.pixel_unshuffle(F.pad(y, (0, 2 * wc - w, 0, 2 * hc - h)), 2)
        return [cells[:, channels] for channels in self.channels]

    def join(self, steps: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        together = torch.cat(steps, dim=1)
        order = torch.argsort(torch.cat(self.channels))
        h, w = self.size
        return F.pixel_shuffle(together[:, order], 2)[..., :h, :w]

    def inside(self) -> list[Tensor]:
        """For each step, which of its latents exist: (1, M, hc, wc), 1 or 0."""
        shape = (1, len(self.channels[0]), *self.size)
        device = self.channels[0].device
        return self.split(torch.ones(shape, dtype=torch.float32, device=device))

    def valid(self) -> list[list[Tensor]]:
        """For each step and phase, which of its latents exist: (M * hc * wc,) bool."""
        return [[(part * mask).flatten() > 0 for mask in self.masks] for part in self.inside()]


def _step_channels(M: int) -> list[list[int]]:
    channel = torch.arange(4 * M)
    latent, position = channel // 4, channel % 4
    first = torch.tensor(_STEP_OF_POSITION)[position]
    step = (first + latent * STEPS // M) % STEPS
    return [channel[step == s].tolist() for s in range(STEPS)]


class SketchContext(FileNTC):
    """Sketch network with a four-step context and a continuous rate.

        x (B,1,H,W) -> g_a -> y, gains -> step by step: round(y - means) -> stream
                                 h_a -> z -> round ---------^ tables, means (exact)
        x_hat <- g_s <- gains undone <- y_hat

    Args:
        lambdas: rising; those that training draws from, each twice the one before if operating
            points are to be spread evenly.
        widths: channels at 1/4, 1/8 and 1/16 of the size.
        M: channels of the latents y, a multiple of 4.
        N: channels of the hyper-latents z.
        analysis, synthesis: residual blocks at 1/4, 1/8 and 1/16.
        features, width, phases: of `ContextModel`.
        prior: whether to make what training and `forward` need beside what codes files.

    Raises:
        ValueError: lambdas do not rise from above zero, M is no multiple of 4, or phases are
            neither 1 nor 2.
    """

    MULTIPLE = 16
    ORIENTATIONS = ORIENTATIONS

    def __init__(
        self,
        lambdas: Sequence[float] = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0),
        widths: Sequence[int] = (48, 80, 96),
        M: int = 48,
        N: int = 32,
        analysis: Sequence[int] = (1, 1, 1),
        synthesis: Sequence[int] = (1, 1, 1),
        features: int = 64,
        width: int = 160,
        phases: int = 1,
        prior: bool = True,
    ) -> None:
        super().__init__()
        self.lambdas = tuple(float(lmbda) for lmbda in lambdas)
        if not self.lambdas or self.lambdas[0] <= 0 or list(lambdas) != sorted(set(lambdas)):
            raise ValueError(f"lambdas must rise from above zero, not be {list(lambdas)}")
        if M % STEPS:
            raise ValueError(f"M must be a multiple of {STEPS}, not {M}")
        if phases not in (1, 2):
            raise ValueError(f"phases must be 1 or 2, not {phases}")
        a, b, c = widths
        self.M, self.N = M, N
        self.g_a = nn.Sequential(
            nn.PixelUnshuffle(4),
            conv3x3(16, a),
            *_blocks(a, analysis[0]),
            conv3x3(a, b, stride=2),
            *_blocks(b, analysis[1]),
            conv3x3(b, c, stride=2),
            *_blocks(c, analysis[2]),
            conv3x3(c, M),
        )
        self.g_s = nn.Sequential(
            conv3x3(M, c),
            *_blocks(c, synthesis[2]),
            subpel_conv3x3(c, b, 2),
            *_blocks(b, synthesis[1]),
            subpel_conv3x3(b, a, 2),
            *_blocks(a, synthesis[0]),
            conv3x3(a, 16),
            nn.PixelShuffle(4),
        )
        self.gains = RateGains(self.lambdas, M)
        self.h_a = hyper_analysis(M, N)
        self.context = ContextModel(N, M, len(self.lambdas), features, width, phases)
        if prior:
            from picsnet.ntc.prior import IntegerEntropyBottleneck

            self.entropy_bottleneck = IntegerEntropyBottleneck(N)
        self.lowest = LowerBound(MIN_LOG_LIKELIHOOD)
        self._channels = _step_channels(M)

    @property
    def levels(self) -> int:
        """How many lambdas the network was made for."""
        return len(self.lambdas)

    @property
    def qualities(self) -> int:
        """How many operating points: eighths of the way from each lambda to the next."""
        return (len(self.lambdas) - 1) * self.QUALITY_STEPS + 1

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """The lambda of operating points: interpolated on a logarithmic scale.

        Args:
            quality: as `forward` takes them.
        """
        logs = _on_device(tuple(math.log(lmbda) for lmbda in self.lambdas), quality.device)
        low = (quality // self.QUALITY_STEPS).clamp(max=max(0, len(logs) - 2))
        share = quality / self.QUALITY_STEPS - low
        high = (low + 1).clamp(max=len(logs) - 1)
        return torch.exp(logs[low] + share * (logs[high] - logs[low]))

    def lmbda_at(self, quality: int) -> float:
        """The lambda of an operating point.

        Raises:
            ValueError: the network has no such point.
        """
        return float(self.lmbda_of(torch.tensor(self._known(quality))))

    def _known(self, quality: int) -> int:
        """An operating point that the network has: beyond, all its vectors would be zero."""
        if not 0 <= quality < self.qualities:
            raise ValueError(f"quality must be 0 to {self.qualities - 1}, not {quality}")
        return quality

    def quality_of(self, lmbda: float) -> int:
        """The operating point nearest to a lambda."""
        points = self.lmbda_of(torch.arange(self.qualities))
        return int((points.log() - math.log(lmbda)).abs().argmin())

    def start_from(self, other: SketchHyperprior | SketchContext) -> None:
        """Take over what another network has learned.

        Of a hyperprior the transforms, of a network of this kind all of it, at our lambdas: its
        vectors are interpolated, and those of its first or last lambda stand for what lies beyond.
        Blocks and the second phase, where the other one lacks them, change nothing yet.

        Raises:
            ValueError: widths, M or N differ, or it has more blocks or phases.
        """
        if isinstance(other, SketchContext) and other.context.phases > self.context.phases:
            raise ValueError("it has more phases than this network")
        _adopt(self.g_a, other.g_a)
        _adopt(self.g_s, other.g_s)
        try:
            self.h_a.load_state_dict(other.h_a.state_dict())
            self.entropy_bottleneck.load_state_dict(other.entropy_bottleneck.state_dict())
            if isinstance(other, SketchContext):
                self.gains.load_state_dict(self._at_our_lambdas(other, other.gains))
                state = self._at_our_lambdas(other, other.context)
                if self.context.phases > other.context.phases:
                    # At zero, what the first phase said goes unheard.
                    for name, value in self.context.state_dict().items():
                        if ".around." in name:
                            state[name] = torch.zeros_like(value)
                self.context.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(str(error)) from None

    def _at_our_lambdas(self, other: SketchContext, part: nn.Module) -> dict[str, Tensor]:
        """State of a part of another network, its vectors interpolated."""
        state = part.state_dict()
        places = np.interp(np.log(self.lambdas), np.log(other.lambdas), range(other.levels))
        quality = torch.from_numpy(places * self.QUALITY_STEPS)
        for name, layer in part.named_modules():
            if isinstance(layer, Levels):
                vectors = layer(quality, torch.float64)[..., 0, 0]
                state[f"{name}.vectors"] = vectors.float()
        return state

    def forward(self, x: Tensor, quality: Tensor | None = None) -> NTCOutput:
        """Code (B, 1, H, W) maps in 0..1; H and W multiples of 16.

        Args:
            x: the maps.
            quality: (B,) operating points, 0 .. ``qualities`` - 1; None is the highest. Whoever
                makes them sees to it: to look at them, the host would have to wait for the device.

        In training, gradients pass straight through rounding.
        """
        if quality is None:
            quality = torch.full((len(x),), self.qualities - 1, device=x.device)
        y = self.g_a(x)
        with torch.autocast(x.device.type, enabled=False):
            y = self.gains.scale(y.float(), quality)
            restored, likelihoods = self.coded(y, self.h_a(y), quality, relaxed=self.training)
        return NTCOutput(self.g_s(restored), likelihoods)

    def coded(
        self,
        y: Tensor,
        z: Tensor,
        quality: Tensor,
        relaxed: bool,
        noise: Tensor | None = None,
        hardness: float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What entropy coding does to scaled latents, and what it costs.

        Args:
            y: (B, M, h, w), before rounding.
            z: (B, N, ceil(h/4), ceil(w/4)), before rounding.
            quality: (B,).
            relaxed: differentiable (hyper-latents are noisy then); else as files are coded.
            noise: like z, -1/2..1/2, in place of torch's own random numbers.
            hardness: with it, latents are softly rounded (`picsnet.ntc.rounded`) in y_hat; their
                gradients pass straight through all the same. None rounds them.

        Returns:
            Latents as g_s takes them (B, M, h, w), and likelihoods of the streams.
        """
        cells = self._cells((y.shape[-2], y.shape[-1]), y.device)
        kind = torch.float32 if relaxed else torch.float64
        if noise is None:
            _, z_likelihoods = self.entropy_bottleneck(z, training=relaxed)
        else:
            z_likelihoods = self.entropy_bottleneck.likelihoods(z + noise)
        targets, inside = cells.split(y), cells.inside()
        likelihoods = [torch.zeros_like(target) for target in targets]

        def code(step: int, phase: int, found: EntropyParameters) -> Tensor:
            # Where there is no latent, receivers take the mean.
            rest = (targets[step] - found.means) * inside[step]
            logs = rounded_log_likelihoods(rest, scale_of_index(found.indexes))
            lowest = self.lowest(logs) if relaxed else logs.clamp(min=MIN_LOG_PROBABILITY)
            likelihoods[step] = likelihoods[step] + torch.exp(lowest) * cells.masks[phase]
            # Rounded, the means cancel out: no gradient can reach them by way of y_hat.
            rounded = rest.round() if hardness is None else softly_rounded(rest, hardness)
            y_hat = (rounded + found.means).detach()
            return y_hat + (targets[step] - targets[step].detach()) if relaxed else y_hat

        features = self.context.features(round_through(z).to(kind), cells.grid, quality)
        steps = self.context.walk(features, cells.masks, quality, not relaxed, code)
        restored = self.gains.restore(cells.join(steps), quality)
        return restored, {"y": cells.join(likelihoods), "z": z_likelihoods}

    @torch.no_grad()
    def analyse(self, x: Tensor, limits: Limits, quality: Tensor) -> list[Part]:
        """As `FileNTC.analyse` says."""
        y, z = self.latents(x, quality)
        return self.symbols(y, z, limits, quality)

    def latents(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled latents (B, M, h, w) and hyper-latents (B, N, hz, wz) of maps, not rounded."""
        with torch.autocast(x.device.type, enabled=False):
            y = self.gains.scale(self.g_a(x).float(), quality)
            return y, self.h_a(y)

    @torch.no_grad()
    def symbols(self, y: Tensor, z: Tensor, limits: Limits, quality: Tensor) -> list[Part]:
        """Latents as `latents` gives them, or made better since, to symbols in stream order."""
        z = z.round()
        low, high = (bound.to(z).view(1, -1, 1, 1) for bound in (limits.z_low, limits.z_high))
        z = torch.clamp(z, low, high)
        cells = self._cells((y.shape[-2], y.shape[-1]), y.device)
        targets, valid = cells.split(y), cells.valid()
        reach = limits.y_reach.to(y.device)
        parts = [hyper_part(z)]

        def choose(step: int, phase: int, found: EntropyParameters) -> Tensor:
            inside = valid[step][phase]
            most = reach[found.indexes.long()].to(y)
            symbols = torch.clamp((targets[step] - found.means).round(), -most, most)
            coded = [
                part.flatten(1)[:, inside].to(torch.int32) for part in (symbols, found.indexes)
            ]
            parts.append(Part("y", *coded))
            return symbols * inside.view_as(symbols[0])

        self._walk(z, cells, quality, choose)
        return parts

    @torch.no_grad()
    def read(self, size: tuple[int, int], quality: int, read: Read) -> Latents:
        """As `FileNTC.read` says."""
        device = self.device
        at = torch.tensor([self._known(quality)], device=device)
        z = read_hyper_latents(self.N, size, read).to(device)
        cells = self._cells(size, device)
        valid = cells.valid()

        def take(step: int, phase: int, found: EntropyParameters) -> Tensor:
            inside = valid[step][phase]
            symbols = torch.zeros_like(found.means).flatten()
            coded = read("y", found.indexes.flatten()[inside].cpu().numpy())
            symbols[inside] = torch.from_numpy(coded).to(symbols)
            return symbols.view_as(found.means)

        return Latents(self._walk(z, cells, at, take), at)

    def _walk(
        self,
        z: Tensor,
        cells: _Cells,
        quality: Tensor,
        symbols_of: Callable[[int, int, EntropyParameters], Tensor],
    ) -> Tensor:
        """y_hat (B, M, h, w), from what is coded of each step and phase."""

        def code(step: int, phase: int, found: EntropyParameters) -> Tensor:
            return symbols_of(step, phase, found) + found.means

        with torch.autocast(z.device.type, enabled=False):
            features = self.context.features(z.double(), cells.grid, quality)
            return cells.join(self.context.walk(features, cells.masks, quality, True, code))

    @torch.no_grad()
    def synthesise(self, latents: Latents) -> Tensor:
        """As `FileNTC.synthesise` says."""
        x_hat: Tensor = self.g_s(self.gains.restore(latents.y_hat, latents.quality))
        return x_hat.float().clamp(0, 1)

    def _cells(self, size: tuple[int, int], device: torch.device) -> _Cells:
        grid = (-(-size[0] // 2), -(-size[1] // 2))
        channels = [_on_device(tuple(step), device) for step in self._channels]
        return _Cells(size, grid, channels, _phases(grid, self.context.phases, device))


@functools.lru_cache(maxsize=64)
def _phases(grid: tuple[int, int], phases: int, device: torch.device) -> tuple[Tensor, ...]:
    """Masks of the cells of each phase, (hc, wc)."""
    with torch.inference_mode(False):
        rows, columns = (torch.arange(side, device=device) for side in grid)
        odd = ((rows[:, None] + columns) % 2).float()
        return (torch.ones_like(odd),) if phases == 1 else (1 - odd, odd)


@functools.lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Constants, copied once: each copy would let the host wait for the device."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


def _adopt(ours: nn.Sequential, theirs: nn.Sequential) -> None:
    """Copy layers in order; of ours that have no counterpart, residual blocks become identities."""
    left = list(theirs)
    for layer in ours:
        if isinstance(layer, ResidualBlock) and not isinstance(left[0], ResidualBlock):
            nn.init.zeros_(layer.conv2.weight)
            assert layer.conv2.bias is not None
            nn.init.zeros_(layer.conv2.bias)
            continue
        source = left.pop(0)
        if isinstance(source, ResidualBlock) and not isinstance(layer, ResidualBlock):
            raise ValueError("it has more blocks than this network")
        try:
            layer.load_state_dict(source.state_dict())
        except RuntimeError as error:
            raise ValueError(str(error)) from None
    if left:
        raise ValueError("it has more layers than this network")

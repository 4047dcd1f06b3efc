"""What every sketch network offers: to training, and to the codec that writes files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from picsnet.ntc.prior import IntegerEntropyBottleneck


class NTCOutput(NamedTuple):
    """Result of a forward pass.

    Attributes:
        x_hat: (B, 1, H, W), the decoded map, 0..1 but for overshoot.
        likelihoods: name of a stream ("y", "z") -> probabilities, (B, ...); their negative log2
            summed is the stream's rate in bits.
    """

    x_hat: Tensor
    likelihoods: dict[str, Tensor]


@runtime_checkable
class SketchNTC(Protocol):
    """A nonlinear transform code for sketch maps, as the training sees it."""

    MULTIPLE: int
    """Sides of training crops must be multiples of this."""

    def __call__(self, x: Tensor) -> NTCOutput:
        """Code (B, 1, H, W) maps in 0..1: with noise in training mode, rounded otherwise."""
        ...

    def aux_loss(self) -> Tensor:
        """Loss of the entropy bottleneck's quantiles; disjoint from the main loss's gradients."""
        ...


class Limits(NamedTuple):
    """What coding tables can hold; a sender clips its symbols to it.

    Attributes:
        z_low, z_high: lowest and highest symbol of each hyper-latent channel, (N,).
        y_reach: largest magnitude in each table of the latents, (T,).
    """

    z_low: Tensor
    z_high: Tensor
    y_reach: Tensor


class Part(NamedTuple):
    """Symbols that follow each other in a stream, and whose tables are known together.

    Attributes:
        tables: which tables: a field of `picsnet.ntc.tables.CodingTables`, "z" or "y".
        symbols: (B, n) int32.
        indexes: (B, n) int32, the table of each symbol.
    """

    tables: str
    symbols: Tensor
    indexes: Tensor


Read = Callable[[str, NDArray[np.int32]], NDArray[np.int32]]
"""The next symbols of a stream: (tables, (n,) table of each) -> (n,) symbols."""


class Latents(NamedTuple):
    """What a stream says, before synthesis.

    Attributes:
        y_hat: (B, M, h, w) float, on a grid of 1/64; exact on every machine.
        quality: (B,) int64, the operating point of each.
        orientation: how the sender had turned the map (`picsnet.orientation`).
    """

    y_hat: Tensor
    quality: Tensor
    orientation: int = 0


class FileNTC(nn.Module, ABC):
    """A network whose entropy model is exact, so that files can be written with it.

    Attributes:
        N: channels of the hyper-latents.
        QUALITY_STEPS: operating points between two neighbouring lambdas.
        ORIENTATIONS: how many a sender may choose from (`picsnet.orientation`); models exported
            before there were any have one, whatever this says.
        PRIOR: what the names of weights begin with that a network made without a prior lacks.
            Training and `forward` need them; coding needs only the tables made from them.
    """

    MULTIPLE: int = 16
    QUALITY_STEPS: ClassVar[int] = 8
    ORIENTATIONS: ClassVar[int] = 1
    PRIOR: ClassVar[tuple[str, ...]] = ("entropy_bottleneck.",)
    N: int
    entropy_bottleneck: IntegerEntropyBottleneck

    @property
    def qualities(self) -> int:
        """How many operating points the network has; 1 if it was trained at one lambda."""
        return 1

    def lmbda_at(self, quality: int) -> float | None:
        """The lambda of an operating point; None where the run's own is the only one."""
        return None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def quality_of(self, lmbda: float) -> int:
        """The operating point nearest to a lambda."""
        return 0

    def aux_loss(self) -> Tensor:
        """Loss of the entropy bottleneck's quantiles (compressai)."""
        loss = self.entropy_bottleneck.loss()
        assert isinstance(loss, Tensor)
        return loss

    def padded(self, x: Tensor) -> Tensor:
        """Maps with black below and at their right, to sides that `analyse` takes."""
        bottom, right = (-side % self.MULTIPLE for side in x.shape[-2:])
        return F.pad(x, (0, right, 0, bottom))

    @abstractmethod
    def analyse(self, x: Tensor, limits: Limits, quality: Tensor) -> list[Part]:
        """The sender's half: (B, 1, H, W) maps in 0..1 to symbols, in the stream's order.

        Args:
            x: sides are multiples of ``MULTIPLE``.
            limits: of the coding tables.
            quality: (B,) int64, 0 .. ``qualities`` - 1.
        """

    @abstractmethod
    def read(self, size: tuple[int, int], quality: int, read: Read) -> Latents:
        """The receiver's half, entropy-coded part: one picture's latents.

        Args:
            size: (h, w), sides of the padded picture by ``MULTIPLE``.
            quality: 0 .. ``qualities`` - 1.
            read: gives the stream's next symbols.

        Raises:
            ValueError: the network has several qualities, and not this one.
        """

    @abstractmethod
    def synthesise(self, latents: Latents) -> Tensor:
        """Latents to maps (B, 1, H, W), float32 in 0..1."""

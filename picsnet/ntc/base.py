"""What every sketch network offers to training."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor


class NTCOutput(NamedTuple):
    """Result of a forward pass.

    Attributes:
        x_hat: (B, 1, H, W), the decoded map, 0..1 but for overshoot.
        likelihoods: name of a stream ("y", "z") -> probabilities, any shape; their negative log2
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

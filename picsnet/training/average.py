"""The running average of a network's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class ExponentialAverage(AveragedModel):
    """An average that forgets: after each step, decay * average + (1 - decay) * weights.

    torch's own asks a tensor how many steps it has seen, each step, and a device must then finish
    all its work before the next can be given to it. Here the caller says which step it is.

    Args:
        network: to average; a copy is made.
        decay: 0..1, the share that stays.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)

    @torch.no_grad()
    def follow(self, network: nn.Module, step: int) -> None:
        """Take a step's weights and buffers into the average.

        Args:
            network: after the step.
            step: counted from 0; at the first the average becomes the network.
        """
        averages, values = _tensors(self.module), _tensors(network)
        if step == 0:
            torch._foreach_copy_(averages, values)
        else:
            real = [i for i, average in enumerate(averages) if average.is_floating_point()]
            torch._foreach_lerp_(
                [averages[i] for i in real], [values[i] for i in real], 1 - self.decay
            )
            for i in set(range(len(averages))) - set(real):
                averages[i].copy_(values[i])
        self.n_averaged += 1


def _tensors(module: nn.Module) -> list[Tensor]:
    return [t.detach() for t in (*module.parameters(), *module.buffers())]

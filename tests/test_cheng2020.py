"""The paper's network as an opponent: it trains with what its files will hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.paper import PaperCodec
from picsnet.evaluation.baselines.strings import read_strings
from picsnet.ntc.cheng2020 import Cheng2020Sketch
from tests.conftest import drawn_map


def made(straight_through: bool) -> Cheng2020Sketch:
    """A network whose latents do not all round to zero, and are as wide as is told of them.

    Its context is strong, as a trained one's: what a latent's mean is depends on those before it.
    """
    torch.manual_seed(0)
    network = Cheng2020Sketch(N=8, straight_through=straight_through)
    with torch.no_grad():
        network.g_a[-1].conv_b[-1].weight.mul_(40)
        network.h_a[-1].weight.mul_(300)
        last = network.entropy_parameters[-1]
        last.bias[: network.N] = 1
        last.weight[network.N :].mul_(20)
    return network


@pytest.fixture
def sketch() -> Tensor:
    return torch.from_numpy(drawn_map(128, 192, seed=1).astype(np.float32))[None, None] / 255


def test_training_sees_what_the_receiver_will(sketch: Tensor) -> None:
    trained = made(straight_through=True).train()
    output = trained(sketch)
    codec = PaperCodec(trained)
    data = codec.encode((sketch[0, 0] * 255).round().numpy().astype(np.uint8))
    decoded = torch.from_numpy(codec.decode(data).astype(np.float32)) / 255
    assert decoded.std() > 0
    assert torch.allclose(output.x_hat[0, 0].clamp(0, 1), decoded, atol=0.51 / 255)


def test_the_rate_of_training_is_that_of_the_file(sketch: Tensor) -> None:
    network = made(straight_through=True).train()
    bits = -network(sketch).likelihoods["y"].log2().sum().item()
    assert bits > 1000
    data = PaperCodec(network).encode((sketch[0, 0] * 255).round().numpy().astype(np.uint8))
    of_latents, _ = read_strings(data, 2)[2]
    # compressai's coder ends in 64 bits of state, and its tables count in units of 2^-16.
    assert len(of_latents) * 8 == pytest.approx(bits, rel=0.02, abs=64)


def test_weights_are_those_of_the_network_trained_with_noise(sketch: Tensor) -> None:
    noisy, through = made(straight_through=False), made(straight_through=True)
    through.load_state_dict(noisy.state_dict(), strict=True)
    torch.manual_seed(1)
    assert not torch.equal(noisy(sketch).x_hat, noisy(sketch).x_hat)
    assert torch.equal(through(sketch).x_hat, through(sketch).x_hat)


def test_every_weight_learns_from_rounded_latents(sketch: Tensor) -> None:
    network = made(straight_through=True).train()
    output = network(sketch)
    rate = sum(-found.log().sum() for found in output.likelihoods.values())
    (rate + output.x_hat.square().sum() + network.aux_loss()).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still

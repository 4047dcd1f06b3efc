"""MS-SSIM to train on is the library's, in value and gradient."""

from __future__ import annotations

import pytest
import pytorch_msssim
import torch
from torch import Tensor

from picsnet.ms_ssim import SHORTEST_SIDE, ms_ssim
from tests.conftest import drawn_map


def pair(height: int, width: int, channels: int = 1, noise: float = 0.1) -> tuple[Tensor, Tensor]:
    maps = [torch.tensor(drawn_map(height, width, seed)) / 255 for seed in range(3 * channels)]
    y = torch.stack(maps).view(3, channels, height, width)
    x = y + noise * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    return x.clamp(0, 1), y


@pytest.mark.parametrize("size", [(256, 256), (161, 161), (173, 250), (192, 321, 3)])
def test_value_and_gradient_are_the_librarys(size: tuple[int, ...]) -> None:
    x, y = pair(*size)
    results = []
    for function in (
        ms_ssim,
        lambda x, y: pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False),
    ):
        variable = x.clone().requires_grad_()
        value = function(variable, y)
        value.sum().backward()
        results.append((value.detach(), variable.grad))
    (ours, gradient), (theirs, their_gradient) = results
    assert 0.2 < float(theirs.min()) < 0.98  # else there is nothing to compare
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    assert gradient is not None and their_gradient is not None
    scale = float(their_gradient.abs().max())
    torch.testing.assert_close(gradient / scale, their_gradient / scale, rtol=0, atol=1e-4)


def test_the_same_maps_are_alike() -> None:
    _, y = pair(200, 200)
    torch.testing.assert_close(ms_ssim(y, y), torch.ones(3))


def test_autocast_does_not_coarsen_it() -> None:
    x, y = pair(192, 192, noise=0.02)
    expected = ms_ssim(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = ms_ssim(x, y)
        coarse = pytorch_msssim.ms_ssim(x, y, data_range=1.0, size_average=False)
    assert torch.equal(found, expected)
    assert not torch.allclose(coarse.float(), expected, atol=1e-3)  # what it is guarded against


def test_autocast_does_not_coarsen_its_gradient() -> None:
    x, y = pair(192, 192, noise=0.02)
    gradients = []
    for around in (False, True):
        variable = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=around):
            ms_ssim(variable, y).sum().backward()
        assert variable.grad is not None
        gradients.append(variable.grad)
    assert torch.equal(*gradients)


def test_gradients_pass_after_a_first_call_in_inference_mode() -> None:
    x, y = pair(163, 167)  # sides that no other test has
    with torch.inference_mode():
        ms_ssim(x.clone(), y.clone())
    variable = x.clone().requires_grad_()
    ms_ssim(variable, y).sum().backward()
    assert variable.grad is not None and bool(variable.grad.any())


def test_maps_too_small_are_refused() -> None:
    small = torch.zeros(1, 1, SHORTEST_SIDE - 1, 256)
    with pytest.raises(ValueError, match="sides of 161 and more, these are"):
        ms_ssim(small, small)

"""The sketch network's own promises; coding is tested in test_codec and test_exactness."""

from __future__ import annotations

import copy
import math

import compressai
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from picsnet.errors import ConfigError
from picsnet.ntc import ARCHITECTURES, build, layers
from picsnet.ntc.base import SketchNTC
from picsnet.ntc.context import SketchContext
from picsnet.ntc.hyperprior import SCALE_STEP, SketchHyperprior
from picsnet.ntc.tables import build_tables, gaussian_tables
from picsnet.refining import refine
from tests.vectors.make import CONTEXT

OPTIONS = {"widths": [8, 8, 8], "M": 6, "N": 4}


@pytest.fixture
def network() -> SketchHyperprior:
    torch.manual_seed(0)
    made = build("picsnet-hyperprior", OPTIONS)
    assert isinstance(made, SketchHyperprior)
    return made.eval()


def test_unknown_names_and_options_are_mistakes_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match="picsnet-hyperprior"):
        build("elic")
    for options in ({"K": 3}, {"prior": False}):
        with pytest.raises(ConfigError, match="do not suit"):
            build("picsnet-hyperprior", options)


def test_layers_are_compressais() -> None:
    """The same weights by name, the same outputs and gradients to the bit."""
    torch.manual_seed(0)
    for ours, theirs in (
        (layers.ResidualBlock(6), compressai.layers.ResidualBlock(6, 6)),
        (layers.subpel_conv3x3(6, 3, 2), compressai.layers.subpel_conv3x3(6, 3, 2)),
        (layers.conv3x3(6, 3, stride=2), compressai.layers.conv3x3(6, 3, stride=2)),
        (layers.LowerBound(0.1), compressai.ops.LowerBound(0.1)),
    ):
        ours.load_state_dict(theirs.state_dict(), strict=True)
        x = torch.randn(2, 6, 8, 8)
        found = []
        for layer in (ours, theirs):
            given = x.clone().requires_grad_()
            out = layer(given)
            (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
            found.append([out, given.grad, *(p.grad for p in layer.parameters())])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_prior_tells_hyper_latents_as_compressai_does(network: SketchHyperprior) -> None:
    prior, z = network.entropy_bottleneck, torch.randn(2, 4, 3, 5).round()
    assert torch.equal(prior.likelihoods(z), prior(z, training=False)[1])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_satisfy_the_trainings_protocol(name: str) -> None:
    made = build(name, OPTIONS if name == "picsnet-hyperprior" else {"N": 8})
    assert isinstance(made, SketchNTC)


def test_scaling_latents_changes_rounding_only(network: SketchHyperprior) -> None:
    x = torch.rand(1, 1, 64, 64)
    scaled = copy.deepcopy(network)
    scaled.scale_latents(0.5)
    with torch.no_grad():
        y, z = network.g_a(x), network.h_a(network.g_a(x))
        y2 = scaled.g_a(x)
        assert torch.allclose(y2, 0.5 * y, atol=1e-6)
        assert torch.allclose(scaled.h_a(y2), z, atol=1e-5)
        assert torch.allclose(scaled.g_s(y2), network.g_s(y), atol=1e-4)
        z_hat = torch.randint(-4, 5, z.shape)
        before, after = network.h_s(z_hat), scaled.h_s(z_hat)
    # Weights and means live on grids, so equal to within their steps.
    assert torch.allclose(after.means, 0.5 * before.means, atol=0.1)
    shift = (after.indexes - before.indexes).float()
    assert shift.mean().item() == pytest.approx(math.log(0.5) / SCALE_STEP, abs=1)


def test_training_and_coding_compute_the_same_entropy_parameters(
    network: SketchHyperprior,
) -> None:
    z_hat = torch.randint(-6, 7, (3, 4, 3, 5))
    exact = network.h_s(z_hat)
    trained = network.train().h_s(z_hat)
    assert torch.allclose(trained.means, exact.means, atol=2 / 64)
    assert (trained.indexes - exact.indexes).abs().max() <= 0.51


def test_evaluation_gives_integers_on_their_grids(network: SketchHyperprior) -> None:
    means, indexes = network.h_s(torch.randint(-300, 300, (2, 4, 4, 4)))
    assert indexes.dtype == torch.int32
    assert 0 <= indexes.min() <= indexes.max() <= 63
    assert torch.equal(means * 64, (means * 64).round())


def test_tables_cover_what_they_code(network: SketchHyperprior) -> None:
    tables = build_tables(network)
    assert len(tables.z.lengths) == 4
    assert (tables.z.offsets < 0).all()
    assert (tables.z.offsets + tables.z.lengths - 1 > 0).all()
    y = gaussian_tables()
    assert len(y.lengths) == 64
    assert (y.lengths == 1 - 2 * y.offsets).all()
    narrow, wide = y.freqs[0, -y.offsets[0]], y.freqs[63, -y.offsets[63]]
    assert narrow > 0.999 * 2**24
    assert wide < 0.01 * 2**24


def test_estimated_rate_is_near_what_tables_give(network: SketchHyperprior) -> None:
    """In evaluation the likelihoods are those of rounded latents: the rate a file will have."""
    with torch.no_grad():
        output = network(torch.rand(1, 1, 128, 128))
    for likelihoods in output.likelihoods.values():
        assert likelihoods.min() > 0
        assert likelihoods.max() <= 1 + 1e-6


@pytest.mark.parametrize("quality", [-1, 17, 10**6])
def test_operating_points_that_there_are_not_are_refused(quality: int) -> None:
    made = build("picsnet-context", CONTEXT).eval()
    assert isinstance(made, SketchContext)
    assert made.lmbda_at(0) == 0.25 and made.lmbda_at(16) == 1.0

    def nothing(tables: str, indexes: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.zeros_like(indexes)

    made.read((1, 1), 16, nothing)
    for ask in (
        lambda: made.lmbda_at(quality),
        lambda: made.read((1, 1), quality, nothing),
        lambda: refine(made, torch.rand(1, 1, 16, 16), quality, effort=1),
    ):
        with pytest.raises(ValueError, match=f"must be 0 to 16, not {quality}"):
            ask()

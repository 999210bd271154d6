"""How fast the baselines are: densities, synthetic rows and Balanced MSE against plain ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import gaussian_kde
from torch.nn import functional as F

from dirlearn import GAILoss, Relevance, balanced_mse, kde_density, smogn, smoter

Rows = NDArray[np.float64]


def test_density_of_ten_thousand_labels(benchmark, in_turns, told):
    y = np.random.default_rng(0).gamma(2.0, 12.0, 10_000)
    np.testing.assert_allclose(
        kde_density(y[:500]), gaussian_kde(y[:500], "silverman")(y[:500]), rtol=1e-5
    )
    grid, pairs = in_turns(
        lambda: kde_density(y), lambda: gaussian_kde(y, "silverman")(y), rounds=3
    )
    told(scipy_over_ours=pairs / grid)
    benchmark.pedantic(kde_density, (y,), rounds=3)
    assert pairs / grid > 20


def by_rows(x: Rows, y: Rows, rare: NDArray[np.intp], k: int) -> tuple[Rows, Rows]:
    """SMOTER's new rows one at a time: each rare row and one of its k nearest rare neighbours."""
    rng = np.random.default_rng(0)
    scaled = x / x.std(axis=0)
    made_x, made_y = [], []
    for i in rare:
        distance = np.sqrt(((scaled[rare] - scaled[i]) ** 2).sum(axis=1))
        j = rare[rng.choice(np.argsort(distance)[1 : k + 1])]
        u = rng.random()
        made_x.append(x[i] + u * (x[j] - x[i]))
        made_y.append((1 - u) * y[i] + u * y[j])
    return np.array(made_x), np.array(made_y)


@pytest.mark.parametrize(("method", "bound"), [(smoter, 3.0), (smogn, 2.0)])
def test_synthetic_rows(method, bound, benchmark, in_turns, told):
    rng = np.random.default_rng(0)
    y = rng.gamma(2.0, 12.0, 20_000)
    x = np.stack([y + rng.normal(size=y.size) for _ in range(10)], axis=1)
    phi, rare = Relevance([40, 60], [0, 1]), np.flatnonzero(y > 53)
    doubled = {"rare": 2.0}
    ours, loop = in_turns(
        lambda: method(x, y, phi, sampling=doubled), lambda: by_rows(x, y, rare, 5), rounds=3
    )
    told(loop_over_rows_over_ours=loop / ours, rare=float(rare.size))
    benchmark.pedantic(method, (x, y, phi), {"sampling": doubled}, rounds=3)
    assert loop / ours > bound


@pytest.mark.parametrize(("batch", "pairs", "bins"), [(64, 6.0, 12.0), (1024, 80.0, 25.0)])
def test_balanced_mse_forward_and_backward(batch, pairs, bins, benchmark, in_turns, told):
    """At most so many times the plain squared error, which makes no batch x batch of distances."""
    pred = torch.randn(batch, requires_grad=True)
    target = torch.randn(batch)
    gai = GAILoss(np.ones(100), np.linspace(-3, 3, 100), np.full(100, 0.01), sigma=1.0)
    plain, bmc, by_histogram = in_turns(
        lambda: F.mse_loss(pred, target).backward(),
        lambda: balanced_mse(pred, target, 1.0).backward(),
        lambda: gai(pred, target).backward(),
        rounds=50,
    )
    told(BMC_over_MSE=bmc / plain, GAI_of_100_bins_over_MSE=by_histogram / plain)
    benchmark.pedantic(lambda: balanced_mse(pred, target, 1.0).backward(), rounds=20)
    assert bmc / plain < pairs
    assert by_histogram / plain < bins

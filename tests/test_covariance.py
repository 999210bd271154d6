import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.covariance import oas
from torch.testing import assert_close

from dirlearn.covariance import Diagonal, Full

OPEN = (0.0, float("inf"))
DOUBLE = torch.float64


def spreads(bins, features, seed=0, samples=None):
    """Sample covariances of correlated features, one for each bin, in float64."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(bins):
        mix = rng.normal(size=(features, features)) + 2 * np.eye(features)
        rows = rng.normal(size=(samples or 5 * features, features)) @ mix
        made.append(np.cov(rows, rowvar=False).reshape(features, features))
    return torch.from_numpy(np.stack(made))


# ---- Diagonal


def test_diagonal_match_by_hand(device):
    own = torch.tensor([[1.0, 4.0, 0.0, 1.0, 1.0]], device=device)
    other = torch.tensor([[4.0, 1.0, 3.0, 900.0, 1e-6]], device=device)
    change = Diagonal().match(own, other, (0.1, 10.0))
    # Zero spread can be stretched by no factor; the last two meet the limits of the ratio.
    assert_close(change.cpu(), torch.tensor([[2.0, 0.5, 1.0, 10**0.5, 0.1**0.5]]))


def test_a_diagonal_ratio_is_clipped_not_its_root():
    change = Diagonal().match(torch.ones(1, 1), torch.full((1, 1), 5.0), (0.1, 4.0))
    assert change.item() == 2.0


@pytest.mark.parametrize("clip", [(0.1, 10.0), OPEN])
def test_the_smallest_spreads_give_finite_factors(clip):
    own = torch.tensor([[1e-45, 1e-38, 1e-30]])
    assert Diagonal().match(own, own, clip).isfinite().all()


def test_diagonal_is_product_application_and_identity_feature_by_feature():
    left, right = torch.randn(5, 3), torch.randn(5, 3)
    diagonal = Diagonal()
    assert diagonal.shape(3) == (3,)
    assert_close(diagonal.product(left, right), left * right)
    assert_close(diagonal.apply(left, right, torch.ones(5, 3)), left * right + 1)
    assert diagonal.identity(left).tolist() == [1, 1, 1]
    assert diagonal.regular(left, torch.zeros(5)) is left


# ---- Full: the map


@given(features=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_full_map_turns_one_covariance_into_the_other(features, seed):
    own, other = spreads(3, features, seed), spreads(3, features, seed + 100)
    change = Full().match(own, other, OPEN)
    assert_close(change @ own @ change.mT, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("clip", [OPEN, (0.5, 2.0), (0.9, 1.1)])
def test_the_full_map_is_the_product_of_roots_with_singular_values_clipped(clip):
    own, other = spreads(4, 3), spreads(4, 3, seed=1)
    for b, change in enumerate(Full().match(own, other, clip)):
        plain = sqrtm(other[b].numpy()) @ np.linalg.inv(sqrtm(own[b].numpy()))
        left, stretch, right = np.linalg.svd(plain)
        expected = left @ np.diag(np.clip(stretch, *np.sqrt(clip))) @ right
        np.testing.assert_allclose(change, expected, rtol=1e-7, atol=1e-9)


def test_clipped_singular_values_stay_within_the_roots_of_the_limits():
    change = Full().match(spreads(4, 3), 50 * spreads(4, 3, seed=1), (0.5, 2.0))
    stretch = torch.linalg.svdvals(change)
    assert stretch.min() >= 0.5**0.5 - 1e-9
    assert_close(stretch.max(), torch.tensor(2.0, dtype=DOUBLE).sqrt())


def test_on_diagonal_covariances_both_kinds_agree():
    own, other = 0.1 + torch.rand(6, 4, dtype=DOUBLE), 0.1 + torch.rand(6, 4, dtype=DOUBLE)
    factors = Diagonal().match(own, other, (0.3, 2.0))
    change = Full().match(own.diag_embed(), other.diag_embed(), (0.3, 2.0))
    assert_close(change, factors.diag_embed(), rtol=1e-9, atol=1e-9)


def test_equal_covariances_are_mapped_by_the_identity():
    own = spreads(3, 4)
    assert_close(Full().match(own, own, (0.1, 10.0)), torch.eye(4, dtype=DOUBLE).expand(3, 4, 4))


def test_directions_without_spread_stay_as_they_are():
    direction = torch.tensor([3.0, 4.0, 0.0], dtype=DOUBLE) / 5
    away = torch.eye(3, dtype=DOUBLE) - torch.outer(direction, direction)
    own = away @ spreads(1, 3) @ away
    change = Full().match(own, spreads(1, 3, seed=1), (0.1, 10.0))[0]
    assert_close(change @ direction, direction, rtol=1e-7, atol=1e-7)
    # What does vary is mapped as if the dead direction did not exist.
    stretch = torch.linalg.svdvals(change @ away)[:2]
    assert ((stretch >= 0.1**0.5 - 1e-9) & (stretch <= 10**0.5 + 1e-9)).all()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_a_dead_feature_leaves_the_others_matched(dtype):
    own, other = torch.zeros(1, 3, 3, dtype=dtype), torch.zeros(1, 3, 3, dtype=dtype)
    own[0, :2, :2], other[0, :2, :2] = spreads(1, 2)[0].to(dtype), spreads(1, 2, 1)[0].to(dtype)
    change = Full().match(own, other, OPEN)
    alone = Full().match(own[:, :2, :2], other[:, :2, :2], OPEN)
    assert_close(change[:, :2, :2], alone, rtol=1e-4, atol=1e-4)
    assert_close(change[0, 2], torch.tensor([0.0, 0, 1], dtype=dtype))
    assert_close(change[0, :, 2], torch.tensor([0.0, 0, 1], dtype=dtype))


def test_no_spread_at_all_is_mapped_by_the_identity():
    change = Full().match(torch.zeros(2, 3, 3), torch.ones(2, 3, 3), (0.1, 10.0))
    assert_close(change, torch.eye(3).expand(2, 3, 3))


def test_full_products_application_and_identity():
    left, right, full = torch.randn(5, 3), torch.randn(5, 3), Full()
    assert full.shape(3) == (3, 3)
    products = full.product(left, right)
    assert_close(products, torch.stack([torch.outer(left[i], right[i]) for i in range(5)]))
    change = torch.randn(5, 3, 3)
    expected = torch.stack([change[i] @ left[i] + 1 for i in range(5)])
    assert_close(full.apply(change, left, torch.ones(5, 3)), expected)
    assert_close(full.identity(change), torch.eye(3))


def test_gradient_of_application():
    change = torch.randn(4, 3, 3, dtype=DOUBLE, requires_grad=True)
    z = torch.randn(4, 3, dtype=DOUBLE, requires_grad=True)
    shift = torch.randn(4, 3, dtype=DOUBLE, requires_grad=True)
    for kind, map_ in ((Full(), change), (Diagonal(), change[:, 0])):

        def apply(change, rows, shift, kind=kind):
            return kind.apply(change, rows, shift.clone())  # it writes over what it is given

        assert torch.autograd.gradcheck(apply, (map_, z, shift))


# ---- Full: shrinkage


def shrunk_by_loop(spread, n):
    """Chen et al. (2010), equation 23, entry by entry, for one bin of n samples."""
    p = len(spread)
    if n > p:
        return spread
    trace = sum(spread[i, i] for i in range(p))
    square = sum(spread[i, j] * spread[j, i] for i in range(p) for j in range(p))
    above = (1 - 2 / p) * square + trace**2
    below = (n + 1 - 2 / p) * (square - trace**2 / p)
    rho = min(1.0, above / below)
    return np.array(
        [
            [(1 - rho) * spread[i, j] + rho * trace / p * (i == j) for j in range(p)]
            for i in range(p)
        ]
    )


@pytest.mark.parametrize("n", [2, 3, 5, 6, 7, 50])
def test_shrinkage_is_the_published_formula(n):
    spread = spreads(4, 6, samples=n)
    regular = Full().regular(spread, torch.full((4,), n))
    for b in range(4):
        np.testing.assert_allclose(
            regular[b], shrunk_by_loop(spread[b].numpy(), n), rtol=1e-10, atol=1e-12
        )
    if n > 6:
        assert_close(regular, spread, rtol=0, atol=0)
    else:
        assert torch.linalg.eigvalsh(regular).min() > 0  # no direction is singular any more


def test_shrinkage_is_near_that_of_scikit_learn():
    """Theirs drops the terms 2 / p, which matter little for forty features."""
    rows = np.random.default_rng(0).normal(size=(25, 40)) * np.linspace(0.5, 3, 40)
    theirs, weight = oas(rows)
    spread = torch.from_numpy(np.cov(rows, rowvar=False, bias=True))[None]
    ours = Full().regular(spread, torch.tensor([25]))[0]
    assert 0.1 < weight < 0.9
    np.testing.assert_allclose(ours, theirs, atol=0.05 * np.abs(theirs).max())


@pytest.mark.parametrize("features", [1, 2, 4])
def test_what_shrinkage_cannot_improve_it_leaves(features):
    nothing, round_ = torch.zeros(1, features, features), 3 * torch.eye(features)[None]
    for n in (0, 1, features):
        assert_close(Full().regular(nothing, torch.tensor([n])), nothing)
        assert_close(Full().regular(round_, torch.tensor([n])), round_)


def test_shrinkage_keeps_the_total_variance():
    spread = spreads(5, 4, samples=3)
    regular = Full().regular(spread, torch.full((5,), 3))
    assert_close(regular.diagonal(0, 1, 2).sum(-1), spread.diagonal(0, 1, 2).sum(-1))

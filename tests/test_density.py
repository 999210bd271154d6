import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import gaussian_kde, norm

from dirlearn import Bins, dense_weights, effective_density, inverse_weights, kde_density

SAMPLES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "skewed": lambda rng, n: rng.gamma(0.5, size=n),
    "lognormal": lambda rng, n: rng.lognormal(0, 2, size=n),
    "heavy tail": lambda rng, n: rng.standard_cauchy(n),
    "whole": lambda rng, n: rng.integers(0, 101, n).astype(float),
    "an outlier": lambda rng, n: np.append(rng.normal(size=n - 1), 40.0),
}


def sample(name="skewed", n=1000, seed=0):
    return SAMPLES[name](np.random.default_rng(seed), n)


def by_loop(y, h, at):
    terms = [[math.exp(-0.5 * ((t - label) / h) ** 2) for label in y] for t in at]
    return np.array([sum(row) / (len(y) * h * math.sqrt(2 * math.pi)) for row in terms])


# ---- kde_density


@pytest.mark.parametrize("h", [0.01, 0.3, 2.0, 500.0])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_density_is_a_loop(n, h):
    y, at = sample(n=n), np.linspace(-3, 8, 45)
    assert_allclose(kde_density(y, h), by_loop(y, h, y), rtol=1e-5)
    expected = by_loop(y, h, at)
    assert_allclose(kde_density(y, h, at=at), expected, atol=1e-6 / (h * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize("bandwidth", ["silverman", "scott", 0.1, 3.0])
@pytest.mark.parametrize("name", SAMPLES)
def test_density_is_that_of_scipy_within_the_stated_error(name, bandwidth):
    y = sample(name)
    factor = bandwidth if isinstance(bandwidth, str) else bandwidth / y.std(ddof=1)
    theirs = gaussian_kde(y, factor)
    assert_allclose(kde_density(y, bandwidth), theirs(y), rtol=1e-5)
    at = np.linspace(y.min() - 1, y.max() + 1, 1001)
    peak = theirs(at).max()
    assert_allclose(kde_density(y, bandwidth, at=at), theirs(at), atol=1e-6 * peak, rtol=0)


def test_density_of_one_label_is_the_kernel(device):
    y = torch.tensor([2.0], dtype=torch.float64, device=device)
    at = torch.tensor([[-3.0, 2.0], [2.5, 4.0]], dtype=torch.float64, device=device)
    density = kde_density(y, bandwidth=0.5, at=at)
    assert density.device.type == device.type
    assert_allclose(density.cpu(), norm.pdf(at.cpu(), 2.0, 0.5), atol=1e-6)


def test_far_from_every_label_there_is_nothing():
    y = sample()
    assert_allclose(kde_density(y, 0.1, at=np.array([-1e300, -5.0, 1e5, 1e300])), 0, atol=0)


def test_an_isolated_label_keeps_its_own_kernel_beside_a_crowd():
    y = np.append(0.1 * sample("normal", 200_000), 30.0)
    own = norm.pdf(0) / y.size
    assert kde_density(y, 1.0)[-1] == pytest.approx(own, rel=1e-6)


def test_the_rules_are_those_of_silverman_and_scott():
    y = sample("normal", 300)
    for rule, h in (("silverman", (4 / 3) ** 0.2), ("scott", 1.0)):
        width = h * y.std(ddof=1) * 300**-0.2
        assert_allclose(kde_density(y, rule), kde_density(y, width), rtol=1e-6)
    assert_allclose(kde_density(y), kde_density(y, "silverman"))


@given(
    labels=st.lists(st.floats(-50, 50), min_size=1, max_size=30),
    h=st.floats(0.1, 20),
    shift=st.floats(-1e3, 1e3),
    scale=st.sampled_from([-3.0, 0.5, 100.0]),
)
def test_density_moves_and_stretches_with_the_labels(labels, h, shift, scale):
    y = np.array(labels)
    moved = kde_density(shift + scale * y, abs(scale) * h)
    assert_allclose(moved * abs(scale), kde_density(y, h), rtol=1e-5)


@given(labels=st.lists(st.floats(0, 5), min_size=1, max_size=30), h=st.floats(0.05, 0.6))
def test_mass_is_one_and_none_is_lost_at_the_ends_of_a_support(labels, h):
    y, support = np.array(labels), (0.0, 5.0)
    wide = np.linspace(-8, 13, 21 * 200 + 1)
    assert np.trapezoid(kde_density(y, h, at=wide), wide) == pytest.approx(1, abs=1e-3)
    inside = np.linspace(0, 5, 5 * 200 + 1)
    within = kde_density(y, h, at=inside, support=support)
    assert np.trapezoid(within, inside) == pytest.approx(1, abs=1e-3)


def test_a_support_mirrors_the_density_at_its_ends():
    y, at = sample(n=200), np.linspace(0, 3, 31)
    once = gaussian_kde(y, 0.2 / y.std(ddof=1))
    mirrored = kde_density(y, 0.2, at=at, support=(0.0, None))
    assert_allclose(mirrored, once(at) + once(-at), rtol=1e-4)
    assert_allclose(kde_density(y, 0.2, at=np.array([-0.1]), support=(0.0, None)), 0)
    high = y.max() + 0.1
    both = kde_density(y, 0.2, at=at, support=(0, high))
    assert_allclose(both, once(at) + once(-at) + once(2 * high - at), rtol=1e-4)


def test_at_a_hard_end_a_plain_density_halves():
    y = np.random.default_rng(0).uniform(0, 1, 20_000)
    ends = np.array([0.0, 0.5, 1.0])
    assert_allclose(kde_density(y, 0.05, at=ends), [0.5, 1, 0.5], atol=0.03)
    assert_allclose(kde_density(y, 0.05, at=ends, support=(0, 1)), [1, 1, 1], atol=0.06)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_inverse_weights_of_it_are_lds_without_bins(power):
    """LDS on ever finer bins, with a Gaussian window of the bandwidth, comes ever closer."""
    y, h = sample("normal"), 0.25
    weights = inverse_weights(kde_density(y, h), power, counts=np.ones(len(y)))
    assert weights.mean() == pytest.approx(1)
    gaps = []
    for width in (0.2, 0.1, 0.02):
        bins = Bins.uniform(-6, 6, width)
        counts = bins.counts(y)
        window = 2 * round(8 * h / width) + 1
        smoothed = effective_density(counts, "gaussian", window, h / width)
        lds = inverse_weights(smoothed, power, counts=counts)[bins.index(y)]
        gaps.append(np.abs(lds / weights - 1).max())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.1 < gaps[0]
    bins = Bins.uniform(-6, 6, 0.02)
    smoothed = effective_density(bins.counts(y), "gaussian", 201, h / 0.02) / (len(y) * 0.02)
    assert_allclose(kde_density(y, h, at=bins.centers), smoothed, atol=0.002)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_kind_dtype_shape_and_device_are_kept(dtype, device):
    y = torch.tensor([[0.0, 0.5], [1.0, 3.0]], dtype=dtype, device=device, requires_grad=True)
    for result in (kde_density(y, 0.5), dense_weights(y, bandwidth=0.5)):
        assert result.dtype == dtype
        assert result.device.type == device.type
        assert result.shape == y.shape
        assert not result.requires_grad
    exact = kde_density(y.detach().double().cpu().numpy(), 0.5)
    rtol = max(8 * torch.finfo(dtype).eps, 1e-6)
    assert_allclose(kde_density(y, 0.5).float().cpu(), exact, rtol=rtol)


def test_strides_integers_and_lists():
    y = sample("whole", 60)
    expected = kde_density(y, 2.0)
    assert_allclose(kde_density(y.astype(int), 2.0), expected)
    assert_allclose(kde_density(np.repeat(y, 2)[::2], 2.0), expected)
    assert_allclose(kde_density(y.reshape(6, 10).T, 2.0).T.ravel(), expected)
    assert_allclose(kde_density(y.tolist(), 2.0), expected)
    assert kde_density(torch.tensor([1, 2]), 1.0).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": []}, "y is empty"),
        ({"y": [1.0, np.nan]}, "y holds 1 value that is NaN"),
        ({"at": np.array([np.inf])}, "at holds 1 value that is NaN or infinite"),
        ({"bandwidth": 0}, "bandwidth must be positive"),
        ({"bandwidth": float("nan")}, "bandwidth must be positive"),
        ({"bandwidth": "silvermann"}, 'bandwidth must be "silverman", "scott" or a number'),
        ({"y": [2.0, 2.0]}, "'silverman' needs labels that vary"),
        ({"y": [2.0], "bandwidth": "scott"}, "'scott' needs labels that vary"),
        ({"bandwidth": 1e-9}, "wider bandwidth"),
        ({"y": [-1e308, 1e308], "bandwidth": 1.0}, "wider bandwidth"),
        ({"support": (0.5, None)}, "beyond the support"),
        ({"support": (None, 2.0)}, "beyond the support"),
        ({"support": (5, 0)}, r"support must be \(low, high\)"),
        ({"support": 5}, r"support must be \(low, high\)"),
        ({"support": (float("nan"), 5.0)}, r"support must be \(low, high\)"),
    ],
    ids=str,
)
def test_bad_input_is_refused(change, words):
    given = {"y": [0.0, 1.0, 3.0]} | change
    with pytest.raises(ValueError, match=words):
        kde_density(**given)
    given.pop("at", None)
    if "at" not in change:
        with pytest.raises(ValueError, match=words):
            dense_weights(**given)


def test_what_is_not_a_number_is_refused():
    with pytest.raises(TypeError, match="y must hold real numbers"):
        kde_density(np.array(["1"]))
    with pytest.raises(TypeError, match="at must hold real numbers"):
        kde_density(np.array([1.0, 2.0]), at=np.array([True]))


# ---- dense_weights


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_weights_are_a_loop_over_scipys_density(alpha):
    y, epsilon = sample(n=200), 1e-3
    density = gaussian_kde(y, "silverman")(y)
    scaled = [(p - min(density)) / (max(density) - min(density)) for p in density]
    raw = [max(1 - alpha * p, epsilon) for p in scaled]
    expected = [w / (sum(raw) / len(raw)) for w in raw]
    assert_allclose(dense_weights(y, alpha, epsilon=epsilon), expected, rtol=1e-5, atol=1e-5)


def test_mean_is_one_and_the_rarest_weighs_most():
    y = sample(n=500)
    weights, density = dense_weights(y), kde_density(y)
    assert weights.mean() == pytest.approx(1)
    order = np.argsort(density)
    assert (np.diff(weights[order]) <= 1e-9).all()
    assert weights[order[-1]] / weights[order[0]] == pytest.approx(1e-6)
    half = dense_weights(y, alpha=0.5)
    assert half.min() / half.max() == pytest.approx(0.5)


def test_equal_densities_give_equal_weights_not_the_noise_of_the_grid():
    assert_allclose(dense_weights(np.array([0.0, 1.0])), 1)
    assert_allclose(dense_weights(np.arange(3.0) * 100, bandwidth=0.1), 1)
    assert_allclose(dense_weights(np.full(4, 2.0), bandwidth=1.0), 1)
    assert_allclose(dense_weights(np.array([7.0]), bandwidth=1.0), 1)


# What the authors' package gives, from: y = numpy.arange(12.0) ** 2 / 10;
# denseweight.DenseWeight(alpha=1.0, bandwidth=1.0).fit(y, grid_points=2**18), version 0.1.2.
PACKAGE = {
    1.0: np.append(
        [0.30613, 0.21853, 0.04251, 0.04351, 0.43889, 0.97107],
        [1.31291, 1.5127, 1.65067, 1.75225, 1.82754, 1.9233],
    ),
    2.0: np.append(np.full(6, 1e-5), [0.15921, 1.20902, 1.93401, 2.46775, 2.86339, 3.36658]),
}


@pytest.mark.parametrize("alpha", PACKAGE)
def test_the_authors_package_scales_the_density_over_its_grid(alpha):
    y = np.arange(12.0) ** 2 / 10
    peak = kde_density(y, 1.0, at=np.linspace(y.min(), y.max(), 2001)).max()
    raw = np.maximum(1 - alpha * kde_density(y, 1.0) / peak, 1e-6)  # its least density is none
    assert_allclose(raw / raw.mean(), PACKAGE[alpha], atol=2e-4)
    ours = dense_weights(y, alpha, bandwidth=1.0)
    assert np.abs(ours - PACKAGE[alpha]).max() > 0.01
    assert (np.argsort(ours)[6:] == np.argsort(PACKAGE[alpha])[6:]).all()


def test_a_support_reaches_the_weights():
    y = np.random.default_rng(0).uniform(0, 1, 2000)
    at_ends = np.argsort(np.abs(y - 0.5))[-20:]
    assert dense_weights(y)[at_ends].mean() > 2 * dense_weights(y, support=(0, 1))[at_ends].mean()


@pytest.mark.parametrize("alpha", [-1, float("nan"), float("inf")])
def test_bad_alphas_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha must be 0 or more"):
        dense_weights(np.array([0.0, 1.0]), alpha)


@pytest.mark.parametrize("epsilon", [0, -1e-6, 1, float("nan")])
def test_bad_epsilons_are_refused(epsilon):
    with pytest.raises(ValueError, match="epsilon must lie between 0 and 1"):
        dense_weights(np.array([0.0, 1.0]), epsilon=epsilon)


def test_time_grows_with_the_labels_not_with_their_square():
    weights = dense_weights(sample(n=1_000_000))  # a square would be a million times a million
    assert weights.mean() == pytest.approx(1)


def test_mirrored_between_two_ends_the_density_integrates_to_one_however_wide_the_kernel():
    y, at = np.array([0.2, 0.5]), np.linspace(0, 1, 1001)
    for h in (0.05, 0.3, 1.0):
        density = kde_density(y, h, at=at, support=(0, 1))
        assert np.trapezoid(density, at) == pytest.approx(1, abs=1e-5)
    far = np.arange(-40, 41)[:, None, None]
    images = np.concatenate([y + 2 * far, -y + 2 * far], axis=1)
    loop = np.exp(-0.5 * ((at - images.reshape(-1, 1)) / 0.3) ** 2).sum(0)
    loop /= 2 * 0.3 * np.sqrt(2 * np.pi)
    np.testing.assert_allclose(kde_density(y, 0.3, at=at, support=(0, 1)), loop, rtol=1e-5)


def test_a_bandwidth_wider_than_the_support_is_refused():
    with pytest.raises(ValueError, match="wider than the support"):
        kde_density(np.array([0.2, 0.5]), 5.0, support=(0, 1))

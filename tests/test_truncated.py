import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import truncnorm
from torch.autograd import gradcheck

from dirlearn import BalancedMSE, truncated, truncated_mean

DOUBLE = torch.float64


def truncated_by_scipy(location, sigma, low, high):
    a, b = (low - location) / sigma, (high - location) / sigma
    return truncnorm.mean(a, b, location, sigma)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.0, 2.0, 10.0])
def test_truncated_mean_is_scipy_s(sigma):
    location = np.linspace(-3 * sigma - 1, 6 + 3 * sigma, 41)
    expected = truncated_by_scipy(location, sigma, 0.0, 5.0)
    assert_allclose(truncated_mean(location, sigma, 0.0, 5.0), expected, rtol=1e-9)


def by_dense_sum(location, sigma, low, high, reach):
    """A million equal steps over the part next to the nearest end."""
    nearest = min(max(location, low), high)
    left, right = max(low, nearest - reach), min(high, nearest + reach)
    y = np.linspace(left, right, 1_000_001)
    density = np.exp(-((y - location) ** 2 - (nearest - location) ** 2) / (2 * sigma**2))
    density[[0, -1]] /= 2
    return (density * y).sum() / density.sum()


@pytest.mark.parametrize(
    ("location", "sigma", "reach"),
    [(-50.0, 1.0, 1.0), (-1e4, 1.0, 5e-3), (3e3, 2.0, 0.1), (2.0, 1e-3, 0.02), (1e3, 1e3, 5)],
)
def test_truncated_mean_far_outside(location, sigma, reach):
    """Where the textbook formula divides 0 by 0."""
    expected = by_dense_sum(location, sigma, 0.0, 5.0, reach)
    value = truncated_mean(np.array([location]), sigma, 0.0, 5.0)[0]
    assert min(value, 5 - value) == pytest.approx(min(expected, 5 - expected), rel=1e-6)
    single = truncated_mean(torch.tensor([location]), sigma, 0.0, 5.0).item()
    assert single == pytest.approx(expected, rel=1e-6)


def test_truncated_mean_far_outside_falls_as_the_inverse_distance():
    distance = np.array([1e2, 1e4, 1e8])
    assert_allclose(truncated_mean(-distance, 1.0, 0.0, 5.0), 1 / distance, rtol=1e-3)


def test_truncated_mean_at_infinity_is_the_end_and_nan_passes():
    location = np.array([-np.inf, np.inf, np.nan])
    assert_allclose(truncated_mean(location, 1.0, 0.0, 5.0), [0, 5, np.nan], atol=1e-15)


@given(
    location=st.floats(-1e6, 1e6), sigma=st.floats(1e-3, 1e6),
    low=st.floats(-1e3, 1e3), width=st.floats(0.1, 1e3),
)  # fmt: skip
def test_truncated_mean_lies_inside_and_is_symmetric(location, sigma, low, width):
    high = low + width
    ends = np.array([location, low + high - location])
    left, right = truncated_mean(ends, sigma, low, high)
    assert low <= left <= high
    assert left + right == pytest.approx(low + high, abs=1e-6 * (1 + abs(low)))


@given(sigma=st.floats(0.01, 100), at=st.floats(-100, 100), step=st.floats(1e-3, 10))
def test_truncated_mean_rises_and_by_less_than_the_location(sigma, at, step):
    lower, upper = truncated_mean(np.array([at, at + step]), sigma, 0.0, 5.0)
    assert lower <= upper <= lower + step * (1 + 1e-9)


def test_truncated_mean_for_a_small_sigma_is_the_location_clipped():
    location = np.linspace(-1, 6, 29)
    assert_allclose(truncated_mean(location, 1e-9, 0.0, 5.0), location.clip(0, 5), atol=1e-8)


def test_truncated_mean_for_a_large_sigma_is_the_middle():
    assert truncated_mean(np.array([3.0]), 1e8, 0.0, 5.0)[0] == pytest.approx(2.5)


def test_truncated_mean_has_gradients(device):
    location = torch.tensor([-8.0, -0.3, 2.0, 5.1, 30.0], dtype=DOUBLE, device=device)
    sigma = torch.tensor(1.2, dtype=DOUBLE, device=device, requires_grad=True)
    location.requires_grad_()
    assert gradcheck(lambda m, s: truncated_mean(m, s, 0.0, 5.0), [location, sigma])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_truncated_mean_keeps_kind_dtype_shape_and_device(dtype, device):
    location = torch.tensor([[-2.0, 1.0], [4.0, 7.0]], dtype=dtype, device=device)
    value = truncated_mean(location, BalancedMSE(1.0).to(device).sigma, 0.0, 5.0)
    assert (value.dtype, value.shape, value.device.type) == (dtype, (2, 2), device.type)
    expected = truncated_by_scipy(location.double().cpu().numpy(), 1.0, 0.0, 5.0)
    assert_allclose(
        value.detach().double().cpu(), expected, rtol=max(8 * torch.finfo(dtype).eps, 1e-12)
    )


def test_truncated_mean_takes_arrays_of_any_kind():
    expected = truncated_by_scipy(np.arange(3.0), 1.0, 0.0, 5.0)
    for location in (np.arange(3), np.arange(3, dtype=np.float32), torch.arange(3)):
        value = truncated_mean(location, torch.tensor([1.0], requires_grad=True), 0, 5)
        assert type(value) is type(location)
        assert_allclose(
            value.detach() if isinstance(value, torch.Tensor) else value, expected, 1e-6
        )
    assert truncated_mean(np.array([]), 1.0, 0, 5).shape == (0,)


@pytest.mark.parametrize(("low", "high"), [(5, 0), (1, 1), (-math.inf, 1), (0, math.nan)])
def test_truncated_mean_refuses_a_range_that_is_none(low, high):
    with pytest.raises(ValueError, match="low must be below high"):
        truncated_mean(np.ones(3), 1.0, low, high)


def test_quadrature_is_that_of_gauss_and_legendre():
    nodes, weights = np.polynomial.legendre.leggauss(32)
    np.testing.assert_allclose(truncated._NODES, (nodes + 1) / 2, atol=1e-14)
    np.testing.assert_allclose(np.exp(truncated._LOG_WEIGHTS), weights / 2, rtol=1e-12)

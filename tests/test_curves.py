import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import binned_statistic, sem

from dirlearn import Bins, error_curve, mae_by_bin

BINS = Bins.uniform(0, 6, 1)


def sample(n=300, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 6, n)
    return target + rng.normal(size=n), target


@pytest.mark.parametrize(
    ("loss", "element"),
    [(np.abs, abs), (np.square, lambda e: e * e), (np.positive, lambda e: e)],
)
@pytest.mark.parametrize("n", [1, 2, 10, 300])
def test_the_curve_is_a_loop(n, loss, element):
    pred, target = sample(n)
    curve = error_curve(pred, target, BINS, loss)
    assert all(values.shape == (6,) for values in curve)
    for k in range(6):
        terms = [element(p - t) for p, t in zip(pred, target, strict=True) if k <= t < k + 1]
        assert curve.counts[k] == len(terms)
        mean = sum(terms) / len(terms) if terms else math.nan
        assert curve.error[k] == pytest.approx(mean, nan_ok=True)
        if len(terms) < 2:
            assert math.isnan(curve.standard_error[k])
        else:
            variance = sum((term - mean) ** 2 for term in terms) / (len(terms) - 1)
            assert curve.standard_error[k] == pytest.approx(math.sqrt(variance / len(terms)))


def test_the_curve_is_that_of_scipy():
    pred, target = sample()
    curve = error_curve(pred, target, BINS)
    errors = np.abs(pred - target)
    for name, statistic in (("error", "mean"), ("standard_error", sem), ("counts", "count")):
        expected = binned_statistic(target, errors, statistic, bins=BINS.edges).statistic
        assert_allclose(getattr(curve, name), expected)


def test_its_error_is_mae_by_bin():
    pred, target = sample(20)
    assert_allclose(error_curve(pred, target, BINS).error, mae_by_bin(pred, target, BINS))


def test_the_bias_shows_a_model_that_shrinks():
    target = np.linspace(0, 6, 601)
    bias = error_curve(0.5 * target + 1.5, target, BINS, np.positive).error
    assert_allclose(bias, 1.5 - 0.5 * (np.arange(6) + 0.5), atol=0.01)


@given(offset=st.floats(-1e6, 1e6))
def test_equal_errors_have_no_standard_error_whatever_their_size(offset):
    target = np.repeat(np.arange(6) + 0.5, 3)
    curve = error_curve(target + offset, target, BINS)
    assert_allclose(curve.error, abs(offset), rtol=1e-6, atol=1e-9)
    assert_allclose(curve.standard_error, 0, atol=1e-9 * max(abs(offset), 1))


def test_about_two_standard_errors_cover_the_truth():
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(1000) % 6 + 0.5, 50)  # 1000 bins' worth of 50 items
    bins = Bins.uniform(0, 1000, 1)
    curve = error_curve(rng.exponential(size=50_000), np.zeros(50_000), Bins([0, 1]))
    assert curve.error[0] == pytest.approx(1, abs=4 * curve.standard_error[0])
    target = np.repeat(np.arange(1000) + 0.5, 50)
    curve = error_curve(target + rng.exponential(size=50_000), target, bins)
    covered = np.abs(curve.error - 1) <= 1.96 * curve.standard_error
    assert 0.91 < covered.mean() < 0.96


def test_any_kind_shape_and_precision(device):
    pred, target = sample(60)
    expected = error_curve(pred, target, BINS)
    for shape in [(60,), (60, 1), (3, 4, 5)]:
        dense = (torch.tensor(v, device=device).reshape(shape) for v in (pred, target))
        for values, wanted in zip(error_curve(*dense, BINS), expected, strict=True):
            assert isinstance(values, np.ndarray)
            assert_allclose(values, wanted)
    strided = [np.repeat(v, 2)[::2] for v in (pred, target)]
    assert_allclose(error_curve(*strided, BINS).error, expected.error)
    half = torch.tensor([0.3, 0.7], dtype=torch.float16, device=device)
    tenths = error_curve(torch.zeros_like(half), half, Bins.uniform(0, 1, 0.1))
    assert_array_equal(np.flatnonzero(tenths.counts), [3, 7])


@pytest.mark.parametrize(
    ("pred", "target", "words"),
    [
        (np.ones((5, 1)), np.ones(5), r"pred has shape \(5, 1\), target has \(5,\)"),
        ([], [], "are empty"),
        ([np.nan, 1], [1, 1], "pred holds 1 value that is NaN"),
        ([1, 1], [1, np.inf], "target holds 1 value that is NaN or infinite"),
    ],
    ids=str,
)
def test_bad_input_is_refused(pred, target, words):
    with pytest.raises(ValueError, match=words):
        error_curve(pred, target, BINS)


def test_a_loss_must_give_a_value_for_each_error():
    with pytest.raises(ValueError, match=r"one value for each of 2 errors, got shape \(\)"):
        error_curve([1.0, 2.0], [1.0, 2.0], BINS, loss=np.mean)
    with pytest.raises(TypeError, match=r"bins must be a dirlearn\.Bins"):
        error_curve([1.0], [1.0], [0, 1])

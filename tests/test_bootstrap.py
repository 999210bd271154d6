import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import bootstrap, pearsonr
from torchmetrics.functional import mean_absolute_error

from dirlearn import bootstrap_interval


def mae(pred, target):
    return np.abs(pred - target).mean()


def sample(n=60, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 6, n)
    return target + rng.exponential(size=n), target, target + rng.exponential(2, size=n)


@pytest.mark.parametrize("method", ["BCa", "percentile", "basic"])
def test_it_is_scipys_bootstrap_of_the_errors(method):
    pred, target, _ = sample()
    found = bootstrap_interval(mae, pred, target, n_resamples=300, method=method, seed=5)
    expected = bootstrap(
        (np.abs(pred - target),),
        np.mean,
        n_resamples=300,
        method=method,
        random_state=np.random.default_rng(5),
    ).confidence_interval
    assert found.value == pytest.approx(mae(pred, target))
    assert_allclose(found[1:], expected)


def test_two_models_are_measured_on_the_same_draws():
    pred, target, other = sample()
    found = bootstrap_interval(mae, pred, target, baseline=other, n_resamples=300)
    assert found.value == pytest.approx(mae(pred, target) - mae(other, target))
    difference = np.abs(pred - target) - np.abs(other - target)
    expected = bootstrap(
        (difference,), np.mean, n_resamples=300, random_state=np.random.default_rng(0)
    ).confidence_interval
    assert_allclose(found[1:], expected)
    # What both share cancels: a hard item is hard for both.
    hard = 100 * np.arange(60)
    shared = bootstrap_interval(
        mae, target + hard + 1, target, baseline=target + hard, n_resamples=100
    )
    assert_allclose(shared, [1, math.nan, math.nan])  # no draw differs from another
    shared = bootstrap_interval(
        mae, target + hard + 1, target, target + hard, n_resamples=100, method="percentile"
    )
    assert_allclose(shared, 1)


def test_intervals_cover_the_mean_of_exponential_errors():
    """95 % ones cover in a little fewer than 95 of 100 cases, and far more often than by luck."""
    rng, hits = np.random.default_rng(0), 0
    for seed in range(150):
        pred = rng.exponential(size=30)
        _, low, high = bootstrap_interval(mae, pred, np.zeros(30), n_resamples=400, seed=seed)
        hits += low <= 1 <= high
    assert 0.87 < hits / 150 < 0.98


def test_confidence_widens():
    pred, target, _ = sample()
    narrow, wide = (
        bootstrap_interval(mae, pred, target, confidence=confidence) for confidence in (0.5, 0.99)
    )
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_seed_decides():
    pred, target, _ = sample()
    first, again, other = (
        bootstrap_interval(mae, pred, target, n_resamples=100, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other
    assert first.value == other.value


def test_any_metric_of_tensors(device):
    pred, target, other = (torch.tensor(v, device=device) for v in sample())
    expected = bootstrap_interval(mae, *sample(), n_resamples=50, method="percentile")
    found = bootstrap_interval(
        mean_absolute_error, pred, target, other, n_resamples=50, method="percentile"
    )
    assert all(type(end) is float for end in found)
    assert_allclose(found, expected)


def test_correlations_have_intervals_too():
    pred, target, _ = sample()
    value, low, high = bootstrap_interval(
        lambda p, t: pearsonr(p, t).statistic, pred, target, n_resamples=500
    )
    assert low < value < high < 1
    assert value == pytest.approx(pearsonr(pred, target).statistic)


def test_items_are_entries_of_the_first_axis():
    """Ten maps of one error each: their hundred pixels are not a hundred items."""
    errors = np.arange(10.0)
    maps = np.repeat(errors, 100).reshape(10, 10, 10)
    found = bootstrap_interval(mae, maps, np.zeros_like(maps), n_resamples=200)
    assert_allclose(found, bootstrap_interval(mae, errors, np.zeros(10), n_resamples=200))


def test_few_indices_are_held_at_a_time():
    pred = np.random.default_rng(0).normal(size=300_000)  # 13 of the 20 draws at a time
    value, low, high = bootstrap_interval(
        mae, pred, np.zeros_like(pred), n_resamples=20, method="percentile"
    )
    assert low < value < high


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": np.ones((5, 1))}, r"pred has shape \(5, 1\), target has \(5,\)"),
        ({"baseline": np.ones((5, 1))}, r"pred has shape \(5, 1\), target has \(5,\)"),
        ({"baseline": np.full(5, np.nan)}, "5 values that are NaN"),
        ({"pred": [], "target": []}, "are empty"),
        ({"pred": [1.0], "target": [1.0]}, "there is one item"),
        ({"pred": 1.0, "target": 1.0}, "there is one item"),
        ({"pred": np.ones((1, 9)), "target": np.ones((1, 9))}, "there is one item"),
        ({"confidence": 95}, r"confidence must lie between 0 and 1, such as 0.95, got 95"),
        ({"confidence": 0}, "confidence"),
        ({"n_resamples": 0}, "n_resamples"),
        ({"method": "bca!"}, "method"),
    ],
    ids=str,
)
def test_bad_input_is_refused(change, words):
    given = {"pred": np.arange(5.0), "target": np.ones(5)}
    with pytest.raises(ValueError, match=words):
        bootstrap_interval(mae, **(given | change))


def test_seeds_are_whole_numbers():
    with pytest.raises(TypeError, match="integer"):
        bootstrap_interval(mae, np.arange(5.0), np.ones(5), seed=0.5)

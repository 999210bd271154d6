from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import beta as beta_law
from scipy.stats import binom, kstest, norm

from dirlearn.lab.theory import Bound, draw_thresholds, threshold_bound, threshold_center

numbers = st.integers(1, 10_000)
tolerances = st.floats(0.01, 3)


def at_least(hits, draws, level=1e-6):
    """Smallest success probability that so many hits leave possible (Clopper and Pearson)."""
    return beta_law.ppf(level, hits, draws - hits + 1) if hits else 0.0


# ---- the bound


def bound_in_three_steps(n_positive, n_negative, delta, mu1, mu2, sigma):
    """The proof: a normal mean and two binomial shares may each miss by delta / 3."""
    third = delta / 3
    variance = (sigma**2 / n_positive + sigma**2 / n_negative) / 4
    missed = 2 * math.exp(-(third**2) / (2 * variance))  # a normal tail
    for n in (n_positive, n_negative):
        share = third / ((mu1 - mu2) / 2)  # what a share may miss by
        missed += 2 * math.exp(-2 * n * share**2)  # Hoeffding
    return 1 - missed


@pytest.mark.parametrize("n_positive", [3, 100, 2500])
@pytest.mark.parametrize("n_negative", [1, 40, 9000])
@pytest.mark.parametrize(("mu1", "mu2", "sigma"), [(1, -1, 1), (0.3, 0.1, 2), (5, -2, 0.5)])
def test_bound_is_what_its_proof_adds_up_to(n_positive, n_negative, mu1, mu2, sigma):
    for delta in (0.05, 0.5, 2.0):
        arguments = (n_positive, n_negative, delta, mu1, mu2, sigma)
        value, vacuous = threshold_bound(*arguments)
        assert value == pytest.approx(bound_in_three_steps(*arguments), rel=1e-12, abs=1e-12)
        assert vacuous == (value <= 0)


@given(n=numbers, m=numbers, more=numbers, delta=tolerances, step=st.floats(0, 2))
def test_bound_rises_with_samples_and_tolerance_and_does_not_tell_classes_apart(
    n, m, more, delta, step
):
    value = threshold_bound(n, m, delta).value
    assert threshold_bound(n + more, m, delta).value >= value - 1e-12
    assert threshold_bound(n, m, delta + step).value >= value - 1e-12
    assert threshold_bound(m, n, delta).value == pytest.approx(value, abs=1e-12)
    assert value <= 1


@given(n=st.integers(2, 5000), moved=st.integers(1, 5000), delta=tolerances)
def test_bound_is_best_for_equal_numbers(n, moved, delta):
    moved = min(moved, n - 1)
    even, uneven = threshold_bound([n, n + moved], [n, n - moved], delta).value
    assert uneven <= even + 1e-12


@given(scale=st.floats(0.01, 100), shift=st.floats(-50, 50))
def test_bound_knows_no_unit(scale, shift):
    plain = threshold_bound(300, 2000, 0.2, 1.0, -1.0, 0.7).value
    other = threshold_bound(300, 2000, 0.2 * scale, scale + shift, shift - scale, 0.7 * scale)
    assert other.value == pytest.approx(plain, rel=1e-6, abs=1e-9)


def test_bound_broadcasts():
    bound = threshold_bound([[100], [1000]], [100, 1000, 10_000], 0.15)
    assert bound.value.shape == bound.vacuous.shape == (2, 3)
    assert bound.value[1, 2] == threshold_bound(1000, 10_000, 0.15).value
    assert bound.vacuous[0].all()
    assert not bound.vacuous[1, 2]
    assert isinstance(bound, Bound)


def test_bound_says_nothing_below_five_hundred_samples():
    n = np.arange(2, 3000, 2)
    vacuous = threshold_bound(n / 2, n / 2, 0.15).vacuous
    assert vacuous[n <= 500].all()
    assert not vacuous[n >= 1200].any()
    assert (np.diff(vacuous.astype(int)) <= 0).all()


def test_bound_of_huge_and_tiny_numbers_is_finite():
    value = threshold_bound([1e-3, 1e300], [1e-3, 1e300], [1e-6, 1e3]).value
    assert_allclose(value, [-5, 1], atol=1e-6)


# ---- the centre


def test_center_is_the_midpoint_where_both_sets_are_equally_pure():
    for p in (0.0, 0.5, 1.0):
        assert threshold_center(p, p, 3.0, 1.0) == 2.0


@given(p=st.floats(0, 1), q=st.floats(0, 1))
def test_center_is_the_mean_of_the_two_sets_means(p, q):
    above, below = p * 1.5 + (1 - p) * -0.5, (1 - q) * 1.5 + q * -0.5
    assert threshold_center(p, q, 1.5, -0.5) == pytest.approx((above + below) / 2, abs=1e-12)
    assert threshold_center(q, p, 1.5, -0.5) == pytest.approx(1 - (above + below) / 2, abs=1e-12)


# ---- the draws


def draw_sample_by_sample(n_positive, n_negative, p, q, mu1, mu2, sigma, repetitions, seed):
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(repetitions):
        sides = []
        for n, right, own, other in ((n_positive, p, mu1, mu2), (n_negative, q, mu2, mu1)):
            mean = np.where(generator.random(n) < right, own, other)
            sides.append(generator.normal(mean, sigma).mean())
        found.append(sum(sides) / 2)
    return np.array(found)


@pytest.mark.parametrize(
    "setting", [(20, 300, 0.6, 0.95, 1.0, -1.0, 1.0), (7, 3, 1.0, 0.2, 4.0, 3.0, 0.3)]
)
def test_draws_have_the_law_of_samples_drawn_one_by_one(setting):
    fast = draw_thresholds(*setting, repetitions=20_000)
    slow = draw_sample_by_sample(*setting, 3000, seed=1)
    assert kstest(fast, slow).pvalue > 1e-4


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.95, 0.7), (0.2, 0.9)])
def test_success_is_what_the_two_binomials_add_up_to(p, q):
    n, m, delta = 60, 15, 0.25
    k, j = np.arange(n + 1)[:, None], np.arange(m + 1)
    middle = -1 + (k / n + 1 - j / m)  # given k and j correct labels; j / m is that of q
    spread = math.sqrt(1 / n + 1 / m) / 2
    off = middle - (p - q)
    inside = norm.cdf((delta - off) / spread) - norm.cdf((-delta - off) / spread)
    exact = (binom.pmf(k, n, p) * binom.pmf(j, m, q) * inside).sum()
    off = draw_thresholds(n, m, p, q, repetitions=40_000) - threshold_center(p, q)
    assert (np.abs(off) <= delta).mean() == pytest.approx(exact, abs=0.01)


def test_the_normal_part_alone_is_closed():
    n, m = 40, 10
    found = draw_thresholds(n, m, repetitions=40_000)
    assert kstest(found, norm(0, math.sqrt(1 / n + 1 / m) / 2).cdf).pvalue > 1e-4


@pytest.mark.parametrize("sigma", [0.5, 1.0])
@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.95, 0.7), (0.5, 0.9)])
def test_success_lies_above_the_bound_over_a_grid(p, q, sigma):
    n = np.array([[250, 1000, 4000]])
    ratio = np.array([[1], [10], [100]])
    positive = np.maximum(n // (1 + ratio), 1)
    for delta in (0.1, 0.15, 0.3, 0.6):
        bound = threshold_bound(positive, n - positive, delta, sigma=sigma)
        drawn = draw_thresholds(positive, n - positive, p, q, sigma=sigma, repetitions=2000)
        hits = (np.abs(drawn - threshold_center(p, q)) <= delta).sum(axis=0)
        # The bound may not lie beyond what so many hits can come from.
        most = 1 - np.vectorize(at_least)(2000 - hits, 2000)
        assert (bound.value <= most).all()
    assert not bound.vacuous[0].any()  # something was tested


def test_success_falls_with_the_imbalance_of_the_pool_and_not_with_that_of_the_labels():
    ratio = np.array([1, 10, 50, 100])
    n_positive = np.maximum(500 // (1 + ratio), 1)
    off = draw_thresholds(n_positive, 500 - n_positive, 0.9, 0.7) - threshold_center(0.9, 0.7)
    success = (np.abs(off) <= 0.15).mean(axis=0)
    assert (np.diff(success) < -0.05).all()
    assert_allclose(off.mean(axis=0), 0, atol=0.02)  # the bias is D's alone


def test_draws_broadcast_and_follow_the_seed():
    arguments = {"n_positive": [[5], [50]], "n_negative": [10, 20, 30], "repetitions": 7}
    first = draw_thresholds(**arguments, seed=3)
    assert first.shape == (7, 2, 3)
    assert_allclose(first, draw_thresholds(**arguments, seed=3))
    assert (first != draw_thresholds(**arguments, seed=4)).all()
    assert draw_thresholds(1, 1, repetitions=5).shape == (5,)


# ---- assumptions

GOOD = {"n_positive": 5, "n_negative": 5, "delta": 0.1, "mu1": 1.0, "mu2": -1.0, "sigma": 1.0}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_positive": 0}, "n_positive must be above 0, got 0"),
        ({"n_negative": [3, -1]}, "n_negative must be above 0, got -1"),
        ({"delta": 0.0}, "delta must be above 0"),
        ({"delta": math.nan}, "delta must be finite"),
        ({"sigma": 0}, "sigma must be above 0"),
        ({"sigma": math.inf}, "sigma must be finite"),
        ({"mu1": -1.0}, "mu1, the mean of the positive class, must be above mu2"),
        ({"mu1": -3.0}, "call the class with the larger mean positive"),
    ],
)
def test_bound_refuses_what_the_theorem_does_not_assume(wrong, message):
    with pytest.raises(ValueError, match=message):
        threshold_bound(**{**GOOD, **wrong})


@pytest.mark.parametrize("wrong", [{"p": 1.1}, {"q": -0.1}, {"p": math.nan}, {"p": [0.5, 2]}])
def test_precisions_are_probabilities(wrong):
    for function in (threshold_center, lambda **k: draw_thresholds(5, 5, **k)):
        with pytest.raises(ValueError, match=r"is a probability|must be finite"):
            function(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_positive": 2.5}, "n_positive must be a whole number of samples"),
        ({"repetitions": 0}, "repetitions must be positive, got 0"),
        ({"mu2": 1.0}, "mu1, the mean"),
        ({"sigma": -1.0}, "sigma must be above 0"),
    ],
)
def test_draws_refuse_what_they_cannot_draw(wrong, message):
    with pytest.raises(ValueError, match=message):
        draw_thresholds(**{"n_positive": 5, "n_negative": 5, **wrong})

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.stats import beta as beta_law
from scipy.stats import chi2, kstest

from dirlearn.lab.theory_norm import (
    draw_norm_thresholds,
    least_linear_error,
    linear_bound,
    linear_error,
    norm_bound,
    norm_error,
)

spreads = st.floats(3.001, 1000)
numbers = st.integers(1, 5000)


def two_classes(n_positive, n_negative, d, beta, seed, sigma=1.0):
    generator = np.random.default_rng(seed)
    inner = sigma * generator.standard_normal((n_positive, d))
    return inner, sigma * math.sqrt(beta) * generator.standard_normal((n_negative, d))


# ---- theorem 2


@pytest.mark.parametrize("b", [-2.0, 0.0, 1.3, 4.0])
@pytest.mark.parametrize("negative", [0.5, 0.8])
def test_linear_error_is_what_vectors_give(b, negative):
    theta, sigma, beta = np.array([0.6, -1.1, 0.4]), 1.7, 5.0
    inner, outer = two_classes(200_000, 200_000, 3, beta, 0, sigma)
    missed, mistaken = (inner @ theta + b < 0).mean(), (outer @ theta + b >= 0).mean()
    offset = b / (np.linalg.norm(theta) * sigma)
    found = (1 - negative) * missed + negative * mistaken
    assert linear_error(offset, beta, negative) == pytest.approx(found, abs=0.005)


@pytest.mark.parametrize("beta", [1.5, 4.0, 50.0, 400.0])
@pytest.mark.parametrize("negative", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_least_linear_error_is_that_of_a_search(beta, negative):
    grid = np.linspace(0, 40, 400_001)
    assert least_linear_error(beta, negative) == pytest.approx(
        linear_error(grid, beta, negative).min(), abs=1e-9
    )


def test_least_linear_error_is_below_a_quarter_where_negatives_are_few():
    assert least_linear_error(400.0, 0.3) == pytest.approx(0.168, abs=5e-4)


@given(beta=spreads, negative=st.floats(0.5, 0.999), offset=st.floats(1e-6, 100))
def test_no_linear_rule_with_a_positive_offset_beats_a_quarter(beta, negative, offset):
    bound = linear_bound(beta, negative).value
    assert bound == 0.25
    least = least_linear_error(beta, negative)
    assert bound <= negative / 2 <= least <= linear_error(offset, beta, negative) + 1e-12


def test_the_quarter_is_reached_in_the_limit():
    assert least_linear_error(1e12, 0.5) == pytest.approx(0.25, abs=1e-4)


def test_a_negative_offset_does_beat_it_where_positives_are_few():
    assert linear_error(-50.0, 4.0, 0.9) == pytest.approx(0.1)  # all called negative
    bound = linear_bound(4.0, [0.6, 0.75, 0.9])
    assert list(bound.vacuous) == [False, False, True]


@given(beta=spreads, offset=st.floats(-100, 100))
def test_in_equal_classes_no_offset_at_all_beats_a_quarter(beta, offset):
    assert linear_error(offset, beta, 0.5) >= 0.25


def test_linear_bound_broadcasts():
    bound = linear_bound([[4.0], [9.0]], [0.5, 0.6, 0.9])
    assert bound.value.shape == bound.vacuous.shape == (2, 3)


# ---- theorem 3


@pytest.mark.parametrize(("d", "beta"), [(2, 4.0), (9, 3.5)])
def test_norm_error_is_what_vectors_give(d, beta):
    inner, outer = two_classes(100_000, 100_000, d, beta, 1, sigma=0.4)
    threshold = 0.4**2 * d * 1.9
    missed = ((inner**2).sum(axis=1) >= threshold).mean()
    mistaken = ((outer**2).sum(axis=1) < threshold).mean()
    assert norm_error(1.9, d, beta, 0.7) == pytest.approx(0.3 * missed + 0.7 * mistaken, abs=0.005)


def test_norm_error_is_scipy_s_chi_square():
    t, d = np.array([0.5, 1.0, 2.5])[:, None], np.array([1, 10, 300])
    expected = 0.4 * chi2.sf(t * d, d) + 0.6 * chi2.cdf(t * d / 5, d)
    assert_allclose(norm_error(t, d, 5.0, 0.6), expected, rtol=1e-10)


def bound_in_steps(n_positive, n_negative, d, beta, delta, negative):
    """The proof, with the tail of a sub-exponential mean of d squares: parameters 2 and 4."""

    def tail(deviation):
        return math.exp(-d * min(deviation**2, deviation) / 8)

    low, high = (1 + beta) * (1 - delta) / 2, (1 + beta) * (1 + delta) / 2  # of the threshold
    error = (1 - negative) * tail(low - 1) + negative * tail(1 - high / beta)
    wrong = 2 * math.exp(-d * n_positive * delta**2 / 8)
    return error, 1 - wrong - 2 * math.exp(-d * n_negative * delta**2 / 8)


@given(
    n=numbers, m=numbers, d=st.integers(1, 500), beta=spreads,
    part=st.floats(0.01, 0.99), negative=st.floats(0.01, 0.99),
)  # fmt: skip
def test_norm_bound_is_what_its_proof_adds_up_to(n, m, d, beta, part, negative):
    delta = part * (beta - 1) / (beta + 1)
    error, held, vacuous = norm_bound(n, m, d, beta, delta, negative)
    expected = bound_in_steps(n, m, d, beta, delta, negative)
    assert error == pytest.approx(expected[0], rel=1e-6, abs=1e-12)
    assert held == pytest.approx(expected[1], rel=1e-6, abs=1e-9)
    assert vacuous == (held <= 0 or error >= min(negative, 1 - negative))


@pytest.mark.parametrize("d", [1, 20, 300])
@pytest.mark.parametrize("beta", [3.2, 6.0, 90.0])
def test_the_two_cases_meet(d, beta):
    switch = (beta - 3) / (beta + 1)  # where A = 2
    sides = norm_bound(5, 5, d, beta, switch + np.array([-1e-9, 0.0, 1e-9])).error
    assert_allclose(sides, sides[1], rtol=1e-5)
    assert sides[1] == pytest.approx(
        (math.exp(-d / 8) + math.exp(-d / (8 * beta**2))) / 2, rel=1e-12
    )


@given(
    n=numbers, m=numbers, more=numbers, d=st.integers(1, 300), beta=spreads,
    part=st.floats(0.01, 0.9), step=st.floats(0, 0.09),
)  # fmt: skip
def test_norm_bound_is_monotone(n, m, more, d, beta, part, step):
    widest = (beta - 1) / (beta + 1)
    here = norm_bound(n, m, d, beta, part * widest)
    samples = norm_bound(n + more, m, d, beta, part * widest)
    assert samples.probability >= here.probability
    assert samples.error == here.error  # labels enter the probability, never the error
    wider = norm_bound(n, m, d, beta, (part + step) * widest)
    assert wider.probability >= here.probability
    assert wider.error >= here.error - 1e-12
    higher = norm_bound(n, m, d + 1, beta, part * widest)
    assert higher.error <= here.error
    assert higher.probability >= here.probability


def test_drawn_thresholds_have_the_law_of_vectors():
    n_positive, n_negative, d, beta = 4, 9, 3, 5.0
    fast = draw_norm_thresholds(n_positive, n_negative, d, beta, repetitions=20_000)
    slow, sigma, k1, k2 = [], 0.3, 3.0, 2.0
    for seed in range(3000):
        inner, outer = two_classes(n_positive, n_negative, d, beta, seed, sigma)
        z = [k1 * (x**2).sum(axis=1) + k2 for x in (inner, outer)]  # the paper's k's drop out
        b = (z[0].mean() + z[1].mean()) / 2
        slow.append((b - k2) / (k1 * d * sigma**2))
    assert kstest(fast, slow).pvalue > 1e-4


def test_many_labels_put_the_threshold_midway():
    drawn = draw_norm_thresholds(10**6, 10**6, 100, 4.0, repetitions=50)
    assert_allclose(drawn, 2.5, atol=0.01)


@pytest.mark.parametrize("negative", [0.5, 0.9])
@pytest.mark.parametrize("beta", [3.5, 6.0, 30.0])
def test_errors_lie_under_the_bound_as_often_as_it_says(beta, negative):
    draws, informative = 1000, 0
    n_positive, d = np.array([[1], [5], [50]]), np.array([5, 40, 200])
    drawn = draw_norm_thresholds(n_positive, 500, d, beta, repetitions=draws)
    errors = norm_error(drawn, d, beta, negative)
    for part in (0.2, 0.5, 0.9):
        bound = norm_bound(n_positive, 500, d, beta, part * (beta - 1) / (beta + 1), negative)
        missed = (errors > bound.error).sum(axis=0)
        least = np.where(
            missed > 0, beta_law.ppf(1e-6, np.maximum(missed, 1), draws - missed + 1), 0
        )
        assert (bound.probability <= 1 - least).all()
        informative += (~bound.vacuous).sum()
    assert informative > 0 or beta < 6  # something was tested


def test_errors_of_a_few_labels_are_those_of_the_best_threshold_nearly():
    """Five positives among five hundred negatives: the threshold is off, the error hardly."""
    for d, expected in ((10, 0.106), (50, 0.0088), (200, 4e-6)):
        exact = norm_error(2.5, d, 4.0)
        assert exact == pytest.approx(expected, rel=0.15)
        drawn = norm_error(draw_norm_thresholds(5, 500, d, 4.0), d, 4.0)
        assert drawn.mean() < 1.5 * exact
    best = minimize_scalar(lambda t: float(norm_error(t, 50, 4.0)), bounds=(1, 4), method="bounded")
    assert best.fun < norm_error(2.5, 50, 4.0)  # midway is not the best place


def test_logistic_regression_is_a_linear_rule():
    sklearn = pytest.importorskip("sklearn.linear_model", reason="the lab is not installed")
    inner, outer = two_classes(400, 400, 10, 4.0, 0)
    x, y = np.concatenate([inner, outer]), np.repeat([1, 0], 400)
    test = np.concatenate(two_classes(4000, 4000, 10, 4.0, 1))
    model = sklearn.LogisticRegression().fit(x, y)
    error = (model.predict(test) != np.repeat([1, 0], 4000)).mean()
    assert error > 0.4
    rule = -model.coef_[0], -model.intercept_[0]
    offset = -rule[1] / np.linalg.norm(rule[0])
    assert linear_error(offset, 4.0) == pytest.approx(error, abs=0.03)


# ---- assumptions


def test_norm_bound_broadcasts():
    bound = norm_bound([[1], [10]], 100, [5, 50, 500], 6.0, 0.3)
    assert {part.shape for part in bound} == {(2, 3)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_positive": 0}, "n_positive must be above 0"),
        ({"n_negative": math.nan}, "n_negative must be finite"),
        ({"d": 0}, "d must be above 0"),
        ({"beta": 3.0}, "beta must be above 3, got 3"),
        ({"delta": 0.0}, "delta must be above 0"),
        ({"delta": 0.6}, r"inside \(0, \(beta - 1\) / \(beta \+ 1\)\), got 0.6 with beta 4"),
        ({"negative": 1.0}, "negative is the share of a class"),
    ],
)
def test_norm_bound_refuses_what_the_theorem_does_not_assume(wrong, message):
    good = {"n_positive": 5, "n_negative": 5, "d": 10, "beta": 4.0, "delta": 0.3}
    with pytest.raises(ValueError, match=message):
        norm_bound(**{**good, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": 2.9}, "beta must be above 3, got 2.9"),
        ({"negative": 0.4}, "the majority, got a share of 0.4; least_linear_error"),
        ({"negative": 0.0}, "negative is the share of a class"),
    ],
)
def test_linear_bound_refuses_what_the_theorem_does_not_assume(wrong, message):
    with pytest.raises(ValueError, match=message):
        linear_bound(**{"beta": 4.0, **wrong})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linear_error(math.nan, 4.0), "offset must be finite"),
        (lambda: linear_error(1.0, 0.0), "beta must be above 0"),
        (lambda: least_linear_error(1.0), "beta must be above 1"),
        (lambda: norm_error(0.0, 10, 4.0), "threshold must be above 0"),
        (lambda: norm_error(1.0, -1, 4.0), "d must be above 0"),
        (lambda: draw_norm_thresholds(5, 5, 10, 4.0, repetitions=-1), "repetitions must be"),
    ],
)
def test_errors_and_draws_refuse_the_same(call, message):
    with pytest.raises(ValueError, match=message):
        call()

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from dirlearn.lab.self_training import bayes_threshold, reestimated_threshold, self_training
from dirlearn.lab.theory import draw_thresholds

shares = st.floats(0.01, 0.99)
thresholds = st.floats(-3, 3)

# ---- the Bayes threshold


@pytest.mark.parametrize("share", [0.5, 0.2, 0.01])
@pytest.mark.parametrize(("mu1", "mu2", "sigma"), [(1, -1, 1), (3, 2, 0.4)])
def test_bayes_threshold_errs_least(share, mu1, mu2, sigma):
    def error(threshold):
        missed = norm.cdf(threshold, mu1, sigma)
        return share * missed + (1 - share) * norm.sf(threshold, mu2, sigma)

    ours = bayes_threshold(share, mu1, mu2, sigma)
    best = minimize_scalar(error, bracket=(ours - 0.3, ours + 0.2)).fun
    assert error(ours) == pytest.approx(best, abs=1e-12)


# ---- a round on endless data


def by_quadrature(threshold, share, mu1, mu2, sigma):
    def density(x):
        return share * norm.pdf(x, mu1, sigma) + (1 - share) * norm.pdf(x, mu2, sigma)

    found = []
    for low, high in ((threshold, mu1 + 12 * sigma), (mu2 - 12 * sigma, threshold)):
        points = [mu1, mu2]
        mass = quad(density, low, high, points=points, epsabs=1e-12, limit=200)[0]
        found.append(
            quad(lambda x: x * density(x), low, high, points=points, epsabs=1e-12)[0] / mass
        )
    return sum(found) / 2


@pytest.mark.parametrize("share", [0.5, 0.1, 0.98])
@pytest.mark.parametrize("threshold", [-0.8, 0.0, 0.4, 1.7])
@pytest.mark.parametrize(("mu1", "mu2", "sigma"), [(1.0, -1.0, 1.0), (2.0, 0.5, 0.6)])
def test_round_is_the_integral_of_the_mixture(share, threshold, mu1, mu2, sigma):
    expected = by_quadrature(threshold, share, mu1, mu2, sigma)
    found = reestimated_threshold(threshold, share, mu1, mu2, sigma)
    assert found == pytest.approx(expected, abs=1e-8)


def test_round_is_twice_the_density_times_the_mean_at_the_midpoint_of_equal_classes():
    """The slope at the fixed point: what one round leaves of an error."""
    step = 1e-4
    slope = (reestimated_threshold(step, 0.5) - reestimated_threshold(-step, 0.5)) / (2 * step)
    folded = 2 * norm.pdf(1) + 1 - 2 * norm.cdf(-1)  # E[X | X > 0]
    assert slope == pytest.approx(2 * norm.pdf(1) * folded, abs=1e-6)
    assert 0 < slope < 1


@given(threshold=thresholds, share=shares)
def test_round_is_mirrored_with_the_classes(threshold, share):
    there, back = reestimated_threshold([threshold, -threshold], [share, 1 - share])
    assert there == pytest.approx(-back, abs=1e-9)


@given(threshold=thresholds, share=st.floats(0.1, 0.9), step=st.floats(0.01, 1))
def test_round_keeps_the_order_of_thresholds(threshold, share, step):
    low, high = reestimated_threshold([threshold, threshold + step], share)
    assert low < high


def settled(share):
    threshold = np.zeros(np.shape(share))
    for _ in range(2000):
        threshold = reestimated_threshold(threshold, share)
    return threshold


def test_rounds_settle_at_the_midpoint_of_equal_classes_only():
    fixed = settled(np.array([0.5, 1 / 3, 1 / 11, 1 / 51]))
    assert fixed[0] == pytest.approx(0, abs=1e-9)
    assert (np.diff(fixed) < -0.15).all()  # the rarer the positives, the further among the others


@pytest.mark.parametrize("threshold", [45.0, 1e6])
def test_round_far_out_is_half_the_threshold_and_half_the_mean(threshold):
    """Beyond all samples: those above crowd at the threshold, those below are everything."""
    mean = 0.1 * 1 + 0.9 * -1
    found = reestimated_threshold([threshold, -threshold], 0.1)
    assert_allclose(found, [(threshold + mean) / 2, (-threshold + mean) / 2], atol=0.03)


# ---- on samples


def with_loops(start, pool, rounds):
    found = [start]
    for _ in range(rounds):
        above, below = pool[pool > found[-1]], pool[pool <= found[-1]]
        both = above.size and below.size
        found.append((above.mean() + below.mean()) / 2 if both else found[-1])
    return found


@pytest.mark.parametrize(("n_positive", "n_negative"), [(30, 30), (3, 57), (1, 0), (0, 8)])
def test_rounds_are_those_of_a_loop(n_positive, n_negative):
    start = np.array([-9.0, -0.5, 0.0, 0.7, 1.5, 9.0])
    found = self_training(start, n_positive, n_negative, 4, mu1=1.2, mu2=-0.3, sigma=0.8, seed=5)
    center = np.repeat([1.2, -0.3], [n_positive, n_negative])
    pools = np.random.default_rng(5).normal(center, 0.8, (6, len(center)))
    expected = [with_loops(s, pool, 4) for s, pool in zip(start, pools, strict=True)]
    assert_allclose(found.T, expected, rtol=1e-10)


def test_large_pool_follows_the_endless_one():
    start = np.full(40, 0.6)
    found = self_training(start, 2000, 18_000, 3).mean(axis=1)
    expected = [0.6]
    for _ in range(3):
        expected.append(float(reestimated_threshold(expected[-1], 0.1)))
    assert_allclose(found, expected, atol=0.01)


def test_no_round_leaves_the_start():
    start = np.array([0.1, 2.0])
    assert_allclose(self_training(start, 5, 5, rounds=0), start[None])


def base(n_positive, n_negative, repetitions=1000):
    midpoint = draw_thresholds(n_positive, n_negative, repetitions=repetitions)
    return midpoint + bayes_threshold(n_positive / (n_positive + n_negative))


def success(start, ratio, rounds, size=500):
    n_positive = round(size / (1 + ratio))
    found = self_training(start, n_positive, size - n_positive, rounds, seed=1)
    return (np.abs(found) <= 0.15).mean(axis=1)


def test_one_round_from_imbalanced_labels_reverses_the_order_and_more_restore_it():
    start = base(10, 90)
    by_ratio = np.array([success(start, ratio, 10) for ratio in (1, 10, 50, 100)])
    assert (np.diff(by_ratio[:, 1]) >= 0).all()  # one round: the more imbalanced the better
    assert by_ratio[0, 1] < 0.02
    assert by_ratio[3, 1] > 0.1
    assert by_ratio[0, 5] > 0.8  # five rounds: the balanced pool only
    assert by_ratio[1:, 5].max() < 0.02


def test_from_balanced_labels_there_is_no_reversal():
    start = base(50, 50)
    one_round = np.array([success(start, ratio, 1)[1] for ratio in (1, 10, 50)])
    assert (np.diff(one_round) < 0).all()


def test_more_unlabelled_data_do_not_mend_an_imbalanced_pool():
    """Theorem 1 has the imbalance in the variance, which more data lower; here it is a bias."""
    start = np.zeros(200)
    assert success(start, 10, 5, size=4000)[5] == 0
    assert success(start, 1, 5, size=4000)[5] > 0.99


# ---- assumptions


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan, [0.5, 1.2]])
def test_shares_leave_something_to_both_classes(share):
    for function in (bayes_threshold, lambda s: reestimated_threshold(0.0, s)):
        with pytest.raises(ValueError, match="share"):
            function(share)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": 0.5}, r"give np.full\(R, threshold\)"),
        ({"start": np.zeros(0)}, r"shape \(R,\), got \(0,\)"),
        ({"start": np.array([math.nan])}, "start must be finite"),
        ({"n_positive": 0, "n_negative": 0}, "at least one sample"),
        ({"n_positive": -1}, "whole numbers, not negative"),
        ({"n_negative": 2.5}, "whole numbers"),
        ({"rounds": -1}, "whole numbers"),
        ({"mu1": -1.0}, "mu1, the mean of the positive class, must be above mu2"),
        ({"sigma": 0.0}, "sigma must be above 0"),
    ],
)
def test_self_training_refuses_what_it_cannot_draw(wrong, message):
    good = {"start": np.zeros(3), "n_positive": 5, "n_negative": 5}
    with pytest.raises(ValueError, match=message):
        self_training(**{**good, **wrong})


@pytest.mark.parametrize("threshold", [math.nan, math.inf])
def test_round_refuses_a_threshold_that_is_none(threshold):
    with pytest.raises(ValueError, match="threshold must be finite"):
        reestimated_threshold(threshold, 0.5)

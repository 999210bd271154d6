from __future__ import annotations

import dataclasses
from math import nan

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from dirlearn.lab.intervals import (
    Claim,
    Estimate,
    claim,
    claims_table,
    crossed_interval,
    over_seeds,
)

# ---- crossed_interval: the same by other routes


def slow_interval(errors, mask):
    """The docstring's formulas, one cell at a time."""
    rows = [s for s in range(len(errors)) if mask[s].any()]
    columns = [t for t in range(errors.shape[1]) if mask[:, t].any()]
    S, T = len(rows), len(columns)
    n = {s: sum(mask[s, t] for t in columns) for s in rows}
    m = {t: sum(mask[s, t] for s in rows) for t in columns}
    r = {s: sum(errors[s, t] for t in columns if mask[s, t]) / n[s] for s in rows}
    theta = sum(r.values()) / S
    psi = {(s, t): (errors[s, t] - theta) / (n[s] * S) for s in rows for t in columns if mask[s, t]}
    seed_sum = {s: sum(v for (i, _), v in psi.items() if i == s) for s in rows}
    item_sum = {t: sum(v for (_, j), v in psi.items() if j == t) for t in columns}
    v_seed = S / (S - 1) * sum(v**2 for v in seed_sum.values())
    v_item = T / (T - 1) * sum(v**2 for v in item_sum.values())
    v_both = sum(v**2 for v in psi.values())
    v_both -= sum(seed_sum[s] ** 2 / n[s] for s in rows)
    v_both -= sum(item_sum[t] ** 2 / m[t] for t in columns)
    v_both *= S / (S - 1) * T / (T - 1)
    variance = max(v_seed + v_item - max(v_both, 0), v_seed, v_item)
    df = variance**2 / (v_seed**2 / (S - 1) + v_item**2 / (T - 1))
    half = scipy.stats.t.ppf(0.975, max(df, min(S, T) - 1)) * np.sqrt(variance)
    return theta, theta - half, theta + half


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
def test_interval_equals_a_slow_loop(seed, share):
    rng = np.random.default_rng(seed)
    errors = rng.normal(size=(5, 12)) + rng.normal(size=(5, 1)) + rng.normal(size=12)
    mask = rng.random((5, 12)) < share
    mask[0, :2], mask[1, 1] = True, True
    mask[3] &= share == 1  # a seed without the region
    assert_allclose(crossed_interval(errors, mask), slow_interval(errors, mask), rtol=1e-12)


def test_full_mask_is_the_two_way_analysis_of_variance():
    rng = np.random.default_rng(0)
    S, T = 4, 9
    errors = rng.normal(size=(S, T)) + 2 * rng.normal(size=(S, 1)) + 2 * rng.normal(size=T)
    seeds, items = errors.mean(1, keepdims=True), errors.mean(0, keepdims=True)
    residual = errors - seeds - items + errors.mean()
    ms_seed, ms_item = T * seeds.var(ddof=1), S * items.var(ddof=1)
    ms_residual = (residual**2).sum() / ((S - 1) * (T - 1))
    assert ms_residual < min(ms_seed, ms_item)  # so that the floor is not in play
    variance = (ms_seed + ms_item - ms_residual) / (S * T)
    df = variance**2 / ((ms_seed / (S * T)) ** 2 / (S - 1) + (ms_item / (S * T)) ** 2 / (T - 1))
    expected = scipy.stats.t.interval(0.95, df, errors.mean(), np.sqrt(variance))
    assert_allclose(crossed_interval(errors, errors > -99)[1:], expected, rtol=1e-12)


def test_identical_items_give_students_interval_over_seeds():
    rng = np.random.default_rng(1)
    method, baseline = rng.normal(size=(2, 6))
    errors = np.repeat((method - baseline)[:, None], 50, axis=1)
    paired = scipy.stats.ttest_rel(method, baseline).confidence_interval(0.95)
    assert_allclose(crossed_interval(errors, errors > -99)[1:], paired, rtol=1e-9)


def test_identical_seeds_give_students_interval_over_items():
    items = np.random.default_rng(2).normal(size=50)
    errors = np.tile(items, (6, 1))
    single = scipy.stats.ttest_1samp(items, 0).confidence_interval(0.95)
    assert_allclose(crossed_interval(errors, errors > -99)[1:], single, rtol=1e-9)


# ---- crossed_interval: coverage

REGIMES = {  # standard deviations of seed, item and residual effects, in units that make them count
    "seeds": (1.0, 0.5, 0.5),
    "items": (0.02, 1.0, 0.5),
    "residual": (0.0, 0.0, 1.0),
    "both": (0.5, 2.0, 1.0),
}


def simulate(regime, n_seeds, n_test, replicates=4000):
    seed, item, residual = REGIMES[regime]
    rng = np.random.default_rng(3)
    return (
        seed * rng.normal(size=(replicates, n_seeds, 1))
        + item * rng.normal(size=(replicates, 1, n_test))
        + residual * rng.normal(size=(replicates, n_seeds, n_test))
    )


def coverage(low, high):
    return np.mean((low <= 0) & (high >= 0))


def seed_only(errors):
    return scipy.stats.ttest_1samp(errors.mean(-1), 0, axis=-1).confidence_interval(0.95)


def item_only(errors):
    return scipy.stats.ttest_1samp(errors.mean(-2), 0, axis=-1).confidence_interval(0.95)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize(("n_seeds", "n_test"), [(5, 200), (20, 50), (3, 100)])
def test_95_percent_intervals_cover_about_95_percent(regime, n_seeds, n_test):
    errors = simulate(regime, n_seeds, n_test)
    covered = coverage(*crossed_interval(errors, np.ones_like(errors, bool))[1:])
    assert 0.92 <= covered <= 0.985


@pytest.mark.parametrize(("n_seeds", "n_test"), [(5, 200), (20, 50)])
def test_regions_that_differ_between_seeds_are_covered(n_seeds, n_test):
    errors = simulate("both", n_seeds, n_test)
    mask = np.random.default_rng(4).random(errors.shape) < 0.7
    assert 0.92 <= coverage(*crossed_interval(errors, mask)[1:]) <= 0.985


@pytest.mark.parametrize(
    ("ignoring", "regime"), [(seed_only, "items"), (item_only, "seeds"), (item_only, "both")]
)
def test_ignoring_a_source_of_variation_covers_too_little(ignoring, regime):
    # What makes the test above a test: these regimes punish whoever drops a source.
    assert coverage(*ignoring(simulate(regime, 5, 200))) < 0.9


# ---- crossed_interval: edges and symmetries


def test_empty_region_is_nan():
    assert np.isnan(crossed_interval(np.ones((3, 4)), np.zeros((3, 4), bool))).all()


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_one_seed_or_one_item_has_a_value_and_no_interval(shape):
    errors = np.arange(9.0).reshape(shape)
    value, low, high = crossed_interval(errors, errors > -99)
    assert value == pytest.approx(4)
    assert np.isnan(low)
    assert np.isnan(high)


def test_errors_that_never_vary_have_an_interval_of_no_width():
    assert crossed_interval(np.zeros((3, 4)), np.ones((3, 4), bool)) == (0, 0, 0)


def test_errors_outside_the_mask_do_not_matter():
    errors = np.random.default_rng(5).normal(size=(4, 10))
    mask = np.arange(10) < 7
    mask = np.tile(mask, (4, 1))
    changed = np.where(mask, errors, 1e6)
    assert_allclose(crossed_interval(changed, mask), crossed_interval(errors[:, :7], mask[:, :7]))


def test_leading_dimensions_are_separate_problems():
    rng = np.random.default_rng(6)
    errors, mask = rng.normal(size=(3, 4, 10)), rng.random((3, 4, 10)) < 0.8
    together = crossed_interval(errors, mask)
    apart = [crossed_interval(e, m) for e, m in zip(errors, mask, strict=True)]
    assert_allclose(together, np.transpose(apart))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.1, 10), st.floats(-10, 10))
def test_interval_follows_scale_shift_sign_and_order(seed, scale, shift):
    rng = np.random.default_rng(seed)
    errors, mask = rng.normal(size=(4, 8)), rng.random((4, 8)) < 0.7
    mask[:2, :2] = True
    value, low, high = crossed_interval(errors, mask)
    ends = scale * np.array([value, low, high]) + shift
    assert_allclose(crossed_interval(scale * errors + shift, mask), ends, rtol=1e-6, atol=1e-9)
    assert_allclose(crossed_interval(-errors, mask), (-value, -high, -low))
    rows, columns = rng.permutation(4), rng.permutation(8)
    order = np.ix_(rows, columns)
    assert_allclose(crossed_interval(errors[order], mask[order]), (value, low, high))


@pytest.mark.parametrize("shapes", [((3, 4), (4, 3)), ((4,), (4,))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match=r"must share a shape .* got"):
        crossed_interval(np.ones(shapes[0]), np.ones(shapes[1], bool))


# ---- estimates and claims


def difference(low, high, value=None):
    value = (low + high) / 2 if value is None else value
    return Estimate(value, low, high, 5, 1312, method="LDS", baseline="plain", region="few")


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (difference(-0.67, -0.35), "-0.51 [-0.67, -0.35]"),
        (difference(-0.004, -0.001), "-0.003 [-0.004, -0.001]"),
        (difference(-12.5, 7.25), "-2.62 [-12.50, 7.25]"),
        (difference(0.0, 0.0), "0.00 [0.00, 0.00]"),
        (difference(nan, nan, 1.5), "1.50 [n/a]"),
        (difference(nan, nan, nan), "n/a"),
    ],
)
def test_an_estimate_reads_well(estimate, text):
    assert str(estimate) == text


def test_an_end_below_zero_is_printed_with_its_sign():
    assert str(difference(-0.7, -0.001)).endswith("-0.00]")


@pytest.mark.parametrize(
    ("low", "high", "lower", "higher"),
    [
        (-0.67, -0.35, "holds", "does not hold"),
        (0.35, 0.67, "does not hold", "holds"),
        (-0.1, 0.3, "not at this scale", "not at this scale"),
        (-0.3, 0.0, "not at this scale", "not at this scale"),
        (0.0, 0.3, "not at this scale", "not at this scale"),
        (nan, nan, "not at this scale", "not at this scale"),
    ],
)
def test_verdicts(low, high, lower, higher):
    assert claim("It helps.", difference(low, high), "lower").verdict == lower
    assert claim("It harms.", difference(low, high), "higher").verdict == higher


def test_a_verdict_cannot_be_written_by_hand():
    judged = claim("It helps.", difference(-1, 1), "lower")
    with pytest.raises(AttributeError):
        judged.verdict = "holds"  # type: ignore[misc]  # refusing it is the test
    assert "verdict" not in {f.name for f in dataclasses.fields(Claim)}


def test_claims_ask_for_a_known_side_and_a_difference():
    with pytest.raises(ValueError, match="got 'less'"):
        claim("It helps.", difference(-1, 1), "less")  # type: ignore[arg-type]  # likewise
    mean = Estimate(7.0, 6.0, 8.0, 5, 100, method="LDS")
    with pytest.raises(ValueError, match="give a difference"):
        claim("It helps.", mean, "higher")


def test_claims_table_says_what_was_compared_and_on_how_much():
    table = claims_table([claim("It helps.", difference(-0.67, -0.35), "lower")])
    assert list(table.columns) == ["claim", "evidence", "verdict"]
    assert table["evidence"][0] == (
        "MAE (few), LDS against plain: -0.51 [-0.67, -0.35]; 5 seeds, 1,312 test points"
    )


def test_claims_table_shows_long_sentences_whole_and_escaped():
    sentence = "A sentence of the paper that is longer than 50 characters, with a < b & c in it."
    page = claims_table([claim(sentence, difference(-1, 1), "lower")])._repr_html_()
    assert "longer than 50 characters, with a &lt; b &amp; c in it.</td>" in page
    assert "white-space: normal" in page
    assert "not at this scale" in page


# ---- over_seeds


def test_over_seeds_is_students_interval():
    values = np.random.default_rng(3).normal(size=7)
    estimate = over_seeds(values, "correlation")
    reference = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert_allclose([estimate.low, estimate.high], [reference.low, reference.high])
    assert estimate.value == pytest.approx(values.mean())
    assert claim("It is there.", estimate, "higher").evidence.endswith("; 7 seeds")


def test_over_seeds_with_one_seed_has_no_interval():
    estimate = over_seeds(np.array([0.4]), "correlation")
    assert estimate.value == 0.4
    assert np.isnan([estimate.low, estimate.high]).all()


@pytest.mark.parametrize("values", [[], [1.0, nan], [[1.0, 2.0]]])
def test_over_seeds_refuses_what_is_not_one_number_per_seed(values):
    with pytest.raises(ValueError, match="one for each seed"):
        over_seeds(np.array(values), "correlation")

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirlearn.lab.facts import published_results
from dirlearn.lab.published import (
    REGIONS,
    by_region,
    error_spread,
    kindest_shares,
    misfit,
    overall,
    region_sizes,
    rerun_spread,
)


def rows(*figures, metric="MAE", method="a"):
    table = pd.DataFrame(figures, columns=["all", *REGIONS], dtype=float)
    return table.assign(metric=metric, method=method)


def errors_in_regions(seed=0, sizes=(50, 30, 20)):
    rng = np.random.default_rng(seed)
    return [rng.gamma(2.0, scale, n) for n, scale in zip(sizes, (1.0, 2.0, 4.0), strict=True)]


@pytest.mark.parametrize(
    ("metric", "figure"),
    [
        ("MAE", np.mean),
        ("MSE", lambda e: np.mean(e**2)),
        ("RMSE", lambda e: np.sqrt(np.mean(e**2))),
        ("GM", lambda e: np.exp(np.mean(np.log(e)))),
    ],
)
def test_overall_is_the_figure_over_all_items(metric, figure):
    parts = errors_in_regions()
    sizes = np.array([len(part) for part in parts])
    made = overall(np.array([figure(part) for part in parts]), sizes, metric)
    np.testing.assert_allclose(made, figure(np.concatenate(parts)))
    np.testing.assert_allclose(made, overall([figure(part) for part in parts], 7 * sizes, metric))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["MAE", "GM"]))
def test_rounding_alone_is_no_misfit(seed, metric):
    parts = errors_in_regions(seed)
    figure = np.mean if metric == "MAE" else lambda e: np.exp(np.mean(np.log(e)))
    printed = [round(float(figure(e)), 2) for e in (np.concatenate(parts), *parts)]
    sizes = np.array([[50, 30, 20]])
    assert abs(misfit(rows(printed, metric=metric), sizes).item()) < 1e-9
    assert kindest_shares(rows(printed, printed, metric=metric))[1] < 1e-9


def test_a_misprint_is_found_with_its_sign():
    sizes = np.array([[2.0, 1.0, 1.0]])
    found = misfit(
        rows([2.30, 1.0, 2.0, 4.0], [1.50, 1.0, 2.0, 4.0], [2.0, 1.0, 2.0, np.nan]), sizes
    )
    np.testing.assert_allclose(found[:2], [0.29, -0.49])  # a hundredth goes to rounding
    assert np.isnan(found[2])
    kinder = np.vstack([sizes, [[1.0, 1.0, 1.0]]])
    assert misfit(rows([2.33, 1.0, 2.0, 4.0]), kinder).item() == 0


def test_shares_are_found_or_refused():
    shares, worst = kindest_shares(
        rows([2.0, 1.0, 2.0, 4.0], [2.5, 2.0, 3.0, 3.0], [1.75, 1.0, 2.0, 3.0])
    )
    assert worst == 0
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.03)
    assert kindest_shares(rows([5.0, 1.0, 2.0, 4.0]))[1] == pytest.approx(0.99)
    mixed = pd.concat([rows([2.0, 1.0, 2.0, 4.0]), rows([2.0, 1.0, 2.0, 4.0], metric="GM")])
    with pytest.raises(ValueError, match=r"one metric, got \['MAE', 'GM'\]"):
        kindest_shares(mixed)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.5, 20.0])
def test_spread_of_gamma_errors_is_exact(shape):
    from scipy.special import digamma

    scale = 3.0
    gm = scale * np.exp(digamma(shape))
    assert error_spread(scale * shape, gm) == pytest.approx(scale * np.sqrt(shape))


@pytest.mark.parametrize(("mae", "gm"), [(1.0, 1.0), (1.0, 2.0), (1.0, 0.0), (np.nan, 1.0)])
def test_spread_needs_errors_that_differ(mae, gm):
    with pytest.raises(ValueError, match="above their geometric mean"):
        error_spread(mae, gm)


def test_reruns_are_pooled_and_copies_count_once():
    runs = pd.concat(
        [
            rows([1.0, 1, 1, 1], [3.0, 1, 1, 2], [3.0, 1, 1, 2], method="a"),
            rows([5.0, 1, 1, np.nan], [6.0, 1, 1, 1], [7.0, 1, 1, 3], method="b"),
            rows([9.0, 9, 9, 9], method="c"),
        ],
        ignore_index=True,
    )
    sd, freedom = rerun_spread(runs, "all")
    assert freedom == 3
    assert sd == pytest.approx(np.sqrt((2.0 + 2.0) / 3))
    assert rerun_spread(runs, "few")[1] == 2
    assert rerun_spread(runs[runs["method"] == "c"], "all")[1] == 0


def test_sizes_have_a_row_for_each_corner():
    assert region_sizes("STS-B-DIR (dir repo)").tolist() == [[756, 170, 74]]
    corners = region_sizes("IMDB-WIKI-DIR")
    assert corners.shape == (8, 3)
    assert sorted(set(corners[:, 2])) == [92, 144]
    with pytest.raises(ValueError, match=r"must be one of AgeDB-DIR.*got 'NYUD2-DIR .pixels.'"):
        region_sizes("NYUD2-DIR (pixels)")


def test_wide_table_keeps_every_figure_of_the_four_regions():
    table = published_results()
    wide = by_region(table)
    kept = table["region"].isin(["all", *REGIONS])
    assert wide[["all", *REGIONS]].notna().to_numpy().sum() == kept.sum()
    row = wide.query("dataset == 'AgeDB-DIR' and method == 'Vanilla' and metric == 'MAE'").iloc[0]
    assert row[["all", *REGIONS]].tolist() == [7.77, 6.62, 9.55, 13.67]
    twice = pd.concat([table, table.iloc[:1]])
    with pytest.raises(ValueError, match="duplicate"):
        by_region(twice)

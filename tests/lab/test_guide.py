from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dirlearn.bins import Bins
from dirlearn.lab import guide as module
from dirlearn.lab.guide import contenders, guide, ranking, resampled_means
from dirlearn.lab.results import Results


def made(predictions, counts=(150, 10), name="made", target=None):
    """Results of methods a, b, ...: ``predictions`` has shape (methods, seeds, items)."""
    predictions = np.asarray(predictions, dtype=np.float64)
    m, s, t = predictions.shape
    methods = ("vanilla", "a", "b", "c")[:m]
    target = np.linspace(0, 2, t) if target is None else target
    return Results(
        name=name,
        methods=methods,
        seeds=tuple(range(s)),
        bins=Bins([0, 1, 2]),
        target=target,
        predictions=predictions,
        train_counts=np.tile(counts, (m, s, 1)),
        extra=pd.DataFrame(columns=["method", "seed", "name", "value"]),
        provenance={},
        decimals=6,
    )


def noisy(levels, seeds=6, items=80, seed=0):
    rng = np.random.default_rng(seed)
    target = np.linspace(0, 2, items)
    shared = rng.normal(size=(1, 1, items))
    noise = np.abs(shared + 0.3 * rng.normal(size=(len(levels), seeds, items)))
    return made(target + np.asarray(levels)[:, None, None] + noise)


def test_resampled_means_are_those_of_an_explicit_loop(monkeypatch):
    results = noisy([0.0, 0.5])
    got = resampled_means(results, "few", resamples=70, seed=3)  # more than one chunk
    rng = np.random.default_rng(3)
    error, mask = np.abs(results.predictions - results.target), results.mask("a", "few")
    expected = []
    for n in (64, 6):
        items = rng.multinomial(80, np.full(80, 1 / 80), size=n)
        seeds = rng.multinomial(6, np.full(6, 1 / 6), size=n)
        for b, a in zip(items, seeds, strict=True):
            rows = [
                [np.average(e[s][mask[s]], weights=b[mask[s]]) for s in range(6)] for e in error
            ]
            expected.append([np.average(row, weights=a) for row in rows])
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(("cells", "least", "most"), [(0.0, 0.9, 1.1), (1.0, 1.2, 3**0.5 + 0.1)])
def test_spread_of_a_difference_is_that_of_the_interval_or_conservative(cells, least, most):
    """Owen (2007): seeds' and items' own noise counts once, that of single cells up to thrice."""
    rng = np.random.default_rng(0)
    s, t = 20, 300
    difference = 5 + rng.normal(size=(s, 1)) / 5 + rng.normal(size=(1, t))
    difference = difference + cells * 10 * rng.normal(size=(s, t))
    base = np.full((s, t), 100.0)
    target = np.linspace(0, 2, t)
    results = made(target + np.stack([base, base + difference]), target=target)
    means = resampled_means(results, resamples=2000)
    estimate = results.difference("a", "vanilla")
    half = (estimate.high - estimate.low) / 2 / 1.98
    assert least < (means[:, 1] - means[:, 0]).std() / half < most
    assert (means[:, 1] - means[:, 0]).mean() == pytest.approx(estimate.value, abs=0.1)


def test_items_of_one_group_are_drawn_together():
    """Twenty copies of an item tell no more than the item: the spread must not shrink."""
    one = noisy([0.0, 0.1], items=30)
    copied = made(
        np.repeat(one.predictions, 20, axis=2), target=np.repeat(np.asarray(one.target), 20)
    )
    apart = resampled_means(copied, resamples=1000)
    together = resampled_means(copied, groups=np.repeat(np.arange(30), 20), resamples=1000)
    single = resampled_means(one, resamples=1000)
    np.testing.assert_allclose(together.std(axis=0), single.std(axis=0), rtol=0.1)
    assert (apart.std(axis=0) < 0.7 * single.std(axis=0)).all()


@pytest.mark.parametrize("groups", [np.zeros(3), np.zeros((80, 1))])
def test_groups_that_do_not_fit_are_refused(groups):
    with pytest.raises(ValueError, match="a group for each of the 80 test items"):
        resampled_means(noisy([0.0, 1.0]), groups=groups)


def test_an_empty_region_is_refused():
    with pytest.raises(ValueError, match="'zero' holds no test item"):
        resampled_means(noisy([0.0, 1.0]), "zero")


def test_ranking_orders_methods_and_is_sure_where_they_lie_apart():
    table = ranking({"one": noisy([1.0, 0.0, 2.0]), "two": noisy([1.0, 0.0, 2.0], seed=5)})
    assert table.index.tolist() == ["a", "vanilla", "b"]
    assert table["rank"].tolist() == table["low"].tolist() == table["high"].tolist() == [1, 2, 3]
    assert table["best"].tolist() == [1, 0, 0]


def test_ranks_of_equal_methods_are_uncertain():
    table = ranking({"one": noisy([0.0, 0.0, 0.0])})
    assert (table["low"] < 1.5).all()
    assert (table["high"] > 2.5).all()
    assert (table["best"] > 0.05).all()


def test_ranking_averages_over_studies():
    table = ranking({"one": noisy([0.0, 1.0]), "two": noisy([1.0, 0.0])})
    assert table["rank"].tolist() == [1.5, 1.5]


def test_contenders_are_the_best_and_what_cannot_be_told_from_it():
    results = noisy([1.0, 0.0, 0.0, 3.0])
    assert set(contenders(results)) == {"a", "b"}
    assert contenders(results, methods=["vanilla", "c"]) == ["vanilla"]


def test_guide_takes_the_least_laborious_contender_and_tells_its_price():
    results = noisy([1.0, 0.0, 0.0, 3.0])
    table = guide({"t": results}, {"g": ("few", "mae")}, ["vanilla", "c", "b", "a"])
    row = table.loc[("t", "g")]
    assert row["use"] == "b"
    assert row["contenders"] == 2
    assert row["gain"] == results.difference("b", "vanilla", "few")
    assert row["price"] == results.difference("b", "vanilla", "many")


def test_guide_does_not_take_vanilla_for_being_lost_in_the_noise_of_the_best():
    """Vanilla cannot be told from a scattered best, yet another method is surely better than it."""
    rng = np.random.default_rng(1)
    target = np.linspace(0, 2, 80)
    steady = np.full((6, 80), 1.0) + 0.01 * rng.normal(size=(6, 80))
    scattered = steady - np.array([[0.9], [-0.4], [0.9], [-0.4], [0.9], [-0.2]])
    results = made(target + np.stack([steady, scattered, steady - 0.1]), target=target)
    assert contenders(results) == ["a", "b", "vanilla"]
    table = guide({"t": results}, {"g": ("all", "mae")}, ["vanilla", "a", "b"])
    assert table.loc[("t", "g"), "use"] == "b"


@pytest.mark.parametrize("levels", [(0.0, 1.0), (0.0, 0.0)])
def test_guide_says_vanilla_where_nothing_is_better(levels):
    table = guide({"t": noisy(levels)}, {"g": ("all", "mae")}, ["vanilla", "a"])
    assert table.loc[("t", "g"), "use"] == "vanilla"
    assert table.loc[("t", "g"), "gain"] is None


def test_chunks_do_not_matter_to_the_spread(monkeypatch):
    results = noisy([0.0, 0.5])
    whole = resampled_means(results, resamples=600)
    monkeypatch.setattr(module, "CHUNK", 7)
    pieces = resampled_means(results, resamples=600)
    np.testing.assert_allclose(whole.std(axis=0), pieces.std(axis=0), rtol=0.15)

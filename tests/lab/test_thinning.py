from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dirlearn.bins import Bins
from dirlearn.lab.datasets import Dataset, Split
from dirlearn.lab.thinning import gap_density, thin

BINS = Bins.uniform(0, 20, 1)


# ---- the density


@given(
    total=st.integers(20, 3000),
    spread=st.sampled_from([0.01, 0.2, 0.4, 2.0, math.inf]),
    cuts=st.lists(st.integers(0, 20), min_size=2, max_size=6, unique=True),
)
def test_density_fills_its_intervals_and_nothing_else(total, spread, cuts):
    ends = sorted(cuts)[: len(cuts) // 2 * 2]
    seen = list(zip(ends[::2], ends[1::2], strict=True))
    counts = gap_density(BINS, seen, total, spread)
    within = np.any([(BINS.centers > a) & (BINS.centers < b) for a, b in seen], axis=0)
    assert counts.sum() == total
    assert ((counts > 0) == within).all()


def test_peaks_are_bells_of_one_height():
    counts = gap_density(BINS, [(0, 9), (11, 20)], 20_000)
    np.testing.assert_allclose(counts[:9], counts[11:], atol=1)  # what rounding leaves
    half = counts[:9]
    assert half.argmax() == 4
    np.testing.assert_allclose(half, half[::-1], atol=1)
    bell = np.exp(-0.5 * ((BINS.centers[:9] - 4.5) / (0.4 * 4.5)) ** 2)
    np.testing.assert_allclose(half, 10_000 * bell / bell.sum(), atol=15)


def test_infinite_spread_is_flat():
    assert set(gap_density(BINS, [(2, 7), (10, 15)], 100, math.inf)[2:7]) == {10}


def test_bins_belong_by_their_centres():
    np.testing.assert_array_equal(
        np.flatnonzero(gap_density(BINS, [(2.4, 4.4)], 50, math.inf)), [2, 3]
    )


@pytest.mark.parametrize(
    ("seen", "total", "spread", "says"),
    [
        ([(2, 7)], 4, 0.4, r"number of bins within \[\(2, 7\)\], 5, .* got 4"),
        ([(2.6, 3.4)], 4, 0.4, "which must be at least 1"),
        ([], 4, 0.4, "which must be at least 1"),
        ([(2, 7)], 40, 0.0, "spread must be positive, got 0.0"),
        ([(2, 7)], 40, math.nan, "spread must be positive, got nan"),
    ],
)
def test_impossible_densities_are_refused(seen, total, spread, says):
    with pytest.raises(ValueError, match=says):
        gap_density(BINS, seen, total, spread)


# ---- thinning


def uniform(n=400, seed=0):
    """Inputs that say which sample and which label they belong to."""
    generator = torch.Generator().manual_seed(seed)

    def split(size):
        y = 20 * torch.rand(size, generator=generator)
        return Split(torch.stack([torch.arange(size), y], dim=1), y)

    return Dataset("made up", split(n), split(100), split(100), BINS, "", "")


def test_thinned_to_the_counts_or_to_what_there_is():
    data, wanted = uniform(), np.array([3, 1000, *[0] * 16, 7, 1])
    thinned = thin(data, wanted, seed=0)
    np.testing.assert_array_equal(thinned.train_counts, np.minimum(wanted, data.train_counts))
    torch.testing.assert_close(thinned.train.x[:, 1], thinned.train.y)
    assert len(thinned.train.x.unique(dim=0)) == len(thinned.train)  # drawn without replacement


def test_validation_loses_the_labels_that_training_has_lost_and_the_test_set_none():
    data = uniform()
    thinned = thin(data, np.where(BINS.centers < 12, 2, 0), seed=0)
    torch.testing.assert_close(thinned.val.y, data.val.y[data.val.y < 12])
    torch.testing.assert_close(thinned.val.x[:, 1], thinned.val.y)
    assert thinned.test is data.test


def test_a_seed_draws_the_samples_evenly():
    data, wanted = uniform(), np.where(BINS.centers < 1, 5, 0)
    first, again, other = (thin(data, wanted, seed).train.x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    drawn = torch.cat([thin(data, wanted, seed).train.x[:, 0] for seed in range(300)])
    times = np.bincount(drawn.int())[np.flatnonzero(data.train.y < 1)]
    expected = 300 * 5 / len(times)
    assert (abs(times - expected) < 6 * expected**0.5).all()


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([1, 2], r"shape \(20,\), got \(2,\)"),
        ([-1] * 20, "must not be negative, got -1"),
        ([math.nan] * 20, "counts"),
    ],
)
def test_bad_counts_are_refused(counts, says):
    with pytest.raises(ValueError, match=says):
        thin(uniform(), counts, seed=0)

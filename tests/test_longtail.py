import csv
import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader, WeightedRandomSampler

from dirlearn import (
    balanced_sampler,
    class_balanced_weights,
    class_counts,
    deferred_weights,
    inverse_weights,
    long_tailed_counts,
)
from dirlearn.lab.facts import data_folder

some_counts = st.lists(st.integers(1, 10**6), min_size=1, max_size=30)
N_MAX = {"CIFAR-10-LT": 5000, "CIFAR-100-LT": 500, "SVHN-LT": 1000}


def published():
    tables = defaultdict(list)
    path = data_folder() / "histograms" / "long_tailed_classes.csv"
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            tables[row["dataset"], int(row["rho"])].append(int(row["count"]))
    return dict(tables)


# ---- counts


def test_the_benchmarks_are_all_there():
    tables = published()
    assert set(tables) == {(name, rho) for name in N_MAX for rho in (10, 50, 100)}
    assert sum(tables["CIFAR-10-LT", 100]) == 12406
    assert sum(tables["CIFAR-100-LT", 100]) == 10847


@pytest.mark.parametrize(("name", "rho"), published())
def test_counts_of_the_benchmarks(name, rho):
    counts = published()[name, rho]
    assert long_tailed_counts(N_MAX[name], len(counts), rho).tolist() == counts


@given(st.integers(1, 10**6), st.integers(1, 60), st.floats(1, 1000))
def test_a_profile_falls_from_n_max_by_rho(n_max, n_classes, rho):
    rho = min(rho, n_max)
    counts = long_tailed_counts(n_max, n_classes, rho)
    assert counts[0] == n_max
    assert (np.diff(counts) <= 0).all()
    assert counts.dtype == np.int64
    if n_classes > 1:
        assert counts[-1] == pytest.approx(n_max / rho, abs=1)


@pytest.mark.parametrize(
    ("n_max", "n_classes", "rho"), [(1000, 4, 1000), (729, 7, 729), (100, 3, 100)]
)
def test_whole_numbers_on_paper_lose_nothing_to_rounding(n_max, n_classes, rho):
    root = round(rho ** (1 / (n_classes - 1)))
    expected = [int(Fraction(n_max, root**c)) for c in range(n_classes)]
    assert long_tailed_counts(n_max, n_classes, rho).tolist() == expected


def test_a_step_and_one_class():
    assert long_tailed_counts(50, 4, 10, "step").tolist() == [50, 50, 5, 5]
    assert long_tailed_counts(50, 5, 10, "step").tolist() == [50, 50, 50, 5, 5]
    assert long_tailed_counts(7, 1, 3).tolist() == [7]
    assert long_tailed_counts(7, 3, 1).tolist() == [7, 7, 7]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((5000, 10, 0.01), "rho must be 1 or more.*imbalance factor"),
        ((5000, 10, math.nan), "rho must be 1 or more"),
        ((5000, 10, math.inf), "rho must be 1 or more"),
        ((0, 10, 10), "n_max and n_classes must be at least 1"),
        ((5, 0, 10), "n_max and n_classes must be at least 1"),
        ((10.7, 10, 2), "whole numbers, got n_max 10.7"),
        ((50, 2.5, 2), "whole numbers, got n_max 50 and n_classes 2.5"),
        ((math.nan, 10, 2), "whole numbers, got n_max nan"),
        ((math.inf, 10, 2), "whole numbers, got n_max inf"),
        ((50, 10, 100), "2 of the 10 classes would have no sample"),
        ((5, 10, 2, "linear"), "profile must be"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        long_tailed_counts(*arguments)


def test_labels_are_counted_as_they_come(device):
    labels = torch.tensor([[2, 0, 2], [2, 0, 3]], device=device)
    counted = class_counts(labels, 5)
    assert counted.tolist() == [2, 0, 3, 1, 0]
    assert counted.device.type == device.type
    strided = np.array([2, 9, 0, 9, 2, 9], np.uint8)[::2]
    assert class_counts(strided, 3).tolist() == [1, 0, 2]
    assert class_counts(np.array([], np.int64), 2).tolist() == [0, 0]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_a_label_outside_the_classes_is_refused(labels):
    with pytest.raises(ValueError, match="labels must be classes 0 to 2"):
        class_counts(np.array(labels), 3)


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(TypeError, match="whole numbers"):
        class_counts(np.array([0.5, 1.0]), 3)
    with pytest.raises(ValueError, match="n_classes"):
        class_counts(np.array([0]), 0)


# ---- weights


@given(some_counts, st.floats(0.01, 0.999))
def test_weights_equal_the_loop_of_the_paper(counts, beta):
    effective = [math.fsum(beta**k for k in range(min(n, 20_000))) for n in counts]
    total = math.fsum(1 / e for e in effective)
    expected = [len(counts) / e / total for e in effective]
    assert class_balanced_weights(np.array(counts), beta) == pytest.approx(expected, rel=1e-6)


@given(some_counts)
def test_the_two_ends_of_beta(counts):
    array = np.array(counts)
    np.testing.assert_array_equal(class_balanced_weights(array, beta=0), np.ones(len(array)))
    limit = class_balanced_weights(array, beta=1)
    inverse = 1 / array
    np.testing.assert_allclose(limit, inverse / inverse.mean())
    # Up to the scale they are the inverse weights of regression, and scikit-learn's.
    np.testing.assert_allclose(limit / limit[0], inverse_weights(array) / inverse_weights(array)[0])


def test_the_limit_is_scikit_learns_up_to_scale():
    labels = np.repeat([0, 1, 2], [50, 7, 1])
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    ours = class_balanced_weights(class_counts(labels, 3), beta=1.0)
    np.testing.assert_allclose(ours, 3 * theirs / theirs.sum())


@given(some_counts, st.floats(0, 1))
def test_weights_sum_to_the_classes_and_rarer_never_weighs_less(counts, beta):
    array = np.array(counts)
    weights = class_balanced_weights(array, beta)
    assert weights.sum() == pytest.approx(len(array))
    assert (weights > 0).all()
    order = np.argsort(array)
    assert (np.diff(weights[order]) <= 1e-12 * len(array)).all()


def test_weights_near_the_limit_keep_their_digits():
    counts = np.array([10**15, 10**6, 3])
    near = class_balanced_weights(counts[1:], beta=1 - 1e-15)
    np.testing.assert_allclose(near, class_balanced_weights(counts[1:], beta=1.0), rtol=1e-8)
    # Beyond what a float can tell apart from enough, classes weigh the same.
    huge = class_balanced_weights(np.array([10**15, 10**14]), beta=0.9999)
    np.testing.assert_array_equal(huge, [1.0, 1.0])
    assert np.isfinite(class_balanced_weights(np.array([1e300, 1e-300]), beta=1.0)).all()


def test_type_and_device_of_the_counts_are_kept(device):
    counts = torch.tensor([50.0, 5.0], device=device, dtype=torch.float16)
    assert class_balanced_weights(counts).dtype == torch.float16
    assert deferred_weights(200, counts).device.type == device.type
    assert class_balanced_weights(torch.tensor([50, 5])).dtype == torch.float32
    strided = np.array([50, 0, 5, 0])[::2]
    np.testing.assert_array_equal(
        class_balanced_weights(strided), class_balanced_weights(np.array([50, 5]))
    )


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([5, 0, 2], "class 1 has no sample"),
        ([0, 0, 2], "class 0 and 1 more have no sample"),
        ([5, -1], "must not be negative"),
        ([5.0, math.nan], "NaN"),
        ([math.inf, 1.0], "NaN or infinite"),
        ([], "one number per class"),
        ([[1, 2]], "one number per class"),
    ],
)
def test_counts_that_are_none_are_refused(counts, words):
    for make in (class_balanced_weights, lambda c: deferred_weights(0, c)):
        with pytest.raises(ValueError, match=words):
            make(np.array(counts))


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan])
def test_a_beta_that_is_no_share_is_refused(beta):
    with pytest.raises(ValueError, match="beta must be from 0"):
        class_balanced_weights(np.array([1, 2]), beta)


# ---- deferred


def test_weights_are_deferred_and_stay_for_any_number_of_epochs():
    counts = np.array([500, 50, 5])
    weights = np.stack([deferred_weights(epoch, counts) for epoch in range(700)])
    np.testing.assert_array_equal(weights[:160], 1)
    np.testing.assert_array_equal(
        weights[160:], np.tile(class_balanced_weights(counts, 0.9999), (540, 1))
    )
    np.testing.assert_array_equal(
        deferred_weights(3, counts, start=2, beta=1.0), class_balanced_weights(counts, 1.0)
    )


@pytest.mark.parametrize(("epoch", "start"), [(-1, 160), (0, -1)])
def test_an_epoch_before_the_first_is_refused(epoch, start):
    with pytest.raises(ValueError, match="epoch and start must be 0 or more"):
        deferred_weights(epoch, np.array([2, 1]), start)


# ---- sampling


def test_the_sampler_is_torchs_own_and_meets_classes_by_their_weights():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    counts = class_counts(labels, 3).double()
    for beta in (0.0, 0.99, 1.0):
        sampler = balanced_sampler(labels, beta, 30_000, generator=torch.Generator().manual_seed(0))
        assert type(sampler) is WeightedRandomSampler
        met = np.bincount(labels[list(sampler)], minlength=3) / 30_000
        share = (counts * class_balanced_weights(counts, beta)).numpy()
        np.testing.assert_allclose(met, share / share.sum(), atol=0.01)


def test_the_sampler_draws_within_a_class_evenly_and_again_from_its_generator():
    labels = np.array([0, 0, 0, 0, 1, 1])
    first, again = (
        list(balanced_sampler(labels, generator=torch.Generator().manual_seed(3), num_samples=9000))
        for _ in range(2)
    )
    assert first == again
    met = np.bincount(first, minlength=6) / 9000
    np.testing.assert_allclose(met, [1 / 8] * 4 + [1 / 4] * 2, atol=0.02)
    assert len(balanced_sampler(labels)) == 6
    loader = DataLoader(torch.arange(6), batch_size=4, sampler=balanced_sampler(labels))
    assert sum(len(batch) for batch in loader) == 6


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        ([], ValueError, "one class per sample"),
        ([[0, 1]], ValueError, "one class per sample"),
        ([0, 2], ValueError, "class 1 has no sample"),
        ([0, -1], ValueError, "labels must be classes"),
        ([0.0, 1.0], TypeError, "whole numbers"),
    ],
)
def test_labels_that_cannot_be_drawn_from_are_refused(labels, error, words):
    with pytest.raises(error, match=words):
        balanced_sampler(np.array(labels))


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="num_samples"):
        balanced_sampler(np.array([0, 1]), num_samples=0)


def test_a_seed_is_no_generator():
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got int"):
        balanced_sampler(np.array([0, 1]), generator=0)


@pytest.mark.parametrize("swapped", [(np.array([3, 1]), 0), (1.5, np.array([3, 1]))])
def test_epochs_are_whole_numbers(swapped):
    with pytest.raises(TypeError, match="epoch must be a whole number, got"):
        deferred_weights(*swapped)

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dirlearn import Bins, label_gaps

COUNTS = st.lists(st.integers(0, 2), min_size=1, max_size=25).filter(any)


def by_loop(counts, centers):
    """Bin by bin: look to the left and to the right for the nearest that has labels."""
    rows = []
    for b, center in enumerate(centers):
        held = [j for j, n in enumerate(counts) if n]
        left, right = any(j < b for j in held), any(j > b for j in held)
        place = "seen" if counts[b] else "interpolated" if left and right else "extrapolated"
        best = min(held, key=lambda j: (abs(centers[j] - center), j))
        rows.append((place, centers[best], abs(centers[best] - center)))
    return zip(*rows, strict=True)


@given(counts=COUNTS, seed=st.integers(0, 99))
def test_against_a_loop_over_uneven_bins(counts, seed):
    steps = np.random.default_rng(seed).integers(1, 9, len(counts) + 1)
    bins = Bins(np.cumsum(steps))  # whole-number edges: ties are exact
    place, nearest, distance = by_loop(counts, bins.centers.tolist())
    found = label_gaps(counts, bins)
    assert found.place.tolist() == list(place)
    assert found.nearest.tolist() == list(nearest)
    assert found.distance.tolist() == list(distance)


def test_by_hand_in_the_targets_unit():
    found = label_gaps([0, 3, 0, 0, 0, 1, 0], Bins.uniform(0, 0.7, 0.1))
    assert found.place.tolist() == (
        ["extrapolated", "seen", *["interpolated"] * 3, "seen", "extrapolated"]
    )
    np.testing.assert_allclose(found.distance, [0.1, 0, 0.1, 0.2, 0.1, 0, 0.1])
    np.testing.assert_allclose(found.nearest, [0.15, 0.15, 0.15, 0.15, 0.55, 0.55, 0.55])


def test_mirrored_counts_mirror_the_gaps():
    counts, bins = np.array([0, 4, 0, 0, 7, 0, 0, 0]), Bins.uniform(0, 8, 1)
    forth, back = label_gaps(counts, bins), label_gaps(counts[::-1], bins)
    assert forth.place.tolist() == back.place[::-1].tolist()
    np.testing.assert_array_equal(forth.distance, back.distance[::-1])


def test_full_coverage_has_no_gap_and_a_single_bin_only_outsides():
    bins = Bins.uniform(0, 3, 1)
    assert set(label_gaps([1, 2, 3], bins).place) == {"seen"}
    assert not label_gaps([1, 2, 3], bins).distance.any()
    assert label_gaps([0, 2, 0], bins).place.tolist() == ["extrapolated", "seen", "extrapolated"]


def test_takes_tensors_and_fractional_counts(device):
    bins = Bins.uniform(0, 4, 1)
    there = label_gaps(torch.tensor([0.5, 0.0, 0.0, 2.0], device=device), bins)
    here = label_gaps([1, 0, 0, 1], bins)
    assert there.place.tolist() == here.place.tolist()
    np.testing.assert_array_equal(there.distance, here.distance)


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ([1, 2], r"one number per bin, shape \(3,\), got \(2,\)"),
        ([[1, 2, 3]], r"shape \(3,\), got \(1, 3\)"),
        ([1, -2, 3], "must not be negative, got -2"),
        ([1, float("nan"), 3], "counts"),
        ([0, 0, 0], "at least one training label, got only zeros"),
    ],
)
def test_bad_counts_are_refused(counts, says):
    with pytest.raises(ValueError, match=says):
        label_gaps(counts, Bins.uniform(0, 3, 1))


def test_edges_are_not_bins():
    with pytest.raises(TypeError, match=r"must be a dirlearn.Bins, got list"):
        label_gaps([1, 2], [0, 1, 2])

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirlearn import Relevance
from dirlearn.bumps import Bump, find_bumps, new_sizes

LABELS = st.lists(st.integers(-20, 20), min_size=2, max_size=40).map(lambda v: np.array(v, float))


def bumps_by_loop(y, phi, threshold):
    """Walk along the sorted labels and start a bump whenever rarity changes."""
    bumps = []
    for row in sorted(range(len(y)), key=lambda row: y[row]):
        rare = bool(phi(y)[row] >= threshold)
        if not bumps or bumps[-1][1] != rare:
            bumps.append(([], rare))
        bumps[-1][0].append(row)
    return bumps


def of(sizes, rare):
    return [Bump(np.arange(n), flag) for n, flag in zip(sizes, rare, strict=True)]


@given(y=LABELS, threshold=st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_bumps_are_those_of_a_walk_along_the_labels(y, threshold):
    phi = Relevance([-18, -9, 0, 4, 11], [1, 0, 1, 0.3, 0.9])
    expected = bumps_by_loop(y, phi, threshold)
    if len(expected) == 1:
        with pytest.raises(ValueError, match=r"(every|no) label has relevance"):
            find_bumps(y, phi, threshold)
        return
    found = find_bumps(y, phi, threshold)
    assert [(bump.rows.tolist(), bump.rare) for bump in found] == expected


def test_the_threshold_itself_is_rare():
    y = np.array([0.0, 1, 2])
    low, high = find_bumps(y, lambda y: y / 2, 0.5)
    assert (low.rows.tolist(), low.rare) == ([0], False)
    assert (high.rows.tolist(), high.rare) == ([1, 2], True)


@given(
    sizes=st.lists(st.integers(1, 500), min_size=2, max_size=6),
    first=st.booleans(),
    kind=st.sampled_from(["balance", "extreme"]),
)
def test_sizes_follow_the_formula_where_rare_bumps_grow_and_normal_ones_shrink(sizes, first, kind):
    rare = [first ^ bool(k % 2) for k in range(len(sizes))]
    total = sum(sizes)
    inverse = sum(1 / n for n in sizes)
    for new, old, flag in zip(new_sizes(of(sizes, rare), kind), sizes, rare, strict=True):
        wanted = total / len(sizes) if kind == "balance" else total / (old * inverse)
        bounded = max(wanted, old) if flag else min(wanted, old)
        assert abs(new - max(1, bounded)) <= 0.5


def test_factors_apply_to_rare_and_normal_bumps():
    bumps = of([10, 80, 30], [True, False, True])
    assert new_sizes(bumps, {"rare": 2.5}) == [25, 80, 75]
    assert new_sizes(bumps, {"normal": 0.25}) == [10, 20, 30]
    assert new_sizes(bumps, {"rare": 1.5, "normal": 0.001}) == [15, 1, 45]


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        ("balanced", 'must be "balance", "extreme" or factors .* got \'balanced\''),
        (None, "got None"),
        ([2, 0.5], r"got \[2, 0.5\]"),
        ({}, "got none"),
        ({"common": 0.5}, r"are called \"rare\" and \"normal\", got .*common"),
        ({"rare": 0.5}, "at least 1, got 0.5"),
        ({"rare": np.inf}, "at least 1, got inf"),
        ({"normal": 0}, "above 0 to 1, got 0"),
        ({"normal": 1.5}, "above 0 to 1, got 1.5"),
        ({"normal": np.nan}, "above 0 to 1, got nan"),
    ],
    ids=str,
)
def test_bad_sampling_is_refused(sampling, words):
    with pytest.raises(ValueError, match=words):
        new_sizes(of([1, 2], [True, False]), sampling)


def test_bad_relevance_is_refused():
    y = np.array([0.0, 1, 2])
    phi = Relevance([0, 2], [0, 1])
    for threshold in (0, -1, 1.1, np.nan):
        with pytest.raises(ValueError, match="threshold must be above 0 and at most 1"):
            find_bumps(y, phi, threshold)
    with pytest.raises(TypeError, match=r"phi must map labels to relevance, .* got ndarray"):
        find_bumps(y, y, 0.5)
    with pytest.raises(ValueError, match=r"one relevance per label, shape \(3,\), got \(\)"):
        find_bumps(y, np.mean, 0.5)
    with pytest.raises(ValueError, match="1 value that is NaN"):
        find_bumps(y, lambda y: np.where(y > 1, np.nan, 0), 0.5)
    with pytest.raises(ValueError, match=r"relevances in \[0, 1\], got 0 to 100; divide"):
        find_bumps(y, lambda y: 100 * phi(y), 0.5)
    with pytest.raises(ValueError, match=r"relevances in \[0, 1\], got -0.5 to 0.5; divide"):
        find_bumps(y, lambda y: phi(y) - 0.5, 0.5)
    with pytest.raises(ValueError, match=r"no label .* 0.9 .* span 0 to 0.5\): lower threshold"):
        find_bumps(y, lambda y: y / 4, 0.9)
    with pytest.raises(ValueError, match=r"every label .* span 1 to 1\): raise threshold"):
        find_bumps(y, np.ones_like, 0.9)

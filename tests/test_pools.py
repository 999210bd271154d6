from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dirlearn import draw_pool, pool_counts, released

# ---- counts


@pytest.mark.parametrize("rho", [1, 10, 25, 50, 100])
def test_counts_are_the_geometric_series_within_one_sample(rho):
    counts = pool_counts(50_000, 10, rho)
    ratio = rho ** (-1 / 9)
    first = 50_000 * (1 - ratio) / (1 - ratio**10) if rho > 1 else 5000
    np.testing.assert_allclose(counts, first * ratio ** np.arange(10), atol=1)
    assert counts.sum() == 50_000


@given(st.integers(1, 5000), st.integers(2, 30), st.floats(1, 200))
def test_every_pool_has_the_size_asked_for_and_falls_from_head_to_tail(total, classes, rho):
    counts = pool_counts(total, classes, rho)
    assert counts.sum() == total
    assert (np.diff(counts) <= 1).all()  # a remainder may fall on the later of two near equals
    assert counts.min() >= 0


def test_released_counts_are_those_of_a_slow_loop():
    """As the released code has it, in its own order of truncations."""
    for total in (997, 13_995, 68_000):
        for rho in (1, 25, 50, 100):
            shaped = [int(total // 10 * (1 / rho) ** (c / 9.0)) for c in range(10)]
            expected = [int(n * (total / np.sum(shaped))) for n in shaped]
            found = released.pool_counts(total, 10, rho)
            assert found.tolist() == expected
            assert 0 <= total - found.sum() < 10
            if total > 10_000:
                np.testing.assert_allclose(found, pool_counts(total, 10, rho), rtol=0.01, atol=7)


def test_released_counts_take_from_the_tail_of_a_small_pool():
    assert pool_counts(997, 10, 50)[-1] == 7
    assert released.pool_counts(997, 10, 50)[-1] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 10, 1), "total must be at least 1"),
        ((10, 1, 1), "n_classes must be at least 2"),
        ((10, 2, 0.5), "rho is the commonest class over the rarest"),
        ((10, 2, float("inf")), "finite"),
        ((10, 2, float("nan")), "finite"),
    ],
)
def test_bad_counts_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        pool_counts(*arguments)
    with pytest.raises(ValueError, match=said):
        released.pool_counts(*arguments)


# ---- the draw


def candidates(per_class=50, irrelevant=120, seed=3):
    labels = np.repeat([*range(5), -1], [per_class] * 5 + [irrelevant])
    return np.random.default_rng(seed).permutation(labels)


@given(st.integers(0, 100), st.sampled_from([0.0, 0.2, 0.5, 0.61, 1.0]), st.floats(1, 40))
def test_a_pool_has_the_counts_and_the_share_that_were_asked_for(seed, relevance, rho):
    labels, wanted = candidates(), pool_counts(80, 5, rho)
    pool = draw_pool(labels, wanted, relevance, seed)
    assert len(pool) == 80
    assert len(np.unique(pool)) == 80
    found = np.array([(labels[pool] == c).sum() for c in range(5)])
    assert found.sum() == round(relevance * 80)
    np.testing.assert_allclose(found, relevance * wanted, atol=1)
    assert (labels[pool] == -1).sum() == 80 - found.sum()


def test_all_candidates_have_a_chance():
    labels = candidates()
    drawn = np.concatenate([draw_pool(labels, [10] * 5, seed=seed) for seed in range(60)])
    assert set(drawn) == set(np.flatnonzero(labels >= 0))


def test_one_seed_one_pool_and_smaller_ones_inside():
    labels = candidates()
    large = draw_pool(labels, [40, 40, 40, 40, 40], seed=7)
    again = draw_pool(labels, [40, 40, 40, 40, 40], seed=7)
    small = draw_pool(labels, [40, 20, 10, 5, 0], seed=7)
    assert (large == again).all()
    assert set(small) < set(large)
    assert set(draw_pool(labels, [40] * 5, seed=8)) != set(large)


def test_a_tensor_gives_a_tensor(device):
    labels = candidates()
    pool = draw_pool(torch.as_tensor(labels, device=device), torch.tensor([3] * 5), seed=1)
    assert pool.dtype == torch.int64
    assert pool.device.type == device.type
    np.testing.assert_array_equal(pool.cpu(), draw_pool(labels, [3] * 5, seed=1))


def test_a_class_with_too_few_candidates_is_named_with_what_would_fit():
    labels = candidates(per_class=20)
    wanted = pool_counts(60, 5, 10)
    with pytest.raises(ValueError, match=r"class 0 has 20 candidates, .* wants 28") as refusal:
        draw_pool(labels, wanted)
    factor = float(str(refusal.value).partition("factor of ")[2].split()[0])
    draw_pool(labels, pool_counts(int(60 * factor), 5, 10))
    with pytest.raises(ValueError, match=r"10 irrelevant candidates.* wants 30; raise the relevan"):
        draw_pool(candidates(irrelevant=10), [12] * 5, relevance=0.5)


def test_where_there_is_no_candidate_no_smaller_pool_is_offered():
    with pytest.raises(ValueError, match=r"0 irrelevant .* relevance, or get more candidates"):
        draw_pool(candidates(irrelevant=0), [12] * 5, relevance=0.5)
    with pytest.raises(ValueError, match=r"class 1 has 0 .* rho, or get more candidates"):
        draw_pool(np.array([0, 0, 2]), [1, 1, 1])


@pytest.mark.parametrize(
    ("labels", "counts", "options", "said"),
    [
        ([], [1, 1], {}, "labels is empty"),
        ([0, 1, 2], [1, 1], {}, "between 0 and 1"),
        ([0, 1, -2], [1, 1], {}, "-2 to 1"),
        ([0, 1.5], [1, 1], {}, "labels must be whole numbers"),
        ([0, 1], [0, 0], {}, "not all 0"),
        ([0, 1], [1, -1], {}, "0 or more"),
        ([0, 1], [[1, 1]], {}, "counts must be one-dimensional"),
        ([0, 1], [1, np.nan], {}, "counts must be whole numbers"),
        ([0, 1], [1, 1], {"relevance": 1.2}, "relevance must be a share"),
        ([0, 1], [1, 1], {"relevance": float("nan")}, "relevance must be a share"),
    ],
)
def test_bad_draws_are_refused(labels, counts, options, said):
    with pytest.raises(ValueError, match=said):
        draw_pool(np.array(labels), counts, **options)

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dirlearn.lab.neighbours import foreign_neighbours


def by_loop(x, y, classes, k):
    shares = []
    for i in range(len(x)):
        if y[i] in classes:
            nearest = sorted((np.linalg.norm(x[i] - x[j]), j) for j in range(len(x)) if j != i)
            shares.append(np.mean([y[j] < y[i] for _, j in nearest[:k]]))
    return shares


@given(seed=st.integers(0, 999), k=st.integers(1, 6))
def test_it_is_the_explicit_loop(seed, k):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(20, 3)), rng.integers(4, size=20)
    expected = by_loop(x, y, [2, 3], k)
    assert foreign_neighbours(x, y, [2, 3], k) == pytest.approx(expected)


def test_clusters_apart_have_none_and_one_heap_what_chance_gives():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 40)
    apart = 100 * np.eye(10)[y] + rng.normal(size=(400, 10))
    assert foreign_neighbours(apart, y, [7, 8, 9]).max() == 0
    heap = rng.normal(size=(400, 10))
    assert foreign_neighbours(heap, y, [9]).mean() == pytest.approx(0.9, abs=0.05)


def test_doubles_are_neighbours_of_each_other():
    x, y = np.zeros((12, 2)), np.array([0] * 6 + [1] * 6)
    found = foreign_neighbours(torch.from_numpy(x), torch.from_numpy(y), [1], neighbours=11)
    assert found == pytest.approx(np.full(6, 6 / 11))

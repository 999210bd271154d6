import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from dirlearn.synthesis import Table


def test_the_embedding_measures_standard_deviations_and_mismatches():
    X = np.array([[0.0, 7, 5], [2, 7, 5], [0, 8, 5], [2, 9, 5]])
    place = Table(X, np.arange(4.0), categorical=[1], k=1).place
    # column 0 has standard deviation 1: 2 apart; column 1 adds 1; column 2 is constant
    expected = np.sqrt([[0, 4, 1, 5], [4, 0, 5, 1], [1, 5, 0, 5], [5, 1, 5, 0]])
    assert_allclose(cdist(place, place), expected, atol=1e-12)


@given(n=st.integers(2, 30), columns=st.integers(1, 5), seed=st.integers(0, 999), data=st.data())
def test_neighbours_are_those_of_scikit_learn_without_the_row_itself(n, columns, seed, data):
    k = data.draw(st.integers(1, n - 1), label="k")
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 3, (n + 5, columns)).astype(float)  # many equal rows
    rows = rng.permutation(n + 5)[:n]
    table = Table(X, np.arange(n + 5.0), (), k)
    found, distance = table.neighbours(rows)
    place = table.place[rows]
    assert found.shape == distance.shape == (n, k)
    assert (found != np.arange(n)[:, None]).all()
    assert all(len(set(row)) == k for row in found.tolist())
    assert_allclose(distance, cdist(place, place)[np.arange(n)[:, None], found], atol=1e-9)
    expected, _ = NearestNeighbors(n_neighbors=k).fit(place).kneighbors()  # leaves itself out
    assert_allclose(np.sort(distance), np.sort(expected), atol=1e-7)


@pytest.mark.parametrize("block", [1, 50, 10**6])
def test_median_distances_leave_the_row_itself_out(block, monkeypatch):
    monkeypatch.setattr("dirlearn.synthesis.BLOCK", block)
    rng = np.random.default_rng(0)
    X, rows = rng.normal(size=(40, 3)), rng.permutation(40)[:21]
    table = Table(X, np.arange(40.0), (), 1)
    place = table.place
    expected = [
        np.median([np.linalg.norm(place[i] - place[j]) for j in rows if j != i]) for i in rows
    ]
    assert_allclose(table.median_distance(rows), expected)


def test_categories_come_from_either_parent_equally_often():
    X = np.array([[0.0, 3, 1], [1, 4, 1]])
    table = Table(X, np.array([0.0, 1]), categorical=[1, 2], k=1)
    seeds = np.zeros(2000, dtype=int)
    new, y, _ = table.interpolate(seeds, seeds + 1, np.random.default_rng(0))
    assert set(new[:, 1]) == {3, 4}
    assert set(new[:, 2]) == {1}
    assert abs((new[:, 1] == 3).mean() - 0.5) < 0.05
    assert ((y > 0) & (y < 1)).all()


def test_noise_draws_categories_as_often_as_they_occur():
    X = np.column_stack([np.arange(10.0), [0] * 7 + [1] * 3])
    table = Table(X, np.arange(10.0), categorical=[1], k=1)
    seeds, rows = np.zeros(3000, dtype=int), np.arange(10)
    new, y, parents = table.perturb(rows, seeds, np.full(3000, 0.5), np.random.default_rng(0))
    assert abs(new[:, 1].mean() - 0.3) < 0.04
    assert abs(new[:, 0].std() / (0.5 * X[:, 0].std()) - 1) < 0.05
    assert abs(y.std() / (0.5 * X[:, 0].std()) - 1) < 0.05
    assert abs(np.corrcoef(new[:, 0], y)[0, 1]) < 0.1  # drawn on their own
    assert_array_equal(parents, np.tile([0, -1], (3000, 1)))

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from dirlearn.locate import locate, rounded


def by_search(labels, edges):
    return np.clip(np.searchsorted(edges, labels, side="right") - 1, 0, len(edges) - 2)


@given(
    number=st.integers(1, 300),
    wobble=st.sampled_from([0.0, 0.1, 0.239, 0.4]),
    step=st.floats(1e-6, 1e6),
    low=st.floats(-1e6, 1e6),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_a_search_on_even_and_uneven_edges(number, wobble, step, low, seed):
    rng = np.random.default_rng(seed)
    edges = np.unique(
        low + step * (np.arange(number + 1) + rng.uniform(-wobble, wobble, number + 1))
    )
    if len(edges) < 2:  # a step that vanishes beside low
        return
    near = [np.nextafter(edges, -np.inf), edges, np.nextafter(edges, np.inf)]
    far = rng.uniform(edges[0] - 3 * step, edges[-1] + 3 * step, 500)
    labels = np.concatenate([*near, far])
    assert_array_equal(locate(labels, edges), by_search(labels, edges))


def test_it_is_a_search_across_slices():
    labels = np.random.default_rng(0).gamma(2, 12, 200_001)
    edges = np.arange(0.0, 102.0)
    assert_array_equal(locate(labels, edges), by_search(labels, edges))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (2, 3)])
def test_shape_is_kept(shape):
    assert locate(np.zeros(shape), np.array([0.0, 1.0])).shape == shape


@pytest.mark.parametrize("position", [0, 70_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_in_any_slice(bad, position):
    labels = np.zeros(70_001)
    labels[position] = bad
    with pytest.raises(ValueError, match="1 value that is NaN or infinite, of 70001"):
        locate(labels, np.array([0.0, 1.0]))


@pytest.mark.parametrize("narrow", [np.float16, np.float32])
def test_rounding_is_that_of_the_type(narrow):
    edges = np.linspace(0, 5, 51)
    assert_array_equal(rounded(edges, np.dtype(narrow)), [float(narrow(e)) for e in edges])
    assert_array_equal(
        rounded(edges, torch.from_numpy(np.zeros(1, narrow)).dtype), rounded(edges, narrow)
    )


def test_an_edge_beyond_the_type_is_infinite():
    assert_array_equal(rounded(np.array([0.0, 1e9]), np.float16), [0, np.inf])

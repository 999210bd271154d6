import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import mean_squared_error

from dirlearn import Relevance, sera


def sample(n=200, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.gamma(2, size=n)
    return target + rng.normal(size=n), target, rng.uniform(size=n)


def by_thresholds(pred, target, phi, steps):
    """The definition: squared errors of the items that are at least so relevant, integrated."""
    items = list(zip(pred, target, phi, strict=True))
    thresholds = np.linspace(0, 1, steps + 1)
    squared = [sum((p - t) ** 2 for p, t, r in items if r >= least) for least in thresholds]
    return np.trapezoid(squared, thresholds)


def test_the_integral_over_thresholds_comes_to_the_sum():
    pred, target, phi = sample()
    value = sera(pred, target, phi)
    assert value == pytest.approx(np.sum(phi * (pred - target) ** 2))
    gaps = [abs(by_thresholds(pred, target, phi, steps) / value - 1) for steps in (10, 100, 1000)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3


@given(
    items=st.lists(
        st.tuples(st.floats(-10, 10), st.floats(-10, 10), st.integers(0, 8)), min_size=1, max_size=9
    )
)
def test_where_relevances_are_eighths_the_integral_is_exact(items):
    pred, target, eighths = map(np.array, zip(*items, strict=True))
    # Between two eighths the set of items is the same: the midpoint stands for all.
    integral = sum(((pred - target) ** 2)[eighths / 8 >= (k + 0.5) / 8].sum() / 8 for k in range(8))
    assert sera(pred, target, eighths / 8) == pytest.approx(integral, abs=1e-12)


# imbreg 0.1.3: y = arange(12.) ** 2 / 10; phi = linspace(0, 1, 12) ** 2;
# sera_score(y, y + cos(arange(12.)), phi, tloss), tloss being the step of its trapezoidal rule.
IMBREG = {0.01: 1.806382046, 0.001: 1.808093054, 0.0001: 1.807485065}


def test_imbreg_comes_close_as_its_steps_get_fine():
    y = np.arange(12.0) ** 2 / 10
    value = sera(y + np.cos(np.arange(12.0)), y, np.linspace(0, 1, 12) ** 2)
    assert value == pytest.approx(IMBREG[0.0001], rel=1e-4)
    assert value == pytest.approx(IMBREG[0.01], rel=1e-3)


def test_it_is_a_weighted_squared_error():
    pred, target, phi = sample()
    weighted = mean_squared_error(target, pred, sample_weight=phi) * phi.sum()
    assert sera(pred, target, phi) == pytest.approx(weighted)
    assert sera(pred, target, np.ones_like(phi)) == pytest.approx(np.sum((pred - target) ** 2))
    assert sera(pred, target, np.zeros_like(phi)) == 0


def test_relevance_may_be_a_function_of_the_target(device):
    pred, target, _ = sample()

    phi = Relevance([1, 6], [0, 1])

    expected = sera(pred, target, phi(target))
    assert sera(pred, target, phi) == pytest.approx(expected)
    tensors = [torch.tensor(v, device=device, requires_grad=True) for v in (pred, target)]
    assert sera(*tensors, phi) == pytest.approx(expected)


def test_any_shape_and_kind(device):
    pred, target, phi = sample(60)
    expected = sera(pred, target, phi)
    for shape in [(60, 1), (3, 20)]:
        dense = (torch.tensor(v, device=device).reshape(shape) for v in (pred, target, phi))
        assert sera(*dense) == pytest.approx(expected)
    assert sera(pred.tolist(), target.tolist(), phi.tolist()) == pytest.approx(expected)
    narrow = torch.tensor([60000.0], dtype=torch.float16, device=device)
    assert sera(narrow, -narrow, torch.ones_like(narrow)) == pytest.approx(120000.0**2, rel=1e-3)


def test_huge_errors_are_infinite_only_where_they_are_relevant():
    assert sera([1e300, 1.0], [0.0, 0.0], [1.0, 1.0]) == np.inf
    assert sera([1e300, 1.0], [0.0, 0.0], [0.0, 1.0]) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": np.ones((2, 1))}, r"pred has shape \(2, 1\)"),
        ({"pred": [], "target": [], "phi": []}, "are empty"),
        ({"pred": [np.nan, 1]}, "pred holds 1 value that is NaN"),
        ({"phi": [0.5]}, r"phi has shape \(1,\), target has \(2,\)"),
        ({"phi": 0.5}, r"phi has shape \(\)"),
        ({"phi": np.ones((2, 1))}, r"phi has shape \(2, 1\)"),
        ({"phi": [np.nan, 0.5]}, "phi holds 1 value that is NaN"),
        ({"phi": [-0.1, 0.5]}, r"must lie in \[0, 1\], got -0.1 to 0.5"),
        ({"phi": [0.1, 7.0]}, "divide weights by their largest"),
        ({"phi": lambda y: y[:1]}, r"phi has shape \(1,\)"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"pred": np.ones(2), "target": np.ones(2), "phi": np.ones(2)}
    with pytest.raises(ValueError, match=words):
        sera(**(given | change))


def test_relevances_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match="phi must hold real numbers"):
        sera([1.0], [1.0], [True])


def test_it_grows_with_the_number_of_items():
    pred, target, phi = sample()
    twice = [np.tile(values, 2) for values in (pred, target, phi)]
    assert_allclose(sera(*twice), 2 * sera(pred, target, phi))

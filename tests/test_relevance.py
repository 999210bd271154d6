import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

from dirlearn import Relevance, relevance

# What the package smogn 0.1.2 gives, to twelve places, for
#     y = pandas.Series(SKEWED); p = phi_ctrl_pts(y, xtrm_type=..., coef=...); phi(y, p)
# run with pandas 1.5.3 and NumPy 1.26.4. Of labels 1, 5, 9, ... in number its quartiles are the
# hinges that R's boxplot.stats gives, and ours.
SKEWED = [1, 3, 4, 5, 5.5, 6, 6.25, 6.5, 7, 7.5, 8, 9, 10, 12, 16, 21, 30]
SKEWED_BOTH = [
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0.008916323731, 0.034293552812, 0.126200274348,
    0.259259259259, 0.582990397805, 1, 1, 1,
]  # fmt: skip
TAILS = [-40, 1, 3, 4, 5, 5.5, 6, 6.25, 6.5, 7, 7.5, 8, 9, 10, 12, 16, 21, 30, 31, 33, 35]
TAILS_BOTH = [
    1, 1, 0.774237596723, 0.557578516158, 0.329995448339, 0.225762403277, 0.135184342285,
    0.096722803823, 0.06372325899, 0.016841147019, 0, 0.004013615811, 0.034293552812,
    0.09017934258, 0.259259259259, 0.690087893106, 1, 1, 1, 1, 1,
]  # fmt: skip
# phi(pandas.Series(numpy.arange(1, 9.5, 0.5)), p) with p = phi_ctrl_pts(y, method="manual",
# ctrl_pts=[[1, 0, 0], [3, 1, 0], [5, 0.5, 0], [6, 0.5, 0], [8, 1, 0]])
MANUAL = [
    0, 0.15625, 0.5, 0.84375, 1, 0.921875, 0.75, 0.578125, 0.5, 0.5, 0.5, 0.578125, 0.75,
    0.921875, 1, 1, 1,
]  # fmt: skip

POINTS = st.lists(st.integers(-99, 99), min_size=2, max_size=6, unique=True).map(sorted)


def box_plot_by_loop(y, coef=1.5):
    """Tukey's five numbers, as R's fivenum and boxplot.stats compute them, one by one."""
    y = sorted(y)
    n = len(y)
    quarter = ((n + 3) // 2) / 2  # one-based position, whole or half
    fourths = []
    for position in (quarter, (n + 1) / 2, n + 1 - quarter):
        below, above = y[int(np.floor(position)) - 1], y[int(np.ceil(position)) - 1]
        fourths.append((below + above) / 2)
    low, middle, high = fourths
    inside = [v for v in y if low - coef * (high - low) <= v <= high + coef * (high - low)]
    return inside[0], middle, inside[-1]


# ---- the function through control points


def test_by_hand():
    phi = Relevance([20, 50, 80], [1, 0, 1])
    assert phi(np.array([-5, 20, 35, 50, 65, 80, 99.0])).tolist() == [1, 1, 0.5, 0, 0.5, 1, 1]
    # a quarter of the way: 3/16 - 2/64 = 5/32
    assert phi(np.array([57.5]))[0] == 5 / 32


@given(points=POINTS, data=st.data())
def test_it_is_the_cubic_hermite_spline_with_level_control_points(points, data):
    values = data.draw(
        st.lists(st.floats(0, 1), min_size=len(points), max_size=len(points)), label="values"
    )
    y = np.linspace(points[0], points[-1], 41)
    spline = CubicHermiteSpline(points, values, np.zeros(len(points)))
    assert_allclose(Relevance(points, values)(y), spline(y), atol=1e-12)


@pytest.mark.parametrize("points", [[0, 1, 3, 4], [-7, 2, 2.5, 900]])
def test_it_is_pchip_where_control_points_alternate(points):
    # There, pchip's inner slopes are 0 as well; its outer ones are held level by a flat stretch.
    flat = [points[0] - 1, *points, points[-1] + 1]
    y = np.linspace(points[0], points[-1], 200)
    pchip = PchipInterpolator(flat, [1, 1, 0, 1, 0.2, 0.2])
    assert_allclose(Relevance(points, [1, 0, 1, 0.2])(y), pchip(y), atol=1e-12)


@given(points=POINTS, data=st.data())
def test_it_stays_between_its_neighbours_and_turns_nowhere_else(points, data):
    values = data.draw(
        st.lists(st.floats(0, 1), min_size=len(points), max_size=len(points)), label="values"
    )
    phi = Relevance(points, values)
    for k in range(len(points) - 1):
        inside = phi(np.linspace(points[k], points[k + 1], 30)[1:-1])
        assert (inside >= min(values[k : k + 2]) - 1e-15).all()
        assert (inside <= max(values[k : k + 2]) + 1e-15).all()
        steps = np.diff(inside) * np.sign(values[k + 1] - values[k])
        assert (steps >= -1e-15).all()


def test_it_meets_its_points_exactly_and_is_constant_beyond():
    points, values = np.array([0.1, 0.3, 0.7, 2.9]), np.array([0.2, 1, 0.1, 0.6])
    phi = Relevance(points, values)
    assert_array_equal(phi(points), values)
    assert_array_equal(phi(np.array([-1e300, 0.0999, 3, 1e300])), [0.2, 0.2, 0.6, 0.6])


def test_it_agrees_with_the_package_smogn_at_given_points():
    phi = Relevance([1, 3, 5, 6, 8], [0, 1, 0.5, 0.5, 1])
    assert_allclose(phi(np.arange(1, 9.5, 0.5)), MANUAL, atol=1e-12)


# ---- the box plot


@pytest.mark.parametrize("size", range(9, 21))
def test_whiskers_are_those_of_an_explicit_box_plot(size):
    y = np.random.default_rng(size).standard_cauchy(size)
    y[:2] = -99, 99
    low, middle, high = box_plot_by_loop(y)
    assert Relevance.from_data(y) == Relevance([low, middle, high], [1, 0, 1])


@given(y=st.lists(st.integers(-30, 30), min_size=5, max_size=40), coef=st.floats(0.1, 3))
def test_any_labels_give_the_explicit_box_plot_or_a_reason(y, coef):
    low, middle, high = box_plot_by_loop(y, coef)
    below, above = min(y) < low, max(y) > high
    if not (below or above):
        with pytest.raises(ValueError, match="no label lies beyond"):
            Relevance.from_data(y, coef=coef)
    elif (below and low == middle) or (above and high == middle):
        with pytest.raises(ValueError, match="a whisker of the box plot ends at the median"):
            Relevance.from_data(y, coef=coef)
    else:
        phi = Relevance.from_data(y, coef=coef)
        assert phi(np.array([middle])) == 0
        assert (phi(np.array([low, min(y)])) == below).all()
        assert (phi(np.array([high, max(y)])) == above).all()


def test_it_agrees_with_the_package_smogn_on_data():
    assert_allclose(relevance(np.array(SKEWED)), SKEWED_BOTH, atol=1e-12)
    assert_allclose(relevance(np.array(SKEWED), "high"), SKEWED_BOTH, atol=1e-12)
    tails = np.array(TAILS, dtype=float)
    assert_allclose(relevance(tails, coef=0.75), TAILS_BOTH, atol=1e-12)
    low = np.where(tails < 7.5, TAILS_BOTH, 0)
    high = np.where(tails > 7.5, TAILS_BOTH, 0)
    assert_allclose(relevance(tails, "low", 0.75), low, atol=1e-12)
    assert_allclose(relevance(tails, "high", 0.75), high, atol=1e-12)


def test_without_outliers_the_error_offers_control_points_that_work():
    y = np.arange(101.0)
    with pytest.raises(ValueError, match="relevance would be 0 everywhere; lower coef") as error:
        Relevance.from_data(y)
    offered = str(error.value).split("as in ")[1]
    assert offered == "Relevance([0, 50, 100], [1, 0, 1])"
    assert eval(offered)(y[[0, 50, 100]]).tolist() == [1, 0, 1]
    assert Relevance.from_data(y, coef=0.4) == Relevance([5, 50, 95], [1, 0, 1])
    for side, words in (
        ("low", r"below the box plot's lower whisker, which ends at 0, .*\(\[0, 50\], \[1, 0\]\)"),
        ("high", r"above .* upper whisker, which ends at 100, .*\(\[50, 100\], \[0, 1\]\)"),
    ):
        with pytest.raises(ValueError, match=words):
            Relevance.from_data(y, side)


def test_a_side_without_outliers_stays_at_zero():
    y = np.array([*range(20), 100.0])
    phi = Relevance.from_data(y)
    assert phi == Relevance([10, 19], [0, 1])
    assert phi(np.array([-1e9, 0, 10])).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no label lies below"):
        Relevance.from_data(y, "low")


def test_labels_that_fill_the_box_are_refused():
    with pytest.raises(ValueError, match="ends at the median, 0, for that label fills the box"):
        Relevance.from_data([0] * 90 + list(range(1, 11)))


@pytest.mark.parametrize(("scale", "shift"), [(4, 0), (1, 1024), (0.5, -8)])
def test_relevance_does_not_depend_on_the_unit_or_origin_of_the_labels(scale, shift):
    y = np.array(TAILS, dtype=float)
    assert_allclose(relevance(y * scale + shift), relevance(y), atol=1e-12)
    assert_allclose(relevance(-y), relevance(y), atol=1e-12)


# ---- kinds, shapes, identity


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_their_dtype_and_device(dtype, device):
    y = torch.tensor([[1.0, 35], [50, 90]], dtype=dtype, device=device, requires_grad=True)
    phi = Relevance([20, 50, 80], [1, 0, 1])(y)
    assert phi.dtype == dtype
    assert phi.device.type == device.type
    assert not phi.requires_grad
    assert phi.tolist() == [[1, 0.5], [0, 1]]


def test_arrays_keep_their_dtype_and_whole_numbers_become_floats():
    phi = Relevance([0, 1], [0, 1])
    assert phi(np.zeros(3, np.float16)).dtype == np.float16
    assert phi(np.array([0, 1])).dtype == np.float64
    assert phi(torch.tensor([0, 1])).dtype == torch.get_default_dtype()
    assert phi([0.5]).tolist() == [0.5]
    assert phi(np.zeros((0, 3))).shape == (0, 3)
    strided = np.arange(12.0).reshape(3, 4).T[::2]
    assert_array_equal(phi(strided), phi(strided.copy()))


def test_identity():
    phi = Relevance([0, 1], [0, 1])
    assert phi == Relevance(np.array([0.0, 1]), torch.tensor([0, 1]))
    assert phi != Relevance([0, 1], [0, 0.5])
    assert phi != Relevance([0, 2], [0, 1])
    assert phi != "phi"
    assert hash(phi) == hash(Relevance([-0.0, 1], [0, 1]))
    assert eval(repr(phi)) == phi
    back = pickle.loads(pickle.dumps(phi))
    assert back == phi
    for array in (phi.points, phi.values, back.points):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


@pytest.mark.parametrize(
    ("points", "values", "words"),
    [
        ([1], [0], r"at least two entries, got shape \(1,\)"),
        ([[1, 2]], [[0, 1]], r"got shape \(1, 2\)"),
        ([1, 2], [0, 1, 0], r"one relevance per point, shape \(2,\), got \(3,\)"),
        ([2, 1], [0, 1], "points must increase, got 2 then 1 at position 0"),
        ([1, 2, 2], [0, 1, 0], "got 2 then 2 at position 1"),
        ([1, np.nan], [0, 1], "points holds 1 value that is NaN"),
        ([1, 2], [0, np.inf], "values holds 1 value that is NaN"),
        ([1, 2], [0, 1.5], "between 0 and 1, got 0 to 1.5"),
        ([1, 2], [-0.1, 1], "between 0 and 1, got -0.1 to 1"),
    ],
)
def test_bad_control_points_are_refused(points, values, words):
    with pytest.raises(ValueError, match=words):
        Relevance(points, values)


def test_bad_labels_and_options_are_refused():
    phi = Relevance([0, 1], [0, 1])
    for function in (phi, Relevance.from_data, relevance):
        with pytest.raises(ValueError, match="1 value that is NaN"):
            function(np.array([1, np.nan]))
        with pytest.raises(TypeError, match="y must hold real numbers"):
            function(["a"])
    with pytest.raises(ValueError, match="y is empty"):
        Relevance.from_data([])
    with pytest.raises(ValueError, match="got 'upper'"):
        Relevance.from_data([1, 2], extremes="upper")
    for coef in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="coef must be positive"):
            Relevance.from_data([1, 2], coef=coef)

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal

from dirlearn import Bins

TENTHS = [float(f"0.{k}") for k in range(10)] + [1.0]  # as typed, not as 3 * 0.1 comes out


def by_loop(labels, edges):
    """Bin of each label by comparing with every edge, one after the other; the ends clip."""
    found = []
    for label in labels:
        bin_ = 0
        for k in range(1, len(edges) - 1):
            if label >= edges[k]:
                bin_ = k
        found.append(bin_)
    return found


def by_searchsorted(y, edges):
    return np.clip(np.searchsorted(edges, y, side="right") - 1, 0, len(edges) - 2)


def around(edges, dtype=np.float64):
    """Labels on every edge and one representable number to either side, in ``dtype``."""
    on = np.asarray(edges).astype(dtype)
    up, down = np.array(np.inf, dtype), np.array(-np.inf, dtype)
    return np.concatenate([on, np.nextafter(on, up), np.nextafter(on, down)])


# ---- edges


@pytest.mark.parametrize(
    "edges",
    [[1.0], [], 3.0, [[0.0, 1.0]], [0, 1, 1], [1, 0], [0, 2, 1], [0, np.nan], [0, np.inf]],
    ids=str,
)
def test_bad_edges_are_refused(edges):
    with pytest.raises(ValueError, match="edges"):
        Bins(edges)


def test_the_message_names_the_edges_that_do_not_increase():
    with pytest.raises(ValueError, match=r"got 3 then 2 at position 2; sort them"):
        Bins([0, 1, 3, 2, 4])


@pytest.mark.parametrize("edges", [["a", "b"], [True, False], [0, 1j], None], ids=str)
def test_edges_that_are_not_numbers_are_refused(edges):
    with pytest.raises(TypeError, match="edges must hold real numbers"):
        Bins(edges)


def test_outside_is_one_of_two_words():
    with pytest.raises(ValueError, match="'drop'"):
        Bins([0, 1], outside="drop")


def test_edges_are_a_copy_that_nobody_can_write():
    edges = np.array([0.0, 1.0, 2.0])
    bins = Bins(edges)
    edges[1] = 1.5
    assert bins.edges.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="read-only"):
        bins.edges[1] = 1.5


@pytest.mark.parametrize("twin", [lambda b: pickle.loads(pickle.dumps(b)), copy.deepcopy])
def test_a_copied_or_pickled_bins_is_the_same_and_still_read_only(twin):
    bins = Bins([0, 0.1, 5], outside="error")
    other = twin(bins)
    assert other == bins
    assert hash(other) == hash(bins)
    assert other.outside == "error"
    assert not other.edges.flags.writeable


def test_equality_and_hash():
    bins = Bins([0, 1, 2])
    assert bins == Bins(torch.tensor([0, 1, 2]))
    assert bins != Bins([0, 1, 2], outside="error")
    assert bins != Bins([0, 1, 3])
    assert bins != [0, 1, 2]
    assert len({bins, Bins([0.0, 1.0, 2.0]), Bins([0, 2])}) == 2
    assert hash(Bins([-0.0, 1])) == hash(Bins([0.0, 1]))  # equal, so of equal hash


def test_len_centers_and_repr():
    bins = Bins([0, 18, 65, 120], outside="error")
    assert len(bins) == 3
    assert bins.centers.tolist() == [9, 41.5, 92.5]
    assert repr(bins) == 'Bins(3 bins from 0 to 120, outside="error")'


# ---- uniform


def test_uniform_edges_are_the_floats_a_person_types():
    assert Bins.uniform(0, 1, 0.1).edges.tolist() == TENTHS
    assert Bins.uniform(0, 5, 0.1).edges.tolist() == [float(f"{k / 10:.1f}") for k in range(51)]
    assert Bins.uniform(-1, 1, 0.25).edges.tolist() == [k / 4 for k in range(-4, 5)]
    assert Bins.uniform(0, 101, 1).edges.tolist() == list(range(102))


@given(
    width=st.integers(1, 500), places=st.integers(0, 4), start=st.integers(-50, 50),
    number=st.integers(1, 300),
)  # fmt: skip
def test_uniform_edges_are_decimals_for_any_width(width, places, start, number):
    typed = [float(f"{(start + k) * width}e-{places}") for k in range(number + 1)]
    bins = Bins.uniform(typed[0], typed[-1], float(f"{width}e-{places}"))
    assert bins.edges.tolist() == typed


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_uniform_takes_numpy_scalars(dtype):
    assert Bins.uniform(dtype(0), dtype(1), dtype(0.1)).edges.tolist() == TENTHS


@pytest.mark.parametrize(
    ("low", "high", "width", "words"),
    [
        (0, 1, 0, "width must be positive"),
        (0, 1, -0.1, "width must be positive"),
        (1, 0, 0.1, "high must be above low"),
        (1, 1, 0.1, "high must be above low"),
        (0, 1, 0.3, "end at 0.9 or 1.2"),
        (0, 1, 4, "end at 4"),
        (0, np.inf, 1, "high must be finite"),
        (np.nan, 1, 1, "low must be finite"),
        (0, 1, np.nan, "width must be finite"),
    ],
)
def test_uniform_refuses(low, high, width, words):
    with pytest.raises(ValueError, match=words):
        Bins.uniform(low, high, width)


def test_uniform_hands_outside_on():
    assert Bins.uniform(0, 1, 0.5, outside="error").outside == "error"


# ---- index


def test_a_label_typed_as_an_edge_opens_its_bin():
    assert Bins.uniform(0, 1, 0.1).index(np.array(TENTHS)).tolist() == [*range(10), 9]


def test_the_last_bin_is_closed_and_the_ends_clip():
    index = Bins([0, 1, 2]).index(np.array([2.0, np.nextafter(2, 1), 99.0, -99.0, 1.0]))
    assert index.tolist() == [1, 1, 1, 0, 1]


@given(
    width=st.integers(1, 500), places=st.integers(0, 4), start=st.integers(-50, 50),
    number=st.integers(1, 100), dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)  # fmt: skip
def test_uniform_index_is_searchsorted_to_the_last_float(width, places, start, number, dtype):
    typed = [float(f"{(start + k) * width}e-{places}") for k in range(number + 1)]
    bins = Bins.uniform(typed[0], typed[-1], float(f"{width}e-{places}"))
    edges = bins.edges.astype(dtype)
    assume(np.isfinite(edges).all())
    y = np.concatenate([around(edges, dtype), bins.centers.astype(dtype)])
    y = y[np.isfinite(y)]
    assert_array_equal(bins.index(y), by_searchsorted(y, edges))


@given(
    step=st.floats(1e-6, 1e6), low=st.floats(-1e6, 1e6), number=st.integers(2, 200),
    wobble=st.floats(0, 0.45), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_nearly_even_edges_are_found_exactly(step, low, number, wobble, seed):
    rng = np.random.default_rng(seed)
    edges = low + step * (np.arange(number + 1) + rng.uniform(-wobble, wobble, number + 1))
    assume((np.diff(edges) > 0).all())
    y = np.concatenate([around(edges), rng.uniform(edges[0] - step, edges[-1] + step, 100)])
    assert_array_equal(Bins(edges).index(y), by_searchsorted(y, edges))


@given(
    edges=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12, unique=True).map(sorted),
    y=st.lists(st.floats(-2e6, 2e6), max_size=12),
)
def test_irregular_edges_agree_with_a_loop(edges, y):
    assume((np.diff(edges) > 0).all())
    y = [*y, *around(edges).tolist()]
    assert Bins(edges).index(np.array(y)).tolist() == by_loop(y, edges)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.uint64])
def test_whole_number_labels(dtype):
    y = np.array([0, 17, 18, 64, 65, 120], dtype)
    assert Bins([0, 18, 64.5, 120]).index(y).tolist() == [0, 0, 1, 1, 2, 2]
    assert Bins.uniform(0, 121, 1).index(y).tolist() == y.tolist()


@pytest.mark.parametrize("torch_dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_floats_fall_where_the_typed_number_falls(torch_dtype, device):
    y = torch.tensor(TENTHS, dtype=torch_dtype, device=device)
    index = Bins.uniform(0, 1, 0.1).index(y)
    assert index.device.type == device.type
    assert index.dtype == torch.int64
    assert index.tolist() == [*range(10), 9]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_outside_error_compares_in_the_precision_of_the_labels(dtype):
    bins = Bins.uniform(0.1, 0.7, 0.2, outside="error")
    assert bins.index(np.array([0.1, 0.7], dtype)).tolist() == [0, 2]


def test_edges_that_collapse_in_float16():
    bins = Bins.uniform(2048, 2056, 0.5)  # float16 steps by 2 here
    y = np.array([2048, 2050, 2052, 2054, 2056, 0], np.float16)
    rounded = bins.edges.astype(np.float16)
    assert_array_equal(bins.index(y), by_searchsorted(y, rounded))
    assert bins.counts(y).sum() == y.size


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "edges", [[-1e300, 0, 1e300], [1e300, 2e300], [1, 1e300, 2e300], [0, 1e-310, 2e-310]], ids=str
)
def test_huge_and_tiny_edges(edges, dtype):
    y = np.array([-1.0, 0.0, 1.0, 60000.0], dtype)
    with np.errstate(over="ignore"):
        rounded = np.array(edges).astype(dtype)
    assert_array_equal(Bins(edges).index(y), by_searchsorted(y, rounded))


def test_huge_labels():
    y = np.array([-1e300, 1e300, 5e-324, -5e-324])
    assert Bins([-1e300, 0, 1e300]).index(y).tolist() == [0, 1, 1, 0]
    assert Bins.uniform(0, 101, 1).index(y).tolist() == [0, 100, 0, 0]
    assert Bins.uniform(0, 1, 0.1).index(np.array([-1.7e308, 1.7e308])).tolist() == [0, 9]


@pytest.mark.parametrize("edges", [np.arange(102.0), np.geomspace(1, 101, 60)], ids=["even", "any"])
def test_more_labels_than_one_chunk(edges):
    y = np.random.default_rng(0).uniform(-5, 110, 70_000)
    assert_array_equal(Bins(edges).index(y), by_searchsorted(y, edges))
    assert_array_equal(Bins(edges).index(y[::-1]), by_searchsorted(y[::-1], edges))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 69_999])
def test_a_bad_label_is_found_in_any_chunk(bad, position):
    y = np.ones(70_000)
    y[position] = bad
    with pytest.raises(ValueError, match="y holds 1 value that is NaN or infinite, of 70000"):
        Bins([0, 1, 2]).index(y)


def test_outside_labels_are_counted_over_all_chunks():
    y = np.ones(70_000)
    y[[0, 69_998, 69_999]] = [-3, 2.5, 7]
    with pytest.raises(ValueError, match=r"3 of the labels lie .* \(all span -3 to 7\)"):
        Bins([0, 1, 2], outside="error").index(y)


@pytest.mark.parametrize("shape", [(), (1,), (6,), (6, 1), (2, 3), (1, 2, 3), (0,), (0, 3)])
def test_shape_is_kept(shape, device):
    y = np.resize(np.arange(6) + 0.5, shape)
    index = Bins(range(7)).index(y)
    assert index.shape == shape
    assert_array_equal(index, np.floor(y))
    assert_array_equal(Bins(range(7)).index(torch.tensor(y, device=device)).cpu(), np.floor(y))


def test_labels_are_left_as_they_were(device):
    y = np.array([-5.0, 0.5, 99.0])
    tensor = torch.tensor(y, device=device, requires_grad=True)
    Bins([0, 1, 2]).index(y)
    Bins([0, 1, 2]).index(tensor)
    assert y.tolist() == tensor.tolist() == [-5, 0.5, 99]


def test_lists_scalars_and_strided_views():
    bins = Bins(range(7))
    assert bins.index([0.5, 3.5]).tolist() == [0, 3]
    assert int(bins.index(3.5)) == 3
    assert bins.index([]).shape == (0,)
    grid = torch.arange(6.0).reshape(2, 3)
    assert bins.index(grid.T).tolist() == grid.T.tolist()


@pytest.mark.parametrize("y", [[True], ["3"], [1j], [None]], ids=str)
def test_labels_that_are_not_numbers_are_refused(y, device):
    with pytest.raises(TypeError, match="y must hold real numbers"):
        Bins([0, 1]).index(np.array(y))
    if isinstance(y[0], bool | complex):
        with pytest.raises(TypeError, match="y must hold real numbers"):
            Bins([0, 1]).index(torch.tensor(y, device=device))


# ---- the way that accelerators take, here on any device


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]
)
@pytest.mark.parametrize("edges", [TENTHS, [0, 0.3, 2.00000001, 5], [0, 2**24 + 1, 2**25]], ids=len)
def test_the_accelerator_path_agrees_with_numpy(edges, dtype, device):
    bins = Bins(edges)
    values = [*TENTHS, -1, 2, 2.5, 99] + ([] if dtype is torch.float16 else [2**24, 2**24 + 1])
    y = torch.tensor(values, dtype=torch.float64).to(dtype).reshape(-1, 1)
    found = bins._index_on_device(y.to(device))
    assert found.shape == y.shape
    assert found.tolist() == bins.index(y.cpu()).tolist()


@pytest.mark.parametrize(
    ("y", "words"),
    [([1, np.nan], "1 value that is NaN"), ([0.5, -1, 9], "2 of the labels lie outside")],
)
def test_the_accelerator_path_refuses_too(y, words, device):
    bins = Bins([0, 1, 2], outside="error")
    with pytest.raises(ValueError, match=words):
        bins._index_on_device(torch.tensor(y, device=device))
    with pytest.raises(ValueError, match=words):
        bins.index(torch.tensor(y, device=device))
    with pytest.raises(TypeError, match="real numbers"):
        bins._index_on_device(torch.tensor([True], device=device))


# ---- counts


@given(
    y=hnp.arrays(np.float64, st.integers(0, 50), elements=st.floats(-100, 200)),
    edges=st.lists(st.integers(-50, 150), min_size=2, max_size=20, unique=True).map(sorted),
)
def test_counts_are_np_histogram_of_the_clipped_labels(y, edges):
    counts = Bins(edges).counts(y)
    expected, _ = np.histogram(np.clip(y, edges[0], edges[-1]), bins=edges)
    assert_array_equal(counts, expected)
    assert counts.sum() == y.size


def test_counts_of_a_dense_tensor(device):
    y = torch.tensor([[[0.5, 2.5], [2.0, 9.0]]], device=device)
    counts = Bins([0, 1, 2, 3]).counts(y)
    assert counts.tolist() == [1, 0, 3]
    assert counts.device.type == device.type
    assert not counts.is_floating_point()


def test_counts_of_nothing():
    assert Bins([0, 1, 2]).counts(np.array([])).tolist() == [0, 0]


# ---- quantile


@given(
    y=hnp.arrays(np.float64, st.integers(4, 200), elements=st.floats(-1e3, 1e3), unique=True),
    n=st.integers(1, 12),
)
def test_quantile_bins_hold_equally_many(y, n):
    n = min(n, y.size // 2)
    bins = Bins.quantile(y, n)
    counts = bins.counts(y)
    assert len(bins) == n
    assert counts.sum() == y.size
    assert counts.max() - counts.min() <= 1
    assert (bins.edges[0], bins.edges[-1]) == (y.min(), y.max())


def test_quantile_has_fewer_bins_where_ties_forbid():
    y = np.array([0] * 90 + list(range(1, 11)))
    bins = Bins.quantile(y, 20)
    assert len(bins) < 20
    assert bins.counts(y).sum() == 100
    assert bins.counts(y).min() > 0


def test_quantile_takes_tensors_and_dense_targets(device):
    y = torch.arange(9.0, device=device).reshape(3, 3).requires_grad_()
    assert Bins.quantile(y, 4).edges.tolist() == [0, 2, 4, 6, 8]


# ---- from_data

DRAWS = {
    "normal": lambda rng: rng.normal(40, 15, 1000),
    "skew": lambda rng: rng.lognormal(0, 0.5, 777),
    "flat": lambda rng: rng.uniform(0, 5, 64),
    "negative": lambda rng: -rng.exponential(1e-3, 500),
    "two": lambda rng: np.array([0.25, 0.75]),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_from_data_is_numpy_freedman_diaconis(draw):
    y = draw(np.random.default_rng(0))
    assert_allclose(Bins.from_data(y).edges, np.histogram_bin_edges(y, bins="fd"), rtol=1e-12)


@given(
    y=hnp.arrays(np.int64, st.integers(2, 80), elements=st.integers(-100, 300)),
    max_bins=st.integers(1, 60),
)
def test_from_data_puts_whole_numbers_into_every_bin(y, max_bins):
    assume(y.min() < y.max())
    bins = Bins.from_data(y, max_bins=max_bins)
    numbers = np.arange(y.min(), y.max() + 1)
    # The last bin may reach beyond the largest label, never lie beyond it.
    assert bins.counts(numbers).min() >= 1
    assert (bins.edges == np.round(bins.edges)).all()
    assert np.ptp(np.diff(bins.edges)) == 0
    assert bins.edges[0] == y.min()
    assert bins.edges[-1] > y.max()
    assert len(bins) <= max_bins


def test_from_data_of_ages_gives_each_bin_the_same_number_of_ages():
    ages = np.random.default_rng(0).integers(0, 101, 12_000)
    per_bin = Bins.from_data(ages).counts(np.arange(101))
    assert np.ptp(per_bin[:-1]) == 0


@given(
    y=hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(-1e300, 1e300)),
    max_bins=st.integers(1, 40),
)
def test_from_data_spans_the_labels_with_at_most_max_bins(y, max_bins):
    assume(np.ptp(y) > 1e-300)
    bins = Bins.from_data(y, max_bins=max_bins)
    assert len(bins) <= max_bins
    assert bins.edges[0] <= y.min() < y.max() <= bins.edges[-1]


def test_from_data_caps_the_bins_of_an_outlier():
    y = np.append(np.random.default_rng(0).normal(size=1000), 1e9)
    assert len(Bins.from_data(y)) == 256
    assert len(Bins.from_data(y, max_bins=7)) == 7


@pytest.mark.parametrize("n", [10, 100, 1000])
def test_from_data_falls_back_on_sturges_where_half_the_labels_are_equal(n):
    y = np.full(n, 0.5)
    y[0], y[-1] = 0.1, 0.9
    assert len(Bins.from_data(y)) == math.ceil(1 + math.log2(n))


@pytest.mark.parametrize("make", [lambda y: Bins.quantile(y, 3), Bins.from_data])
@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([], "empty"),
        ([4.5], "one distinct value, 4.5"),
        ([2, 2, 2], "one distinct value, 2"),
        ([1, np.nan], "1 value that is NaN"),
        ([1, np.inf], "1 value that is NaN or infinite"),
    ],
    ids=str,
)
def test_bins_need_labels_with_a_scale(make, y, words):
    with pytest.raises(ValueError, match=words):
        make(np.array(y))


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_bin(n):
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        Bins.quantile([1, 2, 3], n)
    with pytest.raises(ValueError, match=f"max_bins must be at least 1, got {n}"):
        Bins.from_data([1, 2, 3], max_bins=n)


# ---- shots


def test_shots_at_their_thresholds():
    counts = [101, 100, 99, 21, 20, 19, 1, 0]
    expected = ["many", "medium", "medium", "medium", "medium", "few", "few", "zero"]
    assert Bins(range(9)).shots(counts).tolist() == expected


def test_shots_by_other_thresholds_and_kinds_of_array(device):
    counts = torch.tensor([11, 10, 5, 4, 0], device=device)
    expected = ["many", "medium", "medium", "few", "zero"]
    assert Bins(range(6)).shots(counts, many=10, few=5).tolist() == expected
    assert Bins(range(3)).shots([5, 6], many=5, few=5).tolist() == ["medium", "many"]
    assert Bins(range(3)).shots(np.array([0.5, 1e300])).tolist() == ["few", "many"]


@pytest.mark.parametrize(
    ("counts", "thresholds", "words"),
    [
        ([1, 2], {}, r"shape \(3,\), got \(2,\)"),
        ([[1, 2, 3]], {}, r"got \(1, 3\)"),
        (5, {}, r"got \(\)"),
        ([1, 2, -1], {}, "must not be negative, got -1"),
        ([1, 2, np.nan], {}, "1 value that is NaN"),
        ([1, 2, 3], {"few": 0}, "0 < few <= many"),
        ([1, 2, 3], {"few": 101}, "0 < few <= many"),
    ],
)
def test_shots_refuse(counts, thresholds, words):
    with pytest.raises(ValueError, match=words):
        Bins(range(4)).shots(counts, **thresholds)


@pytest.mark.parametrize("arguments", [("0", 5, 1), (0, True, 1), (0, 5, None)])
def test_uniform_wants_numbers(arguments):
    with pytest.raises(TypeError, match="must be a number"):
        Bins.uniform(*arguments)

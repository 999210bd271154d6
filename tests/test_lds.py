import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.ndimage import convolve1d
from sklearn.linear_model import LinearRegression

from dirlearn import Bins, effective_density, inverse_weights, kernel_window, lds_weights

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def mirrored(position, length):
    """Where a position beyond the ends comes to lie: 2 1 0 | 0 1 2 | 2 1 0."""
    while not 0 <= position < length:
        position = -1 - position if position < 0 else 2 * length - 1 - position
    return position


def smoothed_by_loop(counts, window):
    """The density of bin b takes k_j of the bin j places further, mirrored at the ends."""
    half = len(window) // 2
    smooth = []
    for b in range(len(counts)):
        total = 0.0
        for j in range(-half, half + 1):
            total += window[j + half] * counts[mirrored(b + j, len(counts))]
        smooth.append(total)
    return smooth


def weights_by_loop(labels, edges, window, power, clip=None):
    """Sample by sample in plain Python: count, smooth, take the power, divide by the mean."""

    def bin_of(label):
        inside = [k for k in range(len(edges) - 1) if label >= edges[k]]
        return inside[-1] if inside else 0

    counts = [0] * (len(edges) - 1)
    for label in labels:
        counts[bin_of(label)] += 1
    density = smoothed_by_loop(counts, window)
    if clip is not None:
        density = [min(max(d, clip[0]), clip[1]) for d in density]
    raw = [1 / density[bin_of(label)] ** power for label in labels]
    return [w * len(raw) / sum(raw) for w in raw]


def ages(n=500, seed=0):
    return np.random.default_rng(seed).gamma(6, 7, n).clip(0, 101)


COUNTS = hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(0, 1000).map(float))
KERNELS = st.sampled_from(["gaussian", "triangular", "laplace", "hann", (1.0, 2.0, 4.0, 2.0, 1.0)])


# ---- effective_density


def test_density_by_hand():
    kernel = [1, 2, 1]
    assert effective_density([0, 0, 4, 0, 0], kernel).tolist() == [0, 1, 2, 1, 0]
    assert effective_density([4, 0, 0], kernel).tolist() == [3, 1, 0]
    assert effective_density([0, 0, 8], kernel).tolist() == [0, 2, 6]
    assert effective_density([7], kernel).tolist() == [7]


@given(counts=COUNTS, kernel=KERNELS, half=st.integers(0, 12), sigma=st.floats(0.3, 9))
def test_density_is_the_explicit_double_sum(counts, kernel, half, sigma):
    kernel = list(kernel) if isinstance(kernel, tuple) else kernel
    window = kernel_window(kernel, 2 * half + 1, sigma)
    density = effective_density(counts, kernel, 2 * half + 1, sigma)
    assert_allclose(density, smoothed_by_loop(counts.tolist(), window.tolist()), atol=1e-9)
    assert_allclose(density, convolve1d(counts, window, mode="reflect"), atol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_window_longer_than_the_histogram_is_mirrored_again(length):
    counts = np.arange(1.0, length + 1)
    window = kernel_window("gaussian", 21, 6.0)
    density = effective_density(counts, "gaussian", 21, 6.0)
    assert_allclose(density, smoothed_by_loop(counts, window), rtol=1e-12)
    assert_allclose(density.sum(), counts.sum(), rtol=1e-12)


@given(counts=COUNTS, half=st.integers(0, 12))
def test_no_mass_is_lost_and_constants_stay(counts, half):
    size = 2 * half + 1
    assert_allclose(effective_density(counts, size=size).sum(), counts.sum(), rtol=1e-12)
    assert_allclose(effective_density(np.full_like(counts, 3), size=size), 3, rtol=1e-12)


@given(counts=COUNTS, factor=st.floats(1e-100, 1e100))
def test_density_is_linear(counts, factor):
    other = counts[::-1] ** 2
    expected = factor * effective_density(counts) + effective_density(other)
    assert_allclose(effective_density(factor * counts + other), expected, rtol=1e-9)


def test_density_has_no_direction():
    counts = np.random.default_rng(0).integers(0, 50, 40)
    forward = effective_density(counts, size=9)
    assert_allclose(effective_density(counts[::-1], size=9), forward[::-1], rtol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
def test_density_keeps_kind_dtype_and_device(dtype, device):
    counts = torch.tensor([0, 0, 4, 0, 0], dtype=dtype, device=device)
    density = effective_density(counts, [1, 2, 1])
    assert density.dtype == dtype
    assert density.device.type == device.type
    assert density.tolist() == [0, 1, 2, 1, 0]


def test_density_of_whole_numbers_is_not_cut_to_whole_numbers(device):
    counts = [0, 1, 0]
    assert effective_density(np.array(counts), [1, 2, 1]).tolist() == [0.25, 0.5, 0.25]
    density = effective_density(torch.tensor(counts, device=device), [1, 2, 1])
    assert density.dtype == torch.get_default_dtype()
    assert density.tolist() == [0.25, 0.5, 0.25]


def test_density_of_huge_and_tiny_counts():
    assert_allclose(effective_density([0, 4e300, 0], [1, 2, 1]), [1e300, 2e300, 1e300])
    assert_allclose(effective_density([0, 4e-300, 0], [1, 2, 1]), [1e-300, 2e-300, 1e-300])


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], r"shape \(K,\), got \(0,\)"),
        (3.0, r"got \(\)"),
        ([[1.0, 2.0]], r"got \(1, 2\)"),
        ([1, -2], "must not be negative, got -2"),
        ([1, np.nan], "1 value that is NaN"),
        ([np.inf, np.inf], "2 values that are NaN or infinite"),
    ],
    ids=str,
)
def test_bad_counts_are_refused(counts, words):
    for function in (effective_density, inverse_weights):
        with pytest.raises(ValueError, match=words):
            function(counts)


@pytest.mark.parametrize("counts", [["3"], [True], [1j]], ids=str)
def test_counts_that_are_not_numbers_are_refused(counts):
    with pytest.raises(TypeError, match="counts must hold real numbers"):
        effective_density(counts)
    with pytest.raises(TypeError, match="density must hold real numbers"):
        inverse_weights(counts)


# ---- inverse_weights


def test_inverse_weights_by_hand():
    # 1 / sqrt(n) is 1 and 1/2; its mean over the five samples is (1 + 4 / 2) / 5 = 3/5.
    assert_allclose(inverse_weights([1, 4, 0], power=0.5), [5 / 3, 5 / 6, 0])
    assert_allclose(inverse_weights([1, 4, 0], power=1), [5 / 2, 5 / 8, 0])


@given(counts=COUNTS.filter(np.any), power=st.floats(0, 3))
def test_inverse_weights_are_a_power_with_mean_one_over_the_samples(counts, power):
    weights = inverse_weights(counts, power)
    held = counts > 0
    assert_allclose((counts * weights).sum() / counts.sum(), 1, rtol=1e-9)
    products = weights[held] * counts[held] ** power
    assert_allclose(products, products[0], rtol=1e-9)
    assert (weights[~held] == 0).all()


def test_the_mean_is_over_the_samples_given_not_over_the_bins():
    density, counts = np.array([2.0, 8.0, 2.0]), np.array([1, 11, 0])
    weights = inverse_weights(density, 1.0, counts=counts)
    assert_allclose(weights @ counts / 12, 1)
    assert_allclose(weights[0] / weights[1], 4)
    assert weights[2] == weights[0]  # a bin without samples has a weight, where it has a density


def test_power_zero_gives_equal_weights():
    assert inverse_weights([3, 500, 1], power=0).tolist() == [1, 1, 1]


def test_clip_bounds_the_density():
    counts = np.array([1, 10, 5000])
    weights = inverse_weights(counts, 1.0, clip=(5, 1000))
    expected = np.array([1 / 5, 1 / 10, 1 / 1000])
    assert_allclose(weights, expected * 5011 / (expected @ counts))
    assert weights.max() / weights.min() == pytest.approx(200)
    assert_allclose(inverse_weights(counts, clip=(1e-9, np.inf)), inverse_weights(counts))


@pytest.mark.parametrize("scale", [1e-300, 1e-3, 1, 1e6, 1e300])
@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_weights_do_not_depend_on_the_unit_of_the_density(scale, power):
    counts = np.array([1.0, 4.0, 2.0])
    assert_allclose(
        inverse_weights(counts * scale, power), inverse_weights(counts, power), rtol=1e-9
    )


def test_a_ratio_beyond_the_floats_does_not_break():
    weights = inverse_weights(np.array([1e-300, 1e300]), counts=[1, 1])
    assert weights.tolist() == [2, 0]


@pytest.mark.parametrize("dtype", FLOATS)
def test_inverse_weights_keep_kind_dtype_and_device(dtype, device):
    weights = inverse_weights(torch.tensor([1, 4], dtype=dtype, device=device), 1.0)
    assert weights.dtype == dtype
    assert weights.device.type == device.type
    assert weights.tolist() == [2.5, 0.625]


@pytest.mark.parametrize(
    ("density", "options", "words"),
    [
        ([1, 2], {"power": -1}, "power must be 0 or more"),
        ([1, 2], {"power": np.nan}, "power must be 0 or more"),
        ([1, 2], {"power": np.inf}, "power must be 0 or more"),
        ([1, 2], {"clip": (0, 5)}, "0 < low <= high"),
        ([1, 2], {"clip": (5, 1)}, "0 < low <= high"),
        ([1, 2], {"clip": (np.nan, 1)}, "0 < low <= high"),
        ([0, 0], {}, "every bin is empty"),
        ([1, 2], {"counts": [0, 0]}, "every bin is empty"),
        ([1, 2], {"counts": [1, 2, 3]}, r"shape of density, \(2,\), got \(3,\)"),
        ([1, 2], {"counts": [[1, 2]]}, r"counts must hold one number per bin"),
        ([1, 2], {"counts": [1, -1]}, "counts must not be negative"),
        ([0, 2], {"counts": [1, 1]}, "1 of the bins hold samples but have density zero"),
    ],
    ids=str,
)
def test_inverse_weights_refuse(density, options, words):
    with pytest.raises(ValueError, match=words):
        inverse_weights(np.array(density), **options)


# ---- lds_weights


@pytest.mark.parametrize("clip", [None, (3.0, 20.0)])
@pytest.mark.parametrize("power", [0.5, 1.0, 0.3])
@pytest.mark.parametrize(("kernel", "size", "sigma"), [("gaussian", 5, 2.0), ("laplace", 9, 1.0)])
@pytest.mark.parametrize("edges", [range(102), [0, 10, 18, 40, 41, 65, 101]], ids=len)
def test_lds_weights_are_the_explicit_loop(edges, kernel, size, sigma, power, clip):
    y = ages()
    weights = lds_weights(y, Bins(edges), power, kernel, size, sigma, clip)
    window = kernel_window(kernel, size, sigma).tolist()
    assert_allclose(weights, weights_by_loop(y, edges, window, power, clip), rtol=1e-10)


@given(
    y=st.lists(st.floats(-5, 12), min_size=1, max_size=40),
    power=st.floats(0, 2), half=st.integers(0, 6),
)  # fmt: skip
def test_lds_weights_are_the_explicit_loop_for_any_labels(y, power, half):
    window = kernel_window(size=2 * half + 1).tolist()
    weights = lds_weights(np.array(y), Bins(range(9)), power, size=2 * half + 1)
    assert_allclose(weights, weights_by_loop(y, range(9), window, power), rtol=1e-9)
    assert_allclose(weights.mean(), 1, rtol=1e-12)


def test_the_density_is_smoothed_before_the_power_is_taken():
    y = np.repeat([1.5, 2.5], [1, 100])
    rare, common = lds_weights(y, Bins(range(5)), 0.5, [1, 2, 1])[[0, -1]]
    # smoothed counts: (2 + 100) / 4 and (1 + 200) / 4; roots first would give 12 / 4 and 21 / 4
    assert rare / common == pytest.approx(np.sqrt(201 / 102))
    assert rare / common != pytest.approx(21 / 12, rel=0.1)


def test_default_is_square_root_inverse_with_a_gaussian_of_five_bins_and_width_two():
    y, bins = ages(), Bins.uniform(0, 101, 1)
    assert_allclose(lds_weights(y, bins), lds_weights(y, bins, 0.5, "gaussian", 5, 2.0, None))


def test_without_a_kernel_weights_are_the_plain_inverse():
    y = np.repeat([0.5, 1.5, 2.5], [1, 4, 16])
    weights = lds_weights(y, Bins(range(4)), power=1.0, kernel=None)
    assert_allclose(weights, np.repeat([7, 7 / 4, 7 / 16], [1, 4, 16]))


def test_lds_weights_do_not_depend_on_the_number_of_samples():
    y, bins = ages(), Bins.uniform(0, 101, 1)
    assert_allclose(lds_weights(np.tile(y, 7), bins)[: y.size], lds_weights(y, bins), rtol=1e-12)


def test_lds_weights_follow_a_permutation():
    y, bins = ages(), Bins.uniform(0, 101, 1)
    order = np.random.default_rng(1).permutation(y.size)
    assert_allclose(lds_weights(y[order], bins), lds_weights(y, bins)[order], rtol=1e-12)


@pytest.mark.parametrize(("scale", "shift"), [(1, 4096), (0.125, 0), (1024, -512), (-1, 0)])
def test_lds_weights_do_not_depend_on_the_unit_or_origin_of_the_axis(scale, shift):
    y = np.random.default_rng(0).integers(1, 800, 500) / 8 + 1 / 16  # exact in binary, on no edge
    edges = np.arange(102.0)
    moved = np.sort(edges * scale + shift)
    assert_allclose(
        lds_weights(y * scale + shift, Bins(moved)), lds_weights(y, Bins(edges)), rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(1,), (12,), (12, 1), (3, 4), (2, 3, 2)])
def test_lds_weights_keep_the_shape(shape, device):
    y = np.resize(ages(12), shape)
    weights = lds_weights(y, Bins.uniform(0, 101, 1))
    assert weights.shape == shape
    assert_allclose(weights.ravel(), lds_weights(y.ravel(), Bins.uniform(0, 101, 1)))
    dense = lds_weights(torch.tensor(y, device=device), Bins.uniform(0, 101, 1))
    assert_allclose(dense.cpu(), weights, rtol=1e-12)


@pytest.mark.parametrize("dtype", FLOATS)
def test_tensors_give_what_arrays_give(dtype, device):
    bins = Bins.uniform(0, 101, 1)
    y = torch.tensor(ages(), dtype=dtype, device=device, requires_grad=True)
    weights = lds_weights(y, bins)
    assert weights.dtype == dtype
    assert weights.device.type == device.type
    assert not weights.requires_grad
    expected = lds_weights(y.detach().double().cpu().numpy(), bins)
    assert_allclose(weights.double().cpu(), expected, rtol=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_keep_their_dtype(dtype):
    weights = lds_weights(ages().astype(dtype), Bins.uniform(0, 101, 1))
    assert weights.dtype == dtype
    assert weights.astype(float).mean() == pytest.approx(1, rel=1e-3)


def test_whole_number_labels_get_floating_weights(device):
    y, bins = [30, 30, 31, 90], Bins.uniform(0, 101, 1)
    expected = lds_weights(np.array(y, float), bins)
    assert_allclose(lds_weights(np.array(y, np.uint8), bins), expected)
    assert_allclose(lds_weights(y, bins), expected)
    weights = lds_weights(torch.tensor(y, device=device), bins)
    assert weights.dtype == torch.get_default_dtype()
    assert_allclose(weights.cpu(), expected, rtol=1e-6)


def test_one_sample_weighs_one():
    for power in (0, 0.5, 1):
        assert lds_weights(np.array([30.0]), Bins.uniform(0, 101, 1), power) == pytest.approx(1)


def test_rare_labels_weigh_more_and_smoothing_narrows_the_spread():
    y = np.repeat(np.arange(10) + 0.5, [1, 100, 1, 100, 1, 100, 1, 100, 1, 100])
    bins = Bins(range(11))
    plain, smooth = lds_weights(y, bins, kernel=None), lds_weights(y, bins, size=3)
    assert plain[0] == pytest.approx(10 * plain[1])
    assert 1 < smooth[0] / smooth[1] < 10


def test_more_labels_than_one_chunk():
    y, bins = ages(70_000), Bins.uniform(0, 101, 1)
    counts, _ = np.histogram(y, bins.edges)
    raw = convolve1d(counts.astype(float), kernel_window(), mode="reflect") ** -0.5
    raw = raw[np.floor(y).astype(int).clip(0, 100)]
    assert_allclose(lds_weights(y, bins), raw / raw.mean(), rtol=1e-10)


def test_scikit_learn_takes_them_as_sample_weight():
    y = ages(200)
    X = np.stack([y, np.sqrt(y)], axis=1) + np.random.default_rng(1).normal(size=(200, 2))
    weights = lds_weights(y, Bins.uniform(0, 101, 1))
    model = LinearRegression().fit(X, y, sample_weight=weights)
    design = np.c_[X, np.ones(200)]
    normal = np.linalg.solve((design.T * weights) @ design, (design.T * weights) @ y)
    assert_allclose([*model.coef_, model.intercept_], normal, rtol=1e-8)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([], "y is empty"),
        ([1, np.nan], "1 value that is NaN"),
        ([1, -np.inf], "1 value that is NaN or infinite"),
    ],
    ids=str,
)
def test_bad_labels_are_refused(y, words, device):
    with pytest.raises(ValueError, match=words):
        lds_weights(np.array(y), Bins([0, 1, 2]))
    with pytest.raises(ValueError, match=words):
        lds_weights(torch.tensor(y, device=device), Bins([0, 1, 2]))


def test_other_bad_arguments_are_refused():
    y, bins = np.array([0.5, 1.5]), Bins([0, 1, 2], outside="error")
    with pytest.raises(ValueError, match="1 of the labels lie outside"):
        lds_weights(np.array([0.5, 2.5]), bins)
    with pytest.raises(TypeError, match=r"bins must be a dirlearn\.Bins, got list"):
        lds_weights(y, [0, 1, 2])
    with pytest.raises(TypeError, match="real numbers"):
        lds_weights(np.array([True, False]), bins)
    with pytest.raises(ValueError, match="size must be odd"):
        lds_weights(y, bins, size=4)
    with pytest.raises(ValueError, match="sigma"):
        lds_weights(y, bins, sigma=0)
    with pytest.raises(ValueError, match="power"):
        lds_weights(y, bins, power=-0.5)
    with pytest.raises(ValueError, match="positive in its middle"):
        lds_weights(np.array([1.5]), Bins(range(4)), kernel=[1, 0, 1])


@pytest.mark.parametrize("clip", [5, (1, 2, 3), (0, 5), (10, 1)])
def test_bad_clips_are_refused(clip):
    with pytest.raises(ValueError, match=r"clip must be \(low, high\) with 0 < low <= high"):
        inverse_weights(np.array([1, 2]), clip=clip)


def test_a_side_of_the_clip_may_stay_open():
    counts = np.array([1.0, 10.0, 2000.0])
    floor, cap = (inverse_weights(counts, clip=clip) for clip in ((5, None), (None, 1000)))
    assert_allclose(floor, inverse_weights(counts, clip=(5, 2000)))
    assert_allclose(cap, inverse_weights(counts, clip=(1, 1000)))


@pytest.mark.parametrize("dtype", ["float64", "Float64", "int64", "Int64"])
def test_pandas_series_are_labels(dtype):
    y = pd.Series([1, 1, 2, 5]).astype(dtype)
    bins = Bins.uniform(0, 6, 1)
    assert_allclose(lds_weights(y, bins), lds_weights(np.array([1.0, 1, 2, 5]), bins))


def test_weights_beyond_half_precision_are_refused():
    y = torch.cat([torch.zeros(300_000), torch.ones(1)]).half()
    with pytest.raises(ValueError, match=r"beyond the range of torch\.float16"):
        lds_weights(y, Bins([-0.5, 0.5, 1.5]), power=1.0, kernel=None)

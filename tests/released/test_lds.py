import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.ndimage import gaussian_filter1d
from scipy.signal.windows import triang

import dirlearn
from dirlearn import Bins, lds_weights
from dirlearn.released import kernel_window, reweight

HISTOGRAMS = Path(__file__).resolve().parents[2] / "data" / "histograms"


def reweighted_by_loop(labels, edges, power, window=(1.0,), clip=None):
    """As paper_vs_code D6 to D9 describe: clip, power, smooth with zeros outside, truncate."""

    def bin_of(label):
        inside = [k for k in range(len(edges) - 1) if label >= edges[k]]
        return inside[-1] if inside else 0

    counts = [0] * (len(edges) - 1)
    for label in labels:
        counts[bin_of(label)] += 1
    if clip is not None:
        counts = [min(max(n, clip[0]), clip[1]) for n in counts]
    values = [n if power == 1 else n**power for n in counts]
    half = len(window) // 2
    smooth = []
    for b in range(len(values)):
        total = 0.0
        for j in range(-half, half + 1):
            if 0 <= b + j < len(values):
                total += window[j + half] / max(window) * values[b + j]
        smooth.append(math.floor(total + 1e-9) if power == 1 else total)
    raw = [1 / smooth[bin_of(label)] for label in labels]
    return [w * len(raw) / sum(raw) for w in raw]


def agedb_labels():
    with (HISTOGRAMS / "agedb_dir.csv").open() as lines:
        rows = [(int(row["bin"]), int(row["count_train"])) for row in csv.DictReader(lines)]
    ages, counts = np.array(rows).T
    return np.repeat(ages, counts), counts


# ---- kernel_window


def test_the_window_that_the_released_code_prints():
    window = kernel_window("gaussian", 5, 2.0, normalise="max")
    assert window.round(3).tolist() == [0.858, 0.946, 1, 0.946, 0.858]
    window = kernel_window("gaussian", 9, 1.0, normalise="max")
    assert_allclose(window[:5], [0.0003, 0.011, 0.135, 0.607, 1], atol=5e-4)


@pytest.mark.parametrize(("size", "sigma"), [(1, 2.0), (3, 2.0), (5, 2.0), (9, 1.0), (9, 4.0)])
def test_the_gaussian_is_an_impulse_filtered_and_reflected_at_its_own_ends(size, sigma):
    impulse = np.eye(size)[size // 2]
    filtered = gaussian_filter1d(impulse, sigma)
    assert_allclose(kernel_window("gaussian", size, sigma), filtered / filtered.sum())
    # The same by hand: fold the tails of a long Gaussian, cut at 4 sigma, back over the ends.
    radius = int(4 * sigma + 0.5)
    tails = np.arange(-radius, radius + 1)
    folded = np.zeros(size)
    for j, weight in zip(tails, np.exp(-(tails**2) / (2 * sigma**2)), strict=True):
        position = (size // 2 + j) % (2 * size)
        folded[min(position, 2 * size - 1 - position)] += weight
    expected = folded / folded.max()
    assert_allclose(kernel_window("gaussian", size, sigma, "max"), expected, rtol=1e-9)


@pytest.mark.parametrize("normalise", ["sum", "max"])
def test_the_other_windows_have_no_reflection(normalise):
    scale = np.sum if normalise == "sum" else np.max
    for kernel, form in {
        "triangular": triang(7),
        "laplace": np.exp(-np.abs(np.arange(-3, 4)) / 1.5) / 3,
    }.items():
        assert_allclose(kernel_window(kernel, 7, 1.5, normalise), form / scale(form))


@pytest.mark.parametrize("kernel", ["gaussian", "triangular", "laplace"])
def test_the_two_normalisations_differ_by_a_factor(kernel):
    by_sum, by_max = kernel_window(kernel), kernel_window(kernel, normalise="max")
    assert by_sum.sum() == pytest.approx(1)
    assert by_max.max() == 1
    assert_allclose(by_sum / by_sum.max(), by_max)


def test_it_is_flatter_than_the_paper_s_gaussian():
    ours, theirs = dirlearn.kernel_window("gaussian", 5, 2.0), kernel_window("gaussian", 5, 2.0)
    assert theirs.min() / theirs.max() == pytest.approx(0.858, abs=5e-4)
    assert ours.min() / ours.max() == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kernel": "hann"}, "'hann'"),
        ({"normalise": "none"}, "'none'"),
        ({"size": 4}, "size must be odd"),
        ({"size": 0}, "size must be at least 1"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": np.nan}, "sigma must be positive"),
    ],
)
def test_kernel_window_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        kernel_window(**arguments)


# ---- reweight


@pytest.mark.parametrize("clip", [None, (5, 30)])
@pytest.mark.parametrize("power", [0.5, 1, 1.0, 0.25])
@pytest.mark.parametrize("kernel", [None, "gaussian", "triangular", "laplace"])
def test_reweight_is_the_loop(kernel, power, clip):
    y = np.random.default_rng(0).gamma(6, 7, 500).clip(0, 101)
    weights = reweight(y, Bins.uniform(0, 101, 1), power, clip, kernel)
    window = [1.0] if kernel is None else kernel_window(kernel).tolist()
    expected = reweighted_by_loop(y, range(102), power, window, clip)
    assert_allclose(weights, expected, rtol=1e-9)


@given(
    y=st.lists(st.floats(-5, 12), min_size=1, max_size=40),
    power=st.sampled_from([0.5, 1]), half=st.integers(0, 4),
)  # fmt: skip
def test_reweight_is_the_loop_for_any_labels(y, power, half):
    size = 2 * half + 1
    weights = reweight(np.array(y), Bins(range(9)), power, None, "gaussian", size)
    window = kernel_window("gaussian", size).tolist()
    assert_allclose(weights, reweighted_by_loop(y, range(9), power, window), rtol=1e-9)


def test_the_power_is_taken_before_the_smoothing():
    y = np.repeat([1.5, 2.5], [1, 100])
    rare, common = reweight(y, Bins(range(5)), 0.5, None, "triangular", 3)[[0, -1]]
    assert rare / common == pytest.approx((0.5 * 1 + 10) / (1 + 0.5 * 10))  # roots 1 and 10
    ours = lds_weights(y, Bins(range(5)), 0.5, "triangular", 3)[[0, -1]]
    assert ours[0] / ours[1] == pytest.approx(np.sqrt((0.5 * 1 + 100) / (1 + 0.5 * 100)))


def test_beyond_the_ends_there_are_no_counts_so_edge_bins_look_rare():
    y = np.arange(9) + 0.5  # equal counts
    bins = Bins(range(10))
    theirs = reweight(y, bins, 0.5, None, "triangular", 3)
    assert theirs[0] / theirs[4] == pytest.approx((0.5 + 1 + 0.5) / (1 + 0.5))
    assert_allclose(lds_weights(y, bins, 0.5, "triangular", 3), 1)


def test_smoothed_counts_are_cut_to_whole_numbers_for_power_one():
    y = np.repeat([1.5, 2.5], [1, 4])
    theirs = reweight(y, Bins(range(5)), 1, None, "triangular", 3)[[0, -1]]
    assert theirs[0] / theirs[1] == pytest.approx(4 / 3)  # 4.5 is cut to 4, not to 4.5 or 5


def test_counts_are_clipped_before_the_power_and_the_smoothing():
    y = np.repeat([0.5, 1.5, 2.5], [1, 10, 5000])
    theirs = reweight(y, Bins(range(4)), 1, (5, 1000))
    assert_allclose(theirs[[0, 1, -1]] / theirs[0], [1, 5 / 10, 5 / 1000])
    smooth = reweight(y, Bins(range(4)), 1, (5, 1000), "triangular", 3)[[0, 1, -1]]
    assert_allclose(1 / smooth * smooth[0] * 10, [10, 512, 1005])  # floor(512.5) = 512


def test_without_smoothing_it_is_the_plain_inverse():
    y = np.random.default_rng(0).gamma(6, 7, 500)
    for power in (0.5, 1):
        ours = lds_weights(y, Bins.uniform(0, 101, 1), power, kernel=None)
        assert_allclose(reweight(y, Bins.uniform(0, 101, 1), power), ours, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_kind_dtype_shape_and_device_are_kept(dtype, device):
    y = torch.tensor([[0.5, 1.5], [1.5, 1.5]], dtype=dtype, device=device, requires_grad=True)
    weights = reweight(y, Bins(range(4)), 1)
    assert (weights.dtype, weights.shape, weights.device.type) == (dtype, y.shape, device.type)
    assert_allclose(weights.double().cpu(), [[2, 2 / 3], [2 / 3, 2 / 3]], rtol=1e-2)


@pytest.mark.parametrize(
    ("y", "options", "words"),
    [
        ([], {}, "y is empty"),
        ([1, np.nan], {}, "NaN"),
        ([np.inf], {}, "NaN or infinite"),
        ([1.0], {"kernel": "gaussian", "size": 4}, "size must be odd"),
        ([1.0], {"kernel": "gaussian", "sigma": -1}, "sigma"),
        ([1.0], {"kernel": "hann"}, "'hann'"),
    ],
    ids=str,
)
def test_reweight_refuses(y, options, words):
    with pytest.raises(ValueError, match=words):
        reweight(np.array(y), Bins([0, 1, 2]), **options)


# ---- what the difference does to the real ages of AgeDB-DIR (paper_vs_code D6)


def test_the_largest_weight_on_agedb_is_22_as_released_and_14_5_as_in_the_paper():
    ages, counts = agedb_labels()
    bins = Bins.uniform(0, 121, 1)
    window = kernel_window("gaussian", 5, 2.0)
    released = reweight(ages, bins, 0.5, None, "gaussian", 5, 2.0)
    paper = lds_weights(ages, bins, 0.5, kernel=window)
    assert ages.size == counts.sum() == 12_208
    assert released.max() == pytest.approx(22.0, abs=0.05)
    assert paper.max() == pytest.approx(14.5, abs=0.05)


def test_the_released_order_raises_tail_weights_on_agedb_by_up_to_1_65():
    ages, counts = agedb_labels()
    # by own computation, on counts padded with zeros: no bins, no library
    window = gaussian_filter1d(np.eye(5)[2], 2.0)
    released = 1 / np.convolve(np.sqrt(counts), window, "same")
    paper = np.sqrt(1 / np.convolve(counts, window, "same"))
    held = counts > 0
    released, paper = (w * counts.sum() / (counts[held] @ w[held]) for w in (released, paper))
    ratio = (released / paper)[held]
    assert ratio.max() == pytest.approx(1.65, abs=0.005)
    assert_allclose(
        reweight(ages, Bins.uniform(0, 121, 1), 0.5, None, "gaussian"), released[ages], rtol=1e-9
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": (10, 1)}, "clip must be"),
        ({"power": -1.0}, "power must be positive"),
        ({"bins": [0, 1, 2]}, "bins must be a dirlearn.Bins"),
    ],
)
def test_reweight_checks_its_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        reweight(np.array([0.5]), **{"bins": Bins([0, 1, 2]), **arguments})

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.signal import get_window
from scipy.signal.windows import gaussian, triang

from dirlearn import kernel_window

NAMES = ["gaussian", "laplace", "triangular", "hann", ("kaiser", 8.0), ("tukey", 0.5)]


@given(kernel=st.sampled_from(NAMES), half=st.integers(0, 15), sigma=st.floats(0.05, 100))
def test_a_window_is_symmetric_and_sums_to_one(kernel, half, sigma):
    window = kernel_window(kernel, 2 * half + 1, sigma)
    assert window.shape == (2 * half + 1,)
    assert window.dtype == np.float64
    assert (window >= 0).all()
    assert_allclose(window, window[::-1], rtol=1e-9, atol=1e-15)
    assert_allclose(window.sum(), 1, rtol=1e-12)
    assert window.argmax() == half or np.isclose(window.max(), window[half])


@pytest.mark.parametrize(("size", "sigma"), [(1, 2.0), (3, 0.5), (5, 2.0), (9, 1.0), (21, 7.5)])
def test_closed_forms(size, sigma):
    j = [i - (size - 1) // 2 for i in range(size)]
    forms = {
        "gaussian": [math.exp(-(i**2) / (2 * sigma**2)) for i in j],
        "laplace": [math.exp(-abs(i) / sigma) for i in j],
        "triangular": [1 - 2 * abs(i) / (size + 1) for i in j],
    }
    for name, form in forms.items():
        assert_allclose(kernel_window(name, size, sigma), np.array(form) / sum(form), rtol=1e-12)


def test_the_default_is_a_true_gaussian_of_five_bins_and_width_two():
    expected = gaussian(5, 2.0)
    assert_allclose(kernel_window(), expected / expected.sum(), rtol=1e-12)
    assert_allclose(kernel_window("triangular", 7), triang(7) / triang(7).sum(), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 5, 11])
@pytest.mark.parametrize(
    "kernel",
    ["boxcar", "hann", "blackman", "bartlett", "parzen", "cosine", "triang",
     ("gaussian", 1.5), ("kaiser", 8.0), ("tukey", 0.5), ("exponential", None, 2.0)],
    ids=str,
)  # fmt: skip
def test_scipy_windows_are_taken_symmetric(kernel, size):
    expected = get_window(kernel, size, fftbins=False)
    assert_allclose(kernel_window(kernel, size), expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1, 1e300])
def test_an_array_is_normalised(scale):
    assert_allclose(kernel_window(np.array([1.0, 2.0, 1.0]) * scale), [0.25, 0.5, 0.25], rtol=1e-12)


def test_an_array_needs_no_size_or_sigma():
    assert kernel_window([1, 2, 1], size=4, sigma=-1).tolist() == [0.25, 0.5, 0.25]
    assert kernel_window([3]).tolist() == [1]


def test_a_tensor_gives_a_tensor(device):
    weights = torch.tensor([1.0, 2.0, 1.0], device=device, requires_grad=True)
    window = kernel_window(weights)
    assert window.device.type == device.type
    assert window.dtype == torch.float64
    assert window.tolist() == [0.25, 0.5, 0.25]


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        ([1, 2, 3], "symmetric"),
        ([1, 2, 1.001], "symmetric"),
        ([-1, 4, -1], "not be negative"),
        ("flattop", "not be negative"),
        ([0, 0, 0], "positive sum"),
        ([[1, 2, 1]], r"1-D, got shape \(1, 3\)"),
        (3.0, r"1-D, got shape \(\)"),
        ([1, 1], "size must be odd"),
        ([], "size must be at least 1"),
        ([1, np.nan, 1], "NaN or infinite"),
        ([1, np.inf, 1], "NaN or infinite"),
        ("gausian", "gausian"),
        (("kaiser",), "kaiser"),
        ("kaiser", "scipy.signal.get_window"),
    ],
    ids=str,
)
def test_bad_kernels_are_refused(kernel, words):
    with pytest.raises(ValueError, match=words):
        kernel_window(kernel)


@pytest.mark.parametrize("kernel", [None, ["a"], [True], [1j]], ids=str)
def test_kernels_that_are_not_numbers_are_refused(kernel):
    with pytest.raises(TypeError, match="kernel must hold real numbers"):
        kernel_window(kernel)


@pytest.mark.parametrize("kernel", ["gaussian", "triangular", "hann"])
def test_bad_sizes_are_refused(kernel):
    with pytest.raises(ValueError, match="got 4; use 3 or 5"):
        kernel_window(kernel, size=4)
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"at least 1, got {size}"):
            kernel_window(kernel, size=size)
    for size in (5.0, "5", None, True):
        with pytest.raises(TypeError, match="whole number of bins"):
            kernel_window(kernel, size=size)


def test_numpy_whole_numbers_are_sizes():
    assert kernel_window(size=np.int32(5)).tolist() == kernel_window(size=5).tolist()


@pytest.mark.parametrize("kernel", ["gaussian", "laplace"])
@pytest.mark.parametrize("sigma", [0, -1, np.nan, np.inf])
def test_bad_sigmas_are_refused(kernel, sigma):
    with pytest.raises(ValueError, match="sigma must be positive and finite"):
        kernel_window(kernel, sigma=sigma)


def test_a_narrow_kernel_keeps_the_middle_bin_alone():
    for kernel in ("gaussian", "laplace"):
        assert kernel_window(kernel, 5, sigma=1e-200).tolist() == [0, 0, 1, 0, 0]

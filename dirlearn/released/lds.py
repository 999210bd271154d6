"""The window and the sample weights of Yang et al. (2021) as their released code computes them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from dirlearn.arrays import Array, ArrayT, look_up, to_numpy
from dirlearn.bins import Bins, check_bins
from dirlearn.kernels import _check_size
from dirlearn.kernels import kernel_window as _paper_window
from dirlearn.lds import Clip, check_clip

KernelName = Literal["gaussian", "triangular", "laplace"]


def kernel_window(
    kernel: KernelName = "gaussian",
    size: int = 5,
    sigma: float = 2.0,
    normalise: Literal["sum", "max"] = "sum",
) -> Array:
    """Window of the released LDS (``utils.py``, divided by its maximum) and FDS (by its sum).

    The Gaussian is not a Gaussian: the code filters a unit impulse of ``size`` bins with a Gaussian
    that is reflected at the impulse's own ends, so the tails fold back and the window comes out
    nearly flat. The triangular and the Laplace window are those of :func:`dirlearn.kernel_window`.

    Raises
    ------
    ValueError
        If ``size`` is even, ``sigma`` not positive, or a name unknown.

    Examples
    --------
    >>> kernel_window("gaussian", 5, 2.0, normalise="max").round(3)
    array([0.858, 0.946, 1.   , 0.946, 0.858])

    Measured in the chapter *Label distribution smoothing*.
    """
    if kernel not in ("gaussian", "triangular", "laplace"):
        raise ValueError(f'kernel must be "gaussian", "triangular" or "laplace", got {kernel!r}')
    if normalise not in ("sum", "max"):
        raise ValueError(f'normalise must be "sum" or "max", got {normalise!r}')
    window = to_numpy(_paper_window(kernel, size, sigma), "kernel")
    if kernel == "gaussian":
        from scipy.ndimage import gaussian_filter1d

        impulse = np.zeros(size)
        impulse[size // 2] = 1.0
        window = gaussian_filter1d(impulse, sigma)
    scale: float = window.sum() if normalise == "sum" else window.max()
    return window / scale


def reweight(
    y: ArrayT,
    bins: Bins,
    power: float = 0.5,
    clip: Clip | None = None,
    kernel: KernelName | None = None,
    size: int = 5,
    sigma: float = 2.0,
) -> ArrayT:
    r"""Sample weights as the released code computes them (``datasets.py``, ``_prepare_weights``).

    .. math:: w_i \propto 1 \Big/ \sum_j k_j\, \big(\operatorname{clip}(n_{b+j})\big)^{p}

    Against :func:`dirlearn.lds_weights`: the power is taken *before* the smoothing; counts are
    clipped before both; beyond the ends the counts are zero, so the edge bins look rarer than they
    are; and with ``power=1`` the smoothed counts are cut to whole numbers, because the convolution
    keeps the integer type of the counts.

    Parameters
    ----------
    y : array of shape (N,)
        Labels of the training set.
    bins : Bins
        The target axis.
    power : float
        0.5 for the code's ``sqrt_inv``, 1 for ``inverse``.
    clip : (low, high), optional
        Limits on the counts. The code uses (5, 1000) for ``inverse`` on ages, and none otherwise.
    kernel, size, sigma
        As for :func:`kernel_window`; None, the default, is the code without ``--lds``.

    Raises
    ------
    ValueError
        If ``y`` is empty, NaN or infinite, ``power`` is not positive, ``clip`` is not
        0 < low <= high, or a window cannot be built.

    Examples
    --------
    >>> ages = np.array([30, 30, 30, 30, 31, 31, 90])
    >>> reweight(ages, Bins.uniform(0, 101, 1), power=0.5, kernel="gaussian").round(2)
    array([0.75, 0.75, 0.75, 0.75, 0.76, 0.76, 2.5 ])

    Measured in the chapter *Label distribution smoothing*.
    """
    from scipy.ndimage import convolve1d

    check_bins(bins)
    if not (power > 0 and np.isfinite(power)):
        raise ValueError(f"power must be positive, such as 1 or 0.5, got {power}")
    index = bins.index(y)
    counts = to_numpy(bins._count(index), "counts")
    if not counts.any():
        raise ValueError("y is empty: there is no label to weigh")
    values = counts if clip is None else np.clip(counts, *check_clip(clip)).astype(counts.dtype)
    if power != 1:
        values = values**power
    if kernel is not None:
        _check_size(size)
        values = convolve1d(values, kernel_window(kernel, size, sigma, "max"), mode="constant")
    held = counts > 0
    weights = np.zeros(counts.size)
    weights[held] = 1.0 / values[held]
    weights *= counts.sum() / (counts @ weights)
    return look_up(weights, index, y)

"""Label distribution smoothing (Yang et al. 2021): from labels to sample weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dirlearn.arrays import Array, ArrayT, check_finite, floating_like, look_up, to_numpy
from dirlearn.bins import Bins, check_bins
from dirlearn.kernels import Kernel, kernel_window

Clip = Sequence[float | None]  # low, high; None leaves a side open


def effective_density(
    counts: ArrayT, kernel: Kernel = "gaussian", size: int = 5, sigma: float = 2.0
) -> ArrayT:
    r"""Label counts smoothed by a symmetric kernel (Yang et al. 2021, section 3.1).

    .. math:: \tilde n_b = \sum_j k_j\, n_{b+j}

    Beyond the first and last bin the counts are mirrored, so that no mass is lost:
    :math:`\sum_b \tilde n_b = \sum_b n_b`, and equal counts stay equal. (The paper's integral has
    nothing there, which makes the ends look rarer than they are.)

    Parameters
    ----------
    counts : array of shape (K,)
        Labels per bin, or any density over the bins; not negative.
    kernel, size, sigma
        As for :func:`dirlearn.kernel_window`.

    Returns
    -------
    array of shape (K,)
        In the floating dtype of ``counts`` (the default one for integers).

    Raises
    ------
    ValueError
        If ``counts`` is not one-dimensional, is empty, negative or not finite; and as
        :func:`dirlearn.kernel_window`.

    Examples
    --------
    >>> effective_density(np.array([0, 0, 4, 0, 0]), kernel="triangular", size=3)
    array([0., 1., 2., 1., 0.])
    >>> effective_density(np.array([4, 0, 0]), kernel="triangular", size=3)
    array([3., 1., 0.])

    Derived in the chapter *Label distribution smoothing*.
    """
    array = _checked_counts(counts, "counts")
    window = to_numpy(kernel_window(kernel, size, sigma), "kernel")
    padded = np.pad(array, window.size // 2, mode="symmetric")
    return floating_like(np.convolve(padded, window, mode="valid"), counts)


def inverse_weights(
    density: ArrayT,
    power: float = 1.0,
    clip: Clip | None = None,
    counts: Any = None,
) -> ArrayT:
    r"""Weight of each bin, inverse to its density, with mean 1 over the samples.

    .. math:: w_b \propto \tilde n_b^{-p}, \qquad \frac1N \sum_b n_b w_b = 1

    Parameters
    ----------
    density : array of shape (K,)
        Counts per bin, or their :func:`effective_density`.
    power : float
        p: 1 for inverse (INV), 0.5 for square-root inverse (SQINV), 0 for equal weights.
    clip : (low, high), optional
        Limits on ``density`` before it is inverted, in samples per bin, None for an open side;
        they bound the weights' ratio by ``(high / low) ** power``. The released code of Yang et
        al. uses (5, 1000) on the raw counts of images.
    counts : array of shape (K,), optional
        Samples per bin over which the mean is 1; ``density`` itself by default.

    Returns
    -------
    array of shape (K,)
        A bin of density zero holds no sample, and its weight is 0.

    Raises
    ------
    ValueError
        If a density or count is negative, not finite or all are zero, shapes differ, ``power`` is
        negative, ``clip`` is not 0 < low <= high, or a bin with samples has density zero.

    Examples
    --------
    >>> weights = inverse_weights(np.array([1, 4, 0]), power=0.5)
    >>> weights.round(4)
    array([1.6667, 0.8333, 0.    ])
    >>> float(weights @ [1, 4, 0] / 5)     # mean over the five samples
    1.0

    Derived in the chapter *Label distribution smoothing*.
    """
    array = _checked_counts(density, "density")
    samples = array if counts is None else _checked_counts(counts, "counts")
    if samples.shape != array.shape:
        raise ValueError(
            f"counts must have the shape of density, {array.shape}, got {samples.shape}"
        )
    if not (power >= 0 and np.isfinite(power)):
        raise ValueError(f"power must be 0 or more, such as 1 or 0.5, got {power}")
    empty = array == 0
    if (samples[empty] > 0).any():
        raise ValueError(
            f"{int((samples[empty] > 0).sum())} of the bins hold samples but have density zero; "
            "use a kernel that is positive in its middle"
        )
    if not samples.sum() > 0:
        raise ValueError("there is nothing to weigh: every bin is empty")
    if clip is not None:
        array = np.clip(array, *check_clip(clip))
    # Divide by the smallest density first: powers of huge or tiny densities then stay in range.
    scale = array[~empty].min()
    with np.errstate(over="ignore"):  # beyond the range of floats the weight is 0
        weights = np.where(empty, 0.0, (np.where(empty, scale, array) / scale) ** -power)
    weights *= samples.sum() / (samples @ weights)
    return floating_like(weights, density)


def lds_weights(
    y: ArrayT,
    bins: Bins,
    power: float = 0.5,
    kernel: Kernel | None = "gaussian",
    size: int = 5,
    sigma: float = 2.0,
    clip: Clip | None = None,
) -> ArrayT:
    r"""Weight of each sample, inverse to the smoothed density of its label, with mean 1.

    .. math:: w_i \propto \tilde n_{b(y_i)}^{-p}, \qquad \frac1N \sum_i w_i = 1

    The density is smoothed first and the power taken second, as the paper's text has it (section
    3.1); the released code does it the other way round: :func:`dirlearn.released.reweight`.

    Parameters
    ----------
    y : array of shape (N,), or any shape for dense targets
        Labels of the training set, in the unit of the bins.
    bins : Bins
        The target axis.
    power : float
        0.5 for square-root inverse (SQINV, the default and the paper's milder scheme), 1 for INV.
    kernel, size, sigma
        As for :func:`dirlearn.kernel_window`. ``kernel=None`` smooths nothing: plain inverse
        weights.
    clip : (low, high), optional
        Limits on the smoothed density, as in :func:`inverse_weights`; a floor, such as (5, None),
        keeps isolated labels from ruling when ``power`` is 1.

    Returns
    -------
    array of the shape of ``y``
        In the floating dtype of ``y`` (the default one for integers), for a weighted loss or
        scikit-learn's ``sample_weight``.

    Raises
    ------
    ValueError
        If ``y`` is empty, NaN or infinite, or outside bins that refuse it; and as
        :func:`inverse_weights` and :func:`dirlearn.kernel_window`.

    Examples
    --------
    >>> ages = np.array([30, 30, 30, 30, 31, 31, 90])
    >>> lds_weights(ages, Bins.uniform(0, 101, 1), power=1.0, kernel="triangular", size=3).round(2)
    array([0.61, 0.61, 0.61, 0.61, 0.76, 0.76, 3.04])

    Derived in the chapter *Label distribution smoothing*.
    """
    check_bins(bins)
    index = bins.index(y)
    counts = to_numpy(bins._count(index), "counts")
    if not counts.any():
        raise ValueError("y is empty: there is no label to weigh")
    density = counts if kernel is None else effective_density(counts, kernel, size, sigma)
    return look_up(inverse_weights(density, power, clip, counts), index, y)


def check_clip(clip: Any) -> tuple[float, float]:
    """Return ``clip`` if it is two limits with 0 < low <= high; None leaves a side open.

    Examples
    --------
    >>> check_clip((5, None))
    (5, inf)
    >>> check_clip(5)
    Traceback (most recent call last):
    ValueError: clip must be (low, high) with 0 < low <= high, None for an open side, got 5
    """
    if isinstance(clip, Sequence) and len(clip) == 2:
        low = 0.0 if clip[0] is None else clip[0]
        high = np.inf if clip[1] is None else clip[1]
        if (low > 0 or clip[0] is None) and low <= high:
            return low, high
    raise ValueError(
        f"clip must be (low, high) with 0 < low <= high, None for an open side, got {clip}"
    )


def _checked_counts(values: Any, name: str) -> Array:
    array = to_numpy(values, name).astype(np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must hold one number per bin, shape (K,), got {array.shape}")
    check_finite(array, name)
    if (array < 0).any():
        raise ValueError(f"{name} must not be negative, got {array.min():g}")
    return array

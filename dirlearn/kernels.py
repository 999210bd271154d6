"""Symmetric smoothing windows over neighbouring bins."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from dirlearn.arrays import Array, check_finite, like, to_numpy

Kernel = Any  # a name, a tuple that scipy.signal.get_window knows, or an array


def kernel_window(kernel: Kernel = "gaussian", size: int = 5, sigma: float = 2.0) -> Any:
    r"""Weights of the bins at distance :math:`j = -(l-1)/2, \dots, (l-1)/2`, summing to 1.

    .. math::
        k_j \propto \exp(-j^2 / 2\sigma^2) \;\text{(gaussian)}, \quad
        \exp(-|j| / \sigma) \;\text{(laplace)}, \quad
        1 - \tfrac{2|j|}{l + 1} \;\text{(triangular)}

    Parameters
    ----------
    kernel : str, tuple or array
        ``"gaussian"``, ``"laplace"``, ``"triangular"``; or any other name or tuple that
        :func:`scipy.signal.get_window` knows, such as ``"hann"`` or ``("kaiser", 8.0)``, taken
        symmetric; or the weights themselves, symmetric, not negative, of odd length (``size`` and
        ``sigma`` are then not used).
    size : int
        Number of bins l that the window spans, odd. Default 5 (Yang et al. 2021).
    sigma : float
        Width of the Gaussian and the Laplace window, in bins. Default 2 (same source).

    Returns
    -------
    array of shape (size,)
        In ``float64``; a tensor if ``kernel`` is a tensor.

    Raises
    ------
    ValueError
        If ``size`` is even or not positive, ``sigma`` is not positive, the name is unknown, or the
        weights are asymmetric, negative or all zero.
    TypeError
        If ``size`` is not a whole number.

    Notes
    -----
    The released code of Yang et al. filters a unit impulse with its own cut and reflected Gaussian,
    which comes out flatter: see :func:`dirlearn.released.kernel_window`.

    Examples
    --------
    >>> kernel_window("gaussian", size=5, sigma=2.0).round(3)
    array([0.152, 0.222, 0.251, 0.222, 0.152])
    >>> kernel_window("triangular", size=3)
    array([0.25, 0.5 , 0.25])
    >>> kernel_window([1, 2, 1])
    array([0.25, 0.5 , 0.25])
    >>> kernel_window("gaussian", size=4)
    Traceback (most recent call last):
    ValueError: size must be odd, so that the window has a middle bin, got 4; use 3 or 5

    Derived in the chapter *Label distribution smoothing*.
    """
    if isinstance(kernel, str | tuple):
        _check_size(size)
        window = _named_window(kernel, int(size), sigma)
    else:
        window = to_numpy(kernel, "kernel").astype(np.float64)
        if window.ndim != 1:
            raise ValueError(f"a kernel given as an array must be 1-D, got shape {window.shape}")
        _check_size(window.size)
    check_finite(window, "kernel")
    if not np.allclose(window, window[::-1], rtol=1e-6, atol=1e-12 * np.abs(window).max()):
        raise ValueError(
            "the kernel must be symmetric, k(y, y') = k(y', y), or smoothing shifts the labels; "
            f"got {np.array2string(window, precision=4, threshold=9)}"
        )
    if (window < 0).any() or window.sum() <= 0:
        raise ValueError(
            "the kernel must not be negative and must have a positive sum, or a density could "
            f"become negative; got {np.array2string(window, precision=4, threshold=9)}"
        )
    return like(window / window.sum(), kernel)


def _check_size(size: Any) -> None:
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise TypeError(f"size must be a whole number of bins, got {size!r}")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if size % 2 == 0:
        raise ValueError(
            f"size must be odd, so that the window has a middle bin, got {size}; "
            f"use {size - 1} or {size + 1}"
        )


def _named_window(kernel: str | tuple[Any, ...], size: int, sigma: float) -> Array:
    distance = np.abs(np.arange(size) - size // 2)
    if kernel in ("gaussian", "laplace") and not (sigma > 0 and np.isfinite(sigma)):
        raise ValueError(f"sigma must be positive and finite, got {sigma}")
    with np.errstate(over="ignore"):  # a far bin under a narrow kernel: exp(-inf) = 0
        if kernel == "gaussian":
            return np.exp(-0.5 * (distance / sigma) ** 2)
        if kernel == "laplace":
            return np.exp(-distance / sigma)
    if kernel == "triangular":
        return 1 - 2 * distance / (size + 1)
    from scipy.signal import get_window  # slow to import, and most calls need none of it

    try:
        # Some windows end in zeros of either sign, up to rounding (hann, -1e-17): those are zeros.
        window = np.asarray(get_window(kernel, size, fftbins=False), dtype=np.float64)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'kernel must be "gaussian", "laplace", "triangular", a name or tuple that '
            f"scipy.signal.get_window knows, or an array; got {kernel!r} ({error})"
        ) from error
    return np.where(np.abs(window) < 1e-12 * np.abs(window).max(), 0.0, window)

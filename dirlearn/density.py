"""How densely labels lie, without bins: a kernel density, and weights from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from dirlearn.arrays import Array, ArrayT, check_finite, floating_like, to_numpy

Bandwidth = Literal["silverman", "scott"] | float
STEPS = 32  # grid points per bandwidth
REACH = 8  # bandwidths beyond which a Gaussian is nothing: exp(-32) = 1e-14
LARGEST = 2**24  # grid points


def kde_density(
    y: ArrayT,
    bandwidth: Bandwidth = "silverman",
    at: ArrayT | None = None,
    support: tuple[float | None, float | None] = (None, None),
) -> ArrayT:
    r"""Gaussian kernel density of the labels ``y``, at each of them or elsewhere.

    .. math:: p(t) = \frac{1}{N h} \sum_{i=1}^N \varphi\Big(\frac{t - y_i}{h}\Big), \qquad
        \varphi(u) = e^{-u^2/2} / \sqrt{2\pi}

    The binless relative of :func:`dirlearn.effective_density`: on fine bins, a Gaussian window of
    the same width gives the same density. Inverse weights come as from counts, by
    ``inverse_weights(kde_density(y), power, counts=np.ones(len(y)))``.

    Parameters
    ----------
    y : array of any shape
        Labels of the training set.
    bandwidth : "silverman", "scott" or float
        h, the kernel's standard deviation in the unit of the labels; or a rule to choose it:
        :math:`(3N/4)^{-1/5} s` (Silverman 1986, the default) or :math:`N^{-1/5} s` (Scott 1992),
        with s the sample standard deviation. Both rules are made for one Gaussian hump and smooth
        several humps into one.
    at : array, optional
        Where to evaluate; ``y`` itself by default.
    support : (low, high)
        Ends of the range of labels, None for an open side, the default. At an end the density is
        mirrored, as :func:`dirlearn.effective_density` mirrors counts; without that, labels near an
        end look up to twice as rare as they are.

    Returns
    -------
    array of the shape of ``at``
        Density per unit of the label, in the floating dtype of ``at``. Outside ``support`` it is 0.

    Raises
    ------
    ValueError
        If ``y`` is empty, or a label is NaN, infinite or outside ``support``; if ``bandwidth`` is
        not positive, or a rule is asked for and the labels do not vary; if the labels span over
        half a million bandwidths, which no grid can resolve; if ``support`` is not (low, high), or
        narrower than the bandwidth.

    Notes
    -----
    Labels are dealt out to a grid of 32 points per bandwidth by cubic interpolation, convolved by
    fast Fourier transform, and read off in the same way: N + G log G steps for G grid points,
    not N squared. Compared with the sum above the error is below 1e-5 of the density at every
    label, and below 1e-6 of the density's peak elsewhere.

    Examples
    --------
    >>> kde_density(np.array([0.0, 0.0, 3.0]), bandwidth=1.0).round(4)
    array([0.2674, 0.2674, 0.1359])
    >>> kde_density(np.array([0.0]), bandwidth=1.0, at=np.array([0.0, 1.0])).round(4)
    array([0.3989, 0.242 ])

    Used in the chapter *Re-weighting and re-sampling*.
    """
    labels = to_numpy(y, "y").astype(np.float64).reshape(-1)
    places = labels if at is None else to_numpy(at, "at").astype(np.float64)
    if labels.size == 0:
        raise ValueError("y is empty: no labels have no density")
    check_finite(labels, "y")
    check_finite(places, "at")
    low, high = _check_support(support, labels)
    h = _width(labels, bandwidth)
    if h > high - low:
        raise ValueError(
            f"a bandwidth of {h:g} is wider than the support {support}, where the density would be "
            "flat; give a narrower bandwidth"
        )
    density = _on_grid(labels, h)
    total = sum(density(image) for image in _images(places, low, high, h))
    total = np.where((places >= low) & (places <= high), total, 0.0)
    return floating_like(total.reshape(np.shape(y if at is None else at)), y if at is None else at)


def dense_weights(
    y: ArrayT,
    alpha: float = 1.0,
    bandwidth: Bandwidth = "silverman",
    epsilon: float = 1e-6,
    support: tuple[float | None, float | None] = (None, None),
) -> ArrayT:
    r"""DenseWeight (Steininger et al. 2021): weights that fall linearly with the labels' density.

    .. math:: w_i \propto \max(1 - \alpha\, p'(y_i),\ \epsilon), \qquad
        p' = \frac{p - \min_j p(y_j)}{\max_j p(y_j) - \min_j p(y_j)}, \qquad
        \frac1N \sum_i w_i = 1

    The rarest label weighs as much as any can, the commonest ``1 - alpha`` of it: however unequal
    the densities are, their ratio does not enter, only their order and relative distance.

    Parameters
    ----------
    y : array of any shape
        Labels of the training set.
    alpha : float
        How much density counts: 0 not at all, 1 (the default) until the commonest label weighs
        ``epsilon``; above 1 ever more of the common labels weigh no more than that.
    bandwidth, support
        As for :func:`kde_density`. The paper uses Silverman's rule and no support.
    epsilon : float
        Smallest weight before the mean is made 1. Default 1e-6 (the authors' package).

    Returns
    -------
    array of the shape of ``y``
        In the floating dtype of ``y``. All 1 where the density is the same at every label, up to
        the accuracy of :func:`kde_density`.

    Raises
    ------
    ValueError
        If ``alpha`` is negative or not finite, ``epsilon`` is not between 0 and 1; and as
        :func:`kde_density`.

    Notes
    -----
    The authors' package ``denseweight`` takes minimum and maximum over its grid, which ends where
    the density is nothing, so that there the rarest label falls a little short of the full weight.

    Examples
    --------
    >>> y = np.array([1.0, 1.1, 1.2, 1.3, 4.0])
    >>> dense_weights(y, bandwidth=0.5).round(2)
    array([0.23, 0.  , 0.  , 0.23, 4.54])
    >>> dense_weights(y, alpha=0.5, bandwidth=0.5).round(2)
    array([0.86, 0.82, 0.82, 0.86, 1.64])

    Used in the chapter *Re-weighting and re-sampling*.
    """
    if not (alpha >= 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha must be 0 or more, such as 1, got {alpha}")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie between 0 and 1, such as 1e-6, got {epsilon}")
    labels = to_numpy(y, "y").astype(np.float64)
    density = kde_density(labels, bandwidth, support=support)
    span = density.max() - density.min()
    if span <= 1e-5 * density.max():  # no more than the density's error
        return floating_like(np.ones_like(density), y)
    weights = np.maximum(1 - alpha * (density - density.min()) / span, epsilon)
    return floating_like(weights / weights.mean(), y)


def _width(labels: Array, bandwidth: Any) -> float:
    rules = {"silverman": 0.75, "scott": 1.0}
    if isinstance(bandwidth, str):
        if bandwidth not in rules:
            raise ValueError(
                f'bandwidth must be "silverman", "scott" or a number, got {bandwidth!r}'
            )
        with np.errstate(over="ignore"):  # said better below
            spread = labels.std(ddof=1) if labels.size > 1 else 0.0
        if not 0 < spread < math.inf:
            raise ValueError(
                f"the rule {bandwidth!r} needs labels that vary within the range of floats, got "
                f"standard deviation {spread:g}; give bandwidth as a number"
            )
        return float((rules[bandwidth] * labels.size) ** -0.2 * spread)
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise ValueError(f"bandwidth must be positive and finite, got {bandwidth}")
    return float(bandwidth)


def _check_support(support: Any, labels: Array) -> tuple[float, float]:
    if isinstance(support, tuple | list) and len(support) == 2:
        low = -math.inf if support[0] is None else float(support[0])
        high = math.inf if support[1] is None else float(support[1])
        if low < high:
            if labels.min() < low or labels.max() > high:
                raise ValueError(
                    f"labels span {labels.min():g} to {labels.max():g}, beyond the support "
                    f"{support}; widen it"
                )
            return low, high
    raise ValueError(f"support must be (low, high), None for an open side, got {support}")


def _images(places: Array, low: float, high: float, h: float) -> Iterator[Array]:
    """The places and their mirror images in the ends of the support, as far as a kernel reaches."""
    if math.isfinite(high - low):  # between two mirrors each image has images of its own
        period = 2 * (high - low)
        rounds = math.ceil(REACH * h / period + 0.5)
        for k in range(-rounds, rounds + 1):
            yield places + k * period
            yield 2 * low - places + k * period
        return
    yield places
    for end in (low, high):
        if math.isfinite(end):
            yield 2 * end - places


def _on_grid(labels: Array, h: float) -> Callable[[Array], Array]:
    """Density as a function, from a convolution on a grid that reaches beyond the labels."""
    from scipy.signal import oaconvolve  # slow to import, and most of the library needs none of it

    step, margin = h / STEPS, REACH * STEPS + 2
    start = labels.min()
    with np.errstate(over="ignore"):  # said better below
        span = (labels.max() - start) / step
    if not span < LARGEST:
        raise ValueError(
            f"the labels span {span / STEPS:.3g} bandwidths of {h:g}, more than a grid can "
            "resolve; give a wider bandwidth, or transform a target with so long a tail"
        )
    points = int(span) + 2 * margin + 2

    def shares(values: Array) -> tuple[Array, Array]:
        """Grid points around each value, (4, N), and what each contributes to it."""
        with np.errstate(over="ignore"):  # infinitely far is as far as the edge of the grid
            position = np.clip((values - start) / step + margin, 1, points - 3)
        cell = position.astype(np.int64)
        s = position - cell
        weights = np.stack(
            [
                -s * (s - 1) * (s - 2) / 6,
                (s + 1) * (s - 1) * (s - 2) / 2,
                -(s + 1) * s * (s - 2) / 2,
                (s + 1) * s * (s - 1) / 6,
            ]
        )
        return cell + np.arange(-1, 3).reshape(4, *(1,) * s.ndim), weights

    index, weights = shares(labels)
    masses = np.bincount(index.ravel(), weights.ravel(), minlength=points)
    distance = np.arange(-REACH * STEPS, REACH * STEPS + 1) / STEPS
    kernel = np.exp(-0.5 * distance**2) / (math.sqrt(2 * math.pi) * h * labels.size)
    grid = oaconvolve(masses, kernel, mode="same")
    grid[[0, 1, -2, -1]] = 0.0  # beyond the kernel's reach: what is clipped to them is 0

    def density(values: Array) -> Array:
        index, weights = shares(values)
        read: Array = (weights * grid[index]).sum(axis=0)
        return np.maximum(read, 0.0)

    return density

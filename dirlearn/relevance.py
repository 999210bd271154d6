"""Relevance (Torgo & Ribeiro 2007): how much a value of the target matters, between 0 and 1."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dirlearn.arrays import Array, ArrayT, check_finite, floating_like, to_numpy

Extremes = Literal["both", "low", "high"]


class Relevance:
    r"""A smooth function from labels to relevance in [0, 1], through control points.

    Between two control points :math:`(t_j, \phi_j)` and :math:`(t_{j+1}, \phi_{j+1})` runs the
    cubic that is level at both,

    .. math:: \phi(y) = \phi_j + (\phi_{j+1} - \phi_j)\, s^2 (3 - 2s),
        \qquad s = \frac{y - t_j}{t_{j+1} - t_j},

    so that the function never leaves the interval between them. Beyond the first and last point it
    keeps their values. This is the monotone Hermite spline of Ribeiro (2011) with derivative 0 at
    every control point, her choice for points that mark where relevance is least or greatest.

    Parameters
    ----------
    points : array of shape (P,)
        Labels, increasing, at least two; in the unit of the target.
    values : array of shape (P,)
        Relevance of each point, in [0, 1].

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than two points, they do not increase, something is not
        finite, or a value lies outside [0, 1].
    TypeError
        If an argument does not hold real numbers.

    Examples
    --------
    >>> phi = Relevance([20, 50, 80], [1, 0, 1])     # both ends of life matter
    >>> phi(np.array([10.0, 35.0, 50.0, 80.0]))
    array([1. , 0.5, 0. , 1. ])
    >>> phi
    Relevance([20, 50, 80], [1, 0, 1])

    Derived in the chapter *Re-weighting and re-sampling*.
    """

    def __init__(self, points: Any, values: Any) -> None:
        where = to_numpy(points, "points").astype(np.float64) + 0.0  # -0.0 becomes 0.0: one hash
        what = to_numpy(values, "values").astype(np.float64) + 0.0
        if where.ndim != 1 or where.size < 2:
            raise ValueError(
                f"points must be one-dimensional with at least two entries, got shape {where.shape}"
            )
        if what.shape != where.shape:
            raise ValueError(
                f"values must hold one relevance per point, shape {where.shape}, got {what.shape}"
            )
        check_finite(where, "points")
        check_finite(what, "values")
        steps = np.diff(where)
        if not (steps > 0).all():
            first = int(np.argmin(steps > 0))
            raise ValueError(
                f"points must increase, got {where[first]:g} then {where[first + 1]:g} at position "
                f"{first}; sort them together with their values, and give each label once"
            )
        if what.min() < 0 or what.max() > 1:
            raise ValueError(
                f"values must lie between 0 and 1, got {what.min():g} to {what.max():g}"
            )
        where.setflags(write=False)
        what.setflags(write=False)
        self.points: npt.NDArray[np.float64] = where
        self.values: npt.NDArray[np.float64] = what

    @classmethod
    def from_data(cls, y: Any, extremes: Extremes = "both", coef: float = 1.5) -> Relevance:
        r"""Relevance 0 at the median and 1 from the whiskers of the box plot on (Ribeiro 2011).

        The box reaches from the lower to the upper hinge (Tukey 1977: the medians of the lower and
        upper half of the labels). A whisker ends at the last label within ``coef`` box lengths of
        the box; labels beyond are outliers. A side gets relevance only if it has outliers.

        Parameters
        ----------
        y : array of any shape
            Labels of the training set.
        extremes : {"both", "low", "high"}
            The sides that may be relevant.
        coef : float
            Length of the whiskers in lengths of the box (default 1.5: Tukey 1977).

        Raises
        ------
        ValueError
            If ``y`` is empty or not finite, or an option is unknown; if no side has outliers, for
            then the relevance would be 0 everywhere; if half of the labels or more are equal, so
            that a whisker ends at the median.

        Examples
        --------
        >>> prices = np.array([1, 2, 3, 4, 5, 6, 7, 8, 30])
        >>> Relevance.from_data(prices)
        Relevance([5, 8], [0, 1])
        >>> Relevance.from_data(prices, extremes="low")
        Traceback (most recent call last):
        ValueError: no label lies below the box plot's lower whisker, which ends at 1, so ...
        """
        if extremes not in ("both", "low", "high"):
            raise ValueError(f'extremes must be "both", "low" or "high", got {extremes!r}')
        if not (coef > 0 and np.isfinite(coef)):
            raise ValueError(f"coef must be positive, such as 1.5, got {coef}")
        labels = np.sort(to_numpy(y, "y").astype(np.float64).reshape(-1))
        if labels.size == 0:
            raise ValueError("y is empty: there is no label to take a median of")
        check_finite(labels, "y")
        middle, low, high = _box_plot(labels, coef)
        below = extremes != "high" and labels[0] < low
        above = extremes != "low" and labels[-1] > high
        if not (below or above):
            raise ValueError(_no_outliers(extremes, low, high, labels, middle))
        control = [(low, 1)] * int(below) + [(middle, 0)] + [(high, 1)] * int(above)
        points, values = zip(*control, strict=True)
        if not all(left < right for left, right in pairwise(points)):
            raise ValueError(
                f"a whisker of the box plot ends at the median, {middle:g}, for that label fills "
                "the box; say which labels matter with Relevance(points, values)"
            )
        return cls(points, values)

    def __call__(self, y: ArrayT) -> ArrayT:
        """Relevance of each label, of the shape of ``y`` and in its floating dtype.

        Raises
        ------
        ValueError
            If a label is NaN or infinite.
        TypeError
            If ``y`` does not hold real numbers.

        Examples
        --------
        >>> import torch
        >>> Relevance([0, 1], [0, 1])(torch.tensor([-1.0, 0.25, 2.0]))
        tensor([0.0000, 0.1562, 1.0000])
        """
        labels = to_numpy(y, "y")
        check_finite(labels, "y")
        labels = labels.astype(np.float64)
        left = np.searchsorted(self.points[1:-1], labels, side="right")
        start, width = self.points[left], np.diff(self.points)[left]
        low, rise = self.values[left], np.diff(self.values)[left]
        s = ((labels - start) / width).clip(0, 1)
        # Rounding may carry the cubic a hair beyond its ends, and a threshold of 1 must be met.
        phi = np.clip(low + rise * (s * s * (3 - 2 * s)), 0, 1)
        return floating_like(phi, y)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Relevance)
            and np.array_equal(self.points, other.points)
            and np.array_equal(self.values, other.values)
        )

    def __hash__(self) -> int:
        return hash((self.points.tobytes(), self.values.tobytes()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.points, self.values)  # a pickled array would come back writable

    def __repr__(self) -> str:
        points, values = (", ".join(f"{x:g}" for x in a) for a in (self.points, self.values))
        return f"Relevance([{points}], [{values}])"


def relevance(y: ArrayT, extremes: Extremes = "both", coef: float = 1.5) -> ArrayT:
    """Relevance of each label by the box plot of all: ``Relevance.from_data(y)(y)``.

    Parameters and errors are those of :meth:`Relevance.from_data`.

    Examples
    --------
    >>> relevance(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 30.0])).round(2)
    array([0.  , 0.  , 0.  , 0.  , 0.  , 0.26, 0.74, 1.  , 1.  ])

    Derived in the chapter *Re-weighting and re-sampling*.
    """
    return Relevance.from_data(y, extremes, coef)(y)


def _box_plot(labels: Array, coef: float) -> tuple[float, float, float]:
    """Median and the ends of both whiskers, from sorted labels."""
    size = labels.size
    lower = np.median(labels[: (size + 1) // 2])  # an odd one out is in both halves
    upper = np.median(labels[size // 2 :])
    reach = coef * (upper - lower)
    low = labels[labels >= lower - reach][0]
    high = labels[labels <= upper + reach][-1]
    return float(np.median(labels)), float(low), float(high)


def _no_outliers(extremes: Extremes, low: float, high: float, labels: Array, middle: float) -> str:
    beyond = {
        "low": f"below the box plot's lower whisker, which ends at {low:g}",
        "high": f"above the box plot's upper whisker, which ends at {high:g}",
        "both": f"beyond the box plot's whiskers, {low:g} to {high:g}",
    }[extremes]
    ends, values = {
        "low": (f"[{labels[0]:g}, {middle:g}]", "[1, 0]"),
        "high": (f"[{middle:g}, {labels[-1]:g}]", "[0, 1]"),
        "both": (f"[{labels[0]:g}, {middle:g}, {labels[-1]:g}]", "[1, 0, 1]"),
    }[extremes]
    return (
        f"no label lies {beyond}, so the relevance would be 0 everywhere; lower coef, or say which "
        f"labels matter, as in Relevance({ends}, {values})"
    )

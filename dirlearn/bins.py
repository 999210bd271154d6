"""The target axis cut into intervals: the one object that smoothing, metrics and plots share."""

from __future__ import annotations

import operator
from decimal import Decimal
from fractions import Fraction
from numbers import Real
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dirlearn.arrays import Array, ArrayT, check_finite, like, to_numpy
from dirlearn.locate import locate, rounded

Region = Literal["many", "medium", "few", "zero"]
REGIONS: tuple[Region, ...] = ("many", "medium", "few", "zero")


class Bins:
    """K intervals of the target axis, given by their K + 1 edges.

    Bin k is ``[edges[k], edges[k + 1])``; the last bin is closed. Labels are compared with the
    edges in the labels' own precision, so that a ``float32`` 0.7 falls where 0.7 falls.

    Parameters
    ----------
    edges : array of shape (K + 1,)
        Increasing and finite, in the unit of the target.
    outside : {"clip", "error"}
        What becomes of labels beyond the first or last edge: they count in the edge bins, as in the
        released code of Yang et al. (2021), or they are refused.

    Raises
    ------
    ValueError
        If the edges are not one-dimensional, finite and increasing, or fewer than two; if
        ``outside`` is neither word.

    Examples
    --------
    >>> bins = Bins([0, 18, 65, 120])
    >>> bins.index(np.array([3.5, 18.0, 64.9, 120.0]))
    array([0, 1, 1, 2])
    >>> bins.counts(torch.tensor([3.5, 18.0, 64.9]))
    tensor([1, 2, 0])
    >>> bins.centers
    array([ 9. , 41.5, 92.5])

    Derived in the chapter *Imbalance in continuous targets*.
    """

    def __init__(self, edges: Any, outside: Literal["clip", "error"] = "clip") -> None:
        array = to_numpy(edges, "edges").astype(np.float64) + 0.0  # -0.0 becomes 0.0: one hash
        if array.ndim != 1 or array.size < 2:
            raise ValueError(
                f"edges must be one-dimensional with at least two entries, got shape {array.shape}"
            )
        check_finite(array, "edges")
        steps = np.diff(array)
        if not (steps > 0).all():
            where = int(np.argmin(steps > 0))
            raise ValueError(
                f"edges must increase, got {array[where]:g} then {array[where + 1]:g} at position "
                f"{where}; sort them and drop repeats (np.unique does both)"
            )
        if outside not in ("clip", "error"):
            raise ValueError(f'outside must be "clip" or "error", got {outside!r}')
        array.setflags(write=False)
        self.edges: npt.NDArray[np.float64] = array
        self._edges = torch.from_numpy(array.copy())  # for accelerators and compiled graphs
        self.outside = outside

    @classmethod
    def uniform(
        cls, low: float, high: float, width: float, outside: Literal["clip", "error"] = "clip"
    ) -> Bins:
        """Bins of equal width from ``low`` to ``high``.

        The edges are the floats that a person would type: with width 0.1 the fourth edge is 0.3,
        not the 0.30000000000000004 that ``3 * 0.1`` gives.

        Raises
        ------
        ValueError
            If ``width`` is not positive, ``high`` is not above ``low``, or the range is not a whole
            number of widths.

        Examples
        --------
        >>> len(Bins.uniform(0, 101, 1))     # ages
        101
        >>> Bins.uniform(0, 5, 0.1).edges[3]  # similarity scores
        np.float64(0.3)
        >>> Bins.uniform(-2, 16, 4)
        Traceback (most recent call last):
        ValueError: the range [-2, 16] is not a whole number of widths 4; end at 14 or 18
        """
        for name, value in (("low", low), ("high", high), ("width", width)):
            _check_number(name, value)
        if not width > 0:
            raise ValueError(f"width must be positive, got {width}")
        if not high > low:
            raise ValueError(f"high must be above low, got low {low} and high {high}")
        start, stop, step = (Fraction(Decimal(str(v))) for v in (low, high, width))
        number = round((stop - start) / step)
        if number < 1 or abs(start + number * step - stop) > step / 10**9:
            below = start + ((stop - start) // step) * step
            ends = [f"{float(e):.15g}" for e in (below, below + step) if e > start]
            raise ValueError(
                f"the range [{low}, {high}] is not a whole number of widths {width}; "
                f"end at {' or '.join(ends)}"
            )
        step = (stop - start) / number
        return cls([float(start + k * step) for k in range(number + 1)], outside)

    @classmethod
    def quantile(cls, y: Any, n: int) -> Bins:
        """``n`` bins that hold equally many of the labels ``y``, fewer where ties forbid it.

        For plots and balanced errors. Bins of equal counts lie in one shot region and get equal
        weights, so for those use bins of equal width.

        Raises
        ------
        ValueError
            If ``y`` is empty, not finite, or holds a single distinct value; if ``n`` < 1.

        Examples
        --------
        >>> Bins.quantile(np.arange(9.0), 4).edges
        array([0., 2., 4., 6., 8.])
        """
        labels = _distinct_labels(y)
        if operator.index(n) < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        # np.quantile's positions are off by a rounding, which moves a label across its own edge.
        whole, part = np.divmod(np.arange(n + 1) * (labels.size - 1), n)
        labels = np.sort(labels)
        below, above = labels[whole], labels[np.minimum(whole + 1, labels.size - 1)]
        return cls(np.unique(below + (above - below) * (part / n)))

    @classmethod
    def from_data(cls, y: Any, max_bins: int = 256) -> Bins:
        """Bins of equal width by the rule of Freedman and Diaconis (1981), at most ``max_bins``.

        The width is ``2 IQR / N^(1/3)``. Whole-number labels get a whole-number width, so that no
        bin is empty for want of a number in it. Where half of the labels are equal (IQR 0), the
        number of bins is Sturges' ``1 + log2 N``.

        A very heavy tail stretches the range until most labels share a bin: bin the logarithm of
        the target then, or give edges such as ``np.geomspace`` makes.

        Raises
        ------
        ValueError
            If ``y`` is empty, not finite, or holds a single distinct value; if ``max_bins`` < 1.

        Examples
        --------
        >>> Bins.from_data(np.random.default_rng(0).normal(size=1000))
        Bins(27 bins from -3.89942 to 3.06604, outside="clip")
        >>> Bins.from_data([1, 1, 2, 3, 5, 8]).edges
        array([1., 5., 9.])
        """
        labels = _distinct_labels(y)
        if max_bins < 1:
            raise ValueError(f"max_bins must be at least 1, got {max_bins}")
        low, high = float(labels.min()), float(labels.max())
        lower, upper = np.quantile(labels, [0.25, 0.75])
        width = 2 * (upper - lower) / np.cbrt(labels.size)
        if width <= 0:
            width = (high - low) / (1 + np.log2(labels.size))
        # Beyond 2^53 every float is whole, and says nothing of the labels.
        if np.abs(labels).max() < 2**53 and (labels == np.round(labels)).all():
            width = np.ceil(max(width, (high - low + 1) / max_bins))
            number = int((high - low) // width) + 1
            return cls(low + width * np.arange(number + 1))
        with np.errstate(over="ignore"):  # infinitely many bins are capped like any others
            number = int(min(max_bins, np.ceil((high - low) / width)))
        return cls(np.linspace(low, high, number + 1))

    def __len__(self) -> int:
        return self.edges.size - 1

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Bins)
            and self.outside == other.outside
            and np.array_equal(self.edges, other.edges)
        )

    def __hash__(self) -> int:
        return hash((self.edges.tobytes(), self.outside))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.edges, self.outside)  # a pickled array would come back writable

    def __repr__(self) -> str:
        low, high = self.edges[0], self.edges[-1]
        return f'Bins({len(self)} bins from {low:g} to {high:g}, outside="{self.outside}")'

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """Midpoints of the bins, shape (K,)."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def index(self, y: ArrayT) -> ArrayT:
        """Bin of each label: integers in 0..K-1, of the shape of ``y``.

        Equal to ``searchsorted(edges, y, side="right") - 1`` with the edges rounded to the dtype of
        ``y``, the last bin closed, and labels outside clipped or refused. No label gives no index.

        Raises
        ------
        TypeError
            If ``y`` does not hold real numbers.
        ValueError
            If a label is NaN or infinite, or lies outside and ``outside="error"``.

        Examples
        --------
        >>> Bins.uniform(0, 5, 0.1).index(np.array([0.3, 0.7, 5.0, 9.9]))
        array([ 3,  7, 49, 49])
        """
        if isinstance(y, Tensor):
            if y.device.type != "cpu" or torch.compiler.is_compiling():
                return self._index_on_device(y)
        labels = to_numpy(y, "y")
        edges: Array = self.edges
        if labels.dtype.kind == "f":
            precision: Any = labels.dtype
            if isinstance(y, Tensor):  # bfloat16 has come out of to_numpy as float32
                precision = y.dtype
            edges = rounded(edges, precision)
        index = locate(labels, edges)
        self._refuse_outside(labels, edges)
        return like(index, y)

    def _index_on_device(self, y: Tensor) -> Tensor:
        if y.dtype.is_complex or y.dtype == torch.bool:
            raise TypeError(f"y must hold real numbers, got dtype {y.dtype}")
        y = y.detach()
        # A compiled graph cannot stop to look: there, labels are taken as they come.
        if not torch.compiler.is_compiling() and not y.isfinite().all():
            check_finite(to_numpy(y, "y"), "y")
        precision = y.dtype if y.is_floating_point() else torch.float64
        edges = self._edges.to(y.device, precision)
        self._refuse_outside(y, edges)
        found = torch.bucketize(y.to(precision).contiguous(), edges, right=True)
        return (found - 1).clamp_(0, len(self) - 1)

    def _refuse_outside(self, y: Any, edges: Any) -> None:
        if self.outside == "clip" or torch.compiler.is_compiling():
            return
        out = (y < edges[0]) | (y > edges[-1])
        if out.any():
            raise ValueError(
                f"{int(out.sum())} of the labels lie outside [{self.edges[0]:g}, "
                f"{self.edges[-1]:g}] (all span {float(y.min()):g} to {float(y.max()):g}); widen "
                'the edges, or use outside="clip" to count them in the edge bins'
            )

    def counts(self, y: ArrayT) -> ArrayT:
        """Labels per bin: integers of shape (K,). Errors as for :meth:`index`.

        Examples
        --------
        >>> Bins.uniform(0, 3, 1).counts(np.array([0.5, 2.5, 2.0]))
        array([1, 0, 2])
        """
        return self._count(self.index(y))

    def _count(self, index: ArrayT) -> ArrayT:
        if isinstance(index, Tensor):
            if index.device.type != "cpu":
                return torch.bincount(index.reshape(-1), minlength=len(self))
        counts = np.bincount(np.asarray(index).reshape(-1), minlength=len(self))
        return like(counts, index)

    def shots(self, counts: Any, many: int = 100, few: int = 20) -> npt.NDArray[np.str_]:
        """Shot region of each bin from its number of training labels, shape (K,).

        ``"many"`` has more than ``many`` labels, ``"medium"`` between ``few`` and ``many``,
        ``"few"`` fewer than ``few``, ``"zero"`` none (defaults: Yang et al. 2021, section 4; they
        count ``"zero"`` into ``"few"``).

        Raises
        ------
        ValueError
            If ``counts`` is not of shape (K,), not finite, or negative; unless 0 < few <= many.

        Examples
        --------
        >>> Bins.uniform(0, 4, 1).shots([101, 100, 19, 0])
        array(['many', 'medium', 'few', 'zero'], dtype='<U6')
        """
        array = to_numpy(counts, "counts")
        if array.shape != (len(self),):
            raise ValueError(
                f"counts must hold one number per bin, shape ({len(self)},), got {array.shape}"
            )
        check_finite(array, "counts")
        if (array < 0).any():
            raise ValueError(f"counts must not be negative, got {array.min()}")
        if not 0 < few <= many:
            raise ValueError(f"thresholds must satisfy 0 < few <= many, got few {few}, many {many}")
        region = np.select([array > many, array >= few, array > 0], [0, 1, 2], default=3)
        return np.array(REGIONS).take(region)


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not np.isfinite(float(value)):
        raise ValueError(f"{name} must be finite, got {value}")


def _distinct_labels(y: Any) -> Array:
    """Labels to lay bins over, flat and in float64: finite, and at least two distinct values."""
    labels = to_numpy(y, "y").astype(np.float64).reshape(-1)
    if labels.size == 0:
        raise ValueError("y is empty: bins cannot be laid over no labels; use Bins.uniform instead")
    check_finite(labels, "y")
    if labels.min() == labels.max():
        raise ValueError(
            f"y holds one distinct value, {labels[0]:g}, which gives no scale for bins; "
            "use Bins.uniform instead"
        )
    return labels


def check_bins(bins: Any) -> None:
    """Refuse what is not a :class:`Bins`, such as bare edges or arguments in another order.

    Examples
    --------
    >>> check_bins([0, 1, 2])
    Traceback (most recent call last):
    TypeError: bins must be a dirlearn.Bins, got list; make one with Bins(edges), ...
    """
    if not isinstance(bins, Bins):
        raise TypeError(
            f"bins must be a dirlearn.Bins, got {type(bins).__name__}; make one with "
            "Bins(edges), Bins.uniform or Bins.from_data"
        )

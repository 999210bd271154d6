"""Labels that training has not seen: how far from the seen ones, between them or beyond them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dirlearn.arrays import check_finite, to_numpy
from dirlearn.bins import Bins, check_bins

Floats = npt.NDArray[np.float64]


class LabelGaps(NamedTuple):
    """What :func:`label_gaps` says of each bin; arrays of shape (K,)."""

    place: npt.NDArray[np.str_]
    nearest: Floats
    distance: Floats


def label_gaps(counts: Any, bins: Bins) -> LabelGaps:
    """Tell seen, interpolated and extrapolated labels apart, and how far the nearest seen one is.

    A bin with no training label between two that have some is ``"interpolated"``, one beyond the
    first or the last of them ``"extrapolated"`` (Yang et al. 2021, section 4). To ask it of
    labels rather than of bins, index by ``bins.index(y)``.

    Parameters
    ----------
    counts : array of shape (K,)
        Training labels of each bin: ``bins.counts(y_train)``.
    bins : Bins
        Wide enough that a bin without labels means a gap, not the luck of a small sample.

    Returns
    -------
    place : array of str, shape (K,)
        ``"seen"``, ``"interpolated"`` or ``"extrapolated"``.
    nearest : array of shape (K,)
        Centre of the nearest bin with training labels, the lower of two, in the target's unit.
    distance : array of shape (K,)
        From the bin's centre to ``nearest``, in the target's unit; 0 where labels were seen.

    Raises
    ------
    TypeError
        If ``bins`` is not a :class:`Bins`.
    ValueError
        If ``counts`` is not of shape (K,), not finite, negative, or zero everywhere.

    Examples
    --------
    >>> bins = Bins.uniform(0, 60, 10)
    >>> place, nearest, distance = label_gaps([0, 8, 0, 0, 5, 3], bins)
    >>> place.tolist()
    ['extrapolated', 'seen', 'interpolated', 'interpolated', 'seen', 'seen']
    >>> distance.tolist()
    [10.0, 0.0, 10.0, 10.0, 0.0, 0.0]
    >>> place[bins.index(np.array([3.0, 37.5]))].tolist()
    ['extrapolated', 'interpolated']

    Derived in the chapter *Gaps: interpolation and extrapolation*.
    """
    check_bins(bins)
    array = to_numpy(counts, "counts")
    if array.shape != (len(bins),):
        raise ValueError(
            f"counts must hold one number per bin, shape ({len(bins)},), got {array.shape}"
        )
    check_finite(array, "counts")
    if (array < 0).any():
        raise ValueError(f"counts must not be negative, got {array.min()}")
    if not array.any():
        raise ValueError("counts must hold at least one training label, got only zeros")
    seen = array > 0
    (held,) = np.nonzero(seen)
    apart = np.abs(bins.centers[:, None] - bins.centers[held])
    nearest = bins.centers[held][apart.argmin(axis=1)]
    inside = (np.arange(len(bins)) > held[0]) & (np.arange(len(bins)) < held[-1])
    place = np.select([seen, inside], ["seen", "interpolated"], default="extrapolated")
    return LabelGaps(place, nearest, np.abs(bins.centers - nearest))

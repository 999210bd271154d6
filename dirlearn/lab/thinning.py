"""Training sets thinned to a wanted density of labels, with gaps in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from dirlearn.arrays import check_finite, to_numpy
from dirlearn.bins import Bins
from dirlearn.lab.datasets import Counts, Dataset, Split


def gap_density(
    bins: Bins, seen: Sequence[Sequence[float]], total: int, spread: float = 0.4
) -> Counts:
    """Training labels for each bin: a peak in each interval of ``seen``, and none outside them.

    A bin belongs to an interval if its centre does. Peaks are bells, all of one height, cut off at
    the ends of their intervals, where at least one label is left in every bin.

    Parameters
    ----------
    bins : Bins
    seen : sequence of (low, high)
        Intervals of the target axis that do not overlap.
    total : int
        Labels in all.
    spread : float
        Standard deviation of a bell, in half-widths of its interval; ``np.inf`` makes it flat.

    Raises
    ------
    ValueError
        If no bin's centre lies in an interval, ``spread`` is not positive, or ``total`` is too
        small to give each such bin a label.

    Examples
    --------
    >>> gap_density(Bins.uniform(0, 12, 1), [(1, 6), (9, 11)], total=40)
    array([ 0,  2,  7, 11,  7,  2,  0,  0,  0,  6,  5,  0])
    >>> gap_density(Bins.uniform(0, 12, 1), [(1, 6), (9, 11)], total=42, spread=np.inf)
    array([0, 6, 6, 6, 6, 6, 0, 0, 0, 6, 6, 0])
    """
    if not spread > 0:
        raise ValueError(f"spread must be positive, got {spread}; np.inf makes a peak flat")
    height, held = np.zeros(len(bins)), np.zeros(len(bins), bool)
    for low, high in seen:
        middle, half = (low + high) / 2, (high - low) / 2
        inside = (bins.centers > low) & (bins.centers < high)
        held |= inside
        height[inside] = np.exp(-0.5 * ((bins.centers[inside] - middle) / (spread * half)) ** 2)
    if not held.any() or total < held.sum():
        raise ValueError(
            f"total must be at least the number of bins within {list(map(tuple, seen))}, "
            f"{held.sum()}, which must be at least 1; got {total}"
        )
    # One label for each bin, the others by height; what rounding leaves goes to the largest parts.
    share = (total - held.sum()) * height / height.sum()
    counts = np.floor(share)
    rest = int(total - held.sum() - counts.sum())
    counts[np.argsort(counts - share, kind="stable")[:rest]] += 1
    whole: Counts = (counts + held).astype(np.int64)
    return whole


def thin(data: Dataset, counts: Sequence[int] | Counts, seed: int) -> Dataset:
    """Draw at most ``counts`` training samples from each bin, and validate on seen labels only.

    Who trains without a label has no validation sample of it either: so validation samples in bins
    that are left without a training sample go as well. The test set stays.

    Raises
    ------
    ValueError
        If ``counts`` does not hold a number of 0 or more for each bin of the data.

    Examples
    --------
    >>> from dirlearn.lab.datasets import PRICES, diamonds
    >>> price = thin(diamonds(6000), np.where(PRICES.centers > 10_000, 3, 0), seed=0)
    >>> len(price.train), price.val.y.min() > 10_000, price.test.y.min() < 1000
    (106, tensor(True), tensor(True))
    """
    wanted = to_numpy(counts, "counts")
    if wanted.shape != (len(data.bins),):
        raise ValueError(
            f"counts must hold one number per bin, shape ({len(data.bins)},), got {wanted.shape}"
        )
    check_finite(wanted, "counts")
    if (wanted < 0).any():
        raise ValueError(f"counts must not be negative, got {wanted.min()}")
    index = np.asarray(data.bins.index(data.train.y))
    order = np.random.default_rng(seed).permutation(index.size)
    order = order[np.argsort(index[order], kind="stable")]  # bin by bin, shuffled within
    first = np.searchsorted(index[order], index[order])  # where each sample's own bin begins
    kept = np.sort(order[np.arange(index.size) - first < wanted[index[order]]])
    train = Split(data.train.x[kept], data.train.y[kept])
    seen = np.asarray(data.bins.counts(train.y)) > 0
    validated = torch.from_numpy(seen[np.asarray(data.bins.index(data.val.y))])
    return replace(data, train=train, val=Split(data.val.x[validated], data.val.y[validated]))

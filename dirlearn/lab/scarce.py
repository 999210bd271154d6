"""A few skewed labels of a continuous target, and a pool of inputs without: data and tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn.bins import Bins
from dirlearn.lab.datasets import (
    ANGLES,
    PRICES,
    Counts,
    Dataset,
    Split,
    diamonds,
    rotated_digits,
)
from dirlearn.lab.digits import digit_pools, rotate
from dirlearn.lab.models import Encoder, conv_encoder, table_encoder
from dirlearn.lab.training import Augment, shift
from dirlearn.longtail import long_tailed_counts
from dirlearn.pools import pool_counts

# Ten regions of the axis, each of one density, take the place of classes.
RHO = 50  # of the labelled set, and of a pool drawn like it
LABELLED: Counts = long_tailed_counts(150, 10, rho=RHO)
POOL = 5 * int(LABELLED.sum())  # as in Yang and Xu (2020)
POOLS = {"even": 1, "alike": RHO, "steeper": 200}  # rho of the pool


@dataclass(frozen=True)
class Pooled(Dataset):
    """A scarce training set, and a pool whose labels shape it and measure, but never train.

    ``bins`` are the ten shot regions.
    """

    pool: Split


@dataclass(frozen=True)
class Task:
    """A data set with a pool, and the network that learns it.

    ``bins`` are those of the weights. ``sigma`` is what Balanced MSE starts from: the root mean
    squared error of a network trained on the MSE, on validation data, by seeds 100 to 103.
    """

    draw: Callable[[float, int], Pooled]
    regions: Bins
    bins: Bins
    encoder: Callable[[], Encoder]
    augment: Augment | None
    sigma: float


@lru_cache(maxsize=4)
def pooled_digits(rho_pool: float, seed: int) -> Pooled:
    """417 rotated digits at half resolution whose angles thin out fiftyfold, and a pool of 2,085.

    Ten degrees are a region; within one, angles are uniform. No digit is in two of the four sets,
    and the labelled set does not depend on the pool. The two balanced sets are those of
    :func:`dirlearn.lab.datasets.rotated_digits`.

    Examples
    --------
    >>> digits = pooled_digits(50, seed=0)
    >>> digits.train_counts
    array([150,  97,  62,  40,  26,  17,  11,   7,   4,   3])
    >>> digits.pool.x.shape
    torch.Size([2085, 1, 14, 14])
    """
    balanced = rotated_digits(np.ones(len(ANGLES), dtype=np.int64), seed)
    images = digit_pools()["train"]
    order = torch.from_numpy(np.random.default_rng([seed, 0]).permutation(len(images)))
    n = int(LABELLED.sum())

    def turned(source: Tensor, counts: Counts, stream: int) -> Split:
        within = np.random.default_rng([seed, stream]).random(counts.sum())
        y = torch.from_numpy(10 * (np.repeat(np.arange(10), counts) + within)).float()
        return _half(Split(rotate(images[source], y), y))

    return Pooled(
        name=f"rotated digits with a pool of rho {rho_pool:g}",
        train=turned(order[:n], LABELLED, 1),
        val=_half(balanced.val),
        test=_half(balanced.test),
        bins=Bins.uniform(0, 100, 10),
        unit="degrees",
        provenance=balanced.provenance,
        pool=turned(order[n : n + POOL], pool_counts(POOL, 10, rho_pool), 2),
    )


@lru_cache(maxsize=4)
def pooled_diamonds(rho_pool: float, seed: int) -> Pooled:
    """The same for the prices of diamonds: 1,900 dollars are a region.

    Examples
    --------
    >>> stones = pooled_diamonds(1, seed=0)
    >>> stones.train_counts[0], stones.bins.counts(stones.pool.y).max()
    (np.int64(150), tensor(209))
    """
    data, regions = diamonds(52_000), Bins.uniform(0, 19_000, 1900)
    region = np.asarray(regions.index(data.train.y))
    order = np.random.default_rng(seed).permutation(region.size)
    rows: dict[str, list[Any]] = {"train": [], "pool": []}
    for r, (n, m) in enumerate(zip(LABELLED, pool_counts(POOL, 10, rho_pool), strict=True)):
        candidates = order[region[order] == r]
        rows["train"].append(candidates[:n])
        rows["pool"].append(candidates[n : n + m])
    train, pool = (np.concatenate(rows[part]) for part in ("train", "pool"))
    mean, spread = data.train.x[train].mean(dim=0), data.train.x[train].std(dim=0)

    def standardised(split: Split, index: Any = slice(None)) -> Split:
        return Split((split.x[index] - mean) / spread, split.y[index])

    return Pooled(
        name=f"diamonds with a pool of rho {rho_pool:g}",
        train=standardised(data.train, train),
        val=standardised(data.val),
        test=standardised(data.test),
        bins=regions,
        unit=data.unit,
        provenance=data.provenance,
        pool=standardised(data.train, pool),
    )


def _half(split: Split) -> Split:
    return Split(F.avg_pool2d(split.x, 2), split.y)


TASKS: dict[str, Task] = {
    "digits": Task(
        pooled_digits, Bins.uniform(0, 100, 10), ANGLES, conv_encoder, shift, sigma=26.0
    ),
    "diamonds": Task(
        pooled_diamonds,
        Bins.uniform(0, 19_000, 1900),
        PRICES,
        lambda: table_encoder(9),
        None,
        sigma=1700.0,
    ),
}

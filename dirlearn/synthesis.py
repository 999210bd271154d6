"""A training set as points in space: neighbours within a bump, and new rows made from them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dirlearn.arrays import Array, check_finite, to_numpy

BLOCK = 4_000_000  # distances held at a time, 32 MB
Rows = tuple[Array, Array, Array]  # features, labels and parents of new rows


class Table:
    """The training set as float64 rows, and the same embedded so that Euclid measures distance."""

    def __init__(self, X: Any, y: Any, categorical: Sequence[int], k: int) -> None:
        _refuse_words(X)
        features, labels = to_numpy(X, "X"), to_numpy(y, "y")
        if features.ndim == 0 or labels.shape != features.shape[:1]:
            raise ValueError(
                "X must be of shape (N, ...) and y of shape (N,), one label per row; got "
                f"{features.shape} and {labels.shape}"
            )
        if features.size == 0:
            raise ValueError(
                f"X is empty, of shape {features.shape}: there is nothing to re-sample"
            )
        check_finite(features, "X")
        check_finite(labels, "y")
        if k < 1 or int(k) != k:
            raise ValueError(f"k must be a whole number from 1 on, got {k}")
        self.k = int(k)
        self.shape = features.shape[1:]
        self.y = labels.astype(np.float64)
        self.x = features.astype(np.float64).reshape(self.y.size, -1)
        self.codes = _checked_columns(categorical, features.shape)
        self.numbers = np.setdiff1d(np.arange(self.x.shape[1]), self.codes)
        self.place = self._embedding()

    def _embedding(self) -> Array:
        numbers = self.x[:, self.numbers]
        largest = np.abs(numbers).max(0)
        unit = numbers / np.where(largest > 0, largest, 1)  # squares of huge values overflow
        unit -= unit.mean(0)
        spread = np.where(np.ptp(numbers, 0) > 0, unit.std(0), 1)
        parts = [unit / spread]
        for column in self.codes:
            same = self.x[:, column, None] == np.unique(self.x[:, column])
            parts.append(same * np.sqrt(0.5))  # two differ in two places: 1/2 + 1/2
        return np.concatenate(parts, axis=1)

    def neighbours(self, rows: Array) -> tuple[Array, Array]:
        """Positions in the bump, and distances, of the k nearest others: both (len(rows), k)."""
        from scipy.spatial import cKDTree  # slow to import: 0.3 s

        if rows.size <= self.k:
            low, high = self.y[rows[[0, -1]]]
            remedy = f"pass k={rows.size - 1}, or " if rows.size > 1 else ""
            raise ValueError(
                f"the rare labels from {low:g} to {high:g} have {rows.size} row(s), which leaves "
                f"no {self.k} neighbours; {remedy}lower threshold so that more labels are rare"
            )
        place = self.place[rows]
        distance, found = cKDTree(place).query(place, self.k + 1)
        # Take each row out of its own neighbours. Among many equal rows it may not be listed.
        itself = found == np.arange(rows.size)[:, None]
        itself[~itself.any(1), -1] = True
        shape = (rows.size, self.k)
        return found[~itself].reshape(shape), distance[~itself].reshape(shape)

    def median_distance(self, rows: Array) -> Array:
        """From each row of the bump to all others of it: (len(rows),)."""
        from scipy.spatial.distance import cdist

        place, size = self.place[rows], rows.size
        step = max(1, BLOCK // size)
        medians = []
        for start in range(0, size, step):
            distance = cdist(place[start : start + step], place)
            index = np.arange(start, min(start + step, size))
            distance[index - start, index] = np.nan
            medians.append(np.nanmedian(distance, axis=1))
        return np.concatenate(medians)

    def interpolate(self, seeds: Array, others: Array, rng: np.random.Generator) -> Rows:
        """Rows on the segments from ``seeds`` to ``others``."""
        u = rng.random((seeds.size, 1))
        x, other = self.x[seeds], self.x[others]
        new = x + u * (other - x)
        coin = rng.random((seeds.size, self.codes.size)) < 0.5
        new[:, self.codes] = np.where(coin, x[:, self.codes], other[:, self.codes])
        # In the embedding: u and 1 - u of the way over the numbers, 1 for each other category.
        numbers = slice(self.numbers.size)
        squared = ((self.place[seeds, numbers] - self.place[others, numbers]) ** 2).sum(1)
        near = np.sqrt(u[:, 0] ** 2 * squared + self._mismatches(new, x))
        far = np.sqrt((1 - u[:, 0]) ** 2 * squared + self._mismatches(new, other))
        equal = near + far == 0
        way = np.where(equal, 0.5, near / np.where(equal, 1, near + far))
        y = self.y[seeds]
        return new, y + way * (self.y[others] - y), np.stack([seeds, others], axis=1)

    def _mismatches(self, new: Array, parent: Array) -> Array:
        differs: Array = new[:, self.codes] != parent[:, self.codes]
        return np.asarray(differs.sum(1))

    def perturb(self, rows: Array, seeds: Array, size: Array, rng: np.random.Generator) -> Rows:
        """Copies of ``seeds`` with noise of ``size`` standard deviations of the bump ``rows``."""
        new = self.x[seeds]
        shape = (seeds.size, self.numbers.size)
        numbers = self.x[rows][:, self.numbers]
        spread = np.where(np.ptp(numbers, 0) > 0, numbers.std(0), 0)  # exactly, despite rounding
        width = size[:, None] * spread
        new[:, self.numbers] += width * rng.standard_normal(shape)
        drawn = rng.integers(rows.size, size=(seeds.size, self.codes.size))
        new[:, self.codes] = self.x[rows[drawn], self.codes]
        y = self.y[seeds] + size * self.y[rows].std() * rng.standard_normal(seeds.size)
        return new, y, np.stack([seeds, np.full_like(seeds, -1)], axis=1)


def _refuse_words(X: Any) -> None:
    dtype = np.asarray(X).dtype if not isinstance(X, Tensor) else None
    if dtype is not None and dtype.kind in "OSU":
        raise TypeError(
            f"X must hold real numbers, got dtype {dtype}; give each word a number, as "
            "pandas.factorize does, and name those columns in categorical"
        )


def _checked_columns(categorical: Sequence[int], shape: tuple[int, ...]) -> Array:
    if not np.iterable(categorical):
        raise TypeError(f"categorical must be a sequence of columns, got {categorical!r}")
    for column in categorical:
        if isinstance(column, bool) or not hasattr(column, "__index__"):
            raise TypeError(
                f"categorical must give columns by number, got {column!r}; of a mask, "
                "np.flatnonzero(mask)"
            )
    columns = np.array([operator.index(column) for column in categorical], dtype=np.intp)
    if columns.size and len(shape) != 2:
        raise ValueError(f"categorical names columns of a table (N, C), but X has shape {shape}")
    for column in columns[(columns < 0) | (columns >= shape[-1])]:
        raise ValueError(
            f"categorical names column {column}, but X has columns 0 to {shape[1] - 1}"
        )
    return np.unique(columns)

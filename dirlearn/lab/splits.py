"""What every data set of the book is: three splits, bins, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dirlearn.bins import Bins
from dirlearn.lab.facts import Counts


@dataclass(frozen=True)
class Split:
    """Inputs ``x`` of shape (N, ...) and targets ``y`` of shape (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Dataset:
    """An imbalanced training set with balanced validation and test sets.

    The test set does not depend on the seed: studies over seeds share it.
    """

    name: str
    train: Split
    val: Split
    test: Split
    bins: Bins
    unit: str
    provenance: str

    @property
    def train_counts(self) -> Counts:
        """Training labels per bin, shape (K,)."""
        return np.asarray(self.bins.counts(self.train.y))

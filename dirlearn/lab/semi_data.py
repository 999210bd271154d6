"""Data of the chapter *Unlabelled data*: long-tailed classes at half their resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from dirlearn.bins import Bins
from dirlearn.lab.datasets import fashion_mnist, long_tailed_digits, long_tailed_fashion
from dirlearn.lab.digits import digit_pools
from dirlearn.lab.images import CLASSES, LongTailed, long_tail
from dirlearn.lab.results import known
from dirlearn.lab.splits import Split
from dirlearn.pools import IRRELEVANT

SEVEN = Bins.uniform(0, 7, 1)


def seven_digits(seed: int = 0) -> LongTailed:
    """Long-tailed digits 0 to 6; the images of 7, 8 and 9 join the pool, with the label -1.

    They are the irrelevant data of the chapter's ablation: digits all right, but of no class of the
    task.

    Examples
    --------
    >>> data = seven_digits(seed=0)
    >>> data.train_counts, (data.pool.y == -1).sum()
    (array([40, 24, 14,  8,  5,  3,  2]), tensor(900))
    """
    images, classes = digit_pools(), digit_pools(labels=True)
    parts = {}
    for part, y in classes.items():
        inside = y < len(SEVEN)
        parts[part] = Split(images[part][inside], y[inside])
    data = long_tail(
        "seven long-tailed digits",
        **parts,
        bins=SEVEN,
        n_max=40,
        rho=20,
        rng=np.random.default_rng(seed),
        source="as the long-tailed digits",
    )
    others = images["train"][classes["train"] >= len(SEVEN)]
    nothing = torch.full((len(others),), IRRELEVANT)
    pool = Split(torch.cat([data.pool.x, others]), torch.cat([data.pool.y, nothing]))
    return replace(data, pool=pool)


# Images of each class, in the order of the files; a pool of 3,470 with rho 50 takes 1,239 t-shirts.
FILED = {"train": 1500, "val": 50, "test": 200}


def more_fashion(seed: int = 0) -> LongTailed:
    """Long-tailed Fashion-MNIST with 694 labels, 250 t-shirts to 5 ankle boots, from its own files.

    Two and a half times the labels of :func:`dirlearn.lab.datasets.long_tailed_fashion`, whose
    committed images do not suffice for a pool five times as large. Of each class, the first 1,500
    images of the training file are labelled or in the pool, the next 50 are for validation, and the
    first 200 of the test file are to test on. ``seed`` draws which are labelled.

    Raises
    ------
    FileNotFoundError
        If the files are not there: :func:`dirlearn.lab.datasets.fashion_mnist`.
    """
    whole = fashion_mnist()
    kept = FILED["train"] + FILED["val"]
    first, test = _first(whole.train, kept), _first(whole.test, FILED["test"])
    training = torch.arange(len(first)) % kept < FILED["train"]
    return long_tail(
        "long-tailed fashion, 694 labels",
        train=Split(first.x[training], first.y[training]),
        val=Split(first.x[~training], first.y[~training]),
        test=test,
        bins=CLASSES,
        n_max=250,
        rho=50,
        rng=np.random.default_rng(seed),
        source="Fashion-MNIST (Xiao et al. 2017, MIT licence), from its original files",
    )


def _first(split: Split, each: int) -> Split:
    """The first images of each class, class by class."""
    rows = torch.cat([torch.nonzero(split.y == c)[:each, 0] for c in range(len(CLASSES))])
    return Split(split.x[rows], split.y[rows])


TASKS: dict[str, Callable[..., LongTailed]] = {
    "digits": long_tailed_digits,
    "fashion": long_tailed_fashion,
    "more fashion": more_fashion,
    "seven": seven_digits,
}


@lru_cache(maxsize=2)
def task_data(task: str, seed: int) -> LongTailed:
    """Data of a task, with images at half their resolution, (1, 14, 14): a third of the time.

    Examples
    --------
    >>> task_data("digits", 0).train.x.shape
    torch.Size([131, 1, 14, 14])
    """
    data = TASKS[known(task, TASKS, "task")](seed=seed)
    train, val, test, pool = (
        Split(F.avg_pool2d(split.x, 2), split.y)
        for split in (data.train, data.val, data.test, data.pool)
    )
    return replace(data, train=train, val=val, test=test, pool=pool)

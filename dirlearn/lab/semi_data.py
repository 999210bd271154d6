"""Data of the chapter *Unlabelled data*: long-tailed classes at half their resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from dirlearn.bins import Bins
from dirlearn.lab.datasets import long_tailed_digits, long_tailed_fashion
from dirlearn.lab.digits import digit_pools
from dirlearn.lab.images import LongTailed, long_tail
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


TASKS: dict[str, Callable[..., LongTailed]] = {
    "digits": long_tailed_digits,
    "fashion": long_tailed_fashion,
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

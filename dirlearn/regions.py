"""Any metric, shot region by shot region."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dirlearn.arrays import Array, paired, to_numpy
from dirlearn.bins import REGIONS, Bins, check_bins


def by_region(
    metric: Callable[[Any, Any], Any],
    pred: Any,
    target: Any,
    train_counts: Any,
    bins: Bins,
    many: int = 100,
    few: int = 20,
    at_least: int = 1,
) -> dict[str, Any]:
    """Value of ``metric`` over all targets and in each shot region of the target's bin.

    For what :func:`dirlearn.shot_metrics` does not have, such as correlations. Most metrics are not
    means over items, and those are read with care in a region: a correlation falls when the range
    of the targets is cut, whatever the model does.

    Parameters
    ----------
    metric : callable
        Called as ``metric(pred, target)`` with the items of a region, one-dimensional and of the
        kind given, arrays or tensors; gives a number, or a mapping of names to numbers.
    pred, target : arrays or tensors of one shape
        Predictions and targets, in the unit of the bins.
    train_counts : array of shape (K,)
        Training labels per bin, ``bins.counts(y_train)``.
    bins : Bins
        The target axis.
    many, few : int
        Region thresholds, as in :meth:`Bins.shots`.
    at_least : int
        Items below which a region is NaN, for there the metric is not called. Default 1; a
        correlation needs 2 to be defined at all, and 3 to be other than -1 or 1.

    Returns
    -------
    dict
        For ``"all"``, ``"many"``, ``"medium"``, ``"few"`` and ``"zero"`` the metric's number as a
        float, or a dict of floats where it gives a mapping.

    Raises
    ------
    ValueError
        As :func:`dirlearn.shot_metrics`; if there are fewer than ``at_least`` items in all.
    TypeError
        If ``metric`` gives neither a number nor a mapping.

    Examples
    --------
    >>> from scipy.stats import spearmanr
    >>> def spearman(pred, target):
    ...     return spearmanr(pred, target).statistic
    >>> pred, target = np.array([1.0, 2.0, 3.0, 9.0, 7.0]), np.array([0.1, 0.2, 0.3, 1.1, 1.9])
    >>> by_region(spearman, pred, target, [150, 30], Bins([0, 1, 2]), at_least=3)
    {'all': 0.89..., 'many': 1.0, 'medium': nan, 'few': nan, 'zero': nan}

    Used in the chapter *Measuring the tail*.
    """
    check_bins(bins)
    shots = bins.shots(train_counts, many, few)
    paired(pred, target)  # refuses what does not belong together
    region = shots[to_numpy(bins.index(target), "index").reshape(-1)]
    if region.size < at_least:
        raise ValueError(f"there are {region.size} items, fewer than at_least={at_least}")
    prediction, label = _flat(pred), _flat(target)
    figures = {"all": _number(metric(prediction, label))}
    for name in REGIONS:
        held = region == name
        if held.sum() >= max(at_least, 1):
            figures[name] = _number(metric(_take(prediction, held), _take(label, held)))
        elif isinstance(figures["all"], dict):
            figures[name] = dict.fromkeys(figures["all"], math.nan)
        else:
            figures[name] = math.nan
    return figures


def _flat(values: Any) -> Any:
    return values.reshape(-1) if isinstance(values, Tensor) else np.asarray(values).reshape(-1)


def _take(values: Any, held: Array) -> Any:
    if isinstance(values, Tensor):
        return values[torch.from_numpy(held).to(values.device)]
    return values[held]


def _number(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _number(part) for name, part in value.items()}
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"metric must give a number or a mapping of them, got {type(value).__name__}; for "
            "SciPy's results, such as pearsonr's, have it give .statistic"
        ) from error

"""Error along the target axis, with how many items it rests on and how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dirlearn.arrays import Array, paired, to_numpy
from dirlearn.bins import Bins, check_bins


class ErrorCurve(NamedTuple):
    """Error of each bin, how sure it is, and on how many items it rests; arrays of shape (K,)."""

    error: Array
    standard_error: Array
    counts: Array


def error_curve(
    pred: Any,
    target: Any,
    bins: Bins,
    loss: Callable[[Array], Array] = np.abs,
) -> ErrorCurve:
    r"""Mean error of the targets of each bin, with its standard error and its support.

    .. math:: \bar\ell_b = \frac{1}{n_b} \sum_{i: b(y_i) = b} \ell(\hat y_i - y_i), \qquad
        \mathrm{se}_b^2 = \frac{1}{n_b (n_b - 1)} \sum_{i: b(y_i) = b} (\ell_i - \bar\ell_b)^2

    About 1.96 standard errors to each side make a 95 % interval where a bin holds some dozens of
    items. It speaks of other test items, not of other trainings.

    Parameters
    ----------
    pred, target : arrays or tensors of one shape
        Predictions and targets, in the unit of the bins.
    bins : Bins
        The target axis.
    loss : callable
        Takes the errors ``pred - target``, a NumPy array of shape (N,), also for tensors, and gives
        as many values: ``np.abs`` (the default: the mean absolute error), ``np.square``, or
        ``np.positive`` for the bias, which shows a model that shrinks the tail towards the middle.

    Returns
    -------
    ErrorCurve
        ``error``, ``standard_error`` and ``counts``, NumPy arrays of shape (K,). The error of a bin
        without targets is NaN, the standard error of one with fewer than two.

    Raises
    ------
    ValueError
        If shapes differ, nothing is given, a value is NaN or infinite, or ``loss`` does not give a
        value for each error.

    Examples
    --------
    >>> curve = error_curve([1.0, 3.0, 9.0], [0.5, 0.5, 2.5], Bins([0, 1, 2, 3]))
    >>> curve.error
    array([1.5, nan, 6.5])
    >>> curve.standard_error
    array([ 1., nan, nan])
    >>> curve.counts
    array([2, 0, 1])

    Used in the chapter *Measuring the tail*.
    """
    check_bins(bins)
    prediction, label = paired(pred, target)
    values = np.asarray(loss(prediction - label), np.float64)
    if values.shape != label.shape:
        raise ValueError(
            f"loss must give one value for each of {label.size} errors, got shape {values.shape}"
        )
    index = to_numpy(bins.index(target), "index").reshape(-1)
    counts = np.bincount(index, minlength=len(bins))
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 = NaN is meant
        error = np.bincount(index, values, len(bins)) / counts
        spread = np.bincount(index, (values - error[index]) ** 2, len(bins)) / (counts - 1)
        standard_error = np.where(counts > 1, np.sqrt(spread / counts), np.nan)
    return ErrorCurve(error, standard_error, counts)

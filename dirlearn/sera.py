"""Squared error under a relevance that the user gives (Ribeiro and Moniz 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dirlearn.arrays import check_finite, paired, to_numpy


def sera(pred: Any, target: Any, phi: Callable[[Any], Any] | Any) -> float:
    r"""Squared error-relevance area: squared errors, summed with the relevance of their targets.

    .. math:: \mathrm{SERA} = \int_0^1 \mathrm{SER}_t \,\mathrm dt, \qquad
        \mathrm{SER}_t = \sum_{i:\, \phi(y_i) \ge t} (\hat y_i - y_i)^2

    The threshold :math:`t` need not be integrated numerically. Item i is in the sum while
    :math:`t \le \phi(y_i)`, which is a share :math:`\phi(y_i)` of all thresholds:

    .. math:: \mathrm{SERA} = \sum_i (\hat y_i - y_i)^2 \int_0^1 [t \le \phi(y_i)] \,\mathrm dt
        = \sum_i \phi(y_i)\, (\hat y_i - y_i)^2 .

    So SERA is a weighted squared error whose weights the user chose. It is a sum, not a mean: it
    grows with the number of items, and compares models on one test set only.

    Parameters
    ----------
    pred, target : arrays or tensors of one shape
        Predictions and targets.
    phi : array of the same shape, or callable
        Relevance of each target, from 0 (no interest) to 1; a callable, such as
        :class:`dirlearn.Relevance`, is given ``target``. Make it from *training* labels:
        :func:`dirlearn.relevance` itself would take its box plot from the targets of the test.

    Returns
    -------
    float
        In the target's unit, squared.

    Raises
    ------
    ValueError
        If shapes differ, nothing is given, a value is NaN or infinite, or a relevance lies outside
        [0, 1].

    Examples
    --------
    >>> sera([1.0, 3.0, 9.0], [1.5, 3.0, 7.0], phi=[0.2, 0.5, 1.0])
    4.05

    Derived in the chapter *Measuring the tail*.
    """
    prediction, label = paired(pred, target)
    relevance = to_numpy(phi(target) if callable(phi) else phi, "phi")
    if relevance.shape != np.shape(target):
        raise ValueError(
            f"phi has shape {relevance.shape}, target has {np.shape(target)}; give one relevance "
            "for each target"
        )
    check_finite(relevance, "phi")
    if relevance.min() < 0 or relevance.max() > 1:
        raise ValueError(
            f"relevances must lie in [0, 1], got {relevance.min():g} to {relevance.max():g}; "
            "divide weights by their largest"
        )
    with np.errstate(over="ignore"):  # e^2 of a huge error is infinite
        squared = (prediction - label) ** 2
    relevant = relevance.reshape(-1) > 0  # 0 times infinity would be NaN
    return float(relevance.reshape(-1)[relevant].astype(np.float64) @ squared[relevant])

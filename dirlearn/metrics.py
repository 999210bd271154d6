"""Errors that show the tail: balanced over bins, and by shot region."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from dirlearn.arrays import Array, ArrayT, floating_like, paired, to_numpy
from dirlearn.bins import REGIONS, Bins, check_bins

Figures = dict[str, dict[str, float]]


def geometric_mean_error(pred: Any, target: Any, epsilon: float = 0.0) -> float:
    r"""Geometric mean of the absolute errors, :math:`(\prod_i |e_i|)^{1/N}`.

    The GM of Yang et al. (2021, section 4).

    Parameters
    ----------
    pred, target : arrays or tensors of one shape
        Predictions and targets.
    epsilon : float
        Added to every absolute error. With 0, the default and the definition, a single exact
        prediction makes the result 0; the released code adds 1e-10 on STS-B-DIR.

    Raises
    ------
    ValueError
        If shapes differ, nothing is given, a value is NaN or infinite, or ``epsilon`` is negative.

    Examples
    --------
    >>> geometric_mean_error([1.0, 4.0], [0.0, 0.0])
    2.0

    Used in the chapter *Imbalance in continuous targets*.
    """
    if not epsilon >= 0:
        raise ValueError(f"epsilon must be 0 or more, got {epsilon}")
    errors = _absolute_errors(pred, target)
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant: its exponential is 0
        return float(np.exp(np.log(errors + epsilon).mean()))


def mae_by_bin(pred: ArrayT, target: ArrayT, bins: Bins) -> ArrayT:
    """Mean absolute error of each bin, shape (K,); NaN where no target falls.

    Parameters, errors and units are those of :func:`shot_metrics`.

    Examples
    --------
    >>> mae_by_bin(np.array([1.0, 3.0, 9.0]), np.array([0.5, 0.5, 2.5]), Bins([0, 1, 2, 3]))
    array([1.5, nan, 6.5])

    Used in the chapter *Imbalance in continuous targets*.
    """
    counts, absolute, *_ = _update(pred, target, bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 = NaN is meant
        return floating_like(absolute / counts, pred)


def balanced_mae(pred: Any, target: Any, bins: Bins) -> float:
    r"""Mean over the bins that hold targets of each bin's MAE: every label counts alike.

    The balanced error of Ren et al. (2022). Parameters and errors are those of
    :func:`shot_metrics`.

    Examples
    --------
    >>> balanced_mae([1.0, 3.0, 9.0], [0.5, 0.5, 2.5], Bins([0, 1, 2, 3]))
    4.0

    Used in the chapter *Imbalance in continuous targets*.
    """
    counts, absolute, *_ = _update(pred, target, bins)
    held = counts > 0
    return float((absolute[held] / counts[held]).mean())


def shot_metrics(
    pred: Any, target: Any, train_counts: Any, bins: Bins, many: int = 100, few: int = 20
) -> Figures:
    """Errors over all targets and by shot region of the target's bin.

    Parameters
    ----------
    pred, target : arrays or tensors of one shape
        Predictions and targets, in the unit of the bins.
    train_counts : array of shape (K,)
        Training labels per bin, ``bins.counts(y_train)``.
    bins : Bins
        The target axis.
    many, few : int
        Region thresholds, as in :meth:`Bins.shots`.

    Returns
    -------
    dict of dict
        For ``"all"``, ``"many"``, ``"medium"``, ``"few"`` and ``"zero"``: ``"mae"``, ``"mse"``,
        ``"gm"`` (geometric mean error), ``"balanced_mae"`` and ``"count"``, the number of targets.
        A region without targets is NaN with count 0. Unlike the papers' tables, ``"few"`` leaves
        out labels that training never saw: they are ``"zero"``.

    Raises
    ------
    ValueError
        If shapes differ, nothing is given, a value is NaN or infinite, or ``train_counts`` does not
        hold one count per bin.

    Examples
    --------
    >>> figures = shot_metrics([1.0, 3.0, 9.0], [0.5, 0.5, 2.5], [150, 30, 0], Bins([0, 1, 2, 3]))
    >>> figures["many"]["mae"], figures["zero"]["mae"], figures["few"]["mae"]
    (1.5, 6.5, nan)

    Used in the chapter *Imbalance in continuous targets*.
    """
    return _compute(_update(pred, target, bins), bins.shots(train_counts, many, few))


class ShotMetrics(Metric):
    """:func:`shot_metrics` over batches and processes: the same figures, accumulated.

    Only sums per bin are kept, in ``float64``, so memory does not grow with the number of targets.

    Parameters
    ----------
    train_counts : array of shape (K,)
        Training labels per bin.
    bins : Bins
        The target axis.
    many, few : int
        Region thresholds, as in :meth:`Bins.shots`.
    **kwargs
        For :class:`torchmetrics.Metric`, such as ``dist_sync_on_step``.

    Examples
    --------
    >>> metric = ShotMetrics([150, 30, 0], Bins([0, 1, 2, 3]))
    >>> metric.update(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.5]))
    >>> metric.update(torch.tensor([9.0]), torch.tensor([2.5]))
    >>> metric.compute()["all"]["mae"]
    3.1666666666666665

    Used in the chapter *Imbalance in continuous targets*.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    sums: Tensor

    def __init__(
        self, train_counts: Any, bins: Bins, many: int = 100, few: int = 20, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        self.shots = bins.shots(train_counts, many, few)
        empty = torch.zeros(4, len(bins), dtype=torch.float64)
        self.add_state("sums", default=empty, dist_reduce_fx="sum")

    def update(self, pred: Any, target: Any) -> None:
        """Take in a batch of predictions and targets of one shape."""
        self.sums = self.sums + torch.from_numpy(_update(pred, target, self.bins)).to(self.sums)

    def compute(self) -> Figures:
        """Figures over everything taken in so far."""
        return _compute(to_numpy(self.sums, "sums"), self.shots)


def _absolute_errors(pred: Any, target: Any) -> Array:
    prediction, label = paired(pred, target)
    errors: Array = np.abs(prediction - label)
    return errors


def _update(pred: Any, target: Any, bins: Bins) -> Array:
    """Sums per bin from which every figure follows: count, |e|, e^2 and log |e|; shape (4, K)."""
    check_bins(bins)
    errors = _absolute_errors(pred, target)
    index = to_numpy(bins.index(target), "index").reshape(-1)  # in the target's own precision
    with np.errstate(divide="ignore", over="ignore"):  # e^2 of a huge error is infinite
        terms = (np.ones_like(errors), errors, errors**2, np.log(errors))
    return np.stack([np.bincount(index, term, minlength=len(bins)) for term in terms])


def _compute(sums: Array, shots: Array) -> Figures:
    by_region: Figures = {region: _figures(sums[:, shots == region]) for region in REGIONS}
    return {"all": _figures(sums), **by_region}


def _figures(sums: Array) -> dict[str, float]:
    held = sums[:, sums[0] > 0]
    count, absolute, squared, log = held.sum(axis=1)
    if count == 0:
        return {**dict.fromkeys(("mae", "mse", "gm", "balanced_mae"), math.nan), "count": 0}
    return {
        "mae": float(absolute / count),
        "mse": float(squared / count),
        "gm": float(np.exp(log / count)),
        "balanced_mae": float((held[1] / held[0]).mean()),
        "count": int(count),
    }

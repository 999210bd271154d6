"""Regression losses with a weight per sample."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

Reduction = Literal["mean", "sum", "none"]


def weighted_mse(
    pred: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Weighted squared error, :math:`\frac1m \sum_i w_i (\hat y_i - y_i)^2`.

    The mean divides by the number of samples, not by the sum of the weights: weights of mean 1 over
    the training set then keep each sample's share the same in every full batch.

    Parameters
    ----------
    pred, target : tensors of one shape
        Predictions and targets, floating point.
    weight : tensor of the same shape, optional
        One weight per target, such as :func:`dirlearn.lds_weights` gives; all 1 by default.
    reduction : {"mean", "sum", "none"}
        As in :mod:`torch.nn`.

    Raises
    ------
    ValueError
        If shapes differ, a batch is empty, or ``reduction`` is unknown.
    TypeError
        If an argument is not a floating-point tensor.

    Notes
    -----
    NaN is passed on, not looked for: looking would stall an accelerator at every step. Look at the
    loss once an epoch.

    Examples
    --------
    >>> import torch
    >>> weighted_mse(torch.tensor([1.0, 5.0]), torch.tensor([0.0, 3.0]), torch.tensor([0.5, 1.5]))
    tensor(3.2500)

    Used in the chapter *Label distribution smoothing*.
    """
    _check(pred, target, weight)
    return _reduced(F.mse_loss(pred, target, reduction="none"), weight, reduction)


def weighted_l1(
    pred: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    r"""Weighted absolute error, :math:`\frac1m \sum_i w_i |\hat y_i - y_i|`.

    Parameters, errors and the meaning of the mean are those of :func:`weighted_mse`.

    Examples
    --------
    >>> import torch
    >>> weighted_l1(torch.tensor([1.0, 5.0]), torch.tensor([0.0, 3.0]), torch.tensor([0.5, 1.5]))
    tensor(1.7500)

    Used in the chapter *Label distribution smoothing*.
    """
    _check(pred, target, weight)
    return _reduced(F.l1_loss(pred, target, reduction="none"), weight, reduction)


def weighted_huber(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    beta: float = 1.0,
) -> Tensor:
    r"""Weighted Huber loss as Yang et al. scale it: quadratic below ``beta``, of slope 1 above.

    .. math::
        \ell(e) = \begin{cases} e^2 / 2\beta & |e| < \beta \\
                  |e| - \beta/2 & \text{else}\end{cases}

    This is :func:`torch.nn.functional.smooth_l1_loss`; torch's ``huber_loss`` is ``beta`` times it.
    Further parameters, errors and the meaning of the mean are those of :func:`weighted_mse`.

    Parameters
    ----------
    beta : float
        Error at which the loss turns linear, in the unit of the target. Default 1 (released code
        of Yang et al. 2021 for ages).

    Raises
    ------
    ValueError
        If ``beta`` is not positive and finite; and as :func:`weighted_mse`.

    Examples
    --------
    >>> import torch
    >>> weighted_huber(torch.tensor([0.5, 5.0]), torch.tensor([0.0, 3.0]), reduction="none")
    tensor([0.1250, 1.5000])

    Used in the chapter *Label distribution smoothing*.
    """
    _check(pred, target, weight)
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    return _reduced(F.smooth_l1_loss(pred, target, reduction="none", beta=beta), weight, reduction)


def focal_r(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    beta: float = 0.2,
    gamma: float = 1.0,
    kind: Literal["l1", "mse"] = "l1",
) -> Tensor:
    r"""Focal-R: errors that are already small count for less.

    .. math:: \ell(e) = \operatorname{sigmoid}(\beta |e|)^\gamma\, |e|
              \quad\text{or}\quad \operatorname{sigmoid}(\beta |e|)^\gamma\, e^2

    The focal loss of classification with the error in place of the probability (Yang et al. 2021,
    section 4). The factor is part of the loss, and has its share in the gradient. It lies between
    :math:`2^{-\gamma}`, at no error, and 1; in the released code it starts from 0:
    :func:`dirlearn.released.focal_r`.

    Further parameters, errors and the meaning of the mean are those of :func:`weighted_mse`.

    Parameters
    ----------
    beta : float
        Inverse of the error that is large, in the target's unit. Default 0.2 (released code, ages).
    gamma : float
        How much less, 0 or more; 0 is the plain loss. Default 1 (released code).
    kind : {"l1", "mse"}
        Of which error; ``"l1"`` in the paper.

    Raises
    ------
    ValueError
        If ``beta`` is not positive, ``gamma`` is negative, one is infinite or ``kind`` is unknown;
        and as :func:`weighted_mse`.

    Examples
    --------
    >>> import torch
    >>> focal_r(torch.tensor([0.0, 50.0]), torch.tensor([1.0, 0.0]), reduction="none")
    tensor([ 0.5498, 49.9977])

    Used in the chapter *Re-weighting and re-sampling*.
    """
    _check(pred, target, weight)
    distance, error = _focal_terms(pred, target, beta, gamma, kind)
    return _reduced((beta * distance).sigmoid() ** gamma * error, weight, reduction)


def _focal_terms(
    pred: Tensor, target: Tensor, beta: float, gamma: float, kind: Literal["l1", "mse"]
) -> tuple[Tensor, Tensor]:
    """Absolute errors, of which the factor is made, and the errors that it multiplies."""
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be positive and finite, got {beta}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be 0 or more, and finite, got {gamma}")
    if kind not in ("l1", "mse"):
        raise ValueError(f'kind must be "l1" or "mse", got {kind!r}')
    distance = F.l1_loss(pred, target, reduction="none")
    return distance, distance if kind == "l1" else distance.square()


def _check(pred: Tensor, target: Tensor, weight: Tensor | None) -> None:
    for name, value in (("pred", pred), ("target", target), ("weight", weight)):
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(value).__name__}; wrap it in torch.as_tensor"
            )
        if not value.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {value.dtype}; call .float()")
        if value.shape != pred.shape:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, pred has {tuple(pred.shape)}; "
                "give both one shape (squeeze a trailing 1, or expand_as), for broadcasting "
                "would pair every prediction with every target"
            )
    if pred.numel() == 0:
        raise ValueError("the batch is empty, and its mean loss is undefined")


def _reduced(loss: Tensor, weight: Tensor | None, reduction: Reduction) -> Tensor:
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    if reduction == "mean":
        return loss.mean()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')

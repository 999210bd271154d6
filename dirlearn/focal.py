"""The focal loss (Lin et al. 2017), and what losses of classes have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn.losses import Reduction


def focal_loss(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    gamma: float = 1.0,
) -> Tensor:
    r"""Focal loss (Lin et al. 2017): samples that are already right count for less.

    .. math:: \ell = -(1 - p_y)^\gamma \log p_y, \qquad p = \operatorname{softmax}(\text{logits})

    The factor is part of the loss, and has its share in the gradient.

    Parameters
    ----------
    logits : tensor of shape (N, C)
        One per class, floating point.
    target : tensor of shape (N,)
        Classes 0 to C-1, whole numbers.
    weight : tensor of shape (C,), optional
        One weight per *class*. The mean then divides by the sum of the weights of the batch's
        samples, as :func:`torch.nn.functional.cross_entropy` does. (The released code of Cao et al.
        2019 divides by N, and takes :math:`p_y` to the power of the weight.)
    reduction : {"mean", "sum", "none"}
        As in :mod:`torch.nn`.
    gamma : float
        How much less, 0 or more; 0 is the cross-entropy. Default 1 (released code of Yang & Xu
        2020; Lin et al. take 2 for detection).

    Raises
    ------
    ValueError
        If shapes do not fit, the batch is empty, a label is outside the classes (looked for on the
        CPU alone: on an accelerator torch itself stops), ``gamma`` is negative or infinite, or
        ``reduction`` is unknown.
    TypeError
        If ``logits`` are not floating point or ``target`` not whole numbers.

    Notes
    -----
    NaN is passed on, not looked for, as in :func:`weighted_mse`.

    Examples
    --------
    >>> logits = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    >>> focal_loss(logits, torch.tensor([0, 0]), reduction="none")
    tensor([0.3466, 0.0023])

    Used in the chapter *Long-tailed classification in one sitting*.
    """
    check_classified(logits, target, weight)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be 0 or more, and finite, got {gamma}")
    surprise = F.log_softmax(logits, dim=1).gather(1, target.long()[:, None])[:, 0].neg()
    # 1 - p without cancellation; not quite 0, where the slope of a root would be infinite.
    wrong = (-torch.expm1(-surprise)).clamp_min(torch.finfo(logits.dtype).tiny)
    return reduce_classified(wrong**gamma * surprise, target, weight, reduction)


def check_classified(logits: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Refuse logits, classes and class weights that do not belong together.

    Examples
    --------
    >>> check_classified(torch.zeros(2, 3), torch.tensor([0, 3]), None)
    Traceback (most recent call last):
    ValueError: target must hold classes 0 to 2, one per column of logits, got 0 to 3
    """
    for name, value in (("logits", logits), ("target", target), ("weight", weight)):
        if value is not None and not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(value).__name__}; wrap it in torch.as_tensor"
            )
    if not logits.is_floating_point():
        raise TypeError(f"logits must be floating point, got {logits.dtype}; call .float()")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(f"target must hold whole numbers, got {target.dtype}; call .long()")
    if logits.ndim != 2 or target.shape != logits.shape[:1]:
        raise ValueError(
            "logits must have shape (N, C) and target (N,), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    if logits.numel() == 0:
        raise ValueError("the batch is empty, and its mean loss is undefined")
    if weight is not None and weight.shape != logits.shape[1:]:
        raise ValueError(
            f"weight must hold one number per class, shape ({logits.shape[1]},), got "
            f"{tuple(weight.shape)}; for one per sample take reduction='none' and multiply"
        )
    # On an accelerator a look at the values would stall every step, and a gather stops there too.
    if target.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"target must hold classes 0 to {logits.shape[1] - 1}, one per column of logits, "
                f"got {low} to {high}"
            )


def reduce_classified(
    loss: Tensor, target: Tensor, weight: Tensor | None, reduction: Reduction
) -> Tensor:
    """Weigh each sample's loss by its class; the mean divides by the sum of the weights.

    Examples
    --------
    >>> loss, target = torch.tensor([1.0, 4.0]), torch.tensor([0, 1])
    >>> reduce_classified(loss, target, torch.tensor([1.0, 2.0]), "mean")
    tensor(3.)
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none", got {reduction!r}')
    if weight is None:
        return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss
    each = weight.to(loss.device, loss.dtype)[target.long()]
    loss = each * loss
    if reduction == "none":
        return loss
    return loss.sum() / each.sum() if reduction == "mean" else loss.sum()

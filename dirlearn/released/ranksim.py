"""RankSim as the released code of Gong et al. (2022) scales and ranks it."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn.ranksim import _check as _check_ranksim


def ranksim_loss(features: Tensor, targets: Tensor, interpolation: float = 2.0) -> Tensor:
    r"""RankSim as the released code scales and ranks it.

    .. math:: L = \sum_{i \in M} \frac1n \sum_{j \in M} \left(
              \frac{\operatorname{pos}(S^y_i)_j - \operatorname{pos}(S^z_i)_j}{n} \right)^2

    Against :func:`dirlearn.ranksim_loss`: rows are *summed*, so the value grows with the number n
    of distinct labels; equal similarities get different places, in the order in which a sort
    happens to leave them, so that a perfect order still costs something; and the one sample of each
    label is drawn by Python's :mod:`random`, which ``torch.manual_seed`` does not seed.

    The gradient is that of an autograd function which, put in front of other operations, is handed
    the gradient of all that follows by ranks over n. So :math:`\lambda` scales a weight on the loss
    as well: without ties, ``weight * released.ranksim_loss(z, y, interpolation)`` has value and
    gradient of ``weight * n * dirlearn.ranksim_loss(z, y, interpolation * weight / n)``.

    Parameters
    ----------
    features : tensor of shape (N, D)
    targets : tensor of shape (N, 1)
        Other shapes are refused here; the code raises an IndexError for (N,), and ranks the columns
        of (N, K) one by one.
    interpolation : float
        :math:`\lambda`; the code's command for ages says 2, its default is 1.

    Raises
    ------
    ValueError
        If ``targets`` do not have shape (N, 1), or the batch is empty; and as
        :func:`dirlearn.ranksim_loss`.

    Examples
    --------
    >>> angle = torch.tensor([0.1, 0.3, 0.6, 1.2])
    >>> on_an_arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    >>> ranksim_loss(on_an_arc, torch.tensor([[12.0], [3.0], [1.0], [6.0]]))
    tensor(0.2500)

    Measured in the chapter *RankSim*.
    """
    _check_ranksim(features, targets, interpolation)
    if targets.shape != (len(features), 1):
        raise ValueError(
            f"targets must have shape (N, 1) here, got {tuple(targets.shape)}; the released code "
            "takes no other, and dirlearn.ranksim_loss does"
        )
    if len(features) == 0:
        raise ValueError("the batch is empty")
    labels = targets.detach().squeeze(1)
    values = labels.tolist()
    holders = [[i for i, y in enumerate(values) if y == label] for label in sorted(set(values))]
    one_each = torch.tensor([random.choice(same) for same in holders], device=features.device)
    y, z = labels[one_each].to(features.dtype), F.normalize(features[one_each], dim=1)
    wanted = _places(-(y[:, None] - y).abs())
    differentiable: Any = _Places.apply  # torch declares no type for it
    ranks: Tensor = differentiable(z @ z.T, interpolation)
    return ((ranks - wanted) ** 2).mean(dim=1).sum()


class _Places(torch.autograd.Function):
    """Places over n, and the blackbox gradient for whatever gradient arrives (equations 5 to 7)."""

    @staticmethod
    def forward(scores: Tensor, interpolation: float) -> Tensor:  # noqa: ARG004  # for setup_context
        return _places(scores)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        scores, ctx.interpolation = inputs
        ctx.save_for_backward(scores, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        scores, places = ctx.saved_tensors
        reached = _places(scores + ctx.interpolation * grads[0])
        return -(places - reached) / (ctx.interpolation + 1e-8), None


def _places(scores: Tensor) -> Tensor:
    """Place in descending order over n: equal scores in whatever order the sort leaves them."""
    places = scores.argsort(dim=-1, descending=True).argsort(dim=-1) + 1
    return places.to(scores.dtype) / scores.shape[-1]

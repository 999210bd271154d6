"""Learning from labelled and pseudo-labelled data together (Yang & Xu 2020)."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class SemiSupervisedLoss(nn.Module):
    r"""Loss of labelled data plus omega times that of pseudo-labelled data.

    .. math:: L = \frac{1}{|D_L|} \sum_{D_L} \ell(f(x), y)
              + \omega\, \frac{1}{|D_U|} \sum_{D_U} \ell(f(\tilde x), \tilde y)

    (Yang and Xu 2020, section 2). Both terms are means. The released code has no omega: it trains
    on one concatenated data set, and the mean over that is, but for the factor
    :math:`1 / (1 + \omega)`, this loss with :math:`\omega = |D_U| / |D_L|`, which is 5 there:
    :class:`dirlearn.released.SemiSupervisedLoss`.

    Parameters
    ----------
    loss : callable
        ``loss(prediction, target)``, a scalar, the mean over its samples; such as
        :func:`torch.nn.functional.cross_entropy`, or a regression loss.
    omega : float
        Weight of the pseudo-labelled data, 0 or more; default 1 (the paper's text; it names no
        value).

    Called with prediction and target of labelled and then of pseudo-labelled samples, and with
    ``kept``, a bool tensor (N_U,), the mean is over the pseudo-labels that it keeps. Where it keeps
    none, or omega is 0, the labelled term is left.

    Raises
    ------
    ValueError
        If ``omega`` is negative or not finite; when called, if a batch is empty, lengths differ or
        the loss is not a scalar.
    TypeError
        If ``loss`` cannot be called or is a class, a target is a tuple, such as
        :class:`PseudoLabels`, or ``kept`` is not a bool tensor.

    Examples
    --------
    >>> criterion = SemiSupervisedLoss(nn.functional.l1_loss, omega=0.5)
    >>> labelled, pseudo = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 0.0])
    >>> criterion(labelled, torch.zeros(2), pseudo, torch.zeros(2))
    tensor(3.)
    >>> criterion(labelled, torch.zeros(2), pseudo, torch.zeros(2), torch.tensor([True, False]))
    tensor(4.)

    Derived in the chapter *Unlabelled data*.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], omega: float = 1.0) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(
                f"loss must be callable as loss(prediction, target), got {type(loss).__name__}"
            )
        if isinstance(loss, type):
            raise TypeError(f"loss is a class; give what it makes, {loss.__name__}()")
        self.loss = loss
        self.omega = _check_omega(omega)

    def forward(
        self,
        prediction: Tensor,
        target: Tensor,
        pseudo_prediction: Tensor,
        pseudo_target: Tensor,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Joint loss of a labelled and a pseudo-labelled batch, a scalar."""
        _check_batch(prediction, target, "labelled")
        _check_batch(pseudo_prediction, pseudo_target, "pseudo-labelled")
        value = self._mean(prediction, target)
        if kept is not None:
            _check_kept(kept, len(pseudo_prediction))
            pseudo_prediction, pseudo_target = pseudo_prediction[kept], pseudo_target[kept]
        if self.omega == 0 or len(pseudo_prediction) == 0:
            return value
        return value + self.omega * self._mean(pseudo_prediction, pseudo_target)

    def _mean(self, prediction: Tensor, target: Tensor) -> Tensor:
        value = self.loss(prediction, target)
        if value.ndim:
            raise ValueError(
                f"loss must give a scalar, its mean over the samples, got {tuple(value.shape)}; "
                'use reduction="mean"'
            )
        return value

    def extra_repr(self) -> str:
        """Show omega."""
        return f"omega={self.omega:g}"


def joint_weights(n_labelled: int, n_pseudo: int, omega: float = 1.0) -> tuple[float, float]:
    r"""Weight of each labelled and of each pseudo-labelled sample of one concatenated data set.

    .. math:: w_L = \frac{N}{(1 + \omega) |D_L|}, \qquad w_U = \frac{\omega N}{(1 + \omega) |D_U|},
              \qquad N = |D_L| + |D_U|

    The weighted mean over both is then :class:`SemiSupervisedLoss`, divided by 1 + omega: the same
    objective from batches drawn from both at once. The weights have mean 1; with
    :math:`\omega = |D_U| / |D_L|` all are 1, which is the released code.

    Raises
    ------
    ValueError
        If there is no labelled or no pseudo-labelled sample, or omega is negative or not finite.

    Examples
    --------
    >>> joint_weights(200, 1000)
    (3.0, 0.6)
    >>> joint_weights(200, 1000, omega=5.0)
    (1.0, 1.0)

    Derived in the chapter *Unlabelled data*.
    """
    sizes = operator.index(n_labelled), operator.index(n_pseudo)
    if min(sizes) < 1:
        raise ValueError(
            f"both parts must hold samples, got {n_labelled} labelled, {n_pseudo} pseudo-labelled"
        )
    omega = _check_omega(omega)
    total = sum(sizes)
    return total / ((1 + omega) * sizes[0]), omega / (1 + omega) * total / sizes[1]


def _check_omega(omega: float) -> float:
    if not 0 <= omega < math.inf:
        raise ValueError(f"omega must be 0 or more, and finite, got {omega}")
    return float(omega)


def _check_kept(kept: Any, n: int) -> None:
    if not isinstance(kept, Tensor) or kept.dtype != torch.bool:
        raise TypeError("kept must be a bool tensor, such as PseudoLabels.kept")
    if kept.shape != (n,):
        raise ValueError(
            f"kept must have shape ({n},), one for each pseudo-label, got {tuple(kept.shape)}"
        )


def _check_batch(prediction: Tensor, target: Any, name: str) -> None:
    if isinstance(target, tuple):
        raise TypeError(
            f"the {name} target must be a tensor, got {type(target).__name__}; of PseudoLabels "
            "give the attribute labels"
        )
    if len(prediction) != len(target):
        raise ValueError(
            f"the {name} batch has {len(prediction)} predictions and {len(target)} targets"
        )
    if len(prediction) == 0:
        raise ValueError(f"the {name} batch is empty, and its mean loss is undefined")

"""Semi-supervised learning as the released code of Yang & Xu (2020) computes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dirlearn import longtail
from dirlearn.arrays import ArrayT, like, to_numpy
from dirlearn.pools import Counts, pool_shares


class SemiSupervisedLoss(nn.Module):
    r"""Mean over labelled and pseudo-labelled samples as over one data set.

    .. math:: L = \frac{1}{|D_L| + |D_U|} \sum_{D_L \cup D_U} \ell

    There is no omega (``dataset/imbalance_cifar.py``, lines 160-167). It is
    :class:`dirlearn.SemiSupervisedLoss` with :math:`\omega = |D_U| / |D_L|`, divided by
    :math:`1 + \omega`: with five pseudo-labels to a label they get five sixths of the loss.

    Parameters
    ----------
    loss : callable
        ``loss(prediction, target)``, a scalar, the mean over its samples.

    Examples
    --------
    >>> labelled, pseudo = torch.tensor([1.0, 3.0]), torch.tensor([4.0, 0.0, 2.0])
    >>> loss = SemiSupervisedLoss(nn.functional.l1_loss)
    >>> loss(labelled, torch.zeros(2), pseudo, torch.zeros(3))
    tensor(2.)

    Measured in the chapter *Unlabelled data*.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, prediction: Tensor, target: Tensor, pseudo_prediction: Tensor, pseudo_target: Tensor
    ) -> Tensor:
        """Loss of both batches put into one, a scalar."""
        return self.loss(
            torch.cat([prediction, pseudo_prediction]), torch.cat([target, pseudo_target])
        )


def class_counts(labels: ArrayT, pseudo_labels: ArrayT, n_classes: int) -> ArrayT:
    """Samples per class with the pseudo-labels counted in, shape (C,).

    So ``get_cls_num_list`` has it (``dataset/imbalance_cifar.py``, lines 163-164), from which
    LDAM's margins and the weights of DRW are made: they follow what the base model predicted. By
    the paper's definition of class counts the true labels alone would give them.

    Raises
    ------
    ValueError
        If a label lies outside 0 .. C - 1.
    TypeError
        If labels are not whole numbers.

    Examples
    --------
    >>> class_counts(np.array([0, 0, 0, 1]), np.array([0, 1, 1, 1, 1]), 2)
    array([4, 5])

    Measured in the chapter *Unlabelled data*.
    """
    true, predicted = (
        longtail.class_counts(to_numpy(part, name), n_classes)
        for part, name in ((labels, "labels"), (pseudo_labels, "pseudo_labels"))
    )
    return like(true + predicted, labels)


def pool_counts(total: int, n_classes: int, rho: float) -> Counts:
    """Unlabelled samples per class, truncated to whole numbers twice.

    A balanced share is shaped by rho and truncated, then scaled to the total and truncated again
    (``dataset/imbalance_cifar.py``, lines 114-125): the pool falls short of the
    total by up to C - 1 samples, and in a small pool the rarest class may hold half of its share.

    Raises
    ------
    ValueError
        If ``total`` is below ``n_classes``, where the released code divides by zero; and as
        :func:`dirlearn.pool_counts`.

    Examples
    --------
    >>> pool_counts(1000, 5, 16), int(pool_counts(1000, 5, 16).sum())
    (array([516, 258, 129,  64,  31]), 998)

    Measured in the chapter *Unlabelled data*.
    """
    shares = pool_shares(total, n_classes, rho)
    if total < n_classes:
        raise ValueError(
            f"total must be at least n_classes, or every share is truncated to 0, got {total} and "
            f"{n_classes}; see dirlearn.pool_counts"
        )
    shaped = np.floor(total // n_classes * shares)
    counts: Counts = np.floor(shaped * (total / shaped.sum())).astype(np.int64)
    return counts

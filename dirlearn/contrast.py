"""Contrastive losses: two views of one image are to be more alike than views of two images."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(q: Tensor, k: Tensor, temperature: float = 0.2, queue: Tensor | None = None) -> Tensor:
    r"""Cross-entropy of finding a query's own key among others (van den Oord et al. 2018; MoCo).

    .. math::
        L = -\frac1N \sum_i \log \frac{\exp(q_i \cdot k_i / \tau)}
        {\exp(q_i \cdot k_i / \tau) + \sum_{k \in \mathcal K_i} \exp(q_i \cdot k / \tau)}

    Query and key i are two views of image i, brought to length 1 here. The negatives
    :math:`\mathcal K_i` are the entries of the ``queue`` if there is one (He et al. 2020, (1)), and
    otherwise the keys of the batch's other images.

    Parameters
    ----------
    q, k : tensors of shape (N, D)
        Floating point, any length but all zeros; row i of both is of the same image.
    temperature : float
        :math:`\tau`: small looks at the hardest negatives alone. Default 0.2 (MoCo v2, and the
        released code of Yang and Xu 2020).
    queue : tensor of shape (K, D), optional
        Earlier keys, which no gradient reaches, also brought to length 1 here.

    Returns
    -------
    scalar tensor
        In ``float32``, or ``float64`` for inputs of that type, also under autocast. A network that
        maps all images to one point has log of the number of candidates, log N or log(1 + K).

    Raises
    ------
    ValueError
        If shapes do not fit, a tensor is empty, there is one pair and no queue (nothing to tell it
        from), ``temperature`` is not positive and finite, or a value is NaN or infinite. To look
        for NaN is to wait for an accelerator, once a call.
    TypeError
        If something else than floating-point tensors is given, or ``temperature`` is not a number.

    Examples
    --------
    >>> apart, together = torch.eye(4), torch.ones(4, 4)
    >>> info_nce(apart, apart, temperature=1.0)  # log(1 + 3 / e)
    tensor(0.7437)
    >>> info_nce(together, together), math.log(4)
    (tensor(1.3863), 1.3862943611198906)

    Derived in the chapter *Self-supervised pre-training*.
    """
    check_temperature(temperature)
    _check_pair("q", q, "k", k)
    if queue is not None:
        _check_rows("queue", queue)
        if queue.shape[1] != q.shape[1]:
            raise ValueError(
                f"queue must have shape (K, {q.shape[1]}), keys as wide as the queries, got "
                f"{tuple(queue.shape)}"
            )
    elif len(q) == 1:
        raise ValueError(
            "a batch of one pair has nothing to tell it from; give a queue, or a larger batch "
            "(drop_last=True keeps a last, short one away)"
        )
    with torch.autocast(q.device.type, enabled=False):
        query, key = unit(q), unit(k)
        if queue is None:
            similarity, own = query @ key.T, torch.arange(len(query), device=query.device)
        else:
            positive = (query * key).sum(dim=1, keepdim=True)
            negative = query @ unit(queue.detach()).to(query.dtype).T
            similarity = torch.cat([positive, negative], dim=1)
            own = torch.zeros(len(query), dtype=torch.int64, device=query.device)
        return _cross_entropy(similarity, own, temperature)


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.5) -> Tensor:
    r"""SimCLR's loss: each of 2N views is to find its partner among all others (Chen et al. 2020).

    .. math::
        L = -\frac1{2N} \sum_{i=1}^{2N} \log \frac{\exp(\cos(z_i, z_{j(i)}) / \tau)}
        {\sum_{k \ne i} \exp(\cos(z_i, z_k) / \tau)}

    The views are ``first`` and ``second`` one after the other, and j(i) is the other view of the
    image of view i: their (1), the "normalised temperature-scaled cross-entropy". Unlike
    :func:`info_nce` it takes both views of the other images for negatives, and both directions.

    Parameters
    ----------
    first, second : tensors of shape (N, D)
        Floating point, any length; row i of both is of the same image, N is 2 at least.
    temperature : float
        Default 0.5 (what Chen et al., appendix B.9, found best on CIFAR-10).

    Returns
    -------
    scalar tensor
        In ``float32``, or ``float64`` for inputs of that type, also under autocast. A network that
        maps all images to one point has log(2N - 1).

    Raises
    ------
    ValueError, TypeError
        As :func:`info_nce`.

    Examples
    --------
    >>> apart, together = torch.eye(4), torch.ones(4, 4)
    >>> nt_xent(apart, apart, temperature=1.0)  # log(1 + 6 / e)
    tensor(1.1654)
    >>> nt_xent(together, together), math.log(7)
    (tensor(1.9459), 1.9459101490553132)

    Derived in the chapter *Self-supervised pre-training*.
    """
    check_temperature(temperature)
    _check_pair("first", first, "second", second)
    if len(first) == 1:
        raise ValueError(
            "one image has nothing to tell it from; give a larger batch (drop_last=True keeps a "
            "last, short one away)"
        )
    with torch.autocast(first.device.type, enabled=False):
        views = torch.cat([unit(first), unit(second)])
        itself = torch.eye(len(views), dtype=torch.bool, device=views.device)
        similarity = (views @ views.T).masked_fill(itself, -torch.inf)
        partner = torch.arange(len(views), device=views.device).roll(len(first))
        return _cross_entropy(similarity, partner, temperature)


def unit(rows: Tensor) -> Tensor:
    """Bring rows to length 1, in ``float32`` at least; a row of zeros stays, with finite gradients.

    Examples
    --------
    >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    rows = rows if rows.dtype == torch.float64 else rows.float()
    # The direction does not change with the scale: squares then neither overflow nor vanish.
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    return F.normalize(rows / largest.masked_fill(largest == 0, 1), dim=1, eps=1.0)


def check_temperature(temperature: Any) -> None:
    """Refuse a temperature that is not a positive, finite number.

    Examples
    --------
    >>> check_temperature(0.0)
    Traceback (most recent call last):
    ValueError: temperature must be positive and finite, got 0.0
    """
    if not isinstance(temperature, Real):
        raise TypeError(f"temperature must be a number, got {type(temperature).__name__}")
    if not 0 < float(temperature) < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")


def _cross_entropy(similarity: Tensor, own: Tensor, temperature: float) -> Tensor:
    # Differences before the division: a tiny temperature then overflows nothing that counts.
    below = similarity - similarity.detach().amax(dim=1, keepdim=True)
    return F.cross_entropy(below / temperature, own)


def _check_pair(one: str, a: Tensor, other: str, b: Tensor) -> None:
    _check_rows(one, a)
    _check_rows(other, b)
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(
            f"{one} and {other} must be pairs of one shape and dtype, got {tuple(a.shape)} "
            f"({a.dtype}) and {tuple(b.shape)} ({b.dtype})"
        )


def _check_rows(name: str, rows: Any) -> None:
    if not isinstance(rows, Tensor) or not rows.is_floating_point():
        got = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
        raise TypeError(f"{name} must be a floating-point tensor, got {got}")
    if rows.ndim != 2 or rows.numel() == 0:
        raise ValueError(
            f"{name} must have shape (N, D), one row for each image, neither of them 0, got "
            f"{tuple(rows.shape)}; flatten or pool the features of an image to one row"
        )
    if not rows.isfinite().all():
        raise ValueError(
            f"{name} holds {int((~rows.isfinite()).sum())} NaN or infinite of {rows.numel()} "
            "values; has the training diverged? Lower its learning rate"
        )

"""Focal-R as the released code of Yang et al. (2021) computes it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dirlearn.losses import Reduction, _check, _focal_terms, _reduced


def focal_r(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
    beta: float = 0.2,
    gamma: float = 1.0,
    kind: Literal["l1", "mse"] = "l1",
    activate: Literal["sigmoid", "tanh"] = "sigmoid",
) -> Tensor:
    r"""Focal-R as the released code computes it (``agedb-dir/loss.py``, lines 21 to 38).

    .. math:: \ell(e) = \bigl(2 \operatorname{sigmoid}(\beta |e|) - 1\bigr)^\gamma\, |e|
              = \tanh(\beta |e| / 2)^\gamma\, |e|

    Against :func:`dirlearn.focal_r`: the factor falls to 0 with the error, not to
    :math:`2^{-\gamma}`, so that for :math:`\gamma = 1` a small error is punished by its square.
    ``activate="tanh"``, which the code offers and does not use, is
    :math:`\tanh(\beta |e|)^\gamma`. Parameters that are not told here, and the errors, are those of
    :func:`dirlearn.focal_r`.

    Raises
    ------
    ValueError
        If ``activate`` is unknown; and as :func:`dirlearn.focal_r`.

    Examples
    --------
    >>> focal_r(torch.tensor([0.0, 50.0]), torch.tensor([1.0, 0.0]), reduction="none")
    tensor([ 0.0997, 49.9955])

    Measured in the chapter *Re-weighting and re-sampling*.
    """
    _check(pred, target, weight)
    if activate not in ("sigmoid", "tanh"):
        raise ValueError(f'activate must be "sigmoid" or "tanh", got {activate!r}')
    distance, error = _focal_terms(pred, target, beta, gamma, kind)
    factor = torch.tanh((beta / 2 if activate == "sigmoid" else beta) * distance)
    # The floor changes no value; below it a power under 1 would have an infinite slope.
    floor = torch.finfo(factor.dtype).tiny
    return _reduced(factor.clamp_min(floor) ** gamma * error, weight, reduction)

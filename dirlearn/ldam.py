"""LDAM (Cao et al. 2019): wider margins for rarer classes, between directions of features."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn.arrays import Array, ArrayT, floating_like
from dirlearn.focal import check_classified, reduce_classified
from dirlearn.longtail import check_class_counts
from dirlearn.losses import Reduction


def ldam_margins(counts: ArrayT, max_margin: float = 0.5) -> ArrayT:
    r"""Margin of each class, inverse to the fourth root of its count.

    .. math:: m_c = m_{\max} \left(\frac{n_{\min}}{n_c}\right)^{1/4}

    The trade-off between classes that Cao et al. (2019, section 3.1) derive for two of them,
    :math:`m_c \propto n_c^{-1/4}`, scaled so that the rarest class has the margin ``max_margin``.

    Parameters
    ----------
    counts : array of shape (C,)
        Samples per class, all positive.
    max_margin : float
        Margin of the rarest class, in units of a cosine: 0 (no margin) to 2, the whole range.
        Default 0.5 (released code, CIFAR; 0.3 for iNaturalist).

    Returns
    -------
    array of shape (C,)
        In the floating dtype of ``counts``.

    Raises
    ------
    ValueError
        If a class has no sample, a count is negative or not finite, or ``max_margin`` is not from
        0 to 2.

    Examples
    --------
    >>> ldam_margins(np.array([5000, 500, 50])).round(3)
    array([0.158, 0.281, 0.5  ])

    Derived in the chapter *Long-tailed classification in one sitting*.
    """
    array = check_class_counts(counts)
    if not 0 <= max_margin <= 2:
        raise ValueError(
            f"max_margin must be from 0 to 2, in units of a cosine, got {max_margin}; 0.5 is usual"
        )
    return floating_like(max_margin * (array.min() / array) ** 0.25, counts)


def ldam_loss(
    logits: Tensor,
    target: Tensor,
    margins: Array | Tensor,
    scale: float = 30.0,
    weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""Label-distribution-aware margin loss (Cao et al. 2019, section 3.2).

    .. math:: \ell = -\log \frac{\exp s(u_y - m_y)}{\exp s(u_y - m_y) + \sum_{c \ne y} \exp s\,u_c}

    The cross-entropy, were the logit :math:`u_y` of the true class lower by its margin. Where
    logits are cosines, as :class:`CosineLinear` gives them, a margin is a length to reckon with and
    the scale :math:`s` says how sharply it is enforced; a plain linear layer can outgrow any
    margin.

    Parameters
    ----------
    logits : tensor of shape (N, C)
        Cosines, one per class, not yet scaled.
    target : tensor of shape (N,)
        Classes 0 to C-1, whole numbers.
    margins : array of shape (C,)
        As :func:`ldam_margins` gives.
    scale : float
        s, positive. Default 30 (released code).
    weight, reduction
        As in :func:`focal_loss`: a weight per class, and a mean that divides by their sum over the
        batch.

    Raises
    ------
    ValueError
        If ``margins`` do not hold one number per class or ``scale`` is not positive and finite; and
        as :func:`focal_loss`.
    TypeError
        As :func:`focal_loss`.

    Examples
    --------
    >>> cosines, target = torch.tensor([[0.6, 0.5]]), torch.tensor([0])
    >>> ldam_loss(cosines, target, margins=torch.tensor([0.0, 0.5]), scale=10.0)
    tensor(0.3133)
    >>> ldam_loss(cosines, target, margins=torch.tensor([0.5, 0.0]), scale=10.0)
    tensor(4.0181)

    Derived in the chapter *Long-tailed classification in one sitting*.
    """
    check_classified(logits, target, weight)
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be positive and finite, got {scale}; 30 is usual")
    margin = torch.as_tensor(margins, dtype=logits.dtype, device=logits.device)
    if margin.shape != logits.shape[1:]:
        raise ValueError(
            f"margins must hold one number per class, shape ({logits.shape[1]},), got "
            f"{tuple(margin.shape)}"
        )
    own = F.one_hot(target.long(), logits.shape[1]).to(logits.dtype)
    loss = F.cross_entropy(scale * (logits - margin * own), target.long(), reduction="none")
    return reduce_classified(loss, target, weight, reduction)


class LDAMLoss(nn.Module):
    """:func:`ldam_loss` as a module, with the margins that its class counts ask for.

    Parameters
    ----------
    counts : array of shape (C,)
        Samples per class of the training set, all positive. (The released code of Yang & Xu 2020
        counts pseudo-labels too.)
    max_margin : float
        As in :func:`ldam_margins`.
    scale : float
        As in :func:`ldam_loss`.

    Attributes
    ----------
    margins : tensor of shape (C,)
        A buffer: it moves with the module.

    Raises
    ------
    ValueError
        As :func:`ldam_margins` and :func:`ldam_loss`.

    Examples
    --------
    >>> loss = LDAMLoss([100, 10])
    >>> loss
    LDAMLoss(classes=2, margins=0.281 to 0.5, scale=30)
    >>> loss(torch.tensor([[0.2, 0.4]]), torch.tensor([1]))
    tensor(9.0001)

    Weights that change with the epoch are given at each call; see :func:`deferred_weights`.

    Derived in the chapter *Long-tailed classification in one sitting*.
    """

    margins: Tensor

    def __init__(
        self, counts: Array | Tensor | list[int], max_margin: float = 0.5, scale: float = 30.0
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}; 30 is usual")
        margins = ldam_margins(check_class_counts(counts), max_margin)
        self.register_buffer("margins", torch.from_numpy(margins).to(torch.get_default_dtype()))
        self.scale = scale

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Mean loss of a batch: logits (N, C), target (N,), weight per class (C,)."""
        return ldam_loss(logits, target, self.margins, self.scale, weight)

    def extra_repr(self) -> str:  # noqa: D102  # what print(module) shows
        low, high = float(self.margins.min()), float(self.margins.max())
        return f"classes={len(self.margins)}, margins={low:.3g} to {high:.3g}, scale={self.scale:g}"


class CosineLinear(nn.Module):
    r"""Last layer whose outputs are cosines, :math:`u_c = z^\top w_c / \|z\| \|w_c\|`.

    Without it LDAM's margins mean little: neither a feature nor a class can gain by growing. It has
    no bias. The loss brings the scale; the class that is predicted does not depend on it.

    Parameters
    ----------
    in_features, out_features : int
        Features D and classes C. The C directions start at random.

    Raises
    ------
    ValueError
        If one of the two is below 1.

    Examples
    --------
    >>> layer = CosineLinear(64, 10)
    >>> layer(1000 * torch.randn(8, 64)).abs().max() <= 1
    tensor(True)

    Derived in the chapter *Long-tailed classification in one sitting*.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(
                "in_features and out_features must be at least 1, got "
                f"{in_features} and {out_features}"
            )
        self.weight = nn.Parameter(F.normalize(torch.randn(out_features, in_features)))

    def forward(self, features: Tensor) -> Tensor:
        """Cosines of shape (N, C) of features (N, D); 0 for a feature that is zero."""
        return F.linear(_unit(features), _unit(self.weight))

    def extra_repr(self) -> str:  # noqa: D102  # what print(module) shows
        return f"in_features={self.weight.shape[1]}, out_features={self.weight.shape[0]}"


def _unit(vectors: Tensor) -> Tensor:
    # torch's own limit under the length, 1e-12, is zero in half precision.
    return F.normalize(vectors, dim=-1, eps=float(np.sqrt(torch.finfo(vectors.dtype).tiny)))

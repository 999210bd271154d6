"""Ranking similarity regularisation (Gong, Mori and Tung 2022): features in the order of labels."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn.arrays import ArrayT, to_numpy


def rank(a: ArrayT) -> ArrayT:
    r"""Rank along the last dimension: 1 is the largest, equal values share a rank.

    .. math:: \operatorname{rk}(a)_i = 1 + |\{j : a_j > a_i\}|

    Parameters
    ----------
    a : array of shape (..., n)
        Real numbers; infinities are ranked like any other.

    Returns
    -------
    integer array of the shape of ``a``
        From 1 to n, on the device of ``a``; a tensor's gradient ends here.

    Raises
    ------
    ValueError
        If ``a`` is a single number or holds NaN, which has no rank. To look for NaN is to wait for
        an accelerator; :func:`ranksim_loss` does not look in the features, and passes NaN on.
    TypeError
        If ``a`` does not hold real numbers.

    Examples
    --------
    >>> rank(np.array([0.3, 0.9, 0.9, 0.1]))
    array([3, 1, 1, 4])
    >>> rank(torch.tensor([[1, 2, 3], [3, 2, 1]]))
    tensor([[3, 2, 1],
            [1, 2, 3]])

    Derived in the chapter *RankSim*.
    """
    if isinstance(a, Tensor):
        values = a.detach()
        if values.is_complex() or values.dtype == torch.bool:
            raise TypeError(f"a must hold real numbers, got {values.dtype}")
    else:
        array = to_numpy(a, "a")
        array = array if array.dtype.kind == "f" else array.astype(np.int64)
        values = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
    if values.ndim == 0:
        raise ValueError("a must have at least one dimension, along which to rank; got one number")
    if values.isnan().any():
        raise ValueError(
            f"a holds {int(values.isnan().sum())} NaN of {values.numel()} values, and NaN has no "
            "rank; drop or impute it first"
        )
    ranks = _ranks(values)
    if isinstance(a, Tensor):
        return ranks
    return ranks.numpy()


def ranksim_loss(
    features: Tensor,
    targets: Tensor,
    interpolation: float = 2.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""How far the order of neighbours in features is from that in labels (Gong et al. 2022, (4)).

    .. math::
        L = \frac1n \sum_{i \in M} \frac1n \sum_{j \in M} \left(
        \frac{\operatorname{rk}(S^y_i)_j - \operatorname{rk}(S^z_i)_j}{n} \right)^2, \qquad
        S^y_{ij} = -\lVert y_i - y_j \rVert, \quad S^z_{ij} = \cos(z_i, z_j)

    M holds one sample of each of the n distinct labels of the batch, drawn anew at every call.
    Ranks are divided by n and errors averaged over rows, so that the value, between 0 and 1,
    hardly grows once a batch has a few dozen labels. Ranking has no useful gradient of its own;
    here it has that of a piecewise affine interpolation (their (5) to (7); Vlastelica et al. 2020).

    Parameters
    ----------
    features : tensor of shape (N, D)
        D features of each sample, floating point. Only their directions matter, so D is 2 at least.
    targets : tensor of shape (N,), (N, 1) or (N, K)
        Labels, in any unit, whole numbers or floating point. For K > 1 their distance is
        Euclidean.
    interpolation : float
        :math:`\lambda`, the reach of the interpolation: small follows the ranks faithfully, large
        looks further. Default 2 (the paper's, for ages). It scales the gradient of one row's mean
        squared error by *whole-number* ranks, as their (6) has it; a weight on the loss, the batch
        size or a gradient scaler does not change what it means.
    generator : torch.Generator, optional
        Draws M; by default torch's global generator of the targets' device.

    Returns
    -------
    scalar tensor
        In ``float32``, or ``float64`` for features of that type: similarities of half-precision
        features are computed so, also under autocast. Fewer than two distinct labels have no order:
        the value is 0, and so is the gradient.

    Raises
    ------
    ValueError
        If shapes do not fit, there is only one feature, ``interpolation`` is not positive and
        finite, or a target is NaN or infinite.
    TypeError
        If features or targets are not tensors, features are not floating point, targets not real,
        or ``interpolation`` is not a number.

    Notes
    -----
    Conversion: the released code divides ranks by n, averages over columns and *sums* over rows, so
    its weight :math:`\gamma_{\mathrm{sum}}` is a weight of :math:`\gamma_{\mathrm{sum}} n` here.
    Its :math:`\lambda` scales the gradient of the weighted sum by ranks *over n*: for the same
    gradient, take the interpolation :math:`\lambda \gamma_{\mathrm{sum}} / n` here. See
    :func:`dirlearn.released.ranksim_loss`.

    For n distinct labels there are n**2 similarities, and each row is sorted: memory grows with
    n**2, and time with a little more. For dense targets, where each pixel is a sample, draw a few
    hundred pixels of a batch and hand over their features, (N, D), and their labels.

    Rows are the paper's full rows: the diagonal takes part, where both similarities have rank 1.
    Similarities that differ by rounding alone (8 units in the last place) share a rank: ages 24
    and 26 are equally far from 25, and the cosines of features on an arc say so up to rounding.
    A feature vector of zeros has cosine 0 with all others, and a finite gradient. NaN in the
    features of M makes the value NaN; looking for it would stall an accelerator.

    Examples
    --------
    >>> angle = torch.tensor([0.1, 0.3, 0.6, 1.2])
    >>> on_an_arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    >>> ranksim_loss(on_an_arc, torch.tensor([1.0, 3.0, 6.0, 12.0]))
    tensor(0.)
    >>> ranksim_loss(on_an_arc, torch.tensor([12.0, 3.0, 1.0, 6.0]))
    tensor(0.0625)

    Derived in the chapter *RankSim*.
    """
    _check(features, targets, interpolation)
    y = targets.detach()
    y = y.squeeze(-1) if y.ndim == 2 and y.shape[1] == 1 else y
    one_each = _one_per_label(y, generator)
    chosen = features.index_select(0, one_each)
    if chosen.dtype != torch.float64:
        chosen = chosen.float()
    with torch.autocast(features.device.type, enabled=False):
        wanted = _label_ranks(y[one_each])
        error: Any = _RankError.apply  # torch declares no type for it
        value: Tensor = error(_cosines(chosen), wanted, interpolation)[0]
    return value


class RankSim(nn.Module):
    r""":func:`ranksim_loss` times a weight: a regulariser to add to any loss of the predictions.

    Parameters
    ----------
    weight : float
        Of this term. Choose it on validation data, among terms of the size of your loss or below:
        without the weight, features in no order have a value near a sixth.
    interpolation, generator
        As for :func:`ranksim_loss`.

    Called with D features (N, D) and targets (N,), (N, 1) or (N, K); gives a scalar.

    Raises
    ------
    ValueError
        If ``weight`` is negative or not finite; and as :func:`ranksim_loss`.
    TypeError
        If ``weight`` is not a number; and as :func:`ranksim_loss`.

    Notes
    -----
    To redo a run of the released code, with its :math:`\gamma_{\mathrm{sum}}` and
    :math:`\lambda` and n distinct labels in a batch, take the weight
    :math:`\gamma_{\mathrm{sum}} n` *and* the interpolation
    :math:`\lambda \gamma_{\mathrm{sum}} / n`. Its 100 and 2 for ages, at batch size 64, are up to
    6400 and 3.125 here. That is no advice: a weight of 6400 did harm in the book's own studies.

    Examples
    --------
    >>> regularizer = RankSim(weight=100.0)
    >>> features, targets = torch.eye(4, requires_grad=True), torch.arange(4.0)
    >>> value = regularizer(features, targets)
    >>> value.backward()
    >>> features.grad.shape
    torch.Size([4, 4])

    Derived in the chapter *RankSim*.
    """

    def __init__(
        self, weight: float, interpolation: float = 2.0, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        _check_number("weight", weight)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be 0 or more, and finite, got {weight}")
        _check_interpolation(interpolation)
        self.weight, self.interpolation, self.generator = weight, interpolation, generator

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Value of the regulariser for a batch."""
        return self.weight * ranksim_loss(features, targets, self.interpolation, self.generator)

    def extra_repr(self) -> str:
        """Show the settings when printed."""
        return f"weight={self.weight:g}, interpolation={self.interpolation:g}"


class _RankError(torch.autograd.Function):
    """Mean squared difference of ranks over n, with the gradient of its interpolation.

    Ranking is a minimisation, :math:`rk(a) = argmin a.pi` over permutations: the largest score gets
    the smallest number. Replace the error of a row, e, by its linear part in the ranks; then

        e_lambda(a) = (min_pi [a.pi + lambda e(pi)] - min_pi a.pi) / lambda

    is continuous, piecewise affine in the scores, at most e(rk(a)), and equal to it where the other
    permutations are out of reach. Its slope is (argmin of the first - argmin of the second) /
    lambda, that is (rk(a + lambda de/drk) - rk(a)) / lambda.
    """

    @staticmethod
    def forward(
        scores: Tensor,
        wanted: Tensor,
        interpolation: float,  # noqa: ARG004  # for setup_context
    ) -> tuple[Tensor, Tensor]:
        n = max(scores.shape[-1], 1)
        ranks = _ranks(scores, _rounding(scores, 1.0))
        value = ((ranks - wanted).to(scores.dtype) / n).square().sum() / n**2
        # Cosines are finite: this adds 0, unless the features are NaN, and then it says so.
        return value + 0 * scores.sum(), ranks

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        scores, wanted, ctx.interpolation = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(scores, wanted, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        scores, wanted, ranks = ctx.saved_tensors
        n = max(scores.shape[-1], 1)
        slope = 2 * (ranks - wanted).to(scores.dtype) / n  # of a row's mean squared error, by ranks
        moved = scores + ctx.interpolation * slope
        reached = _ranks(moved, _rounding(moved, 1 + 2 * ctx.interpolation))
        # Of whole-number ranks and one row; the loss is 1/n**2 times that, averaged over n rows.
        # A row in perfect order has no pull, and rounding alone must not make one.
        reached = torch.where((slope != 0).any(-1, keepdim=True), reached, ranks)
        gradient = (reached - ranks).to(scores.dtype) / (ctx.interpolation * n**3)
        return grads[0] * gradient, None, None


def _ranks(a: Tensor, rounding: Tensor | float = 0.0) -> Tensor:
    """As :func:`rank`, unchecked; neighbours in order no further apart than ``rounding`` tie."""
    if a.shape[-1] < 2:
        return torch.ones_like(a, dtype=torch.int64)
    order = _descending(a)
    ordered = a.gather(-1, order)
    above, below = ordered[..., :-1], ordered[..., 1:]
    # A difference of whole numbers can overflow; whether they differ cannot.
    falls = above - below > rounding if a.is_floating_point() else above != below
    place = _first_places(falls)
    if a.is_floating_point():
        # Neighbours may tie in a chain that leads far: who is far from its head falls by itself.
        far = (ordered.gather(-1, place - 1)[..., 1:] - below > rounding) & (above != below)
        if torch.compiler.is_compiling() or far.any():
            place = _first_places(falls | far)
    return torch.empty_like(order).scatter_(-1, order, place)


def _first_places(falls: Tensor) -> Tensor:
    """Place of the first of each group of equals: the last before it where values fall."""
    n = falls.shape[-1] + 1
    first = torch.ones(*falls.shape[:-1], n, dtype=torch.int64, device=falls.device)
    first[..., 1:] = torch.where(falls, torch.arange(2, n + 1, device=falls.device), 1)
    return first.cummax(-1).values


def _descending(a: Tensor) -> Tensor:
    if a.device.type != "cpu" or torch.compiler.is_compiling():
        return a.argsort(dim=-1, descending=True)
    # On a CPU, NumPy sorts a batch of rows several times faster than torch does.
    return torch.from_numpy(to_numpy(a, "a").argsort(axis=-1)).flip(-1)


def _rounding(a: Tensor, scale: Tensor | float) -> Tensor | float:
    """What rounding does to differences of numbers of this scale; whole numbers are exact."""
    return 8 * torch.finfo(a.dtype).eps * scale if a.is_floating_point() else 0.0


def _cosines(features: Tensor) -> Tensor:
    # Cosines do not change with the length of a vector, so bring its largest entry to 1 first:
    # squares then neither overflow nor vanish, and only a vector of zeros is shorter than 1.
    largest = features.detach().abs().amax(dim=1, keepdim=True)
    unit = F.normalize(features / largest.masked_fill(largest == 0, 1), dim=1, eps=1.0)
    return unit @ unit.T


def _label_ranks(y: Tensor) -> Tensor:
    """Ranks of -|y_i - y_j| in each row."""
    if y.ndim == 2:
        y = y if y.dtype == torch.float32 else y.double()
        # The fast way over a matrix product would round equal distances differently.
        distance = torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist")
    else:
        half = y.dtype in (torch.float16, torch.bfloat16)
        # Whole numbers stay whole: their differences are exact, and unsigned ones do not wrap.
        y = y.float() if half else y if y.is_floating_point() else y.long()
        distance = (y[:, None] - y).abs()
    largest = y.abs().amax() if y.numel() else 0.0
    return _ranks(-distance, _rounding(distance, largest))


def _one_per_label(y: Tensor, generator: torch.Generator | None) -> Tensor:
    """Indices of one sample of each distinct label, any of them with the same probability."""
    label = y if y.ndim == 1 else torch.unique(y, dim=0, return_inverse=True)[1]
    device = label.device if generator is None else generator.device
    shuffled = torch.randperm(len(label), generator=generator, device=device).to(label.device)
    order = shuffled[label[shuffled].argsort(stable=True)]
    ordered = label[order]
    first = torch.ones_like(order, dtype=torch.bool)  # of its label, in a random order
    first[1:] = ordered[1:] != ordered[:-1]
    return order[first]


def _check(features: Tensor, targets: Tensor, interpolation: float) -> None:
    for name, value in (("features", features), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(value).__name__}; wrap it in torch.as_tensor"
            )
    if not features.is_floating_point():
        raise TypeError(f"features must be floating point, got {features.dtype}; call .float()")
    if targets.is_complex() or targets.dtype == torch.bool:
        raise TypeError(f"targets must be real numbers, got {targets.dtype}")
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(
            f"features must have shape (N, D), got {tuple(features.shape)}; flatten or pool them "
            "to one vector for each sample; where pixels are samples, draw a few hundred of them"
        )
    if features.shape[1] == 1:
        raise ValueError(
            f"features must be two or more for each sample, got shape {tuple(features.shape)}; one "
            "feature has no direction, only a sign, so that cosines are 1 or -1 and there is no "
            "gradient; hand over the features that the head reads, not the prediction"
        )
    if targets.ndim not in (1, 2) or len(targets) != len(features) or targets.shape[1:] == (0,):
        raise ValueError(
            f"targets must have shape (N,), (N, 1) or (N, K) with N = {len(features)}, one label "
            f"for each row of features, got {tuple(targets.shape)}"
        )
    _check_interpolation(interpolation)
    # This waits for an accelerator; so does the number of distinct labels, right after it.
    if targets.is_floating_point() and not targets.isfinite().all():
        raise ValueError(
            f"targets hold {int((~targets.isfinite()).sum())} NaN or infinite of "
            f"{targets.numel()} values; drop or impute them first"
        )


def _check_interpolation(interpolation: float) -> None:
    _check_number("interpolation", interpolation)
    if not 0 < interpolation < math.inf:
        raise ValueError(f"interpolation must be positive and finite, got {interpolation}")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, got {value!r}")

"""Balanced MSE (Ren et al. 2022): a likelihood that knows how rare each label is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn.arrays import Array, check_finite, to_numpy
from dirlearn.bins import Bins, check_bins
from dirlearn.losses import Reduction, _check, _reduced
from dirlearn.truncated import positive

Numbers: TypeAlias = Array | Tensor | Sequence[float]


def balanced_mse(
    pred: Tensor, target: Tensor, sigma: float | Tensor, reduction: Reduction = "mean"
) -> Tensor:
    r"""Balanced MSE by batch-based Monte Carlo (BMC): the batch stands for the population.

    .. math:: \ell_i = -2\sigma^2 \log \frac{\exp(-|\hat y_i - y_i|^2 / 2\sigma^2)}
              {\sum_{j} \exp(-|\hat y_i - y_j|^2 / 2\sigma^2)}

    The cross-entropy of the batch's labels under a Gaussian around each prediction (Ren et al.
    2022, equation 3.15). The labels of the batch stand for the training distribution, so that the
    prediction :math:`\hat y_i` is the *location* of a density under which all labels were equally
    common, and leaves the range of the labels near its ends: :func:`truncated_mean` brings it back.

    Parameters
    ----------
    pred, target : tensors of shape (N,) or (N, D)
        Predictions and targets, floating point, N of at least 2. The N labels are drawn as the
        training set is: neither re-sampled nor sorted. Memory grows as N * N * D.
    sigma : float or tensor of one element
        Spread of a target about its prediction, in the unit of the target. Too small, well below
        the spacing of the labels in a batch, nothing is learned; too large, predictions overshoot.
        A gradient reaches it through the likelihood alone: the factor :math:`2\sigma^2`, which
        brings the loss to the unit of a squared error, is held constant, or sigma would shrink to
        lower it.
    reduction : {"mean", "sum", "none"}
        As in :mod:`torch.nn`; the result has at least the precision of ``float32``.

    Raises
    ------
    ValueError
        If shapes differ or are not (N,) or (N, D), the batch holds fewer than two samples,
        ``sigma`` is a number that is not positive, or ``reduction`` is unknown.
    TypeError
        If ``pred`` or ``target`` is not a floating-point tensor.

    Examples
    --------
    >>> pred, target = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 3.0])
    >>> balanced_mse(pred, target, sigma=1.0, reduction="none")
    tensor([0.4028, 0.0221])

    Derived in the chapter *Balanced MSE*.
    """
    _check(pred, target, None)
    if pred.ndim > 2 or pred.ndim == 0:
        raise ValueError(
            f"pred and target must have shape (N,) or (N, D), got {tuple(pred.shape)}; for maps of "
            "targets use GAILoss, which compares no pairs"
        )
    if len(pred) < 2:
        raise ValueError(
            "the batch holds one sample, whose label has no other to be told from, and the loss "
            "would be 0; give larger batches, drop a last batch of one (drop_last=True), or use "
            "GAILoss, which needs no batch"
        )
    pred, target = _wide(pred, target)
    variance = positive(sigma, pred).square()
    apart = (pred[:, None] - target).square()
    distance = apart if pred.ndim == 1 else apart.sum(dim=2)
    own = torch.arange(len(pred), device=pred.device)
    loss = F.cross_entropy(-distance / (2 * variance), own, reduction="none")
    return _reduced(loss * (2 * variance).detach(), None, reduction)


class _WithSigma(nn.Module):
    """A scale that stays positive because its logarithm is what is learned, or held."""

    log_sigma: Tensor

    def __init__(self, sigma: float | Tensor, learn_sigma: bool) -> None:
        super().__init__()
        if isinstance(sigma, Tensor) and sigma.numel() == 1:
            sigma = sigma.item()  # here there is time to look at its value
        log_sigma = positive(sigma, torch.empty(0)).log()
        if learn_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma)

    @property
    def sigma(self) -> Tensor:
        """Spread of a target about its prediction, in the unit of the target."""
        return self.log_sigma.exp()

    def extra_repr(self) -> str:
        held = "learned" if isinstance(self.log_sigma, nn.Parameter) else "held"
        return f"sigma={self.log_sigma.exp().item():.4g}, {held}"


class BalancedMSE(_WithSigma):
    r"""Balanced MSE by batch-based Monte Carlo as a module: :func:`balanced_mse` with its sigma.

    Parameters
    ----------
    sigma : float
        Spread of a target about its prediction, in the unit of the target, or what it starts from:
        take the root mean squared error of a plain model on validation data.
    learn_sigma : bool
        Learn :math:`\log\sigma` with the network. Then hand ``parameters()`` to the optimizer, free
        of weight decay; Adam moves it by at most its learning rate a step.

    Raises
    ------
    ValueError
        If ``sigma`` is not positive and finite; and as :func:`balanced_mse`.

    Examples
    --------
    >>> criterion = BalancedMSE(sigma=1.0)
    >>> criterion(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 3.0]))
    tensor(0.2125, grad_fn=<MeanBackward0>)
    >>> model = nn.Linear(4, 1)
    >>> optimizer = torch.optim.Adam([*model.parameters(), *criterion.parameters()])

    At test time the output is a location, to be read as
    ``truncated_mean(model(x), criterion.sigma, low, high)``: so keep sigma with the model.

    Derived in the chapter *Balanced MSE*.
    """

    def __init__(self, sigma: float, learn_sigma: bool = True) -> None:
        super().__init__(sigma, learn_sigma)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Mean loss of the batch."""
        return balanced_mse(pred, target, self.sigma)


class GAILoss(_WithSigma):
    r"""Balanced MSE by GMM-based analytical integration (GAI): the labels are a known mixture.

    .. math:: \ell_i = 2\sigma^2 \Bigl[ -\log \mathcal N(y_i; \hat y_i, \sigma^2) + \log \sum_k
              w_k\, \mathcal N\bigl(\hat y_i; \mu_k, \sigma_k^2 + \sigma^2\bigr) \Bigr]

    What :func:`balanced_mse` becomes, less :math:`2\sigma^2 \log N`, as the batch grows to the
    whole population (Ren et al. 2022, section 3). It compares no samples with each other: a
    batch of one is welcome, and so are maps, for each element is a target of its own. For targets
    of one dimension prefer it, with :meth:`from_counts`. Its output, too, is a location.

    Parameters
    ----------
    weights, means, variances : arrays of K numbers
        A Gaussian mixture of the *training labels*; the weights are scaled to sum to 1. A fitted
        scikit-learn ``GaussianMixture`` has them as ``weights_``, ``means_`` and ``covariances_``.
    sigma, learn_sigma
        As for :class:`BalancedMSE`. Here too the factor :math:`2\sigma^2` is held constant.

    Raises
    ------
    ValueError
        If the mixture is empty, its three parts differ in length, a number is NaN or infinite, a
        weight or variance is negative, no weight is positive, or ``sigma`` is not positive and
        finite; in ``forward`` as :func:`dirlearn.weighted_mse`.
    TypeError
        If ``pred`` or ``target`` is not a floating-point tensor.

    Examples
    --------
    >>> criterion = GAILoss([0.9, 0.1], means=[1.0, 4.0], variances=[0.5, 0.5], sigma=1.0)
    >>> criterion(torch.tensor([2.5, 2.5]), torch.tensor([1.0, 4.0]))
    tensor(0.3445, grad_fn=<MeanBackward0>)

    Derived in the chapter *Balanced MSE*.
    """

    log_weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(
        self,
        weights: Numbers,
        means: Numbers,
        variances: Numbers,
        sigma: float,
        learn_sigma: bool = True,
    ) -> None:
        super().__init__(sigma, learn_sigma)
        share, centre, spread = (
            to_numpy(values, name).reshape(-1).astype(np.float64)
            for values, name in ((weights, "weights"), (means, "means"), (variances, "variances"))
        )
        if not share.size == centre.size == spread.size:
            raise ValueError(
                "weights, means and variances must hold one number per component, got "
                f"{share.size}, {centre.size} and {spread.size}"
            )
        for values, name in ((share, "weights"), (centre, "means"), (spread, "variances")):
            check_finite(values, name)
        if (share < 0).any() or not share.any():
            raise ValueError("weights must be 0 or more, and one of them positive")
        if (spread < 0).any():
            raise ValueError("variances must be 0 or more")
        held = share > 0
        for name, values in (
            ("log_weights", np.log(share[held] / share[held].sum())),
            ("means", centre[held]),
            ("variances", spread[held]),
        ):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.get_default_dtype()))

    @classmethod
    def from_counts(
        cls, counts: Numbers, bins: Bins, sigma: float, learn_sigma: bool = True
    ) -> GAILoss:
        r"""The histogram itself as the mixture: a component per bin that holds a label.

        Centres are those of the bins, weights the counts, variances width²/12, that of a label
        somewhere in the bin. ``counts`` has shape (K,), such as ``bins.counts(y)`` gives.

        Examples
        --------
        >>> y = np.array([0.5, 0.6, 0.7, 2.5])
        >>> bins = Bins([0, 1, 2, 3])
        >>> GAILoss.from_counts(bins.counts(y), bins, sigma=0.5, learn_sigma=False)
        GAILoss(sigma=0.5, held, components=2)
        """
        check_bins(bins)
        number = to_numpy(counts, "counts")
        if number.shape != (len(bins),):
            raise ValueError(
                f"counts must have shape ({len(bins)},), one per bin, got {number.shape}; "
                "bins.counts(y) gives them"
            )
        return cls(number, bins.centers, np.diff(bins.edges) ** 2 / 12, sigma, learn_sigma)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Mean loss of predictions and targets of one shape, whatever it is."""
        _check(pred, target, None)
        pred, target = _wide(pred, target)
        variance = positive(self.sigma, pred).square()
        log_weights, means, spread = (
            part.to(pred.dtype) for part in (self.log_weights, self.means, self.variances)
        )
        total = spread + variance
        # The factor 1 / sqrt(2 pi) of the two densities cancels.
        fit = (pred - target).square() / (2 * variance) + variance.log() / 2
        parts = log_weights - (pred[..., None] - means).square() / (2 * total) - total.log() / 2
        return ((fit + parts.logsumexp(dim=-1)) * (2 * variance).detach()).mean()

    def extra_repr(self) -> str:  # noqa: D102  # what print(module) shows
        return f"{super().extra_repr()}, components={len(self.means)}"


def _wide(*tensors: Tensor) -> list[Tensor]:
    """In one precision, of float32 at least: squares soon leave the range of half precision."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]

"""Long tails of classes: their counts, the weights that undo them, and balanced sampling."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import WeightedRandomSampler

from dirlearn.arrays import Array, ArrayT, check_finite, floating_like, like, to_numpy


def long_tailed_counts(
    n_max: int, n_classes: int, rho: float, profile: Literal["exp", "step"] = "exp"
) -> npt.NDArray[np.int64]:
    r"""Samples per class of a long-tailed training set, from the head to the tail.

    .. math:: n_c = \lfloor n_{\max}\, \rho^{-c/(C-1)} \rfloor, \qquad c = 0, \dots, C-1

    The profile of CIFAR-10-LT and its kin (Cui et al. 2019; Cao et al. 2019). With ``"step"`` the
    first half of the classes, the larger one if C is odd, has ``n_max`` samples and the other half
    ``n_max / rho``.

    Parameters
    ----------
    n_max : int
        Samples of the largest class: 5000 for CIFAR-10-LT, 500 for CIFAR-100-LT, 1000 for SVHN-LT.
    n_classes : int
        Number of classes C, of which the first is the largest.
    rho : float
        Imbalance ratio, the largest count over the smallest, 1 or more; the papers take 10 to 100.
        Released code is given its inverse, the "imbalance factor".
    profile : {"exp", "step"}
        Falling along a geometric line, or in one step.

    Returns
    -------
    array of shape (C,), whole numbers

    Raises
    ------
    ValueError
        If a number is out of range, the profile is unknown, or a class would have no sample.

    Examples
    --------
    >>> long_tailed_counts(5000, 10, rho=100)
    array([5000, 2997, 1796, 1077,  645,  387,  232,  139,   83,   50])
    >>> long_tailed_counts(40, 4, rho=20, profile="step")
    array([40, 40,  2,  2])

    Derived in the chapter *Long-tailed classification in one sitting*.
    """
    if not (n_max >= 1 and n_classes >= 1 and n_max % 1 == 0 and n_classes % 1 == 0):
        raise ValueError(
            "n_max and n_classes must be at least 1 and whole numbers, got n_max "
            f"{n_max} and n_classes {n_classes}"
        )
    if not 1 <= rho < np.inf:
        raise ValueError(
            f"rho must be 1 or more, and finite, got {rho}; it is the largest count over the "
            "smallest, the inverse of an imbalance factor such as 0.01"
        )
    if profile == "exp":
        exponent = np.arange(n_classes) / max(n_classes - 1, 1)
    elif profile == "step":
        exponent = (np.arange(n_classes) >= (n_classes + 1) // 2).astype(np.float64)
    else:
        raise ValueError(f'profile must be "exp" or "step", got {profile!r}')
    exact = n_max * (1 / rho) ** exponent
    # What is a whole number on paper must not lose one to rounding.
    counts = np.floor(exact * (1 + 1e-12)).astype(np.int64)
    if counts[-1] < 1:
        raise ValueError(
            f"with n_max {n_max} and rho {rho:g} {int((counts < 1).sum())} of the {n_classes} "
            "classes would have no sample; take rho of at most n_max"
        )
    return counts


def class_counts(labels: ArrayT, n_classes: int) -> ArrayT:
    """Count the samples of each class.

    Parameters
    ----------
    labels : array of any shape
        Classes 0 to C-1, whole numbers.
    n_classes : int
        Number of classes C.

    Returns
    -------
    array of shape (C,), whole numbers
        0 for a class that has no sample; weights and margins then refuse it.

    Raises
    ------
    ValueError
        If a label is outside 0 to C-1, or ``n_classes`` < 1.
    TypeError
        If labels are not whole numbers.

    Examples
    --------
    >>> class_counts(np.array([0, 0, 2]), n_classes=3)
    array([2, 0, 1])

    Used in the chapter *Long-tailed classification in one sitting*.
    """
    if n_classes < 1:
        raise ValueError(f"n_classes must be at least 1, got {n_classes}")
    array = to_numpy(labels, "labels").reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"labels must be whole numbers, classes 0 to {n_classes - 1}, got dtype {array.dtype}; "
            "call .long() or .astype(int) if that is what they are"
        )
    if array.size and not (array.min() >= 0 and array.max() < n_classes):
        raise ValueError(
            f"labels must be classes 0 to {n_classes - 1}, got {array.min()} to {array.max()}"
        )
    return like(np.bincount(array.astype(np.int64), minlength=n_classes), labels)


def class_balanced_weights(counts: ArrayT, beta: float = 0.9999) -> ArrayT:
    r"""Weight of each class, inverse to its effective number of samples (Cui et al. 2019).

    .. math:: E_c = \frac{1 - \beta^{n_c}}{1 - \beta}, \qquad
              w_c = \frac{C / E_c}{\sum_{c'} 1 / E_{c'}}

    A sample counts for less, the more of its class were there before it. With :math:`\beta = 0` one
    sample says all, and every class weighs 1; :math:`\beta \to 1` gives weights inverse to the
    counts, and ``beta=1`` is that limit. In between the weights are all but inverse to counts
    well below :math:`1/(1-\beta)` and equal well above it: with the default of 0.9999, the 5,000
    samples at the head of CIFAR-10-LT are worth 3,935, and the 50 at its tail 49.9.

    Parameters
    ----------
    counts : array of shape (C,)
        Samples per class, all positive; see :func:`class_counts`.
    beta : float
        From 0 to 1. Default 0.9999 (Cui et al. 2019 for CIFAR; released code of Cao et al. 2019
        and of Yang & Xu 2020).

    Returns
    -------
    array of shape (C,)
        Of mean 1 over the *classes*, as in the paper: unlike :func:`dirlearn.inverse_weights`,
        whose mean over the *samples* is 1. In the floating dtype of ``counts``.

    Raises
    ------
    ValueError
        If a class has no sample, a count is negative or not finite, or ``beta`` is not from 0 to 1.

    Examples
    --------
    >>> class_balanced_weights(np.array([5000, 500, 50])).round(3)
    array([0.034, 0.275, 2.691])
    >>> class_balanced_weights(np.array([4, 2, 1]), beta=1.0).round(3)
    array([0.429, 0.857, 1.714])

    Derived in the chapter *Long-tailed classification in one sitting*.
    """
    array = check_class_counts(counts)
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be from 0 (equal weights) to 1 (inverse counts), got {beta}")
    if beta == 1:
        effective = array
    elif beta == 0:
        effective = np.ones_like(array)
    else:
        # 1 - beta**n loses its digits where beta is near 1; this keeps them.
        effective = -np.expm1(array * (math.log1p(beta - 1) if beta > 0.5 else math.log(beta)))
    weights = effective.min() / effective
    return floating_like(weights * (len(array) / weights.sum()), counts)


def deferred_weights(epoch: int, counts: ArrayT, start: int = 160, beta: float = 0.9999) -> ArrayT:
    """Deferred re-weighting (DRW): equal weights at first, class-balanced ones from ``start`` on.

    Features are learned from the data as they lie, and the weights come when the learning rate has
    fallen (Cao et al. 2019, section 3.3). The paper's weights are inverse to the counts, which is
    ``beta=1``; its released code, and that of Yang & Xu (2020), has those of
    :func:`class_balanced_weights` with 0.9999.

    Parameters
    ----------
    epoch : int
        Epoch, from 0; there is no last one. (The released code stops with an error at 320.)
    counts : array of shape (C,)
        Samples per class, all positive.
    start : int
        First epoch with weights. Default 160, of 200 (Cao et al. 2019).
    beta : float
        As in :func:`class_balanced_weights`.

    Returns
    -------
    array of shape (C,)
        In the floating dtype of ``counts``.

    Raises
    ------
    ValueError
        If ``epoch`` or ``start`` is negative; and as :func:`class_balanced_weights`.
    TypeError
        If one of the two is not a whole number.

    Examples
    --------
    >>> [deferred_weights(epoch, np.array([30, 10]), beta=1.0) for epoch in (159, 160, 1000)]
    [array([1., 1.]), array([0.5, 1.5]), array([0.5, 1.5])]

    Derived in the chapter *Long-tailed classification in one sitting*.
    """
    for name, value in (("epoch", epoch), ("start", start)):
        if not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    if epoch < 0 or start < 0:
        raise ValueError(f"epoch and start must be 0 or more, got epoch {epoch} and start {start}")
    weights = class_balanced_weights(counts, beta)  # looks at its arguments in every epoch
    return weights if epoch >= start else class_balanced_weights(counts, beta=0.0)


def balanced_sampler(
    labels: Array | Tensor,
    beta: float = 1.0,
    num_samples: int | None = None,
    generator: torch.Generator | None = None,
) -> WeightedRandomSampler:
    """Draw samples so that classes are met equally often, with replacement: torch's own sampler.

    A sample's chance is the weight of its class by :func:`class_balanced_weights`.

    Parameters
    ----------
    labels : array of shape (N,)
        Classes 0 to C-1 of the training set.
    beta : float
        1, the default, meets every class equally often; lower values keep some of the imbalance,
        and 0 all of it. (The released code of Yang & Xu 2020 has 0.9999.)
    num_samples : int, optional
        Draws in an epoch; N by default.
    generator : torch.Generator, optional
        Where the draws come from; torch's global one by default.

    Raises
    ------
    ValueError
        If there is no label, or a class below the largest label has no sample.
    TypeError
        If labels are not whole numbers, or ``generator`` is a seed.

    Examples
    --------
    >>> labels = torch.tensor([0] * 90 + [1] * 10)
    >>> draws = torch.Generator().manual_seed(0)
    >>> sampler = balanced_sampler(labels, num_samples=1000, generator=draws)
    >>> class_counts(labels[list(sampler)], n_classes=2)
    tensor([500, 500])

    Used in the chapter *Long-tailed classification in one sitting*.
    """
    array = to_numpy(labels, "labels")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"labels must hold one class per sample, shape (N,), got {array.shape}")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}; "
            "torch.Generator().manual_seed(0) makes one"
        )
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    counts = class_counts(array, int(array.max()) + 1)
    weights = torch.from_numpy(class_balanced_weights(counts.astype(np.float64), beta)[array])
    draws = len(array) if num_samples is None else num_samples
    return WeightedRandomSampler(weights, draws, replacement=True, generator=generator)  # type: ignore[arg-type]  # it takes any sequence


def check_class_counts(counts: Any) -> npt.NDArray[np.float64]:
    """Return ``counts`` in ``float64`` if they are one positive number per class.

    Examples
    --------
    >>> check_class_counts([5, 0, 2])
    Traceback (most recent call last):
    ValueError: class 1 has no sample: counts must all be positive; drop the class, or get samples
    """
    array = to_numpy(counts, "counts").astype(np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"counts must hold one number per class, shape (C,), got {array.shape}")
    check_finite(array, "counts")
    if (array < 0).any():
        raise ValueError(f"counts must not be negative, got {array.min():g}")
    empty = np.flatnonzero(array == 0)
    if len(empty):
        others = f" and {len(empty) - 1} more have" if len(empty) > 1 else " has"
        raise ValueError(
            f"class {empty[0]}{others} no sample: counts must all be positive; drop the class, or "
            "get samples"
        )
    return array

"""Pools of unlabelled data with a chosen imbalance and a chosen share of relevant samples."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dirlearn.arrays import Array, ArrayT, like, to_numpy

Counts = npt.NDArray[np.int64]
IRRELEVANT = -1


def pool_counts(total: int, n_classes: int, rho: float) -> Counts:
    r"""Unlabelled samples per class: ``total`` of them, the first class rho times the last.

    .. math:: n_c = n_0\, \rho^{-c / (C - 1)}, \qquad
              n_0 = \text{total} \Big/ \sum_{c=0}^{C-1} \rho^{-c / (C - 1)}

    The paper varies the imbalance :math:`\rho_U` of the unlabelled data and holds their number at
    five times the labelled (Yang and Xu 2020, section 2; ``unlabel_size_factor`` in the released
    code). Fractions are rounded by largest remainder, so that pools of different rho hold equally
    many; the released code truncates twice: :func:`dirlearn.released.pool_counts`.

    Parameters
    ----------
    total : int
        Size of the pool.
    n_classes : int
        C, at least 2; class 0 is the commonest.
    rho : float
        :math:`\rho_U`, at least 1, the balanced pool.

    Returns
    -------
    array of shape (C,)

    Raises
    ------
    ValueError
        If ``total`` < 1, ``n_classes`` < 2, or ``rho`` < 1 or not finite.

    Examples
    --------
    >>> pool_counts(1000, 5, 1)
    array([200, 200, 200, 200, 200])
    >>> pool_counts(1000, 5, 16)
    array([516, 258, 129,  65,  32])

    Derived in the chapter *Unlabelled data*.
    """
    shares = pool_shares(total, n_classes, rho)
    return largest_remainder(total * shares / shares.sum())


def draw_pool(
    labels: ArrayT, counts: Any, relevance: float = 1.0, seed: int | np.random.Generator = 0
) -> ArrayT:
    r"""Choose an unlabelled pool from candidates whose true classes are known.

    True classes shape the pool, as in the paper's ablations, and are not given to the learner.

    Parameters
    ----------
    labels : integer array of shape (N,)
        True class of each candidate, from 0 on; -1 for a candidate that is irrelevant, that is, of
        no class of the task.
    counts : array of shape (C,)
        Samples wanted of each class, were all of them relevant: :func:`pool_counts`.
    relevance : float
        Share of relevant samples, in [0, 1]; default 1. The size of the pool stays ``sum(counts)``:
        each class gives its ``relevance * counts``, and irrelevant candidates fill the rest.
    seed : int or numpy.random.Generator
        The same seed gives the same pool; and of two pools from one seed, what the smaller holds of
        a class is among what the larger does.

    Returns
    -------
    int64 array of shape (sum(counts),)
        Indices into ``labels``, increasing; an array or a tensor, as ``labels`` is.

    Raises
    ------
    ValueError
        If candidates of a class, or irrelevant ones, are too few: it says which, how many there are
        and what would fit; if ``labels`` is empty, holds fractions or a class that ``counts`` does
        not name; if ``counts`` are negative or all zero; if ``relevance`` lies outside [0, 1].

    Examples
    --------
    >>> labels = np.array([0, 0, 0, 1, 1, -1, -1])
    >>> labels[draw_pool(labels, [2, 2])]
    array([0, 0, 1, 1])
    >>> labels[draw_pool(labels, [2, 2], relevance=0.5)]
    array([ 0,  1, -1, -1])
    >>> draw_pool(labels, [2, 3])
    Traceback (most recent call last):
    ValueError: class 1 has 2 candidates, and the pool wants 3; change its rho, or make the pool
    smaller (by a factor of 0.667 all classes suffice)

    Derived in the chapter *Unlabelled data*.
    """
    classes = _whole(labels, "labels")
    if classes.size == 0:
        raise ValueError("labels is empty: there is no candidate to draw")
    wanted = _whole(counts, "counts")
    if (wanted < 0).any() or not wanted.any():
        raise ValueError(f"counts must be 0 or more and not all 0, got {wanted}")
    if not 0 <= relevance <= 1:
        raise ValueError(f"relevance must be a share in [0, 1], got {relevance}")
    if classes.min() < IRRELEVANT or classes.max() >= len(wanted):
        raise ValueError(
            f"labels must lie between 0 and {len(wanted) - 1}, as many classes as counts has, or "
            f"be -1 for irrelevant ones, got {classes.min()} to {classes.max()}"
        )
    size = int(wanted.sum())
    relevant = round(relevance * size)
    share: list[int] = largest_remainder(wanted * (relevant / size)).tolist()
    every = [*enumerate(share), (IRRELEVANT, size - relevant)]
    found = {c: np.flatnonzero(classes == c) for c, _ in every}
    _check_enough(found, every)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(found[c])[:number] for c, number in every]
    return like(np.sort(np.concatenate(drawn)).astype(np.int64), labels)


def pool_shares(total: int, n_classes: int, rho: float) -> Array:
    """Check the arguments of :func:`pool_counts`; count of each class relative to the first."""
    if operator.index(total) < 1:
        raise ValueError(f"total must be at least 1, got {total}")
    if operator.index(n_classes) < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}")
    if not 1 <= rho < math.inf:
        raise ValueError(
            f"rho is the commonest class over the rarest, at least 1 and finite, got {rho}"
        )
    shares: Array = float(rho) ** -(np.arange(n_classes) / (n_classes - 1))
    return shares


def largest_remainder(ideal: Array) -> Counts:
    """Whole numbers next to ``ideal`` with its sum, rounded up where the fraction is largest.

    Examples
    --------
    >>> largest_remainder(np.array([1.5, 1.25, 0.25]))
    array([2, 1, 0])
    """
    whole: Counts = np.floor(ideal).astype(np.int64)
    short = round(float(ideal.sum())) - int(whole.sum())
    whole[np.argsort(whole - ideal, kind="stable")[:short]] += 1
    return whole


def _check_enough(found: dict[int, Array], every: list[tuple[int, int]]) -> None:
    factor = min((len(found[c]) / n for c, n in every if n), default=1.0)
    if factor:
        smaller = f"make the pool smaller (by a factor of {factor:.3g} all classes suffice)"
    else:
        smaller = "get more candidates: no smaller pool has all that is asked for"
    for c, number in every:
        if len(found[c]) >= number:
            continue
        if c == IRRELEVANT:
            raise ValueError(
                f"there are {len(found[c])} irrelevant candidates, labelled -1, and the pool wants "
                f"{number}; raise the relevance, or {smaller}"
            )
        raise ValueError(
            f"class {c} has {len(found[c])} candidates, and the pool wants {number}; change its "
            f"rho, or {smaller}"
        )


def _whole(values: Tensor | Any, name: str) -> Counts:
    array = to_numpy(values, name)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if not np.isfinite(array).all() or (array != np.round(array)).any():
        raise ValueError(f"{name} must be whole numbers")
    return array.astype(np.int64)

"""Pseudo-labels that depend on x: what theorem 1 of Yang and Xu (2020) leaves out.

The two classes of :mod:`dirlearn.lab.theory`, labelled by a threshold and not by a coin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erfcx, expit, log_ndtr

from dirlearn.lab.assumptions import finite, inside, means, positive
from dirlearn.lab.intervals import Floats


def bayes_threshold(share: Any, mu1: Any = 1.0, mu2: Any = -1.0, sigma: Any = 1.0) -> Floats:
    r"""Threshold with the fewest errors where a ``share`` of the samples is positive.

    .. math:: \frac{\mu_1 + \mu_2}{2} + \frac{\sigma^2}{\mu_1 - \mu_2} \log \frac{1 - s}{s}

    What a classifier learns from imbalanced labels: the rarer a class, the less of the axis it
    gets. With equal classes it is the midpoint, which theorem 1 aims at.

    Raises
    ------
    ValueError
        If the share is not inside (0, 1), sigma is not positive, or mu1 is not above mu2.

    Examples
    --------
    >>> bayes_threshold([0.5, 0.1]).round(2)
    array([0. , 1.1])

    Derived in the chapter *Unlabelled data*.
    """
    share, sigma = inside(share, "share"), positive(sigma, "sigma")
    mu1, mu2 = means(mu1, mu2)
    return np.asarray((mu1 + mu2) / 2 + sigma**2 / (mu1 - mu2) * np.log((1 - share) / share))[()]


def reestimated_threshold(
    threshold: Any, share: Any, mu1: Any = 1.0, mu2: Any = -1.0, sigma: Any = 1.0
) -> Floats:
    r"""One round of self-training on endless unlabelled data: a threshold, and what follows it.

    .. math:: T(\theta) = \frac{\E[X \mid X > \theta] + \E[X \mid X \le \theta]}{2}

    The samples above the threshold are called positive, those below negative, and the new
    threshold lies midway between the means of the two. Theorem 1 leaves this out: here the
    pseudo-label depends on x, so each class is cut off at the threshold.

    Parameters
    ----------
    threshold : float or array
        The threshold that labels. All arguments broadcast.
    share : float or array
        True share of positives in the unlabelled data, inside (0, 1).
    mu1, mu2, sigma
        As for :func:`dirlearn.lab.theory.threshold_bound`.

    Raises
    ------
    ValueError
        As :func:`bayes_threshold`, or if a threshold is not finite.

    Examples
    --------
    >>> reestimated_threshold([0.0, 0.6], share=0.5).round(3)  # equal classes: towards the midpoint
    array([0.   , 0.342])
    >>> reestimated_threshold([0.0, 0.6], share=1 / 11).round(3)
    array([-0.242,  0.118])

    Derived in the chapter *Unlabelled data*.
    """
    threshold, share = finite(threshold, "threshold"), inside(share, "share")
    mu1, mu2 = means(mu1, mu2)
    sigma = positive(sigma, "sigma")
    u1, u2 = (threshold - mu1) / sigma, (threshold - mu2) / sigma
    above_1, above_2 = mu1 + sigma * _beyond(u1), mu2 + sigma * _beyond(u2)
    below_1, below_2 = mu1 - sigma * _beyond(-u1), mu2 - sigma * _beyond(-u2)
    # Odds of a positive on either side; as logarithms, far out too.
    odds = np.log(share / (1 - share))
    of_above = expit(odds + log_ndtr(-u1) - log_ndtr(-u2))
    of_below = expit(odds + log_ndtr(u1) - log_ndtr(u2))
    above = of_above * above_1 + (1 - of_above) * above_2
    below = of_below * below_1 + (1 - of_below) * below_2
    return np.asarray((above + below) / 2)[()]


def _beyond(u: Floats) -> Floats:
    """Mean of a standard normal variable beyond ``u``."""
    return np.asarray(np.sqrt(2 / np.pi) / erfcx(u / np.sqrt(2)))


def self_training(
    start: Any,
    n_positive: int,
    n_negative: int,
    rounds: int = 1,
    mu1: float = 1.0,
    mu2: float = -1.0,
    sigma: float = 1.0,
    seed: int = 0,
) -> Floats:
    """Thresholds of self-training on real samples, whose pseudo-labels depend on x.

    Each round labels one and the same pool with the present threshold and puts the next midway
    between the means of the two sides; :func:`reestimated_threshold` is a round on an endless pool.

    Parameters
    ----------
    start : array of shape (R,)
        The base classifier's threshold in each of R repetitions; each draws its own pool.
    n_positive, n_negative : int
        True numbers in the pool; one of them may be 0.
    rounds : int
        How often the pool is labelled anew.
    mu1, mu2, sigma, seed
        As for :func:`dirlearn.lab.theory.draw_thresholds`.

    Returns
    -------
    array of shape (rounds + 1, R)
        The first row is ``start``. A threshold with the whole pool on one side stays as it is.

    Raises
    ------
    ValueError
        If ``start`` is not of shape (R,) or not finite, a number is negative or not whole, the pool
        is empty, ``rounds`` is negative; and as
        :func:`dirlearn.lab.theory.threshold_bound`.

    Examples
    --------
    >>> thresholds = self_training(np.full(1000, 0.6), n_positive=250, n_negative=250, rounds=2)
    >>> thresholds.mean(axis=1).round(2)
    array([0.6 , 0.34, 0.2 ])

    Derived in the chapter *Unlabelled data*.
    """
    threshold = finite(start, "start")
    if threshold.ndim != 1 or not threshold.size:
        raise ValueError(
            f"start holds a threshold for each repetition, shape (R,), got {threshold.shape}; "
            "for one threshold give np.full(R, threshold)"
        )
    numbers = (n_positive, n_negative, rounds)
    if min(numbers) < 0 or any(n != int(n) for n in numbers) or n_positive + n_negative == 0:
        raise ValueError(
            "n_positive, n_negative and rounds must be whole numbers, not negative, with at least "
            f"one sample in the pool, got {n_positive}, {n_negative} and {rounds}"
        )
    means(mu1, mu2)
    positive(sigma, "sigma")
    generator = np.random.default_rng(seed)
    center = np.repeat([mu1, mu2], [int(n_positive), int(n_negative)])
    pool = np.sort(generator.normal(center, sigma, (threshold.size, center.size)), axis=1)
    total = np.cumsum(pool, axis=1)  # sorted: what lies below a threshold is the head of a row
    rows = np.arange(threshold.size)
    thresholds = [threshold]
    for _ in range(int(rounds)):
        n_below = (pool <= threshold[:, None]).sum(axis=1)
        n_above = center.size - n_below
        below = np.where(n_below > 0, total[rows, n_below - 1], 0)
        middle = below / np.maximum(n_below, 1) + (total[:, -1] - below) / np.maximum(n_above, 1)
        threshold = np.where((n_below > 0) & (n_above > 0), middle / 2, threshold)
        thresholds.append(threshold)
    return np.stack(thresholds)

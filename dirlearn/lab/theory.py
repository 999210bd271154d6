"""Theorem 1 of Yang and Xu (2020): the threshold that pseudo-labels give, bounded and simulated.

Two classes on a line, X | + normal around mu1 and X | - around mu2, with a common sigma. Theorems 2
and 3 are in :mod:`dirlearn.lab.theory_norm`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dirlearn.lab.assumptions import means, positive, probability, repeated, whole
from dirlearn.lab.intervals import Floats

Bools = npt.NDArray[np.bool_]


class Bound(NamedTuple):
    """A bound, and where it says nothing: the value is then kept as the formula gives it."""

    value: Floats
    vacuous: Bools


def threshold_center(p: Any = 1.0, q: Any = 1.0, mu1: Any = 1.0, mu2: Any = -1.0) -> Floats:
    r"""Where the threshold of theorem 1 concentrates.

    .. math:: \frac{\mu_1 + \mu_2}{2} + \frac{(p - q)(\mu_1 - \mu_2)}{2}

    Parameters
    ----------
    p, q : float or array
        Share of correct labels among the pseudo-positives and among the pseudo-negatives: the
        precisions of the two sets. All arguments broadcast.
    mu1, mu2 : float or array
        Means of the positive and the negative class, ``mu1 > mu2``.

    Raises
    ------
    ValueError
        If p or q is no probability, or mu1 is not above mu2.

    Examples
    --------
    >>> float(threshold_center(p=0.95, q=0.75).round(6))  # D = p - q = 0.2
    0.2

    Derived in the chapter *Unlabelled data*.
    """
    p, q = probability(p, "p"), probability(q, "q")
    mu1, mu2 = means(mu1, mu2)
    return np.asarray((mu1 + mu2) / 2 + (p - q) * (mu1 - mu2) / 2)[()]


def threshold_bound(
    n_positive: Any,
    n_negative: Any,
    delta: Any,
    mu1: Any = 1.0,
    mu2: Any = -1.0,
    sigma: Any = 1.0,
) -> Bound:
    r"""Theorem 1: least probability that the threshold is within ``delta`` of its centre.

    .. math::

        1 - 2\exp\Big(-\frac{2\delta^2}{9\sigma^2}
            \frac{\tilde n_+ \tilde n_-}{\tilde n_+ + \tilde n_-}\Big)
          - 2\exp\Big(-\frac{8 \tilde n_+ \delta^2}{9 (\mu_1 - \mu_2)^2}\Big)
          - 2\exp\Big(-\frac{8 \tilde n_- \delta^2}{9 (\mu_1 - \mu_2)^2}\Big)

    The centre is :func:`threshold_center`; p and q do not enter the probability.

    Parameters
    ----------
    n_positive, n_negative : number or array
        Samples that the base classifier called positive and negative. All arguments broadcast.
    delta : float or array
        Tolerance, in the unit of x.
    mu1, mu2, sigma : float or array
        Means of the two classes, ``mu1 > mu2``, and their common standard deviation.

    Returns
    -------
    Bound
        Vacuous where the value is 0 or less: any probability is at least that.

    Raises
    ------
    ValueError
        If an assumption fails: a number, delta or sigma is not positive, mu1 is not above mu2.

    Examples
    --------
    >>> bound = threshold_bound([100, 2000], [100, 2000], delta=0.15)
    >>> bound.value.round(3), bound.vacuous
    (array([-2.984,  0.986]), array([ True, False]))

    Derived in the chapter *Unlabelled data*.
    """
    n_positive, n_negative = positive(n_positive, "n_positive"), positive(n_negative, "n_negative")
    delta, sigma = positive(delta, "delta"), positive(sigma, "sigma")
    mu1, mu2 = means(mu1, mu2)
    harmonic = 1 / (1 / n_positive + 1 / n_negative)
    rate = 8 * delta**2 / (9 * (mu1 - mu2) ** 2)
    missed = np.exp(-2 * delta**2 / (9 * sigma**2) * harmonic)
    missed = missed + np.exp(-rate * n_positive) + np.exp(-rate * n_negative)
    return Bound(1 - 2 * missed, 1 - 2 * missed <= 0)


def draw_thresholds(
    n_positive: Any,
    n_negative: Any,
    p: Any = 1.0,
    q: Any = 1.0,
    mu1: Any = 1.0,
    mu2: Any = -1.0,
    sigma: Any = 1.0,
    repetitions: int = 10_000,
    seed: int = 0,
) -> Floats:
    r"""Thresholds under the assumptions of theorem 1, drawn.

    Of the pseudo-positives a binomial number is correct, and given that number their mean is
    normal: two binomials and one normal draw stand for all samples.

    Parameters
    ----------
    n_positive, n_negative : int or array
        Pseudo-labelled samples; with p = q = 1 they are labelled ones. These and the next five
        broadcast to a shape (...).
    p, q, mu1, mu2, sigma
        As for :func:`threshold_center` and :func:`threshold_bound`.
    repetitions : int
        Draws of the whole set.
    seed : int
        Of NumPy's generator.

    Returns
    -------
    array of shape (repetitions, ...)

    Raises
    ------
    ValueError
        As :func:`threshold_center` and :func:`threshold_bound`, if a number of samples is not
        whole, or if ``repetitions`` is not positive.

    Examples
    --------
    >>> thresholds = draw_thresholds([250, 50], [250, 450], p=0.95, q=0.75)
    >>> thresholds.mean(axis=0).round(2), thresholds.std(axis=0).round(3)
    (array([0.2, 0.2]), array([0.054, 0.083]))

    Derived in the chapter *Unlabelled data*.
    """
    n_positive, n_negative = whole(n_positive, "n_positive"), whole(n_negative, "n_negative")
    p, q = probability(p, "p"), probability(q, "q")
    mu1, mu2 = means(mu1, mu2)
    sigma = positive(sigma, "sigma")
    shape = repeated(repetitions, n_positive, n_negative, p, q, mu1, mu2, sigma)
    generator = np.random.default_rng(seed)
    right = generator.binomial(n_positive.astype(np.int64), p, shape) / n_positive
    wrong = generator.binomial(n_negative.astype(np.int64), 1 - q, shape) / n_negative
    spread = sigma / 2 * np.sqrt(1 / n_positive + 1 / n_negative)
    middle = mu2 + (mu1 - mu2) * (right + wrong) / 2
    return np.asarray(middle + spread * generator.standard_normal(shape))

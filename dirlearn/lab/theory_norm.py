r"""Theorems 2 and 3 of Yang and Xu (2020): classes that differ in their spread, not their place.

Positives are normal around the origin with covariance :math:`\sigma_1^2 I_d`, negatives with
:math:`\beta \sigma_1^2 I_d`. No linear rule tells them apart; a threshold on the squared norm does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import gammainc, gammaincc, ndtr

from dirlearn.lab.assumptions import above, finite, inside, majority, positive, repeated
from dirlearn.lab.intervals import Floats
from dirlearn.lab.theory import Bools, Bound


class NormBound(NamedTuple):
    """Bound on an error, the probability with which it holds, and where the two say nothing."""

    error: Floats
    probability: Floats
    vacuous: Bools


def linear_error(offset: Any, beta: Any, negative: Any = 0.5) -> Floats:
    r"""Exact error of a linear rule on two centred Gaussians that differ in their spread.

    .. math:: p_+ \Phi(-t) + p_- \Phi(t / \sqrt\beta), \qquad t = \frac{b}{\norm{\theta} \sigma_1}

    Parameters
    ----------
    offset : float or array
        t: how many standard deviations of the positive class the hyperplane is from the origin,
        which is called positive where t > 0. All arguments broadcast.
    beta : float or array
        Variance of the negative class over that of the positive one.
    negative : float or array
        Share of the negative class, :math:`p_-`.

    Raises
    ------
    ValueError
        If beta is not positive, the share is not inside (0, 1), or an offset is not finite.

    Examples
    --------
    >>> linear_error([-3.0, 0.0, 3.0], beta=4.0).round(3)
    array([0.533, 0.5  , 0.467])

    Derived in the chapter *Self-supervised pre-training*.
    """
    offset, beta = finite(offset, "offset"), positive(beta, "beta")
    negative = inside(negative, "negative")
    error = (1 - negative) * ndtr(-offset) + negative * ndtr(offset / np.sqrt(beta))
    return np.asarray(error)[()]


def least_linear_error(beta: Any, negative: Any = 0.5) -> Floats:
    r"""Least error of any linear rule with a positive offset, where theorem 2 says at least 1/4.

    The derivative of :func:`linear_error` is zero at

    .. math:: t^2 = \frac{2 \beta}{\beta - 1} \log \frac{p_+ \sqrt\beta}{p_-} ,

    and where that is not positive, the error only rises from 1/2 at t = 0.

    Raises
    ------
    ValueError
        If beta is not above 1 (else the positive class is the wider one), or the share is not
        inside (0, 1).

    Examples
    --------
    >>> least_linear_error(beta=400.0, negative=[0.5, 0.3]).round(3)  # a minority: below 1/4
    array([0.278, 0.168])

    Derived in the chapter *Self-supervised pre-training*.
    """
    beta, negative = above(beta, "beta", 1), inside(negative, "negative")
    log = np.log((1 - negative) * np.sqrt(beta) / negative)
    return linear_error(np.sqrt(2 * beta / (beta - 1) * np.maximum(log, 0)), beta, negative)


def linear_bound(beta: Any, negative: Any = 0.5) -> Bound:
    r"""Theorem 2: no linear rule with a positive offset errs less than 1/4.

    A positive offset b calls the origin positive, and with it at least half of the negatives,
    which lie around the origin: the error is at least :math:`p_- / 2`.

    Parameters
    ----------
    beta : float or array
        Variance of the negative class over that of the positive one, above 3.
    negative : float or array
        Share of the negative class, which must be the majority: 1/2 or more.

    Returns
    -------
    Bound
        Vacuous where less than 1/4 of the samples are positive: the rule that calls all of them
        negative, which a positive offset excludes, then errs less than the bound.

    Raises
    ------
    ValueError
        If beta is not above 3, or the negative class is not the majority: then the bound is false
        (:func:`least_linear_error`).

    Examples
    --------
    >>> bound = linear_bound(beta=4.0, negative=[0.5, 0.9])
    >>> bound.value, bound.vacuous
    (array([0.25, 0.25]), array([False,  True]))

    Derived in the chapter *Self-supervised pre-training*.
    """
    beta, negative = above(beta, "beta", 3), majority(negative)
    beta, negative = np.broadcast_arrays(beta, negative)
    return Bound(np.full(beta.shape, 0.25)[()], (1 - negative < 0.25)[()])


# ---- Theorem 3: a rule on the squared norm


def norm_error(threshold: Any, d: Any, beta: Any, negative: Any = 0.5) -> Floats:
    r"""Exact error of the rule that calls x positive where its squared norm is small.

    .. math::

        p_+ \Pr\{\chi^2_d \ge d t\} + p_- \Pr\{\beta \chi^2_d < d t\} , \qquad
        f(x) = +1 \text{ where } \norm{x}^2 < t\, d \sigma_1^2

    Parameters
    ----------
    threshold : float or array
        t, in units of :math:`d \sigma_1^2`, the mean squared norm of the positive class. All
        arguments broadcast.
    d : number or array
        Dimensions of x.
    beta, negative
        As for :func:`linear_error`.

    Raises
    ------
    ValueError
        If the threshold, d or beta is not positive, or the share is not inside (0, 1).

    Examples
    --------
    >>> norm_error(2.5, d=[10, 50, 200], beta=4.0).round(6)
    array([1.05753e-01, 8.70600e-03, 4.00000e-06])

    Derived in the chapter *Self-supervised pre-training*.
    """
    threshold, d = positive(threshold, "threshold"), positive(d, "d")
    beta, negative = positive(beta, "beta"), inside(negative, "negative")
    half = d * threshold / 2  # chi-square with d degrees is twice a gamma with d / 2
    missed, mistaken = gammaincc(d / 2, half), gammainc(d / 2, half / beta)
    return np.asarray((1 - negative) * missed + negative * mistaken)[()]


def norm_bound(
    n_positive: Any, n_negative: Any, d: Any, beta: Any, delta: Any, negative: Any = 0.5
) -> NormBound:
    r"""Theorem 3: error of the rule on the squared norm whose threshold a few labels set.

    With :math:`A = \beta - 1 - (1 + \beta)\delta`,

    .. math::

        \mathrm{err} \le p_- e^{-d A^2 / 32 \beta^2} + p_+ \begin{cases}
            e^{-d A^2 / 32} & \delta \ge (\beta - 3) / (\beta + 1) \\
            e^{-d A / 16} & \text{otherwise}
        \end{cases}
        \quad\text{with probability}\quad
        1 - 2 e^{-N_- d \delta^2 / 8} - 2 e^{-N_+ d \delta^2 / 8}

    The two cases meet at A = 2, where both are :math:`e^{-d/8}`. The theorem has the rule on
    :math:`k_1 \norm{x}^2 + k_2` with positive k's, which drop out.

    Parameters
    ----------
    n_positive, n_negative : number or array
        Labelled samples of the two classes. All arguments broadcast.
    d : number or array
        Dimensions of x.
    beta : float or array
        Variance of the negative class over that of the positive one, above 3.
    delta : float or array
        Tolerance, inside (0, (beta - 1) / (beta + 1)): a smaller one makes the bound on the error
        lower and its probability smaller.
    negative : float or array
        Share of the negative class among the samples to classify.

    Returns
    -------
    NormBound
        Vacuous where the probability is 0 or less, or where the bound on the error is no lower than
        that of a rule that calls all samples the same, :math:`\min(p_+, p_-)`.

    Raises
    ------
    ValueError
        If a number or d is not positive, beta is not above 3, delta is outside its range, or the
        share is not inside (0, 1).

    Examples
    --------
    >>> bound = norm_bound(5, 500, d=[10, 200, 1000], beta=4.0, delta=0.3)
    >>> bound.error.round(3), bound.probability.round(3), bound.vacuous
    (array([0.726, 0.208, 0.006]), array([-0.14,  1.  ,  1.  ]), array([ True, False, False]))

    Derived in the chapter *Self-supervised pre-training*.
    """
    n_positive, n_negative = positive(n_positive, "n_positive"), positive(n_negative, "n_negative")
    d, beta = positive(d, "d"), above(beta, "beta", 3)
    delta, negative = positive(delta, "delta"), inside(negative, "negative")
    if not (delta < (beta - 1) / (beta + 1)).all():
        raise ValueError(
            "delta must lie inside (0, (beta - 1) / (beta + 1)), got "
            f"{np.max(delta):g} with beta {np.min(beta):g}; choose a smaller tolerance"
        )
    a = beta - 1 - (1 + beta) * delta
    near = delta >= (beta - 3) / (beta + 1)
    missed = np.where(near, np.exp(-d * a**2 / 32), np.exp(-d * a / 16))
    mistaken = np.exp(-d * a**2 / (32 * beta**2))
    error = (1 - negative) * missed + negative * mistaken
    rate = d * delta**2 / 8
    held = 1 - 2 * np.exp(-rate * n_negative) - 2 * np.exp(-rate * n_positive)
    error, held, trivial = np.broadcast_arrays(error, held, np.minimum(negative, 1 - negative))
    return NormBound(error[()], held[()], ((held <= 0) | (error >= trivial))[()])


def draw_norm_thresholds(
    n_positive: Any,
    n_negative: Any,
    d: Any,
    beta: Any,
    repetitions: int = 10_000,
    seed: int = 0,
) -> Floats:
    r"""Thresholds of theorem 3: midway between the mean squared norms of a few labelled samples.

    A sum of n squared norms is :math:`\sigma_1^2` (or :math:`\beta \sigma_1^2`) times a chi-square
    of n d degrees, so that no vector need be drawn.

    Parameters
    ----------
    n_positive, n_negative, d, beta
        As for :func:`norm_bound`; they broadcast to a shape (...).
    repetitions : int
        Draws of the labelled set.
    seed : int
        Of NumPy's generator.

    Returns
    -------
    array of shape (repetitions, ...)
        In units of :math:`d \sigma_1^2`, for :func:`norm_error`.

    Raises
    ------
    ValueError
        If a number, d, beta or ``repetitions`` is not positive.

    Examples
    --------
    >>> thresholds = draw_norm_thresholds(5, 500, d=200, beta=4.0)
    >>> float(thresholds.mean().round(2))  # (1 + beta) / 2
    2.5

    Derived in the chapter *Self-supervised pre-training*.
    """
    n_positive, n_negative = positive(n_positive, "n_positive"), positive(n_negative, "n_negative")
    d, beta = positive(d, "d"), positive(beta, "beta")
    shape = repeated(repetitions, n_positive, n_negative, d, beta)
    generator = np.random.default_rng(seed)
    inner = generator.chisquare(n_positive * d, shape) / (n_positive * d)
    outer = generator.chisquare(n_negative * d, shape) / (n_negative * d)
    return np.asarray((inner + beta * outer) / 2)

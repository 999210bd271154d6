"""What a theorem needs of its numbers: a check gives them back as floats, or says what fails."""

from __future__ import annotations

from typing import Any

import numpy as np

from dirlearn.lab.intervals import Floats


def finite(values: Any, name: str) -> Floats:
    """``values`` as floats, if all are finite."""
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got {array}")
    return array


def above(values: Any, name: str, low: float) -> Floats:
    """``values`` as floats, if all are above ``low``."""
    array = finite(values, name)
    if not (array > low).all():
        raise ValueError(f"{name} must be above {low:g}, got {array.min():g}")
    return array


def positive(values: Any, name: str) -> Floats:
    """``values`` as floats, if all are positive."""
    return above(values, name, 0)


def probability(values: Any, name: str) -> Floats:
    """``values`` as floats, if all are between 0 and 1."""
    array = finite(values, name)
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"{name} is a probability, between 0 and 1, got {array}")
    return array


def inside(values: Any, name: str) -> Floats:
    """``values`` as floats, if all are shares that leave something to both classes."""
    array = finite(values, name)
    if not ((array > 0) & (array < 1)).all():
        raise ValueError(f"{name} is the share of a class, above 0 and below 1, got {array}")
    return array


def majority(negative: Any) -> Floats:
    """``negative`` as floats, if all are shares of a majority."""
    array = inside(negative, "negative")
    if not (array >= 0.5).all():
        raise ValueError(
            f"theorem 2 needs the negative class to be the majority, got a share of {array.min():g}"
            "; least_linear_error gives the exact figure"
        )
    return array


def means(mu1: Any, mu2: Any) -> tuple[Floats, Floats]:
    """Both means as floats, if the positive class lies above the negative one."""
    mu1, mu2 = finite(mu1, "mu1"), finite(mu2, "mu2")
    if not (mu1 > mu2).all():
        raise ValueError(
            f"mu1, the mean of the positive class, must be above mu2, got {mu1} and {mu2}; "
            "call the class with the larger mean positive"
        )
    return mu1, mu2


def whole(values: Any, name: str) -> Floats:
    """``values`` as floats, if all are positive whole numbers."""
    array = positive(values, name)
    if (array != np.floor(array)).any():
        raise ValueError(f"{name} must be a whole number of samples, got {array}")
    return array


def repeated(repetitions: int, *arguments: Floats) -> tuple[int, ...]:
    """Return the shape of as many draws of what the arguments broadcast to."""
    if not repetitions > 0:
        raise ValueError(f"repetitions must be positive, got {repetitions}")
    return (int(repetitions), *np.broadcast_shapes(*(a.shape for a in arguments)))

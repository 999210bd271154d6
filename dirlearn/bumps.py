"""Bumps: stretches of the sorted labels that are all rare or all normal, and their new sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from dirlearn.arrays import Array, check_finite, to_numpy

Sampling = Literal["balance", "extreme"] | Mapping[str, float]


class Bump(NamedTuple):
    """One stretch: which rows it holds, in the order of their labels, and whether they are rare."""

    rows: Array
    rare: bool


def find_bumps(y: Array, phi: Callable[[Array], Any], threshold: float) -> list[Bump]:
    """Cut the sorted labels wherever their relevance crosses the threshold.

    A label is rare from relevance ``threshold`` on; bumps come from low labels to high.

    Examples
    --------
    >>> for bump in find_bumps(np.array([9.0, 4, 1, 5, 6]), lambda y: np.abs(y - 5) / 4, 0.8):
    ...     print(bump.rows, bump.rare)
    [2] True
    [1 3 4] False
    [0] True
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, such as 0.8, got {threshold}")
    if not callable(phi):
        raise TypeError(
            "phi must map labels to relevance, as Relevance(points, values) does, got "
            f"{type(phi).__name__}"
        )
    relevance = to_numpy(phi(y), "phi(y)")
    if relevance.shape != y.shape:
        raise ValueError(
            f"phi must give one relevance per label, shape {y.shape}, got {relevance.shape}"
        )
    check_finite(relevance, "phi(y)")
    if relevance.min() < 0 or relevance.max() > 1:
        raise ValueError(
            f"phi must give relevances in [0, 1], got {relevance.min():g} to {relevance.max():g}; "
            "divide them by their largest, or clip them"
        )
    rare = relevance >= threshold
    if rare.all() or not rare.any():
        which, remedy = ("every", "raise") if rare.all() else ("no", "lower")
        raise ValueError(
            f"{which} label has relevance {threshold:g} or more (they span "
            f"{relevance.min():.3g} to {relevance.max():.3g}): {remedy} threshold, or say with "
            "phi=Relevance(points, values) which labels matter"
        )
    order = np.argsort(y, kind="stable")
    cuts = np.flatnonzero(np.diff(rare[order])) + 1
    return [Bump(rows, bool(rare[rows[0]])) for rows in np.split(order, cuts)]


def new_sizes(bumps: list[Bump], sampling: Sampling) -> list[int]:
    """How many rows each bump shall hold: rare ones never lose any, normal ones never gain any.

    Examples
    --------
    >>> bumps = [Bump(np.arange(80), False), Bump(np.arange(20), True)]
    >>> new_sizes(bumps, "balance"), new_sizes(bumps, "extreme")
    ([50, 50], [20, 80])
    >>> new_sizes(bumps, {"rare": 2.0, "normal": 0.25})
    [20, 40]
    """
    sizes = np.array([bump.rows.size for bump in bumps], dtype=np.float64)
    rare = np.array([bump.rare for bump in bumps])
    if isinstance(sampling, str) and sampling in ("balance", "extreme"):
        share = np.ones_like(sizes) if sampling == "balance" else 1 / sizes
        wanted = sizes.sum() * share / share.sum()
    elif isinstance(sampling, Mapping):
        over, under = _factors(sampling)
        wanted = sizes * np.where(rare, over, under)
    else:
        raise ValueError(
            'sampling must be "balance", "extreme" or factors such as {"rare": 3.0, "normal": '
            f"0.5}}, got {sampling!r}"
        )
    bounded = np.where(rare, np.maximum(wanted, sizes), np.minimum(wanted, sizes))
    return [max(1, round(size)) for size in bounded.tolist()]


def _factors(sampling: Mapping[str, float]) -> tuple[float, float]:
    unknown = set(sampling) - {"rare", "normal"}
    if unknown or not sampling:
        raise ValueError(
            'sampling\'s factors are called "rare" and "normal", got '
            f"{sorted(map(repr, sampling)) or 'none'}"
        )
    over, under = sampling.get("rare", 1.0), sampling.get("normal", 1.0)
    if not (over >= 1 and np.isfinite(over)):
        raise ValueError(f'the factor of "rare" multiplies it, so is at least 1, got {over}')
    if not 0 < under <= 1:
        raise ValueError(f'the factor of "normal" is the share kept, above 0 to 1, got {under}')
    return over, under

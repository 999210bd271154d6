"""SMOTER (Torgo et al. 2013) and SMOGN (Branco et al. 2017): new rows where labels are rare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dirlearn.arrays import Array, ArrayT, floating_like, like
from dirlearn.bumps import Bump, Sampling, find_bumps, new_sizes
from dirlearn.relevance import Relevance
from dirlearn.synthesis import Rows, Table


def smoter(
    X: ArrayT,
    y: ArrayT,
    phi: Callable[[Any], Any] | None = None,
    threshold: float = 0.8,
    k: int = 5,
    sampling: Sampling = "balance",
    categorical: Sequence[int] = (),
    seed: int | np.random.Generator = 0,
    return_parents: bool = False,
) -> tuple[ArrayT, ...]:
    r"""SMOTER: thin out normal labels, and fill up rare ones by interpolation (Torgo et al. 2013).

    Sort the labels and cut them where their relevance crosses the threshold: this gives bumps, rare
    and normal in turn. A normal bump keeps a random part of its rows. A rare one keeps all, and
    gains new ones: between a seed :math:`(x, y)` and one :math:`(x', y')` of its k nearest
    neighbours in the bump,

    .. math:: x_{new} = x + u\,(x' - x), \quad u \sim U(0, 1), \qquad
        y_{new} = \frac{d'\,y + d\,y'}{d + d'},

    where :math:`d` and :math:`d'` are the distances of the new row to seed and neighbour, so that
    the nearer parent counts for more. Every row is a seed equally often, but for a remainder.

    Distances are Euclidean over columns divided by their standard deviation in ``X``; a categorical
    column that differs adds 1 to the squared distance. A new row takes each categorical value from
    either parent by a fair coin.

    Parameters
    ----------
    X : array of shape (N, ...)
        Features: a table (N, C), or anything else that is taken flat, such as images (N, C, H, W).
    y : array of shape (N,)
        Labels.
    phi : callable, optional
        Labels to relevance in [0, 1]; ``Relevance.from_data(y)``, the box plot, by default.
    threshold : float
        A label is rare from this relevance on (default 0.8; UBL, the authors' package, has 0.5).
    k : int
        Neighbours to choose from (default 5: Torgo et al. 2013).
    sampling : {"balance", "extreme"} or mapping
        ``"balance"`` gives every bump N / bumps rows; ``"extreme"`` makes sizes inverse to what
        they were, with the same sum (both as in UBL). ``{"rare": 3.0, "normal": 0.5}`` gives
        factors, 1 for what is left out. A rare bump never loses rows, a normal one never gains any.
    categorical : sequence of int
        Columns of a table ``X`` that hold codes of categories.
    seed : int or numpy.random.Generator
        The same seed gives the same rows.
    return_parents : bool
        Also return, for each row, the two rows of ``X`` that it comes from.

    Returns
    -------
    X_new : array of shape (M, ...)
        The kept rows in their order, then the synthetic ones from low labels to high; in the
        floating dtype of ``X`` (the default one for integers).
    y_new : array of shape (M,)
        Their labels, likewise.
    parents : array of shape (M, 2), with ``return_parents``
        Row numbers in ``X``: (i, i) for row i, kept; (seed, neighbour) for an interpolated row. Use
        it to carry other columns along, such as weights or groups.

    Raises
    ------
    ValueError
        If shapes do not fit, ``X`` or ``y`` is empty or not finite, no label or every label is
        rare, a rare bump that shall grow has k rows or fewer, or an option makes no sense; and as
        :meth:`Relevance.from_data`.
    TypeError
        If ``X`` or ``y`` does not hold real numbers.

    Notes
    -----
    Re-sample the training set only, after the split: a synthetic row carries its parents' labels
    into whichever part it falls. Interpolating pixels does not give pictures.

    Examples
    --------
    >>> y = np.array([0, 1, 2, 3, 4, 5, 6, 7, 18, 20.0])
    >>> X = np.stack([y / 2, -y], axis=1)
    >>> X_new, y_new = smoter(X, y, phi=Relevance([7, 18], [0, 1]), k=1)
    >>> y_new.round(1)
    array([ 1. ,  2. ,  3. ,  4. ,  5. , 18. , 20. , 19.8, 18.8, 18.5])
    >>> bool(np.allclose(X_new, np.stack([y_new / 2, -y_new], axis=1)))   # still on the line
    True

    Derived in the chapter *Re-weighting and re-sampling*.
    """
    table = Table(X, y, categorical, k)
    rng = np.random.default_rng(seed)

    def between(bump: Bump, seeds: Array) -> Rows:
        neighbours, _ = table.neighbours(bump.rows)
        chosen = neighbours[seeds, rng.integers(table.k, size=seeds.size)]
        return table.interpolate(bump.rows[seeds], bump.rows[chosen], rng)

    with np.errstate(over="ignore", invalid="ignore"):  # said better below
        drawn = _resampled(table, phi, threshold, sampling, rng, between)
    return _like_the_input(drawn, X, y, return_parents)


def smogn(
    X: ArrayT,
    y: ArrayT,
    phi: Callable[[Any], Any] | None = None,
    threshold: float = 0.8,
    k: int = 5,
    sampling: Sampling = "balance",
    categorical: Sequence[int] = (),
    seed: int | np.random.Generator = 0,
    noise: float = 0.02,
    return_parents: bool = False,
) -> tuple[ArrayT, ...]:
    r"""SMOGN: interpolate to near neighbours, add noise where they are far (Branco et al. 2017).

    As :func:`smoter`, but a neighbour is taken for interpolation only if it is nearer to the seed
    than half the median distance :math:`m` from the seed to the other rows of its bump. Otherwise
    the seed is copied with noise on every column and on the label,

    .. math:: x_{new} = x + \varepsilon, \quad
        \varepsilon_c \sim N\!\left(0, (\min(\tfrac m2, \delta)\, \sigma_c)^2\right),

    where :math:`\sigma_c` is the column's standard deviation in the bump. A categorical value is
    drawn anew, as often as it occurs in the bump.

    Parameters
    ----------
    X, y, phi, threshold, k, sampling, categorical, seed
        As for :func:`smoter`.
    noise : float
        :math:`\delta`, the standard deviation of the noise at most, in standard deviations of the
        column (default 0.02: Branco et al. 2017).
    return_parents : bool
        As for :func:`smoter`; a copy with noise has parents (seed, -1).

    Returns
    -------
    X_new, y_new, parents
        As from :func:`smoter`. Noise can carry a value out of its range, such as below 0.

    Raises
    ------
    ValueError
        As from :func:`smoter`; if ``noise`` is negative or not finite.

    Notes
    -----
    That drawing of categories is the paper's, and takes no heed of the label: where categories bear
    on it, a few such rows can do harm. ``parents`` tells them, and :func:`smoter` makes none.

    Examples
    --------
    >>> y = np.array([0, 1, 2, 3, 4, 5, 6, 7, 18, 18.1, 20, 20.1])
    >>> X_new, y_new = smogn(y, y, phi=Relevance([7, 18], [0, 1]), k=1)
    >>> y_new.round(2)       # the last two lie between near neighbours
    array([ 0.  ,  1.  ,  2.  ,  3.  ,  4.  ,  6.  , 18.  , 18.1 , 20.  , 20.1 , 20.07, 20.05])

    Derived in the chapter *Re-weighting and re-sampling*.
    """
    if not (noise >= 0 and np.isfinite(noise)):
        raise ValueError(f"noise must be 0 or more, such as 0.02, got {noise}")
    table = Table(X, y, categorical, k)
    rng = np.random.default_rng(seed)

    def near_or_noisy(bump: Bump, seeds: Array) -> Rows:
        neighbours, distance = table.neighbours(bump.rows)
        column = rng.integers(table.k, size=seeds.size)
        reach = table.median_distance(bump.rows)[seeds] / 2
        near = distance[seeds, column] < reach
        chosen = neighbours[seeds, column][near]
        safe = table.interpolate(bump.rows[seeds[near]], bump.rows[chosen], rng)
        far = ~near
        copies = table.perturb(bump.rows, bump.rows[seeds[far]], np.minimum(reach[far], noise), rng)
        # Put back in the order of the seeds.
        order = np.argsort(np.concatenate([np.flatnonzero(near), np.flatnonzero(far)]))
        made = zip(safe, copies, strict=True)
        features, labels, parents = (np.concatenate(pair)[order] for pair in made)
        return features, labels, parents

    with np.errstate(over="ignore", invalid="ignore"):  # said better below
        drawn = _resampled(table, phi, threshold, sampling, rng, near_or_noisy)
    return _like_the_input(drawn, X, y, return_parents)


def _resampled(
    table: Table,
    phi: Callable[[Any], Any] | None,
    threshold: float,
    sampling: Sampling,
    rng: np.random.Generator,
    synthesise: Callable[[Bump, Array], Rows],
) -> Rows:
    phi = Relevance.from_data(table.y) if phi is None else phi
    bumps = find_bumps(table.y, phi, threshold)
    kept, made = [], []
    for bump, wanted in zip(bumps, new_sizes(bumps, sampling), strict=True):
        size = bump.rows.size
        if wanted < size:
            kept.append(rng.choice(bump.rows, wanted, replace=False))
        else:
            kept.append(bump.rows)
        if wanted > size:
            times, rest = divmod(wanted - size, size)
            extra = rng.choice(size, rest, replace=False)
            seeds = np.concatenate([np.repeat(np.arange(size), times), np.sort(extra)])
            made.append(synthesise(bump, seeds))
    rows = np.sort(np.concatenate(kept))
    parts = [(table.x[rows], table.y[rows], np.stack([rows, rows], axis=1)), *made]
    x, y, parents = (np.concatenate(column) for column in zip(*parts, strict=True))
    return x.reshape(-1, *table.shape), y, parents


def _like_the_input(drawn: Rows, X: Any, y: Any, return_parents: bool) -> tuple[Any, ...]:
    features, labels, parents = drawn
    for values, name in ((features, "X"), (labels, "y")):
        if not np.isfinite(values).all():
            raise ValueError(
                f"{name} holds values too large for their differences or squares to be floats; "
                f"divide {name} by its scale first"
            )
    new = floating_like(features, X), floating_like(labels, y)
    return (*new, like(parents, y)) if return_parents else new

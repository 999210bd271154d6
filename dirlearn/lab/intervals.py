"""Intervals over training seeds and test items at once, and claims judged by them."""

from __future__ import annotations

import html
from dataclasses import dataclass
from math import floor, isnan, log10
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dirlearn.arrays import Array

Floats = npt.NDArray[np.float64]
Expect = Literal["lower", "higher"]
Verdict = Literal["holds", "does not hold", "not at this scale"]


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two, with its 95 % interval.

    ``value`` is NaN where no test item is in the region; ``low`` and ``high`` are NaN where fewer
    than two seeds or two test items leave a source of variation unknown. ``n_test`` counts the test
    items that are in the region under at least one of the ``n_seeds`` seeds.

    Examples
    --------
    >>> print(Estimate(-0.513, -0.671, -0.349, n_seeds=5, n_test=312))
    -0.51 [-0.67, -0.35]
    >>> print(Estimate(-0.513, float("nan"), float("nan"), n_seeds=1, n_test=312))
    -0.51 [n/a]
    """

    value: float
    low: float
    high: float
    n_seeds: int
    n_test: int
    metric: str = "mae"
    region: str = "all"
    method: str = ""
    baseline: str | None = None

    def __str__(self) -> str:
        """Print the value and, in brackets, the interval; ``n/a`` for what is NaN."""
        if isnan(self.value):
            return "n/a"
        if isnan(self.low):
            return f"{self.value:.2f} [n/a]"
        # Enough digits that a small interval is not printed as [0.00, 0.00]. The sign of -0.00
        # stays: it says on which side of zero the end lies.
        half = max(self.high - self.value, self.value - self.low)
        digits = min(max(2, -floor(log10(half))), 8) if half > 0 else 2
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def crossed_interval(errors: Array, mask: Array) -> tuple[Floats, Floats, Floats]:
    r"""Mean of ``errors`` over seeds and test items, with a 95 % interval that accounts for both.

    Seeds and items are crossed: every network meets the same items, so neither the S T cells nor
    the S seed means are the whole story. With e the errors, M the mask, n_s the items of seed s:

    .. math::

        r_s = \frac{1}{n_s} \sum_t M_{st} e_{st}, \qquad
        \theta = \frac1S \sum_s r_s, \qquad
        \psi_{st} = \frac{M_{st}}{n_s S} (e_{st} - \theta).

    The influence of a cell, :math:`\psi_{st}`, is its deviation within the seed,
    :math:`e_{st} - r_s`, plus the seed's own, :math:`r_s - \theta`. Summed over one index, it gives
    the influence of a seed, :math:`\psi_{s\cdot} = (r_s - \theta) / S`, or of an item,
    :math:`\psi_{\cdot t}`. The variance is the two-way cluster-robust one of Cameron, Gelbach and
    Miller (2011, equation 2.10), clusters being seeds and items, with the factors G / (G - 1):

    .. math::

        V &= V_{seed} + V_{item} - V_{both}, \qquad
        V_{seed} = \frac{S}{S-1} \sum_s \psi_{s\cdot}^2, \qquad
        V_{item} = \frac{T}{T-1} \sum_t \psi_{\cdot t}^2, \\
        V_{both} &= \frac{S}{S-1} \frac{T}{T-1} \Big( \sum_{st} \psi_{st}^2
            - \sum_s \frac{\psi_{s\cdot}^2}{n_s} - \sum_t \frac{\psi_{\cdot t}^2}{m_t} \Big),

    where m_t seeds have item t in the region, and T items are in it under any seed. The two sums
    taken off :math:`V_{both}` are the seeds' and items' own shares of the cells: centring at
    :math:`\theta` has already removed them from the first two terms, and without them V would be
    short by up to 1 / (S + 1). If the mask is the same for all seeds and
    :math:`e_{st} = \mu + a_s + b_t + c_{st}` with independent effects, the three terms have
    expectations :math:`\sigma_a^2/S + \sigma_c^2/ST`, :math:`\sigma_b^2/T + \sigma_c^2/ST` and
    :math:`\sigma_c^2/ST`, so that V is unbiased. If regions differ between seeds it is a little too
    large. V is kept at or above both :math:`V_{seed}` and :math:`V_{item}`.

    The interval is :math:`\theta \pm t_{0.975, \nu} \sqrt V` with Satterthwaite's degrees of
    freedom :math:`\nu = V^2 / (V_{seed}^2/(S-1) + V_{item}^2/(T-1))`, at least min(S, T) - 1.
    Where items do not differ it is Student's interval over the seeds; where seeds do not differ,
    over the items. With two or three seeds that have the region it covers 87 to 95 %, not 95 %.

    Parameters
    ----------
    errors : array of shape (..., S, T)
        One figure per seed and test item: an error, or the difference of two methods' errors.
        Leading dimensions are separate problems.
    mask : boolean array of shape (..., S, T)
        Whether the item is in the region under that seed; a seed with no item in it is left out.

    Returns
    -------
    value, low, high : arrays of shape (...)
        ``value`` is NaN where the mask is empty; the ends are NaN with one seed or one item.

    Raises
    ------
    ValueError
        If the shapes differ or have fewer than two dimensions.

    Examples
    --------
    >>> errors = np.array([[1.0, 3.0, 2.0], [2.0, 4.0, 3.0]])
    >>> [round(float(x), 2) for x in crossed_interval(errors, errors > 0)]
    [2.5, 0.01, 4.99]
    """
    errors, mask = np.asarray(errors, np.float64), np.asarray(mask, bool)
    if errors.shape != mask.shape or errors.ndim < 2:
        raise ValueError(
            f"errors and mask must share a shape (..., seeds, test items), got {errors.shape} and "
            f"{mask.shape}; use np.ones_like(errors, bool) for the region of all items"
        )
    n, m = mask.sum(-1), mask.sum(-2)  # items of each seed, seeds of each item
    seeds, items = (n > 0).sum(-1), (m > 0).sum(-1)
    weight = mask / np.maximum(n * seeds[..., None], 1)[..., None]
    value = np.where(seeds > 0, (weight * errors).sum((-2, -1)), np.nan)

    influence = weight * (errors - value[..., None, None])
    of_seed, of_item = influence.sum(-1) ** 2, influence.sum(-2) ** 2
    seed_df = np.where(seeds > 1, seeds - 1, np.nan)
    item_df = np.where(items > 1, items - 1, np.nan)
    seed_factor, item_factor = seeds / seed_df, items / item_df
    v_seed, v_item = seed_factor * of_seed.sum(-1), item_factor * of_item.sum(-1)
    shares = (of_seed / np.maximum(n, 1)).sum(-1) + (of_item / np.maximum(m, 1)).sum(-1)
    v_both = seed_factor * item_factor * np.maximum((influence**2).sum((-2, -1)) - shares, 0)
    variance = np.maximum(v_seed + v_item - v_both, np.maximum(v_seed, v_item))

    spread = v_seed**2 / seed_df + v_item**2 / item_df
    freedom = variance**2 / np.where(spread > 0, spread, 1)
    freedom = np.maximum(freedom, np.minimum(seed_df, item_df))
    half = stdtrit(freedom, 0.975) * np.sqrt(variance)
    return value, value - half, value + half


def title(metric: str) -> str:
    """Metric as tables and sentences write it.

    Examples
    --------
    >>> title("mae"), title("log gm"), title("correlation")
    ('MAE', 'log GM', 'correlation')
    """
    written = {"mae": "MAE", "mse": "MSE", "gm": "GM", "log gm": "log GM", "error": "error (%)"}
    return written.get(metric, metric)


def over_seeds(values: Array, metric: str) -> Estimate:
    """Mean over seeds of any figure that is one number per seed, with Student's 95 % interval.

    For figures that are no mean over test items, such as a correlation. The interval is for new
    seeds on the same test items, whose choice it does not account for.

    Raises
    ------
    ValueError
        If ``values`` is not of shape (S,) or not finite.

    Examples
    --------
    >>> print(over_seeds(np.array([-0.5, -0.7, -0.6]), "correlation"))
    -0.60 [-0.85, -0.35]
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"values must be finite, one for each seed, shape (S,), got {values}")
    mean, half = float(values.mean()), float("nan")
    if values.size > 1:
        error = values.std(ddof=1) / np.sqrt(values.size)
        half = float(stdtrit(values.size - 1, 0.975) * error)
    return Estimate(mean, mean - half, mean + half, values.size, 0, metric)


@dataclass(frozen=True)
class Claim:
    """A sentence, the estimate that bears on it, and the verdict computed from the two.

    Made by :func:`claim`.
    """

    statement: str
    estimate: Estimate
    expect: Expect

    @property
    def verdict(self) -> Verdict:
        """On which side of zero the whole interval lies: the expected one, the other, neither."""
        below, above = self.estimate.high < 0, self.estimate.low > 0  # NaN is on neither side
        if not (below or above):
            return "not at this scale"
        return "holds" if below == (self.expect == "lower") else "does not hold"

    @property
    def evidence(self) -> str:
        """The estimate in words: what was compared, the interval, the seeds and test points."""
        e = self.estimate
        pair = f"{e.method} against {e.baseline}: " if e.method else ""
        seeds = f"{e.n_seeds} seed{'s' * (e.n_seeds != 1)}"
        points = f", {e.n_test:,} test point{'s' * (e.n_test != 1)}" if e.n_test else ""
        where = "" if e.region == "all" else f" ({e.region})"
        return f"{title(e.metric)}{where}, {pair}{e}; {seeds}{points}"


def claim(statement: str, estimate: Estimate, expect: Expect) -> Claim:
    """Judge ``statement`` by a difference that it expects to be ``"lower"`` or ``"higher"`` than 0.

    The verdict is ``"holds"`` if the whole 95 % interval lies on the expected side of zero,
    ``"does not hold"`` if it lies on the other side, and ``"not at this scale"`` if zero is in it
    or it is NaN.

    Raises
    ------
    ValueError
        If ``expect`` is another word, or the estimate is a method's mean, which says nothing
        against zero.

    Examples
    --------
    >>> gain = Estimate(-0.51, -0.67, -0.35, 5, 312, method="INV+LDS", baseline="INV")
    >>> judged = claim("Smoothing lowers the error.", gain, expect="lower")
    >>> judged.verdict
    'holds'
    >>> judged.evidence
    'MAE, INV+LDS against INV: -0.51 [-0.67, -0.35]; 5 seeds, 312 test points'
    """
    if expect not in ("lower", "higher"):
        raise ValueError(f'expect must be "lower" or "higher", got {expect!r}')
    if estimate.method and estimate.baseline is None:
        raise ValueError(
            f"a claim is judged against zero, got the mean of {estimate.method!r}; give "
            "a difference between two methods (Results.difference)"
        )
    return Claim(statement, estimate, expect)


class ClaimsTable(pd.DataFrame):  # type: ignore[misc]  # pandas carries no types
    """A DataFrame whose HTML wraps its sentences instead of cutting them at 50 characters."""

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Iterable[Any]) -> str:
            style = "text-align: left; vertical-align: top; white-space: normal"
            texts = (html.escape(str(cell), quote=False) for cell in cells)
            return "<tr>" + "".join(f'<{tag} style="{style}">{t}</{tag}>' for t in texts) + "</tr>"

        body = "\n".join(row("td", cells) for cells in self.itertuples(index=False))
        head = row("th", self.columns)
        return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def claims_table(claims: Iterable[Claim]) -> ClaimsTable:
    """One row per claim: the sentence, the evidence, the verdict.

    Examples
    --------
    >>> worse = Estimate(0.23, -0.02, 0.48, 5, 312, region="few", method="FDS", baseline="vanilla")
    >>> table = claims_table([claim("FDS lowers the few-shot error.", worse, "lower")])
    >>> list(table.loc[0])  # doctest: +NORMALIZE_WHITESPACE
    ['FDS lowers the few-shot error.',
     'MAE (few), FDS against vanilla: 0.23 [-0.02, 0.48]; 5 seeds, 312 test points',
     'not at this scale']
    """
    rows = [(c.statement, c.evidence, c.verdict) for c in claims]
    return ClaimsTable(rows, columns=["claim", "evidence", "verdict"])

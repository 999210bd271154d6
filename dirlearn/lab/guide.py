"""Which method is best, and how sure one can be: ranks with intervals, short lists, advice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from tqdm import tqdm

from dirlearn.arrays import Array
from dirlearn.lab.intervals import Estimate
from dirlearn.lab.results import Results

if TYPE_CHECKING:
    from numpy.random import Generator

CHUNK = 64  # resamples at a time: what is held in memory is methods x seeds x CHUNK


def resampled_means(
    results: Results,
    region: str = "all",
    metric: str = "mae",
    methods: Iterable[str] | None = None,
    groups: Array | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Array:
    r"""Each method's error, had other seeds and other test items been drawn; shape (R, methods).

    Seeds and test items are drawn with replacement, each on its own, the pigeonhole bootstrap of
    Owen (2007): with multiplicities a of seeds and b of items, and M the region's mask,

    .. math:: \theta^* = \sum_s a_s \frac{\sum_t b_t M_{st} e_{st}}{\sum_t b_t M_{st}}
              \Big/ \sum_s a_s.

    All methods meet the same draws, so that differences and ranks are paired. The bootstrap is
    conservative: its variance counts the noise of single cells up to three times.

    Parameters
    ----------
    results : Results
    region, metric : str
        As in :meth:`Results.mean`; GM is averaged, and returned, on the log scale.
    methods : iterable of str, optional
        By default all, in the results' order.
    groups : array of shape (T,), optional
        Test items that belong together, such as windows of one day, are drawn together.
    resamples, seed : int

    Raises
    ------
    ValueError
        If a name is unknown, the region holds no item under some seed, or ``groups`` does not fit.

    Examples
    --------
    >>> from dirlearn.lab.experiments import record
    >>> means = resampled_means(record("lds_rough"), "few", resamples=100)
    >>> means.shape, bool((means[:, 0] > means[:, 3]).all())
    ((100, 5), True)
    """
    names = tuple(results.methods if methods is None else methods)
    errors = np.stack([results.errors(name, metric) for name in names])  # (M, S, T)
    mask = np.stack([results.mask(name, region) for name in names]).astype(np.float64)
    if (mask != mask[:1]).any():
        raise ValueError(f"region {region!r} holds other test items for some of the methods")
    mask = mask[0]
    if not mask.any(axis=1).all():
        raise ValueError(f"region {region!r} holds no test item under some of the seeds")
    labels = np.arange(mask.shape[1]) if groups is None else np.asarray(groups)
    if labels.shape != mask.shape[1:]:
        raise ValueError(
            f"groups must name a group for each of the {mask.shape[1]} test items, got shape "
            f"{labels.shape}"
        )
    member = np.unique(labels, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    rounds = [
        _round(errors * mask, mask, member, rng, min(CHUNK, resamples - done))
        for done in range(0, resamples, CHUNK)
    ]
    return np.concatenate(rounds)


def _round(errors: Array, mask: Array, member: Array, rng: Generator, n: int) -> Array:
    seeds, groups = len(mask), int(member.max()) + 1
    items = rng.multinomial(groups, np.full(groups, 1 / groups), size=n)[:, member].T  # (T, n)
    held = mask @ items  # (S, n); 0 if the draw missed all of a seed's items
    by_seed = np.divide(errors @ items, held, out=np.zeros((*errors.shape[:2], n)), where=held > 0)
    weight = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=n).T * (held > 0)
    total: Array = (by_seed * weight).sum(axis=1) / np.maximum(weight.sum(axis=0), 1)
    return total.T


def ranking(
    studies: Mapping[str, Results],
    region: str = "all",
    metric: str = "mae",
    methods: Sequence[str] | None = None,
    groups: Mapping[str, Array] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Mean rank of each method over the studies, 1 the least error, with 95 % intervals.

    Ranks are taken within each study, then averaged, in the data as they are and in each of
    :func:`resampled_means`. ``best`` is the share of resamples in which no method ranks before it.
    Rows are in order of rank. ``groups`` gives, for a study by name, its items' groups.

    Raises
    ------
    ValueError
        If a study lacks a method; and as :func:`resampled_means`.

    Examples
    --------
    >>> from dirlearn.lab.experiments import record
    >>> table = ranking({"rough": record("lds_rough")}, "few", resamples=200)
    >>> table.index[0], list(table.columns)
    ('SQINV+LDS', ['rank', 'low', 'high', 'best'])
    """
    names = list(next(iter(studies.values())).methods if methods is None else methods)
    observed, drawn = [], []
    for number, (name, results) in enumerate(
        tqdm(studies.items(), desc="ranking", disable=not progress)
    ):
        means = [results.mean(method, region, metric).value for method in names]
        observed.append(rankdata(means))
        mine = None if groups is None else groups.get(name)
        resampled = resampled_means(
            results, region, metric, names, mine, resamples, seed=seed + number
        )
        drawn.append(rankdata(resampled, axis=1))
    point, ranks = np.mean(observed, axis=0), np.mean(drawn, axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=0)
    best = (ranks == ranks.min(axis=1, keepdims=True)).mean(axis=0)
    columns = {"rank": point, "low": low, "high": high, "best": best}
    return pd.DataFrame(columns, index=pd.Index(names, name="method")).sort_values("rank")


def contenders(
    results: Results,
    region: str = "all",
    metric: str = "mae",
    methods: Sequence[str] | None = None,
) -> list[str]:
    """Methods that cannot be told from the best: with those that can be, the difference is decided.

    The best has the least mean error; the others' paired differences from it are judged by their
    95 % intervals, with no correction for their number: the best was chosen by the same data, so
    take the list as a short list, not as a test.

    Examples
    --------
    >>> from dirlearn.lab.experiments import record
    >>> contenders(record("lds_smooth"), "all")
    ['SQINV+LDS', 'SQINV']
    """
    names = list(results.methods if methods is None else methods)
    best = min(names, key=lambda name: results.mean(name, region, metric).value)
    kept = [
        name
        for name in names
        if name != best and not results.difference(name, best, region, metric).low > 0
    ]
    return [best, *sorted(kept, key=lambda n: results.mean(n, region, metric).value)]


def guide(
    studies: Mapping[str, Results],
    goals: Mapping[str, tuple[str, str]],
    effort: Sequence[str],
) -> pd.DataFrame:
    """What to use when: for each task and goal, the least laborious method that is worth it.

    Worth it is a contender (:func:`contenders`) whose gain over the first of ``effort`` is decided:
    its whole 95 % interval lies below zero. Where there is none, the first of ``effort`` itself.

    Parameters
    ----------
    studies : mapping of str to Results
        Results of each task.
    goals : mapping of str to (region, metric)
        What one may want, such as ``{"rare labels": ("few", "mae")}``.
    effort : sequence of str
        The methods to choose from, those that ask least of a user first; the very first, such as
        vanilla training, is the baseline.

    Returns
    -------
    DataFrame
        A row for each task and goal: ``use``, the method; ``gain``, its difference from the
        baseline; ``price``, that difference in the many-shot region; ``best``, the method of least
        error, and how many ``contenders`` there are.

    Examples
    --------
    >>> from dirlearn.lab.experiments import record
    >>> rough = {"rough": record("lds_rough")}
    >>> goals = {"rare labels": ("few", "mae")}
    >>> guide(rough, goals, ["vanilla", "SQINV", "INV", "SQINV+LDS", "INV+LDS"])["use"].tolist()
    ['SQINV+LDS']
    """
    baseline, *rest = effort
    rows: list[dict[str, Any]] = []
    for task, results in studies.items():
        for goal, (region, metric) in goals.items():
            short = contenders(results, region, metric, effort)

            def gain(
                method: str, where: str, by: str = metric, among: Results = results
            ) -> Estimate:
                return among.difference(method, baseline, where, by)

            worth = (m for m in rest if m in short and gain(m, region).high < 0)
            use = next(worth, baseline)
            rows.append(
                {
                    "task": task,
                    "goal": goal,
                    "use": use,
                    "gain": gain(use, region) if use != baseline else None,
                    "price": gain(use, "many") if use != baseline else None,
                    "best": short[0],
                    "contenders": len(short),
                }
            )
    return pd.DataFrame(rows).set_index(["task", "goal"])

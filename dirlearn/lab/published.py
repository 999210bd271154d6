"""Arithmetic on published figures: do the regions add up, how far do re-runs scatter."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from scipy.optimize import brentq, linprog
from scipy.special import digamma

from dirlearn.arrays import Array
from dirlearn.lab.facts import data_folder

REGIONS = ("many", "median", "few")
DIGITS = {"MAE": 2, "GM": 2, "bMAE": 2, "MSE": 3, "RMSE": 3}  # as papers print them
# A metric is a mean on a scale of its own.
_FORTH = {"GM": np.log, "RMSE": np.square}
_BACK = {"GM": np.exp, "RMSE": np.sqrt}


def by_region(table: pd.DataFrame) -> pd.DataFrame:
    """Lay the table out with one row for each method of a paper, and a column for each region.

    Returns
    -------
    DataFrame
        Columns paper, year, own, dataset, architecture, method, metric, evidence, source, all,
        many, median, few; NaN where no figure is known.

    Examples
    --------
    >>> from dirlearn.lab.facts import published_results
    >>> by_region(published_results("SHHS-DIR"))[["method", "all", "few"]].values.tolist()
    [['Vanilla', 15.36, 16.94], ['INV+LDS+FDS', 13.76, 15.07]]
    """
    keys = [c for c in table.columns if c not in ("region", "value")]
    rows = table[table["region"].isin(["all", *REGIONS])]
    order = rows[keys].drop_duplicates()
    # Not pivot_table: it would average two figures that contradict each other.
    wide = rows.pivot(index=keys, columns="region", values="value")  # noqa: PD010  # no mean of twins
    columns = ["all", *REGIONS]
    return order.join(wide.reindex(columns=columns), on=keys).reset_index(drop=True)


def region_sizes(name: str) -> Array:
    """Test items per region (many, medium, few) as released, from ``data/histograms/``, (S, 3).

    Where a count is known up to a bound, there is a row for each corner of what is possible. The
    pooled ages from 120 of IMDB-WIKI-DIR, of which no test item is known, are left out.

    Raises
    ------
    ValueError
        If the name is unknown, or no count of test items is known.

    Examples
    --------
    >>> region_sizes("AgeDB-DIR").tolist()
    [[1530.0, 448.0, 162.0]]
    """
    table = pd.read_csv(data_folder() / "histograms" / "shot_regions.csv")
    rows = table[table["dataset"] == name].dropna(subset="test_samples")
    if rows.empty:
        known = table.dropna(subset="test_samples")["dataset"].unique()
        raise ValueError(f"name must be one of {', '.join(known)}, got {name!r}")
    ends = []
    for region in ("many", "medium", "few"):
        printed = rows.loc[rows["region"].str.split(" ").str[0] == region, "test_samples"]
        ends.append(sorted({float(end) for end in printed.item().split("-")}))
    return np.array(list(product(*ends)))


def overall(regions: Array, sizes: Array, metric: str) -> Array:
    """Figure over all test items that the figures of the regions make.

    MAE and MSE are means weighted by the number of test items, GM is one of logarithms, RMSE one of
    squares.

    Parameters
    ----------
    regions : (..., 3)
    sizes : (3,)
        Test items per region, or any multiple of them.
    metric : {"MAE", "MSE", "bMAE", "GM", "RMSE"}

    Returns
    -------
    (...)

    Examples
    --------
    >>> round(float(overall(np.array([6.62, 9.55, 13.67]), np.array([1530, 448, 162]), "MAE")), 2)
    7.77
    """
    same = np.asarray
    forth, back = _FORTH.get(metric, same), _BACK.get(metric, same)
    shares = np.asarray(sizes, np.float64) / np.sum(sizes)
    result: Array = back(forth(np.asarray(regions, np.float64)) @ shares)
    return result


def misfit(wide: pd.DataFrame, sizes: Array) -> pd.Series:
    """Printed overall figure beyond what the printed regions allow, rounding included; else 0.

    Parameters
    ----------
    wide : DataFrame
        Columns all, many, median, few and metric, as of :func:`by_region`.
    sizes : (S, 3)
        Of :func:`region_sizes`; the kindest of them counts.

    Returns
    -------
    Series
        Positive where the printed overall figure is too large. NaN where a region is missing.

    Examples
    --------
    >>> row = {"metric": ["MAE"], "all": [8.16], "many": [7.39], "median": [8.65], "few": [12.28]}
    >>> round(float(misfit(pd.DataFrame(row), region_sizes("AgeDB-DIR")).item()), 2)
    0.13
    """
    found = []
    for metric, *figures in wide[["metric", "all", *REGIONS]].itertuples(index=False):
        half = 0.5 * 10.0 ** -DIGITS[metric]
        printed, regions = figures[0], np.array(figures[1:])
        low = min(overall(regions - half, s, metric) for s in sizes)
        high = max(overall(regions + half, s, metric) for s in sizes)
        above, below = printed - half - high, printed + half - low
        found.append(np.nan if np.isnan(low) else max(above, 0.0) + min(below, 0.0))
    return pd.Series(found, index=wide.index)


def kindest_shares(wide: pd.DataFrame) -> tuple[Array, float]:
    """Find the shares of the regions under which the rows add up best, where no size is known.

    A linear program: the largest misfit of a row, on the scale on which the metric is a mean, is
    made as small as it can be.

    Parameters
    ----------
    wide : DataFrame
        Rows of one benchmark and one metric, as of :func:`misfit`, no region missing.

    Returns
    -------
    shares, misfit : (3,), float
        Shares of the test items in many, median and few; the misfit of the worst row that no choice
        of shares avoids, 0 where all rows can add up.

    Raises
    ------
    ValueError
        If rows are of several metrics, or there is none.

    Examples
    --------
    >>> rows = pd.DataFrame({"metric": "MAE", "all": [2.0, 3.0], "many": [1.0, 3.0]})
    >>> shares, worst = kindest_shares(rows.assign(median=[2.0, 3.0], few=[3.0, 3.0]))
    >>> worst
    0.0
    """
    metrics = wide["metric"].unique().tolist()
    if len(metrics) != 1:
        raise ValueError(f"rows must be of one metric, got {metrics}")
    metric = metrics[0]
    half = 0.5 * 10.0 ** -DIGITS[metric]
    forth = _FORTH.get(metric, np.asarray)
    printed, regions = wide["all"].to_numpy(), wide[list(REGIONS)].to_numpy()
    # Unknowns: three shares and the worst misfit t; low - t <= printed + half, and so above.
    slack = np.full((len(wide), 1), -1.0)
    bounds = linprog(
        [0, 0, 0, 1],
        A_ub=np.vstack(
            [np.hstack([forth(regions - half), slack]), np.hstack([-forth(regions + half), slack])]
        ),
        b_ub=np.concatenate([forth(printed + half), -forth(printed - half)]),
        A_eq=[[1, 1, 1, 0]],
        b_eq=[1],
        bounds=[(0, 1)] * 3 + [(0, None)],
    )
    return bounds.x[:3], float(bounds.x[3])


def error_spread(mae: float, gm: float) -> float:
    r"""Tell the standard deviation of absolute errors from their mean and geometric mean.

    A gamma distribution is fitted, whose likelihood needs just these two: its shape :math:`k`
    solves :math:`\log k - \psi(k) = \log(\text{mae}/\text{gm})`, and the answer is
    :math:`\text{mae}/\sqrt k`.

    Raises
    ------
    ValueError
        Unless ``mae > gm > 0``.

    Examples
    --------
    >>> round(error_spread(13.67, 10.75), 1)
    9.1
    """
    if not mae > gm > 0:
        raise ValueError(
            f"errors that differ have a mean above their geometric mean, and both above 0, got "
            f"mae={mae} and gm={gm}"
        )
    gap = np.log(mae / gm)
    shape: float = brentq(lambda k: np.log(k) - digamma(k) - gap, 1e-3, 1e6)
    return float(mae / np.sqrt(shape))


def rerun_spread(wide: pd.DataFrame, region: str) -> tuple[float, int]:
    """Pool the standard deviation of a figure over papers that run the same method.

    A row that repeats another of its method in every region is one run, printed twice.

    Parameters
    ----------
    wide : DataFrame
        Rows of one benchmark and one metric, as of :func:`by_region`.
    region : {"all", "many", "median", "few"}

    Returns
    -------
    sd, degrees of freedom : float, int
        NaN and 0 where no method was run twice.

    Examples
    --------
    >>> rows = {"method": ["a", "a", "b"], "all": [7.0, 7.2, 5.0], "many": [6.0, 6.1, 4.0]}
    >>> rerun_spread(pd.DataFrame(rows | {"median": 8.0, "few": 9.0}), "all")[1]
    1
    """
    rows = wide.drop_duplicates(["method", "all", *REGIONS]).dropna(subset=region)
    groups = rows.groupby("method")[region]
    freedom = int((groups.count() - 1).sum())
    if freedom == 0:
        return float("nan"), 0
    squares = float(((rows[region] - groups.transform("mean")) ** 2).sum())
    return float(np.sqrt(squares / freedom)), freedom

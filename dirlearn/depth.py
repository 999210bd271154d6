"""The error figures of depth estimation, pooled over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from dirlearn.arrays import paired


def depth_metrics(pred: Any, target: Any) -> dict[str, float]:
    r"""Figures that papers on depth report, over all pixels given.

    .. math::
        \mathrm{RMSE} &= \Big(\frac1N \sum_i (\hat y_i - y_i)^2\Big)^{1/2}, &
        \mathrm{abs\,rel} &= \frac1N \sum_i \frac{|\hat y_i - y_i|}{y_i}, \\
        \log_{10} &= \frac1N \sum_i |\log_{10} \hat y_i - \log_{10} y_i|, &
        \delta_k &= \frac1N \Big|\Big\{i : \max\Big(\frac{\hat y_i}{y_i},
            \frac{y_i}{\hat y_i}\Big) \le 1.25^k\Big\}\Big|

    As in Eigen et al. (2014) and Yang et al. (2021, section 4). Pixels are pooled: the RMSE is the
    root of one mean over all of them, not the mean of the images' roots, which would be smaller.

    Parameters
    ----------
    pred, target : arrays or tensors of one shape
        Depths, positive, in one unit. A sensor writes 0 or NaN where it saw nothing: leave those
        pixels out, ``seen = target > 0; depth_metrics(pred[seen], target[seen])``. For shot
        regions, ``by_region(depth_metrics, pred[seen], target[seen], ...)``.

    Returns
    -------
    dict of float
        ``"rmse"`` in the unit of depth; ``"abs_rel"``, ``"log10"``, and ``"delta1"``, ``"delta2"``,
        ``"delta3"``, shares of pixels, of which larger is better.

    Raises
    ------
    ValueError
        If shapes differ, nothing is given, or a depth is NaN, infinite, zero or negative.

    Examples
    --------
    >>> figures = depth_metrics([[1.0, 2.0, 3.0]], [[1.0, 1.0, 4.0]])
    >>> {name: round(value, 3) for name, value in figures.items()}
    {'rmse': 0.816, 'abs_rel': 0.417, 'log10': 0.142, 'delta1': 0.333, 'delta2': 0.667, ...}

    Used in the chapter *Measuring the tail*.
    """
    prediction, depth = paired(pred, target)
    if not (depth > 0).all():
        raise ValueError(
            f"{int((depth <= 0).sum())} of {depth.size} target depths are not positive; leave out "
            "what the sensor did not see: seen = target > 0, then pred[seen] and target[seen]"
        )
    if not (prediction > 0).all():
        raise ValueError(
            f"{int((prediction <= 0).sum())} of {depth.size} predicted depths are not positive; "
            "clip them to the smallest depth that is possible"
        )
    ratio = np.maximum(prediction / depth, depth / prediction)
    return {
        "rmse": float(np.sqrt(((prediction - depth) ** 2).mean())),
        "abs_rel": float((np.abs(prediction - depth) / depth).mean()),
        "log10": float(np.log10(ratio).mean()),  # |log a - log b| is the log of the larger ratio
        **{f"delta{k}": float((ratio <= 1.25**k).mean()) for k in (1, 2, 3)},
    }

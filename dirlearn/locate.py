"""Which interval of the target axis holds a label: one pass, at the speed of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dirlearn.arrays import Array, check_finite

_CHUNK = 1 << 16  # labels per slice: a slice and its temporaries stay in a core's cache


def locate(labels: Array, edges: Array) -> Array:
    """Interval of each label, 0 to K - 1, of the shape of ``labels``; the last one is closed.

    Labels beyond the ``edges``, K + 1 increasing numbers, go to the first or last interval.

    Raises
    ------
    ValueError
        If a label is NaN or infinite.

    Examples
    --------
    >>> locate(np.array([-1.0, 0.5, 1.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    array([0, 0, 1, 1])
    """
    flat = labels.reshape(-1)
    index = np.empty(flat.size, dtype=np.int64)
    find = _on_even_edges if _is_even(edges) else _on_any_edges
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64, copy=False)
        if not (np.isfinite(part.min()) and np.isfinite(part.max())):
            check_finite(flat, "y")
        find(part, edges, index[start : start + _CHUNK])
    return index.reshape(labels.shape)


def rounded(edges: Array, dtype: Any) -> Array:
    """``edges`` rounded to ``dtype``, NumPy's or torch's, and back to ``float64``.

    Labels are compared in their own precision: 0.7 as ``float32`` is a little less than 0.7.

    Examples
    --------
    >>> rounded(np.array([0.5, 0.7]), torch.float16)
    array([0.5       , 0.70019531])
    """
    if isinstance(dtype, torch.dtype):
        return torch.from_numpy(edges.copy()).to(dtype).double().numpy()
    with np.errstate(over="ignore"):  # an edge beyond float16 is infinite there, and stays above
        return edges.astype(dtype).astype(np.float64)


def _is_even(edges: Array) -> bool:
    """Whether every edge lies within a quarter step of an even grid, with room for rounding."""
    with np.errstate(over="ignore", invalid="ignore"):  # rounding may have made edges infinite
        span = edges[-1] - edges[0]
    if not 1e-290 < span < np.inf:
        return False
    even = np.linspace(edges[0], edges[-1], edges.size)
    return bool(np.abs(edges - even).max() < 0.24 * (even[1] - even[0]))


def _on_any_edges(y: Array, edges: Array, out: Array) -> None:
    np.clip(np.searchsorted(edges, y, side="right") - 1, 0, edges.size - 2, out=out)


def _on_even_edges(y: Array, edges: Array, out: Array) -> None:
    """Guess the bin, or the one below, by a multiplication; one comparison with an edge decides.

    Edges lie within a quarter step of the even grid, so the place of ``y`` on that grid, less a
    quarter, rounds down to its bin or to the one below, never to one above.
    """
    last = edges.size - 2
    step = (edges[-1] - edges[0]) / (last + 1)
    with np.errstate(over="ignore"):  # a label far outside: infinity is clipped as well
        guess = y - (edges[0] + step / 4)
        guess *= 1 / step
    np.clip(guess, 0, last, out=guess)
    out[:] = guess  # truncates, which is floor since nothing is negative
    out += y >= edges.take(out + 1)
    np.minimum(out, last, out=out)  # the last bin is closed

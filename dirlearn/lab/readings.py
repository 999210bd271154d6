"""Windows of one glucose monitor's readings; the makers of data draw on them."""

from __future__ import annotations

import numpy as np

from dirlearn.arrays import Array
from dirlearn.lab.facts import data_folder

STEP = 5  # minutes between readings
PAST, AHEAD = 24, 12  # readings: two hours to look back on, one hour to look ahead
DAY = 24 * 60


def glucose_windows() -> tuple[Array, Array, Array]:
    """What a forecast sees, what it should say, and the day on which it is made.

    Returns
    -------
    x : array of shape (N, 26)
        The last 24 readings in mg/dL, oldest first, then sine and cosine of the time of day.
    y : array of shape (N,)
        The reading one hour later, in mg/dL.
    day : array of shape (N,)
        Days since the first. A window that a gap in the record interrupts, or midnight, is left
        out, so that windows of different days share no reading.

    Examples
    --------
    >>> x, y, day = glucose_windows()
    >>> x.shape, int(y.min()), int(y.max()), len(np.unique(day))
    ((40126, 26), 40, 383, 200)
    """
    with np.load(data_folder() / "series" / "glucose.npz") as held:
        minute, glucose = held["minute"], held["glucose"]
    slot = np.round(minute / STEP).astype(np.int64)  # the clock drifts by a minute now and then
    series = np.full(slot[-1] + 1, np.nan, dtype=np.float32)
    series[slot] = glucose
    windows = np.lib.stride_tricks.sliding_window_view(series, PAST + AHEAD)
    first = np.arange(len(windows))
    per_day = DAY // STEP
    whole = (first // per_day) == (first + PAST + AHEAD - 1) // per_day
    kept = np.flatnonzero(whole & np.isfinite(windows).all(axis=1))
    angle = 2 * np.pi * ((kept + PAST - 1) % per_day) / per_day
    clock = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    x = np.concatenate([windows[kept, :PAST], clock], axis=1).astype(np.float32)
    return x, windows[kept, -1].copy(), kept // per_day

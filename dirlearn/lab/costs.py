"""How the time of a computation grows with its size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Scaling(NamedTuple):
    """Seconds of one call at each of ``sizes``, and p of the law ``seconds ~ size ** p``."""

    sizes: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.float64]
    exponent: float


def scaling(
    function_of_size: Callable[[int], Callable[[], object]],
    sizes: Iterable[int],
    repeats: int = 5,
) -> Scaling:
    """Time a computation at several sizes and fit the exponent of its growth.

    The sizes are timed in turns, after a first call of each that does not count, and the minimum
    over the turns is kept: what else the machine does only ever adds, and meets all sizes alike.
    The exponent is the slope of log seconds over log size in the upper half of the sizes, two of
    them at least, since a constant cost hides the law at small ones.

    Parameters
    ----------
    function_of_size : callable
        ``function_of_size(size)`` prepares inputs and returns what is timed, called without
        arguments. It is asked once for each size, and all are held in memory together.
    sizes : sequence of int
        Increasing, at least two.
    repeats : int
        Turns. Default 5.

    Raises
    ------
    ValueError
        If ``sizes`` are fewer than two, not positive, or do not increase; if ``repeats`` < 1.

    Examples
    --------
    >>> from time import sleep
    >>> sizes, seconds, exponent = scaling(lambda n: lambda: sleep(n / 2000), [2, 4, 8, 16])
    >>> sizes, round(exponent)
    (array([ 2,  4,  8, 16]), 1)
    """
    array = np.asarray(list(sizes), dtype=np.int64)
    if array.size < 2 or array[0] < 1 or (np.diff(array) <= 0).any():
        raise ValueError(
            f"sizes must be at least two, positive and increasing, got {array.tolist()}"
        )
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    calls = [function_of_size(int(size)) for size in array]
    for call in calls:
        call()
    turns = [[_seconds(call) for call in calls] for _ in range(repeats)]
    seconds = np.min(turns, axis=0)
    upper = slice(min(array.size // 2, array.size - 2), None)
    slope, _ = np.polyfit(np.log(array[upper]), np.log(seconds[upper]), 1)
    return Scaling(array, seconds, float(slope))


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start

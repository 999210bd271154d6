"""What the benchmarks share: one thread, minima measured in turns, and ratios said aloud."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def in_turns() -> Callable[..., list[float]]:
    """Least seconds of each call, measured in turns, so that a busy machine slows all."""

    def measure(*calls: Callable[[], object], rounds: int = 10) -> list[float]:
        times = np.empty((rounds, len(calls)))
        for turn in times:
            for i, call in enumerate(calls):
                start = time.perf_counter()
                call()
                turn[i] = time.perf_counter() - start
        return list(times.min(axis=0))

    return measure


@pytest.fixture
def told(benchmark, capsys) -> Callable[..., None]:
    """Keep ratios with the benchmark, and print them."""

    def tell(**ratios: float) -> None:
        benchmark.extra_info.update(ratios)
        lines = "".join(f"\n{name}: {ratio:.3g}" for name, ratio in ratios.items())
        with capsys.disabled():
            sys.stdout.write(lines + "\n")

    return tell

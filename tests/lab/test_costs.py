from __future__ import annotations

import numpy as np
import pytest

from dirlearn.lab import costs
from dirlearn.lab.costs import scaling


class Clock:
    """Time that passes only when a computation says so."""

    def __init__(self, monkeypatch):
        self.now, self.calls = 0.0, []
        monkeypatch.setattr(costs, "perf_counter", lambda: self.now)

    def takes(self, law):
        def of_size(size):
            self.now += 1e3  # preparing takes long, and does not count

            def call():
                self.calls.append(size)
                self.now += law(size, self.calls.count(size))

            return call

        return of_size


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize("power", [0, 0.5, 1, 2, 3])
def test_a_power_law_is_found(power, clock):
    result = scaling(clock.takes(lambda n, _: float(n) ** power), [10, 30, 100, 1000])
    np.testing.assert_array_equal(result.sizes, [10, 30, 100, 1000])
    np.testing.assert_allclose(result.seconds, result.sizes.astype(float) ** power)
    assert result.exponent == pytest.approx(power, abs=1e-3)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([1, 2, 4, 8], 2), ([1, 2, 4, 8, 16], 2), ([1, 2, 4], np.nan), ([4, 8], 2), ([2, 4], np.nan)],
)
def test_the_exponent_is_of_the_upper_half_of_the_sizes(sizes, expected, clock):
    def law(n, _):
        return 16.0 if n < 4 else float(n**2)

    exponent = scaling(clock.takes(law), sizes).exponent
    if np.isnan(expected):  # two sizes at least, of which one is small here
        assert exponent == pytest.approx(0)
    else:
        assert exponent == pytest.approx(expected)


def test_sizes_take_turns_and_the_minimum_counts(clock):
    def law(n, call):
        return {1: 100.0, 2: 3.0, 3: 1.0, 4: 2.0}[call] * n  # the first is warming up

    result = scaling(clock.takes(law), [1, 2, 3], repeats=3)
    assert clock.calls == [1, 2, 3] * 4
    np.testing.assert_allclose(result.seconds, [1, 2, 3])
    assert scaling(
        clock.takes(lambda n, call: 1.0 * n), (5, 6), repeats=1
    ).exponent == pytest.approx(1)


@pytest.mark.parametrize("sizes", [[], [3], [0, 1], [-1, 2], [2, 2], [3, 2]], ids=str)
def test_sizes_that_show_no_growth_are_refused(sizes, clock):
    with pytest.raises(ValueError, match="at least two, positive and increasing, got"):
        scaling(clock.takes(lambda n, _: 1.0), sizes)


def test_no_turns_are_refused(clock):
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        scaling(clock.takes(lambda n, _: 1.0), [1, 2], repeats=0)


def test_a_real_computation_grows(monkeypatch):
    result = scaling(lambda n: np.ones((n, n)).sum, [32, 2048])
    assert 1 < result.exponent < 3

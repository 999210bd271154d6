from __future__ import annotations

import math

import numpy as np
import pytest

from dirlearn.lab import assumptions as a

CHECKS = {
    "finite": lambda v: a.finite(v, "x"),
    "above": lambda v: a.above(v, "x", 3),
    "positive": lambda v: a.positive(v, "x"),
    "probability": lambda v: a.probability(v, "x"),
    "inside": lambda v: a.inside(v, "x"),
    "majority": a.majority,
    "whole": lambda v: a.whole(v, "x"),
}


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ("finite", (-5, 1e300), math.inf),
        ("above", (3.01, 9), 3),
        ("positive", (1e-300, 7), 0),
        ("probability", (0, 1), 1.01),
        ("inside", (1e-9, 0.999), 1),
        ("majority", (0.5, 0.999), 0.499),
        ("whole", (1, 500), 2.5),
    ],
)
def test_a_check_gives_back_what_holds_and_refuses_the_rest(check, good, bad):
    found = CHECKS[check](list(good))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, good)
    assert CHECKS[check](good[1]).shape == ()
    for wrong in (bad, [good[0], bad], math.nan):
        with pytest.raises(ValueError, match=r"^(x|negative|theorem 2) "):
            CHECKS[check](wrong)


def test_means_are_ordered_everywhere():
    assert [float(m) for m in a.means(2, 1)] == [2, 1]
    with pytest.raises(ValueError, match="must be above mu2"):
        a.means([2, 0], 1)


def test_draws_come_first_in_the_shape():
    assert a.repeated(4, np.zeros((2, 1)), np.zeros(3)) == (4, 2, 3)
    with pytest.raises(ValueError, match="repetitions must be positive, got 0"):
        a.repeated(0)

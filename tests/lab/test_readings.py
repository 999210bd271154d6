from __future__ import annotations

import numpy as np
import pytest
import torch

from dirlearn.lab.datasets import GLUCOSE, glucose
from dirlearn.lab.facts import data_folder
from dirlearn.lab.readings import glucose_windows


def raw():
    with np.load(data_folder() / "series" / "glucose.npz") as held:
        return held["minute"], held["glucose"]


def test_windows_are_those_an_explicit_loop_finds():
    minute, value = raw()
    slots = {round(m / 5): v for m, v in zip(minute.tolist(), value.tolist(), strict=True)}
    x, y, day = glucose_windows()
    found = 0
    for start in range(max(slots) - 34):
        if start // 288 != (start + 35) // 288 or any(start + k not in slots for k in range(36)):
            continue
        if found % 501 == 0:
            assert x[found, :24].tolist() == [slots[start + k] for k in range(24)]
            assert y[found] == slots[start + 35]
            assert day[found] == start // 288
            angle = 2 * np.pi * ((start + 23) % 288) / 288
            assert x[found, 24:] == pytest.approx([np.sin(angle), np.cos(angle)], abs=1e-6)
        found += 1
    assert found == len(x) == len(y) == len(day)


def test_readings_lie_in_the_monitors_range_and_its_bins():
    _, value = raw()
    assert (value.min(), value.max()) == (40, 400)
    assert GLUCOSE.index(np.array([40.0, 400.0])).tolist() == [0, 72]


def test_sets_share_no_day_and_are_balanced(monkeypatch):
    _, y, day = glucose_windows()
    marked = np.tile(day[:, None].astype(np.float32), 26)  # standardised, still one value a day
    monkeypatch.setattr("dirlearn.lab.datasets.glucose_windows", lambda: (marked, y, day))
    data = glucose(seed=3)
    seen = [set(split.x[:, 0].tolist()) for split in (data.train, data.val, data.test)]
    assert [len(days) for days in seen] == [121, 40, 39]  # a day without a whole window is in none
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    for split in (data.val, data.test):
        assert GLUCOSE.counts(split.y).max() == 20


def test_seed_draws_the_training_set_only():
    one, two = glucose(seed=0), glucose(seed=1)
    assert torch.equal(one.test.y, two.test.y)
    assert torch.equal(one.val.y, two.val.y)
    assert not torch.equal(one.train.y, two.train.y)
    torch.testing.assert_close(one.train.x.mean(dim=0), torch.zeros(26), atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_train", [1, 10**6])
def test_a_size_it_cannot_give_is_refused(n_train):
    with pytest.raises(ValueError, match="n_train must lie between 2 and"):
        glucose(n_train)

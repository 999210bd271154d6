from __future__ import annotations

import numpy as np
import pytest
import torch

from dirlearn.lab import scarce
from dirlearn.lab.datasets import Dataset, Split, rotated_digits
from dirlearn.lab.scarce import LABELLED, POOL, POOLS, TASKS

each_task = pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))


def test_the_labelled_set_thins_out_fiftyfold_and_reaches_three_regions():
    assert LABELLED[0] / LABELLED[-1] == 50
    shots = TASKS["digits"].regions.shots(LABELLED)
    assert [(shots == r).sum() for r in ("many", "medium", "few", "zero")] == [1, 4, 5, 0]


@each_task
def test_pools_differ_in_rho_alone(task):
    sets = {rho: task.draw(rho, 3) for rho in POOLS.values()}
    for rho, data in sets.items():
        np.testing.assert_array_equal(data.train_counts, LABELLED)
        assert torch.equal(data.train.x, sets[1].train.x)
        assert torch.equal(data.test.y, sets[1].test.y)
        counts = np.asarray(data.bins.counts(data.pool.y))
        assert counts.sum() == POOL == 5 * LABELLED.sum()
        assert counts[0] / counts[-1] == pytest.approx(rho, rel=0.1)


@each_task
def test_a_seed_draws_labels_and_pool_but_not_the_test_set(task):
    one, two = task.draw(50, 0), task.draw(50, 1)
    assert not torch.equal(one.train.x, two.train.x)
    assert not torch.equal(one.pool.x, two.pool.x)
    assert torch.equal(one.test.y, two.test.y)


@each_task
def test_validation_and_test_sets_are_nearly_balanced(task):
    data = task.draw(50, 0)
    for split in (data.val, data.test):
        counts = np.asarray(data.bins.counts(split.y))
        assert counts.max() <= 1.5 * counts.min()
    assert len(data.test) > 400


def test_no_digit_is_in_two_sets(monkeypatch):
    """Each image carries its number instead of a digit."""
    numbers = torch.arange(3000.0).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    monkeypatch.setattr(scarce, "digit_pools", lambda: {"train": numbers})
    monkeypatch.setattr(scarce, "rotate", lambda images, _: images)
    data = scarce.pooled_digits.__wrapped__(50, 0)
    drawn = torch.cat([data.train.x, data.pool.x])[:, 0, 0, 0]
    assert len(drawn.unique()) == LABELLED.sum() + POOL
    reference = rotated_digits(np.ones(100, dtype=np.int64), 0)  # of other pools of digits
    torch.testing.assert_close(
        data.test.x, torch.nn.functional.avg_pool2d(reference.test.x, 2), atol=0, rtol=0
    )


def test_no_diamond_is_in_two_sets_and_the_labelled_ones_give_the_unit(monkeypatch):
    n = 60_000
    rows = torch.arange(float(n))[:, None]
    price = torch.rand(n, generator=torch.Generator().manual_seed(0)) * 19_000
    made = Dataset("rows", *(Split(rows, price) for _ in range(3)), TASKS["diamonds"].bins, "", "")
    monkeypatch.setattr(scarce, "diamonds", lambda _: made)
    data = scarce.pooled_diamonds.__wrapped__(1, 0)
    drawn = torch.cat([data.train.x, data.pool.x])[:, 0]
    assert len(drawn.unique()) == LABELLED.sum() + POOL
    assert float(data.train.x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(data.train.x.std()) == pytest.approx(1, abs=1e-5)

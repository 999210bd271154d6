from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from dirlearn import released


def test_counts_hold_labels_and_pseudo_labels(device):
    labels, pseudo = torch.tensor([0, 0, 1]), torch.tensor([1, 1, 1, 2])
    counts = released.class_counts(labels.to(device), pseudo.to(device), 4)
    assert counts.tolist() == [2, 4, 1, 0]
    assert counts.device.type == device.type
    alone = released.class_counts(labels.numpy(), np.array([], np.int64), 4)
    assert alone.tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize("pseudo", [[4], [-1]])
def test_a_label_beyond_the_classes_is_refused(pseudo):
    with pytest.raises(ValueError, match="classes 0 to 3"):
        released.class_counts(np.array([0, 1]), np.array(pseudo), 4)


def test_every_sample_weighs_the_same():
    """Pseudo-labelled or not: moving a sample from one part to the other changes nothing."""
    logits, target = torch.randn(10, 3), torch.arange(10) % 3
    criterion = released.SemiSupervisedLoss(F.cross_entropy)
    whole = F.cross_entropy(logits, target)
    for n in (1, 4, 9):
        assert_close(criterion(logits[:n], target[:n], logits[n:], target[n:]), whole)


def test_a_fraction_is_no_class():
    with pytest.raises(TypeError, match="whole numbers"):
        released.class_counts(np.array([0, 1]), np.array([0.5, 1.7]), 2)


@pytest.mark.parametrize("rho", [1, 20, 50, 100])
@pytest.mark.parametrize("total", [10, 131 * 5, 276 * 5, 12406 * 5])
def test_pools_truncate_twice(total, rho):
    shaped = [int(total // 10 * (1 / rho) ** (c / 9)) for c in range(10)]
    expected = [int(n * (total / sum(shaped))) for n in shaped]
    assert released.pool_counts(total, 10, rho).tolist() == expected


def test_a_pool_smaller_than_the_classes_is_refused():
    with pytest.raises(ValueError, match=r"at least n_classes.*got 3 and 5"):
        released.pool_counts(3, 5, 2)

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dirlearn import PseudoLabels, SemiSupervisedLoss, joint_weights, released

# ---- the joint loss


def batches(n=6, n_pseudo=9, dtype=torch.float64):
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(n + n_pseudo, 4, generator=draw, dtype=dtype)
    target = torch.randint(4, (n + n_pseudo,), generator=draw)
    return logits[:n], target[:n], logits[n:], target[n:]


def slow_joint(logits, target, pseudo, pseudo_target, omega, kept=None):
    def mean(rows, labels):
        each = [-np.log(np.exp(r[t]) / np.exp(r).sum()) for r, t in zip(rows, labels, strict=True)]
        return sum(each) / len(each)

    arrays = [value.numpy() for value in (logits, target, pseudo, pseudo_target)]
    rows, labels, others, other_labels = arrays
    if kept is not None:
        others, other_labels = others[kept.numpy()], other_labels[kept.numpy()]
    return mean(rows, labels) + (omega * mean(others, other_labels) if len(others) else 0.0)


@pytest.mark.parametrize("omega", [0.0, 0.3, 1.0, 5.0])
def test_joint_loss_is_the_sum_of_two_means(omega, device):
    parts = batches()
    got = SemiSupervisedLoss(F.cross_entropy, omega)(*(part.to(device) for part in parts))
    assert got.item() == pytest.approx(slow_joint(*parts, omega))


def test_what_is_not_kept_does_not_count_not_even_in_the_mean():
    parts, kept = batches(), torch.arange(9) % 3 == 0
    got = SemiSupervisedLoss(F.cross_entropy, 2.0)(*parts, kept=kept)
    assert got.item() == pytest.approx(slow_joint(*parts, 2.0, kept))
    none = SemiSupervisedLoss(F.cross_entropy)(*parts, kept=torch.zeros(9, dtype=torch.bool))
    assert none.item() == pytest.approx(F.cross_entropy(*parts[:2]).item())


@pytest.mark.parametrize(("n", "n_pseudo"), [(6, 9), (4, 20), (7, 1)])
def test_the_released_concatenation_is_omega_of_the_sizes(n, n_pseudo):
    parts, omega = batches(n, n_pseudo), n_pseudo / n
    joint = SemiSupervisedLoss(F.cross_entropy, omega)(*parts)
    concatenated = released.SemiSupervisedLoss(F.cross_entropy)(*parts)
    assert_close(concatenated * (1 + omega), joint)
    # The same once more, from weights that all are 1.
    assert joint_weights(n, n_pseudo, omega) == pytest.approx((1.0, 1.0))
    if n != n_pseudo:  # and it is not omega = 1
        assert not torch.isclose(2 * concatenated, SemiSupervisedLoss(F.cross_entropy)(*parts))


def test_gradient_reaches_both_predictions():
    logits, target, pseudo, pseudo_target = batches()
    criterion = SemiSupervisedLoss(F.cross_entropy, 0.7)
    assert torch.autograd.gradcheck(
        lambda a, b: criterion(a, target, b, pseudo_target),
        (logits.requires_grad_(), pseudo.requires_grad_()),
    )


def test_a_loss_may_be_a_module_with_parameters():
    scale = nn.Parameter(torch.tensor(2.0))

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = scale

        def forward(self, prediction, target):
            return self.scale * F.l1_loss(prediction, target)

    criterion = SemiSupervisedLoss(Scaled())
    assert list(criterion.parameters()) == [scale]
    assert "omega=1" in repr(criterion)


@pytest.mark.parametrize("omega", [-1.0, float("inf"), float("nan")])
def test_omega_is_a_weight(omega):
    with pytest.raises(ValueError, match="omega must be 0 or more"):
        SemiSupervisedLoss(F.cross_entropy, omega)
    with pytest.raises(ValueError, match="omega must be 0 or more"):
        joint_weights(1, 1, omega)


def test_bad_batches_are_refused():
    criterion = SemiSupervisedLoss(F.cross_entropy)
    logits, target, pseudo, pseudo_target = batches()
    with pytest.raises(ValueError, match="the labelled batch is empty"):
        criterion(logits[:0], target[:0], pseudo, pseudo_target)
    with pytest.raises(ValueError, match="the pseudo-labelled batch is empty"):
        criterion(logits, target, pseudo[:0], pseudo_target[:0])
    with pytest.raises(ValueError, match="9 predictions and 6 targets"):
        criterion(logits, target, pseudo, target)
    with pytest.raises(ValueError, match=r"kept must have shape \(9,\)"):
        criterion(logits, target, pseudo, pseudo_target, torch.ones(6, dtype=torch.bool))
    with pytest.raises(TypeError, match="bool tensor"):
        criterion(logits, target, pseudo, pseudo_target, torch.ones(9))
    with pytest.raises(ValueError, match='reduction="mean"'):
        SemiSupervisedLoss(nn.CrossEntropyLoss(reduction="none"))(
            logits, target, pseudo, pseudo_target
        )
    with pytest.raises(TypeError, match="callable"):
        SemiSupervisedLoss("cross entropy")
    with pytest.raises(TypeError, match=r"a class; give what it makes, CrossEntropyLoss\(\)"):
        SemiSupervisedLoss(nn.CrossEntropyLoss)
    with pytest.raises(TypeError, match=r"got PseudoLabels; .* give the attribute labels"):
        criterion(logits, target, pseudo, PseudoLabels.from_logits(pseudo))


# ---- weights that do the same on one data set


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 10))
def test_weighted_mean_over_one_data_set_is_the_joint_loss(n, n_pseudo, omega):
    parts = batches(n, n_pseudo)
    w, w_pseudo = joint_weights(n, n_pseudo, omega)
    weights = torch.tensor([w] * n + [w_pseudo] * n_pseudo, dtype=torch.float64)
    assert weights.mean().item() == pytest.approx(1)
    each = F.cross_entropy(
        torch.cat([parts[0], parts[2]]), torch.cat([parts[1], parts[3]]), reduction="none"
    )
    expected = SemiSupervisedLoss(F.cross_entropy, omega)(*parts) / (1 + omega)
    assert_close((weights * each).mean(), expected)


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (-1, 5)])
def test_both_parts_must_hold_samples(sizes):
    with pytest.raises(ValueError, match="both parts must hold samples"):
        joint_weights(*sizes)

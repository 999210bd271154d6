import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

import dirlearn
from dirlearn.released import focal_r


def batch(device="cpu"):
    pred, target = (3 * torch.randn(7, dtype=torch.float64, device=device) for _ in range(2))
    return pred, target, torch.rand(7, dtype=torch.float64, device=device) + 0.1


@pytest.mark.parametrize("activate", ["sigmoid", "tanh"])
@pytest.mark.parametrize("kind", ["l1", "mse"])
@pytest.mark.parametrize(("beta", "gamma"), [(0.2, 1.0), (1.5, 2.0), (3.0, 0.5)])
def test_focal_r_is_the_loop(beta, gamma, kind, activate, device):
    pred, target, weight = batch(device)
    value = focal_r(pred, target, weight, "none", beta, gamma, kind, activate)
    for v, p, t, w in zip(value, pred, target, weight, strict=True):
        error = abs(p.item() - t.item())
        sigmoid = 1 / (1 + math.exp(-beta * error))
        factor = 2 * sigmoid - 1 if activate == "sigmoid" else math.tanh(beta * error)
        expected = w.item() * factor**gamma * (error if kind == "l1" else error**2)
        assert v.item() == pytest.approx(expected)
    assert_close(focal_r(pred, target, weight, "mean", beta, gamma, kind, activate), value.mean())


def test_small_errors_are_forgiven_where_the_paper_s_loss_halves_them():
    zero, error = torch.zeros(1), torch.tensor([1e-3])
    assert (dirlearn.focal_r(error, zero) / error).item() == pytest.approx(0.5, rel=1e-3)
    assert (focal_r(error, zero) / error).item() == pytest.approx(0.2 * 1e-3 / 2, rel=1e-3)
    large = torch.tensor([1e3])
    assert_close(focal_r(large, zero), dirlearn.focal_r(large, zero))


@pytest.mark.parametrize("kind", ["l1", "mse"])
def test_gradients_with_the_factor_s_share(kind, device):
    inputs = [tensor.requires_grad_() for tensor in batch(device)]
    assert gradcheck(lambda p, t, w: focal_r(p, t, w, gamma=1.5, kind=kind), inputs)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_no_error_has_no_pull(gamma):
    pred = torch.zeros(2, requires_grad=True)
    focal_r(pred, torch.zeros(2), gamma=gamma).backward()
    assert pred.grad.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"activate": "relu"}, "'relu'"),
        ({"beta": -1.0}, "beta must be positive"),
        ({"gamma": -1.0}, "gamma must be 0 or more"),
        ({"kind": "huber"}, "'huber'"),
    ],
    ids=str,
)
def test_focal_r_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        focal_r(torch.ones(3), torch.ones(3), **arguments)
    with pytest.raises(ValueError, match=r"target has shape \(3,\)"):
        focal_r(torch.ones(3, 1), torch.ones(3))

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from dirlearn import focal_r, weighted_huber, weighted_l1, weighted_mse

LOSSES = [weighted_mse, weighted_l1, weighted_huber, focal_r]
TWINS = [(weighted_mse, F.mse_loss), (weighted_l1, F.l1_loss), (weighted_huber, F.smooth_l1_loss)]
ELEMENT = {
    weighted_mse: lambda e: e * e,
    weighted_l1: abs,
    weighted_huber: lambda e: e * e / 2 if abs(e) < 1 else abs(e) - 0.5,
    focal_r: lambda e: abs(e) / (1 + math.exp(-0.2 * abs(e))),
}


def batch(shape=(7,), dtype=torch.float64, device="cpu"):
    pred = 3 * torch.randn(shape, dtype=torch.float64)
    target = 3 * torch.randn(shape, dtype=torch.float64)
    weight = torch.rand(shape, dtype=torch.float64) + 0.1
    return [tensor.to(device, dtype) for tensor in (pred, target, weight)]


@pytest.mark.parametrize("loss", LOSSES)
def test_closed_form(loss, device):
    pred, target, weight = batch(device=device)
    terms = [
        w * ELEMENT[loss](p - t)
        for p, t, w in zip(pred.tolist(), target.tolist(), weight.tolist(), strict=True)
    ]
    assert loss(pred, target, weight).item() == pytest.approx(sum(terms) / 7)
    assert loss(pred, target, weight, reduction="sum").item() == pytest.approx(sum(terms))
    assert loss(pred, target, weight, reduction="none").tolist() == pytest.approx(terms)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(1,), (7,), (7, 1), (2, 3), (2, 1, 3, 4)])
@pytest.mark.parametrize(("loss", "twin"), TWINS)
def test_without_weights_it_is_torch(loss, twin, shape, reduction, device):
    pred, target, _ = batch(shape, torch.float32, device)
    expected = twin(pred, target, reduction=reduction)
    assert_close(loss(pred, target, reduction=reduction), expected)
    assert_close(loss(pred, target, torch.ones_like(pred), reduction), expected)


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_huber_by_beta(beta, device):
    pred, target, weight = batch((50,), device=device)
    expected = weight * F.huber_loss(pred, target, reduction="none", delta=beta) / beta
    assert_close(weighted_huber(pred, target, weight, "none", beta=beta), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_mean_divides_by_samples_not_by_weights(loss, device):
    pred, target, weight = batch(device=device)
    assert_close(loss(pred, target, 2 * weight), 2 * loss(pred, target, weight))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_sample_of_weight_zero_has_no_pull(loss, device):
    pred, target, weight = batch(device=device)
    pred.requires_grad_()
    weight[3] = 0
    loss(pred, target, weight, reduction="sum").backward()
    assert pred.grad[3] == 0
    assert (pred.grad[torch.arange(7) != 3] != 0).all()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_of_prediction_target_and_weight(loss, reduction, device):
    inputs = [tensor.requires_grad_() for tensor in batch((6, 2), device=device)]
    assert gradcheck(lambda p, t, w: loss(p, t, w, reduction), inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES)
def test_dtype_and_device_are_kept(loss, dtype, device):
    pred, target, weight = batch((32,), dtype, device)
    value = loss(pred, target, weight)
    assert value.dtype == dtype
    assert value.device.type == device.type
    exact = loss(pred.double(), target.double(), weight.double())
    assert value.item() == pytest.approx(exact.item(), rel=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("loss", LOSSES)
def test_autocast(loss, device):
    layer = torch.nn.Linear(3, 1).to(device)
    x, target = torch.randn(16, 3, device=device), torch.randn(16, 1, device=device)
    weight = torch.rand(16, 1, device=device)
    exact = loss(layer(x), target, weight)
    with torch.autocast(device.type, torch.bfloat16):
        value = loss(layer(x), target, weight)
    value.backward()
    assert value.item() == pytest.approx(exact.item(), rel=0.05)
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.isfinite().all()


def test_huge_errors_grow_as_the_loss_says(device):
    pred = torch.tensor([1e100], dtype=torch.float64, device=device)
    target = torch.zeros_like(pred)
    assert weighted_mse(pred, target).item() == pytest.approx(1e200)
    assert weighted_l1(pred, target).item() == weighted_huber(pred, target).item() == 1e100


@pytest.mark.parametrize("loss", LOSSES)
def test_a_diverged_prediction_shows(loss, device):
    target = torch.zeros(2, device=device)
    assert loss(torch.tensor([1.0, torch.nan], device=device), target).isnan()
    assert loss(torch.tensor([1.0, torch.inf], device=device), target).isinf()


@pytest.mark.parametrize("loss", LOSSES)
def test_strides_do_not_matter(loss, device):
    pred, target, weight = batch((4, 6), device=device)
    value = loss(pred.T, target.T, weight.T, reduction="none")
    assert_close(value, loss(pred, target, weight, reduction="none").T)


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_that_would_broadcast_are_refused(loss):
    column, row = torch.zeros(5, 1), torch.zeros(5)
    with pytest.raises(ValueError, match=r"target has shape \(5,\), pred has \(5, 1\)"):
        loss(column, row)
    with pytest.raises(ValueError, match=r"target has shape \(5, 1\), pred has \(5,\)"):
        loss(row, column)
    with pytest.raises(ValueError, match=r"weight has shape \(5,\), pred has \(5, 1\)"):
        loss(column, column, row)
    with pytest.raises(ValueError, match=r"weight has shape \(\)"):
        loss(row, row, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"target has shape \(1,\)"):
        loss(row, torch.zeros(1))


@pytest.mark.parametrize("shape", [(0,), (0, 1), (3, 0)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_empty_batch_is_refused(loss, reduction, shape):
    with pytest.raises(ValueError, match="batch is empty"):
        loss(torch.zeros(shape), torch.zeros(shape), reduction=reduction)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_only_floating_point_is_taken(loss, place, dtype):
    inputs = [torch.ones(3), torch.ones(3), torch.ones(3)]
    inputs[place] = inputs[place].to(dtype)
    name = ["pred", "target", "weight"][place]
    with pytest.raises(TypeError, match=rf"{name} must be floating point, got {dtype}"):
        loss(*inputs)


@pytest.mark.parametrize("values", [np.ones(3), [1.0, 1.0, 1.0], 1.0, "abc"], ids=type)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("loss", LOSSES)
def test_only_tensors_are_taken(loss, place, values):
    inputs = [torch.ones(3), torch.ones(3), torch.ones(3)]
    inputs[place] = values
    name = ["pred", "target", "weight"][place]
    with pytest.raises(TypeError, match=f"{name} must be a tensor, got {type(values).__name__}"):
        loss(*inputs)


@pytest.mark.parametrize("loss", LOSSES)
def test_an_unknown_reduction_is_refused(loss):
    with pytest.raises(ValueError, match="'average'"):
        loss(torch.ones(3), torch.ones(3), reduction="average")


@pytest.mark.parametrize("beta", [0, -1, float("nan")])
def test_a_beta_that_is_not_positive_is_refused(beta):
    with pytest.raises(ValueError, match="beta must be positive"):
        weighted_huber(torch.ones(3), torch.ones(3), beta=beta)


# ---- Focal-R


@pytest.mark.parametrize("kind", ["l1", "mse"])
@pytest.mark.parametrize(("beta", "gamma"), [(0.2, 1.0), (1.5, 2.0), (3.0, 0.5)])
def test_focal_r_by_beta_gamma_and_kind(beta, gamma, kind, device):
    pred, target, weight = batch(device=device)
    value = focal_r(pred, target, weight, "none", beta=beta, gamma=gamma, kind=kind)
    for v, p, t, w in zip(value, pred, target, weight, strict=True):
        error = abs(p.item() - t.item())
        factor = (1 / (1 + math.exp(-beta * error))) ** gamma
        expected = w.item() * factor * (error if kind == "l1" else error**2)
        assert v.item() == pytest.approx(expected)


def test_focal_r_without_gamma_is_the_plain_loss_and_between_half_of_it_and_it(device):
    pred, target, weight = batch(device=device)
    plain = weighted_l1(pred, target, weight, "none")
    assert_close(focal_r(pred, target, weight, "none", gamma=0.0), plain)
    focal = focal_r(pred, target, weight, "none")
    assert ((plain / 2 < focal) & (focal < plain)).all()


@pytest.mark.parametrize("kind", ["l1", "mse"])
def test_the_factor_of_focal_r_has_its_share_in_the_gradient(kind, device):
    pred, target, weight = (tensor.requires_grad_() for tensor in batch(device=device))
    assert gradcheck(
        lambda p, t, w: focal_r(p, t, w, beta=0.7, gamma=1.5, kind=kind), (pred, target, weight)
    )
    error = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    focal_r(error[None], torch.zeros(1, dtype=torch.float64), kind=kind).backward()
    sigmoid = 1 / (1 + math.exp(-0.4))
    slope, value = (1, 2) if kind == "l1" else (4, 4)
    assert error.grad.item() == pytest.approx(
        sigmoid * slope + 0.2 * sigmoid * (1 - sigmoid) * value
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"beta": 0.0}, "beta must be positive"),
        ({"beta": math.nan}, "beta must be positive"),
        ({"gamma": -1.0}, "gamma must be 0 or more"),
        ({"gamma": math.inf}, "gamma must be 0 or more"),
        ({"kind": "huber"}, "'huber'"),
    ],
    ids=str,
)
def test_focal_r_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        focal_r(torch.ones(3), torch.ones(3), **arguments)

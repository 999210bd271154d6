import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from dirlearn import focal_loss, ldam_loss

MARGINS = torch.tensor([0.1, 0.0, 0.5, 0.3])
LOSSES = {"focal": focal_loss, "ldam": lambda u, y, *rest: ldam_loss(u, y, MARGINS, 5.0, *rest)}
each_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def batch(n=7, device="cpu", dtype=torch.float64):
    logits = 2 * torch.randn(n, 4, dtype=torch.float64)
    target = torch.randint(4, (n,))
    weight = torch.rand(4, dtype=torch.float64) + 0.1
    return logits.to(device, dtype), target.to(device), weight.to(device, dtype)


def slow_focal(logits, target, gamma):
    for row, y in zip(logits.tolist(), target.tolist(), strict=True):
        p = math.exp(row[y]) / sum(math.exp(u) for u in row)
        yield -((1 - p) ** gamma) * math.log(p)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_equals_the_loop(gamma, device):
    logits, target, weight = batch(device=device)
    each = list(slow_focal(logits, target, gamma))
    w = [weight.tolist()[y] for y in target.tolist()]
    terms = [a * b for a, b in zip(w, each, strict=True)]
    assert focal_loss(logits, target, None, "none", gamma).tolist() == pytest.approx(each)
    assert focal_loss(logits, target, gamma=gamma).item() == pytest.approx(sum(each) / 7)
    assert focal_loss(logits, target, weight, "none", gamma).tolist() == pytest.approx(terms)
    assert focal_loss(logits, target, weight, "sum", gamma).item() == pytest.approx(sum(terms))
    mean = focal_loss(logits, target, weight, gamma=gamma).item()
    assert mean == pytest.approx(sum(terms) / sum(w))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_without_gamma_it_is_cross_entropy(reduction, device):
    logits, target, weight = batch(device=device, dtype=torch.float32)
    for w in (None, weight):
        expected = F.cross_entropy(logits, target, w, reduction=reduction)
        assert_close(focal_loss(logits, target, w, reduction, gamma=0.0), expected)


def test_samples_that_are_right_count_for_less(device):
    logits, target, _ = batch(200, device)
    plain = F.cross_entropy(logits, target, reduction="none")
    factor = focal_loss(logits, target, None, "none", gamma=1.0) / plain
    assert_close(factor, 1 - torch.exp(-plain))


@each_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradients_of_logits_and_weight(loss, reduction, device):
    logits, target, weight = batch(device=device)
    inputs = logits.requires_grad_(), weight.requires_grad_()
    assert gradcheck(lambda u, w: loss(u, target, w, reduction), inputs)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.5])
def test_gradients_by_gamma_and_where_all_is_right(gamma, device):
    logits, target, _ = batch(device=device)
    assert gradcheck(lambda u: focal_loss(u, target, gamma=gamma), logits.requires_grad_())
    sure = torch.tensor([[1e4, 0.0]], device=device, requires_grad=True)
    value = focal_loss(sure, torch.zeros(1, dtype=torch.long, device=device), gamma=gamma)
    value.backward()
    assert value.item() == 0
    assert sure.grad.tolist() == [[0.0, 0.0]]


@each_loss
def test_huge_logits_stay_finite_and_divergence_shows(loss, device):
    target = torch.tensor([1], device=device)
    huge = torch.tensor([[1e30, 0.0, 0.0, 0.0]], device=device)
    assert loss(huge, target).isfinite()
    assert loss(huge * torch.nan, target).isnan()


@each_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_device_are_kept(loss, dtype, device):
    logits, target, weight = batch(32, device, dtype)
    value = loss(logits, target, weight)
    assert value.dtype == dtype
    assert value.device.type == device.type
    exact = loss(logits.double(), target, weight.double()).item()
    assert value.item() == pytest.approx(exact, rel=16 * torch.finfo(dtype).eps)


@each_loss
def test_memory_order_and_type_of_the_labels_do_not_matter(loss, device):
    logits, target, weight = batch(6, device)
    expected = loss(logits, target, weight)
    strided = logits.T.contiguous().T
    assert not strided.is_contiguous()
    assert_close(loss(strided, target, weight), expected)
    assert_close(loss(logits, target.to(torch.uint8), weight), expected)
    assert_close(loss(logits[:1], target[:1]), loss(logits, target, None, "none")[0])


@each_loss
def test_compiled_without_a_break(loss, device):
    logits, target, weight = batch(6, device)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert_close(compiled(logits, target, weight), loss(logits, target, weight))


@each_loss
def test_bad_input_is_refused(loss, device):
    logits, target, _ = batch(6, device)
    with pytest.raises(ValueError, match="the batch is empty"):
        loss(logits[:0], target[:0])
    with pytest.raises(ValueError, match=r"logits must have shape \(N, C\)"):
        loss(logits, target[:5])
    with pytest.raises(ValueError, match=r"logits must have shape \(N, C\)"):
        loss(logits[0], target[0])
    with pytest.raises(ValueError, match="one number per class"):
        loss(logits, target, torch.ones(6, device=device))
    with pytest.raises(ValueError, match="reduction"):
        loss(logits, target, None, "median")
    with pytest.raises(TypeError, match="logits must be floating"):
        loss(logits.long(), target)
    with pytest.raises(TypeError, match="whole numbers"):
        loss(logits, target.double())
    with pytest.raises(TypeError, match="must be a tensor"):
        loss(logits, [0] * 6)


@each_loss
@pytest.mark.parametrize("label", [-100, -1, 4])
def test_a_label_outside_the_classes_is_refused(loss, label):
    with pytest.raises(ValueError, match="target must hold classes 0 to 3"):
        loss(torch.zeros(2, 4), torch.tensor([0, label]))


@pytest.mark.parametrize("gamma", [-1.0, math.nan, math.inf])
def test_a_gamma_below_zero_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma must be 0 or more"):
        focal_loss(torch.zeros(1, 2), torch.tensor([0]), gamma=gamma)

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from dirlearn import CosineLinear, LDAMLoss, class_balanced_weights, ldam_loss, ldam_margins

COUNTS = [100, 40, 10, 3]


def batch(n=7, device="cpu", dtype=torch.float64):
    cosines = 2 * torch.rand(n, 4, dtype=torch.float64) - 1
    return cosines.to(device, dtype), torch.randint(4, (n,), device=device)


# ---- margins


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=20), st.floats(0, 2))
def test_margins_are_inverse_to_the_fourth_root_and_the_largest_is_as_said(counts, largest):
    margins = ldam_margins(np.array(counts), largest)
    raw = [1 / math.sqrt(math.sqrt(n)) for n in counts]
    assert margins == pytest.approx([m * largest / max(raw) for m in raw])
    assert margins.max() == pytest.approx(largest)


def test_margins_keep_type_and_device(device):
    counts = torch.tensor([16, 1], device=device)
    margins = ldam_margins(counts)
    assert_close(margins, torch.tensor([0.25, 0.5], device=device))
    assert ldam_margins(counts.half()).dtype == torch.float16


@pytest.mark.parametrize("largest", [-0.1, 2.1, math.nan])
def test_a_margin_beyond_any_cosine_is_refused(largest):
    with pytest.raises(ValueError, match="max_margin must be from 0 to 2"):
        ldam_margins(np.array(COUNTS), largest)


@pytest.mark.parametrize(("counts", "words"), [([3, 0], "class 1 has no"), ([], "per class")])
def test_counts_without_samples_are_refused(counts, words):
    with pytest.raises(ValueError, match=words):
        ldam_margins(np.array(counts))
    with pytest.raises(ValueError, match=words):
        LDAMLoss(counts)


# ---- loss


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_the_loss_equals_the_loop(scale, device):
    cosines, target = batch(device=device)
    margins, weight = ldam_margins(torch.tensor(COUNTS).double()), torch.rand(4).double() + 0.1
    each, w = [], [weight.tolist()[y] for y in target.tolist()]
    for row, y in zip(cosines.tolist(), target.tolist(), strict=True):
        u = [scale * (v - (float(margins[c]) if c == y else 0.0)) for c, v in enumerate(row)]
        each.append(math.log(sum(math.exp(v - u[y]) for v in u)))
    margins, weight = margins.to(device), weight.to(device)
    got = ldam_loss(cosines, target, margins, scale, reduction="none")
    assert got.tolist() == pytest.approx(each)
    assert ldam_loss(cosines, target, margins, scale).item() == pytest.approx(sum(each) / 7)
    terms = [a * b for a, b in zip(w, each, strict=True)]
    weighted = ldam_loss(cosines, target, margins, scale, weight)
    assert weighted.item() == pytest.approx(sum(terms) / sum(w))
    assert ldam_loss(
        cosines, target, margins, scale, weight, reduction="sum"
    ).item() == pytest.approx(sum(terms))


def test_without_margins_it_is_the_cross_entropy_of_scaled_logits(device):
    cosines, target = batch(device=device)
    weight = class_balanced_weights(torch.tensor(COUNTS, device=device).double())
    for w in (None, weight):
        expected = F.cross_entropy(30 * cosines, target, w)
        assert_close(ldam_loss(cosines, target, np.zeros(4), weight=w), expected)


def test_it_is_the_loss_of_the_released_code():
    """Written as theirs is: subtract each sample's margin where its class is, then torch's loss."""
    cosines, target = batch(50)
    margins = ldam_margins(torch.tensor(COUNTS).double())
    weight = class_balanced_weights(torch.tensor(COUNTS).double())
    own = torch.zeros_like(cosines, dtype=torch.bool).scatter_(1, target[:, None], True)
    output = torch.where(own, cosines - margins[target][:, None], cosines)
    expected = F.cross_entropy(30 * output, target, weight=weight)
    assert_close(ldam_loss(cosines, target, margins, weight=weight), expected)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_gradients(scale, device):
    cosines, target = batch(device=device)
    margins = ldam_margins(torch.tensor(COUNTS, device=device).double())
    assert gradcheck(lambda u: ldam_loss(u, target, margins, scale), cosines.requires_grad_())


def test_a_wider_margin_asks_for_more():
    cosines, target = batch(20)
    low, high = (ldam_loss(cosines, target, np.full(4, m), reduction="none") for m in (0.1, 0.4))
    assert (high > low).all()


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_not_positive_is_refused(scale):
    cosines, target = batch()
    with pytest.raises(ValueError, match="scale must be positive"):
        ldam_loss(cosines, target, np.zeros(4), scale)
    with pytest.raises(ValueError, match="scale must be positive"):
        LDAMLoss(COUNTS, scale=scale)


def test_margins_of_other_classes_are_refused():
    cosines, target = batch()
    with pytest.raises(ValueError, match="margins must hold one number per class"):
        ldam_loss(cosines, target, np.zeros(3))


def test_the_module_is_the_function(device):
    cosines, target = batch(device=device, dtype=torch.float32)
    loss = LDAMLoss(COUNTS, max_margin=0.3, scale=10.0).to(device)
    margins = ldam_margins(np.array(COUNTS), 0.3)
    assert_close(loss(cosines, target), ldam_loss(cosines, target, margins, 10.0))
    weight = class_balanced_weights(torch.tensor(COUNTS, device=device), beta=1.0)
    expected = ldam_loss(cosines, target, margins, 10.0, weight)
    assert_close(loss(cosines, target, weight), expected)
    for twin in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert_close(twin(cosines, target), loss(cosines, target))
    assert "margins" in loss.state_dict()


# ---- head


def test_outputs_are_cosines_and_blind_to_length(device):
    layer = CosineLinear(6, 4).to(device)
    features = torch.randn(5, 6, device=device)
    expected = F.cosine_similarity(features[:, None], layer.weight[None], dim=-1)
    assert_close(layer(features), expected)
    with torch.no_grad():
        layer.weight *= torch.tensor([[1e-3], [1.0], [10.0], [1e3]], device=device)
    assert_close(layer(1000 * features), expected)


def test_directions_start_with_length_one_and_follow_the_global_seed():
    torch.manual_seed(3)
    first = CosineLinear(6, 4)
    torch.manual_seed(3)
    assert_close(first.weight.norm(dim=1), torch.ones(4))
    assert torch.equal(first.weight, CosineLinear(6, 4).weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_feature_of_zero_has_cosine_zero_and_a_finite_gradient(dtype, device):
    layer = CosineLinear(6, 4).to(device, dtype)
    features = torch.zeros(2, 6, device=device, dtype=dtype, requires_grad=True)
    layer(features).sum().backward()
    assert (layer(features) == 0).all()
    assert features.grad.isfinite().all()
    assert layer.weight.grad.isfinite().all()


def test_gradients_of_the_head(device):
    layer = CosineLinear(3, 2).to(device).double()
    features = torch.randn(4, 3, device=device, dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda z, w: torch.func.functional_call(layer, {"weight": w}, (z,)),
        (features, layer.weight),
    )


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 3), (3, 0)])
def test_a_head_without_features_or_classes_is_refused(inputs, outputs):
    with pytest.raises(ValueError, match="in_features and out_features"):
        CosineLinear(inputs, outputs)

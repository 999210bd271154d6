import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dirlearn import info_nce, nt_xent
from dirlearn.contrast import unit

HALF = [torch.float16, torch.bfloat16]


def views(n=6, dim=5, seed=0, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    pair = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    return [view.to(device, dtype) for view in pair]


def cosine(u, v):
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    return dot / math.hypot(*u) / math.hypot(*v)


def info_nce_by_loop(q, k, temperature, queue=None):
    q, k = q.tolist(), k.tolist()
    queue = None if queue is None else queue.tolist()
    losses = []
    for i, query in enumerate(q):
        others = queue if queue is not None else [key for j, key in enumerate(k) if j != i]
        positive = math.exp(cosine(query, k[i]) / temperature)
        negative = sum(math.exp(cosine(query, key) / temperature) for key in others)
        losses.append(-math.log(positive / (positive + negative)))
    return sum(losses) / len(losses)


def nt_xent_by_loop(first, second, temperature):
    z, n = [*first.tolist(), *second.tolist()], len(first)
    total = 0.0
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        others = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[partner]) / temperature) / others)
    return total / (2 * n)


# ---- against loops and closed forms


@given(n=st.integers(2, 7), dim=st.integers(2, 6), temperature=st.floats(0.05, 5.0))
def test_both_are_the_explicit_loop(n, dim, temperature):
    q, k = views(n, dim, seed=n)
    queue = views(9, dim, seed=99)[0]
    assert float(info_nce(q, k, temperature)) == pytest.approx(info_nce_by_loop(q, k, temperature))
    expected = info_nce_by_loop(q, k, temperature, queue)
    assert float(info_nce(q, k, temperature, queue)) == pytest.approx(expected)
    assert float(nt_xent(q, k, temperature)) == pytest.approx(nt_xent_by_loop(q, k, temperature))


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_collapse_has_log_of_the_number_of_candidates(temperature, device):
    same = torch.ones(4, 3, device=device)
    assert float(info_nce(same, same, temperature)) == pytest.approx(math.log(4))
    queue = torch.ones(7, 3, device=device)
    assert float(info_nce(same, same, temperature, queue)) == pytest.approx(math.log(8))
    assert float(nt_xent(same, same, temperature)) == pytest.approx(math.log(7))


def test_orthogonal_images_by_hand():
    apart = torch.eye(5, dtype=torch.float64)
    for t in (0.2, 1.0):
        e = math.exp(-1 / t)
        assert float(info_nce(apart, apart, t)) == pytest.approx(math.log(1 + 4 * e))
        assert float(nt_xent(apart, apart, t)) == pytest.approx(math.log(1 + 8 * e))
        queue = -apart[:3]  # opposite to three of the queries, at a right angle otherwise
        losses = [math.log(1 + (2 * e + math.exp(-2 / t) if i < 3 else 3 * e)) for i in range(5)]
        assert float(info_nce(apart, apart, t, queue)) == pytest.approx(sum(losses) / 5)


def test_default_temperatures_are_those_of_the_papers():
    q, k = views()
    assert info_nce(q, k) == info_nce(q, k, 0.2)
    assert nt_xent(q, k) == nt_xent(q, k, 0.5)


# ---- what must not matter


def test_only_directions_and_pairs_matter():
    q, k = views()
    length, order = torch.rand(6, 1, dtype=torch.float64) + 0.1, torch.randperm(6)
    for loss in (info_nce, nt_xent):
        assert_close(loss(length * q, 3e30 * k), loss(q, k))
        assert_close(loss(q[order], k[order]), loss(q, k))
        assert not torch.isclose(loss(q, k[order]), loss(q, k))
    assert_close(nt_xent(k, q), nt_xent(q, k))  # the two directions are in it


def test_memory_layout_does_not_matter():
    q, k = (view.T.contiguous().T for view in views())
    assert not q.is_contiguous()
    assert_close(info_nce(q, k), info_nce(*views()))
    assert_close(nt_xent(q, k), nt_xent(*views()))


# ---- gradients


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_gradients_are_those_of_differences(temperature, device):
    q, k = (view.requires_grad_() for view in views(4, 3, device=device))
    queue = views(5, 3, seed=1, device=device)[0]
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, temperature), (q, k))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, temperature, queue), (q, k))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, temperature), (q, k))


def test_the_queue_gets_no_gradient():
    q, k = views()
    queue = views(8, 5, seed=1)[0].requires_grad_()
    q.requires_grad_()
    info_nce(q, k, queue=queue).backward()
    assert queue.grad is None
    assert q.grad.abs().sum() > 0


def test_a_step_against_the_gradient_brings_pairs_together():
    for loss in (info_nce, nt_xent):
        q, k = views()
        q.requires_grad_()
        before = loss(q, k)
        before.backward()
        assert loss(q.detach() - 0.1 * q.grad, k) < before


def test_a_row_of_zeros_has_cosine_zero_and_a_finite_gradient():
    q, k = views()
    q[0] = 0
    q.requires_grad_()
    info_nce(q, k).backward()
    assert q.grad.isfinite().all()
    assert_close(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


# ---- numbers large and small


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("temperature", [1e-4, 1e-8])
def test_tiny_temperatures_are_finite_in_every_type(dtype, temperature, device):
    """The right key is the nearest: nothing to lose. A wrong one: the gap over the temperature."""
    right = torch.eye(4, dtype=dtype, device=device).requires_grad_()
    for loss in (info_nce, nt_xent):
        value = loss(right, right.detach(), temperature)
        assert value.dtype == torch.float32
        assert value.item() == 0
    wrong = info_nce(right, right.detach().flip(0), temperature)
    assert wrong.item() == pytest.approx(1 / temperature, rel=1e-5)
    wrong.backward()
    assert right.grad.isfinite().all() or dtype == torch.float16


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_the_loss_of_the_rounded_values(dtype, device):
    q, k = views(dtype=dtype, device=device)
    for loss in (info_nce, nt_xent):
        assert_close(loss(q, k), loss(q.float(), k.float()))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            assert_close(loss(q.float(), k.float()), loss(q.float(), k.float()))
        large = torch.full_like(q, torch.finfo(dtype).max / 2)
        assert float(loss(large, large)) == pytest.approx(math.log(6 if loss is info_nce else 11))


def test_float64_stays():
    assert info_nce(*views()).dtype == nt_xent(*views()).dtype == torch.float64


# ---- refused


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.inf, math.nan])
def test_temperatures_out_of_range_are_refused(temperature):
    for loss in (info_nce, nt_xent):
        with pytest.raises(ValueError, match="temperature must be positive and finite"):
            loss(*views(), temperature)
        with pytest.raises(TypeError, match="temperature must be a number"):
            loss(*views(), "warm")
        with pytest.raises(TypeError, match=r"got Tensor$"):  # not all its numbers
            loss(*views(), torch.ones(3, 3))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(bad):
    for place in (0, 1):
        pair = views()
        pair[place][2, 1] = bad
        for loss in (info_nce, nt_xent):
            with pytest.raises(ValueError, match="holds 1 NaN or infinite of 30"):
                loss(*pair)
    queue = torch.full((3, 5), bad)
    with pytest.raises(ValueError, match="queue holds 15 NaN or infinite"):
        info_nce(*views(), queue=queue)


@pytest.mark.parametrize("loss", [info_nce, nt_xent])
def test_what_makes_no_pairs_is_refused(loss):
    q, k = views()
    with pytest.raises(ValueError, match="pairs of one shape"):
        loss(q, k[:-1])
    with pytest.raises(ValueError, match="pairs of one shape"):
        loss(q, k.float())
    with pytest.raises(ValueError, match=r"must have shape \(N, D\).*got \(0, 5\)"):
        loss(q[:0], k[:0])
    with pytest.raises(ValueError, match=r"must have shape \(N, D\)"):
        loss(q[:, 0], k[:, 0])
    with pytest.raises(ValueError, match="drop_last=True"):
        loss(q[:1], k[:1])
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        loss(q.long(), k.long())
    with pytest.raises(TypeError, match="floating-point tensor, got ndarray"):
        loss(q.numpy(), k.numpy())


def test_a_queue_of_another_width_is_refused_and_makes_one_pair_enough():
    q, k = views()
    with pytest.raises(ValueError, match=r"queue must have shape \(K, 5\).*got \(8, 4\)"):
        info_nce(q, k, queue=torch.ones(8, 4))
    with pytest.raises(ValueError, match="queue must have shape"):
        info_nce(q, k, queue=torch.ones(0, 5))
    assert float(info_nce(q[:1], q[:1], 1.0, -q[:1])) == pytest.approx(math.log(1 + math.exp(-2)))

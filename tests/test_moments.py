import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dirlearn import moments as module
from dirlearn.covariance import Diagonal, Full
from dirlearn.moments import Moments

DOUBLE = torch.float64
KINDS = pytest.mark.parametrize("covariance", [Diagonal(), Full()], ids=["diagonal", "full"])


def rows(n=40, features=3, bins=5, seed=0, dtype=torch.float32):
    """Correlated rows whose bins differ in mean and spread; the last bin stays empty."""
    rng = np.random.default_rng(seed)
    index = rng.integers(bins - 1, size=n)
    mixed = rng.normal(size=(n, features)) @ (np.eye(features) + 0.5)
    values = 3.0 * index[:, None] + (1 + index[:, None]) * mixed
    return torch.from_numpy(values).to(dtype), torch.from_numpy(index)


def streamed(z, index, covariance, cuts=(), bins=5, dtype=DOUBLE):
    result = Moments(bins, z.shape[1], covariance, dtype)
    edges = [0, *sorted(cuts), len(z)]
    for start, end in itertools.pairwise(edges):
        result.add(z[start:end], index[start:end])
    return result


def check(result, z, index, **tolerance):
    """Against ``torch.var_mean`` and ``torch.cov`` of each bin's rows in float64."""
    for b in range(len(result.count)):
        own = z[index == b].double().cpu()
        assert int(result.count[b]) == len(own)
        mean, spread = result.mean[b].double().cpu(), result.spread[b].double().cpu()
        if len(own) == 0:
            assert not mean.any()
        else:
            assert_close(mean, own.mean(dim=0), **tolerance)
        if len(own) < 2:
            assert not spread.any()
        elif spread.ndim == 1:
            assert_close(spread, torch.var_mean(own, dim=0)[0], **tolerance)
        else:
            assert_close(spread, torch.cov(own.T).reshape(spread.shape), **tolerance)


@KINDS
@given(n=st.integers(0, 30), cuts=st.lists(st.integers(0, 30), max_size=6), seed=st.integers(0, 99))
def test_any_batches_give_mean_and_variance_of_all_rows(covariance, n, cuts, seed):
    z, index = rows(n, seed=seed, dtype=DOUBLE)
    result = streamed(z, index, covariance, [min(cut, n) for cut in cuts])
    check(result, z, index, rtol=1e-9, atol=1e-9)


@KINDS
@pytest.mark.parametrize(
    ("block", "chunk"), [(1, 1), (2, 1), (7, 20), (16, 3), (1000, 9), (1000, 1000)]
)
def test_where_blocks_and_chunks_end_makes_no_difference(covariance, block, chunk, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_CHUNK", {"cpu": chunk})
    z, index = rows(dtype=DOUBLE)
    check(streamed(z, index, covariance, [13, 14]), z, index, rtol=1e-10, atol=1e-10)


@KINDS
def test_one_row_in_each_batch(covariance):
    z, index = rows(dtype=DOUBLE)
    check(streamed(z, index, covariance, range(40)), z, index, rtol=1e-9, atol=1e-9)


@KINDS
def test_a_single_row_is_its_own_mean_and_has_no_spread(covariance):
    result = streamed(torch.tensor([[1e6, -3.3, 0.1]]), torch.tensor([2]), covariance)
    assert result.count.tolist() == [0, 0, 1, 0, 0]
    assert result.mean[2].float().tolist() == pytest.approx([1e6, -3.3, 0.1])
    assert not result.products.any()


@KINDS
def test_an_empty_batch_changes_nothing(covariance):
    z, index = rows()
    result = streamed(z, index, covariance, [0, 0, 40])
    expected = streamed(z, index, covariance)
    for name in ("count", "mean", "products"):
        assert torch.equal(getattr(result, name), getattr(expected, name))


def test_clear_forgets_every_row():
    z, index = rows()
    result = streamed(10 * z, index, Diagonal())
    result.clear()
    assert not (result.count.any())
    assert not (result.mean.any())
    assert not result.products.any()
    result.add(z, index)
    check(result, z, index, rtol=1e-6, atol=1e-6)


@KINDS
def test_rows_need_not_be_contiguous(covariance, device):
    z, index = rows(80)
    z, index = z.to(device), index.to(device)
    wide = torch.stack([z, -z], dim=2)  # every second number is another one's
    check(streamed(wide[::2, :, 0], index[::2], covariance), z[::2], index[::2])
    turned = z.T.contiguous().T
    check(streamed(turned, index, covariance), z, index)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_rows_of_any_precision_are_summed_in_float32(dtype, device):
    z, index = rows(300, dtype=dtype)
    result = streamed(z.to(device), index.to(device), Diagonal(), dtype=torch.float32)
    assert result.mean.dtype == result.products.dtype == torch.float32
    check(result, z, index, rtol=2e-5, atol=2e-5)


def test_rows_are_left_as_they_are():
    z, index = rows()
    before = z.clone(), index.clone()
    streamed(z, index, Full(), dtype=torch.float32)
    assert torch.equal(z, before[0])
    assert torch.equal(index, before[1])


def test_another_device_and_precision(device):
    z, index = rows()
    result = streamed(z, index, Diagonal(), dtype=torch.float32)
    result.to(device, torch.float32)
    result.add(z.to(device), index.to(device))
    assert result.mean.device.type == device.type
    check(result, torch.cat([z, z]), torch.cat([index, index]), rtol=1e-5, atol=1e-5)


# ---- rounding


@pytest.mark.parametrize("batch", [64, 5_000, 40_000])
@pytest.mark.parametrize(
    ("mean", "std", "tolerance"), [(1e6, 0.1, 0.05), (-1e4, 0.1, 3e-3), (1e3, 1e-2, 3e-3)]
)
def test_a_mean_far_above_the_spread_does_no_harm(mean, std, tolerance, batch):
    """At 1e6 a float32 step is 0.06: the rows are that coarse themselves."""
    z = (mean + std * torch.randn(40_000, 2, dtype=DOUBLE)).float()
    index = torch.arange(40_000) % 3  # in turns, so that sums run long
    result = streamed(z, index, Diagonal(), range(batch, 40_000, batch), dtype=torch.float32)
    for b in range(3):
        own = z[index == b].double()
        assert_close(result.mean[b].double(), own.mean(dim=0), rtol=1e-6, atol=0)
        assert_close(result.spread[b].double(), own.var(dim=0), rtol=tolerance, atol=0)


@pytest.mark.parametrize("step", [5_000, 16_384])
def test_full_covariances_far_from_the_origin(step):
    z, index = rows(20_000, dtype=DOUBLE)
    z = (z + 1e4).float()
    result = streamed(z, index, Full(), range(step, 20_000, step), dtype=torch.float32)
    check(result, z, index, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("batch", [64, 5_000, 40_000])
def test_an_outlier_first_does_no_harm(batch):
    z = torch.randn(40_000, 1)
    z[0] = 1e6
    index = (torch.arange(40_000) % 5).sort().values
    result = streamed(z, index, Diagonal(), range(batch, 40_000, batch), dtype=torch.float32)
    check(result, z, index, rtol=3e-4, atol=1e-4)


def test_a_million_rows_in_one_bin():
    z = 5 + torch.randn(1_000_000, 2)
    index = torch.zeros(1_000_000, dtype=torch.int64)
    check(streamed(z, index, Diagonal(), bins=2, dtype=torch.float32), z, index, rtol=1e-5, atol=0)


# ---- processes: tests/test_fds.py has real ones; these are their arithmetic


class Pretence:
    """A sum over processes of which the others are given."""

    def __init__(self, monkeypatch, others):
        self.others, self.queue = others, []
        monkeypatch.setattr(module.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(module.distributed, "all_reduce", self)

    def __call__(self, tensor):
        tensor += self.queue.pop(0)


@KINDS
def test_the_sum_over_processes_by_parts(covariance, monkeypatch):
    z, index = rows(dtype=DOUBLE)
    ours, theirs = streamed(z[:7], index[:7], covariance), streamed(z[7:], index[7:], covariance)
    whole = streamed(z, index, covariance)
    pretence = Pretence(monkeypatch, theirs)
    scale = theirs.count[:, None]
    delta = theirs.mean - whole.mean
    between = covariance.product(delta, delta)
    between = between * theirs.count.view(-1, *[1] * (between.ndim - 1))
    pretence.queue = [theirs.count, theirs.mean * scale, theirs.products + between]
    ours.all_reduce()
    check(ours, z, index, rtol=1e-9, atol=1e-9)

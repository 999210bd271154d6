"""How fast RankSim is: against the similarities that it ranks, and against a loop over rows."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn import ranksim_loss

FEATURES = 2048  # of a ResNet-50
ROUNDS = 25


class Row(torch.autograd.Function):
    """Places of one row over n by a double argsort, and the blackbox gradient."""

    @staticmethod
    def forward(ctx: object, scores: Tensor, interpolation: float) -> Tensor:
        ctx.interpolation = interpolation
        ranks = places(scores)
        ctx.save_for_backward(scores, ranks)
        return ranks

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        scores, ranks = ctx.saved_tensors
        return (places(scores + ctx.interpolation * grad) - ranks) / ctx.interpolation, None


def places(row: Tensor) -> Tensor:
    return ((-row).argsort().argsort() + 1).float() / len(row)


def similarities(features: Tensor) -> Tensor:
    unit = F.normalize(features, dim=1)
    return unit @ unit.T


def by_rows(features: Tensor, targets: Tensor) -> Tensor:
    similarity, total = similarities(features), features.new_zeros(())
    for i in range(len(targets)):
        wanted = places(-(targets - targets[i]).abs())
        total = total + F.mse_loss(Row.apply(similarity[i], 2.0), wanted)
    return total / len(targets)


def least(features: Tensor, targets: Tensor) -> Tensor:
    return similarities(features).sum()


def seconds(loss: Callable[[Tensor, Tensor], Tensor], batch: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)  # fresh data: a sort learns what it has seen
    features = torch.randn(batch, FEATURES, generator=generator, requires_grad=True)
    targets = 100 * torch.rand(batch, generator=generator)
    start = time.perf_counter()
    loss(features, targets).backward()
    return time.perf_counter() - start


@pytest.mark.parametrize(("batch", "floor", "loop"), [(64, None, 3.0), (256, 2.0, 2.5)])
def test_forward_and_backward(batch, floor, loop, benchmark, capsys):
    """At most ``floor`` times the similarities alone, at least ``loop`` times faster than a loop.

    The three are measured in turns, and the minima compared, so that a busy machine slows all.
    """
    z, y = torch.randn(batch, 8, dtype=torch.float64), torch.rand(batch)
    assert ranksim_loss(z, y).item() == pytest.approx(by_rows(z, y).item(), rel=1e-5)
    for loss in (least, ranksim_loss, by_rows):
        seconds(loss, batch, 0)
    turns = [
        [seconds(loss, batch, seed) for loss in (least, ranksim_loss, by_rows)]
        for seed in range(ROUNDS)
    ]
    similarity, ours, rows = (min(times) for times in zip(*turns, strict=True))
    benchmark.extra_info.update(
        {"ratio to similarities": ours / similarity, "loop over rows to ours": rows / ours}
    )
    benchmark.pedantic(seconds, args=(ranksim_loss, batch, 0), rounds=3)
    with capsys.disabled():
        sys.stdout.write(
            f"\nbatch {batch} x {FEATURES}: {1e3 * ours:.2f} ms, {ours / similarity:.2f} times the "
            f"similarities alone; a loop over rows takes {rows / ours:.1f} times as long\n"
        )
    assert floor is None or ours <= floor * similarity
    assert rows >= loop * ours

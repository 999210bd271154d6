"""How fast the methods on labels and their lack are, against plain ways in the same run."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn import (
    LDAMLoss,
    MoCo,
    draw_pool,
    focal_loss,
    info_nce,
    ldam_margins,
    pool_counts,
    rotate_batch,
)
from dirlearn.lab.models import conv_encoder

# ---- losses of classes


def ldam_by_loop(cosines: Tensor, target: Tensor, margins: Tensor, scale: float) -> Tensor:
    """One sample at a time."""
    losses = []
    for row, c in zip(cosines, target, strict=True):
        shifted = torch.stack([u - margins[c] if i == c else u for i, u in enumerate(row)])
        losses.append(torch.logsumexp(scale * shifted, 0) - scale * shifted[c])
    return torch.stack(losses).mean()


def test_ldam_forward_and_backward(benchmark, in_turns, told):
    """At most a few times the cross-entropy on which it stands."""
    counts = np.array([500, 300, 180, 100, 60, 36, 20, 12, 7, 5])
    loss = LDAMLoss(counts)
    cosines, target = torch.rand(64, 10, requires_grad=True), torch.randint(10, (64,))
    margins = torch.as_tensor(ldam_margins(counts), dtype=torch.float32)
    torch.testing.assert_close(
        loss(cosines, target), ldam_by_loop(cosines, target, margins, 30.0), rtol=1e-5, atol=1e-5
    )
    plain, ours, focal, loop = in_turns(
        lambda: F.cross_entropy(30 * cosines, target).backward(),
        lambda: loss(cosines, target).backward(),
        lambda: focal_loss(cosines, target).backward(),
        lambda: ldam_by_loop(cosines, target, margins, 30.0).backward(),
        rounds=10,
    )
    told(
        LDAM_over_cross_entropy=ours / plain,
        focal_over_cross_entropy=focal / plain,
        loop_over_LDAM=loop / ours,
    )  # fmt: skip
    benchmark.pedantic(lambda: loss(cosines, target).backward(), rounds=20)
    assert ours / plain < 8
    assert focal / plain < 8
    assert loop / ours > 10


# ---- self-supervision


def info_nce_by_loop(q: Tensor, k: Tensor, temperature: float) -> Tensor:
    """One pair of views at a time."""
    losses = []
    for i in range(len(q)):
        similarity = [F.cosine_similarity(q[i], k[j], dim=0) / temperature for j in range(len(k))]
        losses.append(torch.logsumexp(torch.stack(similarity), 0) - similarity[i])
    return torch.stack(losses).mean()


def test_info_nce_forward_and_backward(benchmark, in_turns, told):
    """At most a few times the cross-entropy of similarities that somebody else has made."""
    q, k = torch.randn(64, 128, requires_grad=True), torch.randn(64, 128)
    torch.testing.assert_close(info_nce(q, k), info_nce_by_loop(q, k, 0.2), rtol=1e-5, atol=1e-5)
    own = torch.arange(64)

    def of_explicit_logits() -> None:
        logits = F.normalize(q, dim=1) @ F.normalize(k, dim=1).T / 0.2
        F.cross_entropy(logits, own).backward()

    ours, plain = in_turns(lambda: info_nce(q, k).backward(), of_explicit_logits)
    (loop,) = in_turns(lambda: info_nce_by_loop(q, k, 0.2).backward(), rounds=2)
    told(ours_over_explicit_logits=ours / plain, loop_over_ours=loop / ours)
    benchmark.pedantic(lambda: info_nce(q, k).backward(), rounds=20)
    assert ours / plain < 5
    assert loop / ours > 50


def test_rotation_of_a_batch(benchmark, in_turns, told):
    """One copy of the batch for each turn, against ``torch.rot90`` of each image."""
    x = torch.rand(256, 1, 28, 28)

    def by_image() -> Tensor:
        turns = torch.randint(4, (len(x),)).tolist()
        return torch.stack(
            [torch.rot90(image, turn, (-2, -1)) for image, turn in zip(x, turns, strict=True)]
        )

    ours, loop = in_turns(lambda: rotate_batch(x), by_image)
    told(loop_over_ours=loop / ours)
    benchmark.pedantic(rotate_batch, (x,), rounds=20)
    assert loop / ours > 1


def test_step_of_moco(benchmark, in_turns, told):
    """Its share of a step: all but two encodings and the gradient of one."""
    encoder, x = conv_encoder(), torch.rand(64, 1, 28, 28)
    other = copy.deepcopy(encoder)
    model = MoCo(encoder, dim=64, queue_size=1024)

    def encodings() -> None:
        with torch.no_grad():
            other.eval()(x)
        other.train()(x).sum().backward()

    ours, plain = in_turns(lambda: model(x, x).backward(), encodings, rounds=10)
    told(MoCo_over_two_encodings=ours / plain)
    benchmark.pedantic(lambda: model(x, x).backward(), rounds=10)
    assert ours / plain < 2.5


@pytest.mark.parametrize("queue_size", [1024, 16_384])
def test_queue_of_moco(queue_size, benchmark, in_turns, told):
    """Rows written into a ring, against a new queue made of the old one and the keys."""
    model = MoCo(conv_encoder(), dim=128, queue_size=queue_size)
    keys, held = torch.randn(64, 128), model.queue.clone()

    def by_copy() -> None:
        nonlocal held
        held = torch.cat([F.normalize(keys, dim=1), held[:-64]])

    ours, copied = in_turns(lambda: model._enqueue(keys), by_copy)
    told(copy_over_ours=copied / ours)
    benchmark.pedantic(model._enqueue, (keys,), rounds=20)
    if queue_size > 10_000:
        assert copied / ours > 1.5


# ---- pools


def pool_by_loop(labels, counts, rng):
    """Candidates in random order, each taken while its class has room."""
    room, taken = list(counts), []
    for i in rng.permutation(len(labels)):
        if room[labels[i]] > 0:
            room[labels[i]] -= 1
            taken.append(i)
    return np.sort(taken)


def test_drawing_a_pool(benchmark, in_turns, told):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 100_000)
    counts = pool_counts(20_000, 10, 20)
    drawn, looped = draw_pool(labels, counts), pool_by_loop(labels, counts, rng)
    np.testing.assert_array_equal(np.bincount(labels[drawn]), np.bincount(labels[looped]))
    ours, loop = in_turns(
        lambda: draw_pool(labels, counts), lambda: pool_by_loop(labels, counts, rng), rounds=5
    )
    told(loop_over_ours=loop / ours)
    benchmark.pedantic(draw_pool, (labels, counts), rounds=10)
    assert loop / ours > 2

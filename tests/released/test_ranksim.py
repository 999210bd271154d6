import random

import pytest
import torch
from numpy.testing import assert_allclose

import dirlearn
from dirlearn.released import ranksim_loss


def ranksim_by_loop(z, y):
    """Sort each row, largest first; divide places by n; mean over columns, sum over rows."""
    n, total = len(y), 0.0
    for i in range(n):
        row_z = [float(z[i] @ z[j] / z[i].norm() / z[j].norm()) for j in range(n)]
        row_y = [-abs(y[i] - y[j]) for j in range(n)]
        for j in range(n):
            place_z, place_y = (1 + sum(v > row[j] for v in row) for row in (row_z, row_y))
            total += ((place_z - place_y) / n) ** 2 / n
    return total


def ranksim_batch(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return z, 100 * torch.rand(n, 1, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_ranksim_is_the_loop(n, device):
    z, y = ranksim_batch(n)
    expected = ranksim_by_loop(z, y.squeeze(1).tolist())
    value = ranksim_loss(z.to(device), y.to(device))
    assert value.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("weight", "interpolation"), [(1.0, 2.0), (100.0, 2.0), (10.0, 0.3)])
@pytest.mark.parametrize("n", [5, 16])
def test_ranksim_converts_to_the_paper_s_scale(n, weight, interpolation):
    z, y = ranksim_batch(n)
    theirs, ours = (z.clone().requires_grad_() for _ in range(2))
    released = weight * ranksim_loss(theirs, y, interpolation)
    paper = weight * n * dirlearn.ranksim_loss(ours, y, interpolation * weight / n)
    released.backward()
    paper.backward()
    assert released.item() == pytest.approx(paper.item())
    assert ours.grad.abs().max() > 0
    assert_allclose(theirs.grad, ours.grad, rtol=1e-6)


def test_ranksim_breaks_ties_so_that_a_perfect_arc_costs_something():
    ages = torch.arange(20, 31, dtype=torch.float64)
    angle = ages.deg2rad()
    arc = torch.stack([angle.cos(), angle.sin()], dim=1)
    assert dirlearn.ranksim_loss(arc, ages) == 0
    assert ranksim_loss(arc, ages[:, None]) > 0


def test_ranksim_sums_over_rows_so_that_the_value_grows_with_the_batch():
    small, large = (ranksim_loss(*ranksim_batch(n)).item() for n in (8, 100))
    assert 0.5 < small < 1.6
    assert large == pytest.approx(100 / 6, rel=0.1)


def test_ranksim_draws_by_python_s_generator():
    z, _ = ranksim_batch(30)
    y = (torch.arange(30) % 6)[:, None].double()

    def value(torch_seed, python_seed):
        torch.manual_seed(torch_seed)
        random.seed(python_seed)
        return [ranksim_loss(z, y).item() for _ in range(5)]

    assert value(0, 0) == value(1, 0)
    assert value(0, 0) != value(0, 1)


@pytest.mark.parametrize(
    ("shape", "words"), [((5,), r"shape \(N, 1\) here, got \(5,\)"), ((5, 2), r"got \(5, 2\)")]
)
def test_ranksim_takes_a_column_of_labels_only(shape, words):
    with pytest.raises(ValueError, match=words):
        ranksim_loss(torch.ones(5, 3), torch.ones(shape))
    with pytest.raises(ValueError, match="batch is empty"):
        ranksim_loss(torch.ones(0, 3), torch.ones(0, 1))
    with pytest.raises(ValueError, match="interpolation must be positive"):
        ranksim_loss(torch.ones(5, 3), torch.ones(5, 1), 0.0)

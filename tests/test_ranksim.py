import copy
import itertools
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy.stats import rankdata, spearmanr
from torch.testing import assert_close

from dirlearn import RankSim, rank, ranksim_loss
from dirlearn.ranksim import _one_per_label, _RankError

HAS_COMPILER = pytest.mark.skipif(not shutil.which("g++"), reason="inductor compiles C++")
COMPILERS = ["eager", "aot_eager", pytest.param("inductor", marks=HAS_COMPILER)]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def rank_by_loop(row):
    return [1 + sum(other > value for other in row) for value in row]


def equal_up_to_rounding(values):
    return [round(value, 9) for value in values]


def cosine(u, v):
    dot = sum(a * b for a, b in zip(u, v, strict=True))
    return dot / math.hypot(*u) / math.hypot(*v)


def distance(u, v):
    return math.dist(u, v) if isinstance(u, list) else abs(u - v)


def value_and_gradient_by_loop(z, y, interpolation):
    """Equations (1) to (7) of the paper, one number at a time; all labels must differ."""
    n, dimensions = len(y), len(z[0])
    value, gradient = 0.0, [[0.0] * dimensions for _ in z]
    for i in range(n):
        a = [cosine(z[i], z[j]) for j in range(n)]
        wanted = rank_by_loop(equal_up_to_rounding(-distance(y[i], y[j]) for j in range(n)))
        found = rank_by_loop(equal_up_to_rounding(a))
        row_error = sum((f - w) ** 2 for f, w in zip(found, wanted, strict=True)) / n
        value += row_error / n**2 / n  # ranks over n, and the mean over rows
        slope = [2 * (f - w) / n for f, w in zip(found, wanted, strict=True)]
        moved = [s + interpolation * g for s, g in zip(a, slope, strict=True)]
        reached = rank_by_loop(equal_up_to_rounding(moved))
        for j in range(n):
            d_row = -(found[j] - reached[j]) / interpolation
            for k in range(dimensions):  # d cos(z_i, z_j) by z_i, and by z_j
                for p, q in ((i, j), (j, i)):
                    length, other = math.hypot(*z[p]), math.hypot(*z[q])
                    d_cos = (z[q][k] / other - a[j] * z[p][k] / length) / length
                    gradient[p][k] += d_row * d_cos / n**2 / n
    return value, gradient


def interpolated_error(a, at, wanted, interpolation):
    """Error of a row as Vlastelica et al. interpolate it, by trying every permutation.

    The error is replaced by its linear part in the ranks, taken at the scores ``at``.
    """
    n = len(a)
    here = np.array(rank_by_loop(at))
    slope = 2 * (here - wanted) / n
    permutations = np.array(list(itertools.permutations(range(1, n + 1))))
    error = ((here - wanted) ** 2).mean() + (permutations - here) @ slope
    return ((permutations @ a + interpolation * error).min() - (permutations @ a).min()) / (
        interpolation
    )


def batch(n=7, dimensions=4, dtype=torch.float64, device="cpu", seed=0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, dimensions, generator=generator, dtype=torch.float64)
    y = torch.rand(n, generator=generator, dtype=torch.float64) * 100
    return z.to(device, dtype), y.to(device)


def gradient(z, y, *args, weight=1.0):
    z = z.detach().clone().requires_grad_()
    (weight * ranksim_loss(z, y, *args)).backward()
    return z.grad


def on_an_arc(y, degrees_per_unit=1.0):
    """Features whose cosines fall with the distance of labels, at most 180 degrees in all."""
    angle = torch.as_tensor(y, dtype=torch.float64) * degrees_per_unit * math.pi / 180
    return torch.stack([angle.cos(), angle.sin()], dim=1)


ROWS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=12),
    elements=st.integers(-6, 6).map(lambda k: k / 4),
)  # fmt: skip


# ---- rank


def test_rank_by_hand():
    assert rank(np.array([3.0, 1.0, 2.0])).tolist() == [1, 3, 2]
    assert rank(np.array([5, 5, 1, 9])).tolist() == [2, 2, 4, 1]
    assert rank(np.array([0.5])).tolist() == [1]
    assert rank(np.array([2.0, 2.0, 2.0])).tolist() == [1, 1, 1]


def test_ages_of_the_paper_rank_as_it_says(device):
    ages = torch.tensor([1.0, 21.0, 25.0, 70.0], device=device)
    ranks = rank(-(ages[:, None] - ages).abs())
    expected = [[1, 2, 3, 4], [3, 1, 2, 4], [3, 2, 1, 4], [4, 3, 2, 1]]
    assert ranks.tolist() == expected


@given(a=ROWS)
def test_rank_is_the_loop_and_scipy(a):
    expected = np.apply_along_axis(rank_by_loop, -1, a)
    assert_allclose(rank(a), expected)
    assert_allclose(rank(a), rankdata(-a, method="min", axis=-1))
    assert_allclose(rank(torch.from_numpy(a)), expected)


@given(a=ROWS, seed=st.integers(0, 99))
def test_rank_follows_a_permutation(a, seed):
    order = np.random.default_rng(seed).permutation(a.shape[-1])
    assert (rank(a[..., order]) == rank(a)[..., order]).all()


@given(a=ROWS)
def test_rank_is_unchanged_by_what_keeps_the_order(a):
    for increasing in (np.exp, np.arctan, lambda x: 3 * x - 100, lambda x: x**3):
        assert (rank(increasing(a)) == rank(a)).all()


def test_rank_of_a_large_batch(device):
    a = torch.randint(0, 40, (5, 300, 257), device=device) / 8
    counted = 1 + (a[0, :, None, :] > a[0, :, :, None]).sum(dim=-1)
    assert_close(rank(a)[0], counted)
    assert_close(rank(a)[3], rank(a[3]))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int32, torch.uint8, torch.int16])
def test_rank_of_any_number(dtype, device):
    a = torch.tensor([[3, 0, 200], [7, 7, 100]], device=device).to(dtype)
    ranks = rank(a)
    assert ranks.tolist() == [[2, 3, 1], [2, 2, 1]]
    assert ranks.dtype == torch.int64
    assert ranks.device.type == device.type


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int64, np.uint16])
def test_rank_of_any_array(dtype):
    ranks = rank(np.array([3, 0, 200], dtype))
    assert isinstance(ranks, np.ndarray)
    assert ranks.tolist() == [2, 3, 1]


def test_rank_of_extremes():
    assert rank(np.array([-np.inf, np.inf, 0.0, np.inf])).tolist() == [4, 1, 3, 1]
    assert rank(np.array([1e308, -1e308, 5e-324, 0.0])).tolist() == [1, 4, 2, 3]
    limits = np.iinfo(np.int64)
    assert rank(np.array([limits.min, limits.max, 0])).tolist() == [3, 1, 2]
    close = np.nextafter(1.0, 2.0)
    assert rank(np.array([1.0, close])).tolist() == [2, 1]  # rank itself knows no rounding
    assert rank(np.array([0.0, -0.0])).tolist() == [1, 1]


def test_rank_reads_any_memory_layout(device):
    a = torch.randn(6, 5, 4, device=device)
    assert_close(rank(a.mT), rank(a.mT.contiguous()))
    assert_close(rank(a[::2, :, ::3]), rank(a[::2, :, ::3].contiguous()))
    array = np.arange(6.0)[::-1]
    assert rank(array).tolist() == [1, 2, 3, 4, 5, 6]
    assert rank(np.broadcast_to(1.0, (2, 3))).tolist() == [[1, 1, 1]] * 2


def test_rank_of_nothing():
    assert rank(np.zeros((3, 0))).shape == (3, 0)
    assert rank(torch.zeros(0, 3)).shape == (0, 3)


def test_rank_ends_the_gradient_and_leaves_its_input(device):
    a = torch.tensor([3.0, 1.0, 2.0], device=device, requires_grad=True)
    assert not rank(a).requires_grad
    assert a.tolist() == [3, 1, 2]


def test_rank_refuses_what_has_no_order(device):
    with pytest.raises(ValueError, match="holds 1 NaN of 3 values"):
        rank(np.array([1.0, np.nan, 2.0]))
    with pytest.raises(ValueError, match="holds 2 NaN"):
        rank(torch.tensor([torch.nan, torch.nan, 2.0], device=device))
    with pytest.raises(ValueError, match="got one number"):
        rank(torch.tensor(1.0))
    with pytest.raises(ValueError, match="got one number"):
        rank(np.float64(1.0))
    for wrong in (torch.tensor([True]), torch.tensor([1j]), np.array(["a"]), np.array([True])):
        with pytest.raises(TypeError, match="a must hold real numbers"):
            rank(wrong)


# ---- the loss: its value


@pytest.mark.parametrize("n", [2, 3, 7, 20])
@pytest.mark.parametrize("dimensions", [2, 5])
def test_value_is_the_loop(n, dimensions, device):
    z, y = batch(n, dimensions, device=device)
    expected, _ = value_and_gradient_by_loop(z.tolist(), y.tolist(), 2.0)
    assert ranksim_loss(z, y).item() == pytest.approx(expected, rel=1e-12)


def test_value_by_hand():
    # Four labels on a line; features in the order 1, 3, 2, 4 on an arc.
    z = on_an_arc([0.0, 40.0, 10.0, 100.0])
    y = torch.tensor([0.0, 10.0, 40.0, 100.0])
    # rk(S^y): 1234 2134 3214 4321; rk(S^z): 1324 3124 2314 4231 (columns 0, 10, 40, 100)
    squares = (0 + 1 + 1 + 0) + (1 + 0 + 1 + 0) + (1 + 1 + 0 + 0) + (0 + 1 + 1 + 0)
    assert ranksim_loss(z, y).item() == pytest.approx(squares / 4**4)


def test_without_ties_a_row_is_spearman_s_correlation(device):
    z, y = batch(12, 5, device=device)
    n = len(y)
    similarity = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1).cpu()
    labels = -(y[:, None] - y).abs().cpu()
    rows = [spearmanr(a, b).statistic for a, b in zip(similarity, labels, strict=True)]
    # 1 - rho = 6 / (n (n^2 - 1)) times the sum of squared differences of ranks
    expected = np.mean([(1 - rho) * (n**2 - 1) / 6 / n**2 for rho in rows])
    assert ranksim_loss(z, y).item() == pytest.approx(expected)


def test_value_lies_between_zero_and_one_and_is_largest_for_the_reverse_order():
    a = np.arange(1, 101)
    reverse = ((a - a[::-1]) ** 2 / 100**2).mean()
    assert reverse < 1 / 3
    z, y = batch(100, 8)
    assert 0 < ranksim_loss(z, y).item() < reverse


@given(
    y=st.lists(st.integers(-60, 60), min_size=1, max_size=30, unique=True),
    degrees=st.sampled_from([0.3, 1.0, 1.4]), dtype=st.sampled_from([torch.float32, torch.float64]),
    dimensions=st.integers(2, 40),
)  # fmt: skip
def test_features_in_order_on_an_arc_cost_nothing_ties_included(y, degrees, dtype, dimensions):
    """24 and 26 are equally far from 25; so are their features, up to rounding."""
    turn = torch.linalg.qr(torch.randn(dimensions, dimensions, dtype=torch.float64)).Q[:2]
    z = (on_an_arc(y, degrees) @ turn).to(dtype).requires_grad_()
    value = ranksim_loss(z, torch.tensor(y))
    value.backward()
    assert value == 0
    assert (z.grad == 0).all()


def test_the_smallest_tie_matters():
    ages = torch.tensor([24.0, 25.0, 26.0])
    assert ranksim_loss(on_an_arc(ages), ages) == 0
    # Lean 26 away: 25 now finds 24 nearer, where the labels say equally near.
    assert ranksim_loss(on_an_arc([24.0, 25.0, 26.01]), ages).item() == pytest.approx(1 / 3**4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decimal_labels_tie_as_they_do_on_paper(dtype):
    tenths = torch.arange(1, 10)  # 0.3 - 0.2 and 0.2 - 0.1 differ in the last digit
    in_decimals = ranksim_loss(on_an_arc(tenths, 9.0), tenths.to(dtype) / 10)
    assert in_decimals == 0
    assert (tenths.to(dtype) / 10).diff().unique().numel() > 1


def test_the_unit_and_origin_of_labels_do_not_matter():
    z, _ = batch(9)
    y = torch.tensor([3.0, 90.0, 4.0, 5.0, 41.0, 42.0, 60.0, 17.0, 18.0], dtype=torch.float64)
    for other in (3 * y, y / 7, y - 1000, -y, y.int(), y.float(), y.half()):
        assert_close(ranksim_loss(z, other), ranksim_loss(z, y))


def test_small_whole_numbers_do_not_wrap():
    y = torch.tensor([0, 100, 200, 250], dtype=torch.uint8)
    z = on_an_arc(y.double(), 0.5)
    assert ranksim_loss(z, y) == 0
    assert ranksim_loss(z, (y.int() - 125).to(torch.int8)) == 0
    big = torch.tensor([2**60, 2**60 + 1, 2**60 + 3])
    assert ranksim_loss(on_an_arc([0.0, 1.0, 3.0]), big) == 0


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3))
def test_only_the_direction_of_features_matters(seed, scale):
    z, y = batch(8, 3, seed=seed)
    lengths = torch.rand(8, 1, dtype=torch.float64) + 0.5
    assert_close(ranksim_loss(scale * lengths * z, y), ranksim_loss(z, y))
    assert_close(gradient(scale * z, y) * scale, gradient(z, y))


@given(seed=st.integers(0, 10_000))
def test_samples_have_no_order(seed):
    z, y = batch(9, 3, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(9))
    assert_close(ranksim_loss(z[order], y[order]), ranksim_loss(z, y))
    assert_close(gradient(z[order], y[order]), gradient(z, y)[order])


@pytest.mark.parametrize("copies", [2, 5])
def test_repeating_a_batch_changes_nothing(copies, device):
    z, y = batch(8, device=device)
    value = ranksim_loss(z.repeat(copies, 1), y.repeat(copies))
    assert_close(value, ranksim_loss(z, y))
    total = gradient(z.repeat(copies, 1), y.repeat(copies)).reshape(copies, *z.shape).sum(dim=0)
    assert_close(total, gradient(z, y))


@pytest.mark.parametrize("n", [64, 512])
def test_the_value_does_not_grow_with_the_batch(n):
    """For features without order, ranks are independent: E (R - S)^2 / n^2 is near 1/6."""
    z, y = batch(n, 32)
    assert ranksim_loss(z, y).item() == pytest.approx(1 / 6, rel=0.15)


@pytest.mark.parametrize("shape", [(9,), (9, 1)])
def test_a_column_of_labels_is_the_same_as_a_vector(shape, device):
    z, y = batch(9, device=device)
    assert_close(ranksim_loss(z, y.reshape(shape)), ranksim_loss(z, y))


@pytest.mark.parametrize("columns", [2, 4])
def test_vectors_of_labels_are_compared_by_their_distance(columns, device):
    z, _ = batch(9, device=device)
    y = torch.randn(9, columns, dtype=torch.float64, device=device)
    expected, slopes = value_and_gradient_by_loop(z.tolist(), y.tolist(), 2.0)
    assert ranksim_loss(z, y).item() == pytest.approx(expected, rel=1e-12)
    assert_allclose(gradient(z, y).cpu(), slopes, atol=1e-12)


def test_equal_distances_of_vectors_tie(device):
    grid = torch.cartesian_prod(torch.arange(8), torch.arange(8)).to(device) + 1000
    squares = (grid[:, None] - grid).square().sum(dim=-1)  # exact, in whole numbers
    z, _ = batch(64, device=device)
    unit = torch.nn.functional.normalize(z, dim=1)
    expected = ((rank(unit @ unit.T) - rank(-squares)) / 64).square().mean().item()
    for y in (grid, grid.float(), grid.double() / 10):
        assert ranksim_loss(z, y).item() == pytest.approx(expected, rel=1e-6)


def test_vectors_on_a_line_are_the_numbers_on_it(device):
    z, y = batch(9, device=device)
    on_a_line = torch.stack([3 * y, 4 * y], dim=1)
    assert_close(ranksim_loss(z, on_a_line), ranksim_loss(z, y))
    assert_close(ranksim_loss(z, on_a_line.int()), ranksim_loss(z, on_a_line.int().double()))
    repeated = torch.cat([on_a_line, on_a_line])
    assert_close(ranksim_loss(torch.cat([z, z]), repeated), ranksim_loss(z, y))


# ---- one sample of each label


@pytest.mark.parametrize("columns", [None, 2])
def test_one_sample_of_each_label_is_drawn_evenly(columns, device):
    y = torch.tensor([5.0, 7.0, 5.0, 9.0, 7.0, 5.0], device=device)
    y = y if columns is None else torch.stack([torch.ones_like(y), y], dim=1)
    counts = dict.fromkeys(itertools.product([0, 2, 5], [1, 4], [3]), 0)
    generator = torch.Generator(device).manual_seed(0)
    for _ in range(1200):
        counts[tuple(_one_per_label(y, generator).tolist())] += 1
    # six draws, each with probability 1/6: a chi-square of 5 degrees of freedom
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 20


def test_only_the_drawn_samples_take_part(device):
    y = torch.arange(30, device=device) % 6
    z, _ = batch(30, device=device)
    picks = _one_per_label(y, torch.Generator(device).manual_seed(5))
    found = gradient(z, y, 2.0, torch.Generator(device).manual_seed(5))
    expected = torch.zeros_like(z)
    expected[picks] = gradient(z[picks], y[picks])
    assert (expected[picks] != 0).any(dim=1).all()
    assert_close(found, expected)


def test_the_generator_decides_the_draw(device):
    z, _ = batch(30, device=device)
    y = torch.arange(30, device=device) % 6

    def values(generator):
        return [ranksim_loss(z, y, 2.0, generator).item() for _ in range(8)]

    first = values(torch.Generator(device).manual_seed(1))
    assert first == values(torch.Generator(device).manual_seed(1))
    assert first != values(torch.Generator(device).manual_seed(2))
    assert len(set(first)) > 1
    torch.manual_seed(3)
    by_default = values(None)
    torch.manual_seed(3)
    assert by_default == values(None)
    state = torch.get_rng_state()
    values(torch.Generator(device).manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)  # the global one is left alone


def test_a_generator_on_the_cpu_serves_any_device(device):
    z, _ = batch(30, device=device)
    y = torch.arange(30, device=device) % 6
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    there = ranksim_loss(z, y, 2.0, generators[0])
    here = ranksim_loss(z.cpu(), y.cpu(), 2.0, generators[1])
    assert there.item() == pytest.approx(here.item())


# ---- the gradient


@pytest.mark.parametrize("interpolation", [0.01, 0.3, 2.0, 50.0])
@pytest.mark.parametrize(("n", "dimensions"), [(2, 2), (5, 3), (16, 4)])
def test_gradient_is_the_loop(n, dimensions, interpolation, device):
    z, y = batch(n, dimensions, device=device, seed=n)
    _, expected = value_and_gradient_by_loop(z.tolist(), y.tolist(), interpolation)
    assert_allclose(gradient(z, y, interpolation).cpu(), expected, atol=1e-12)


def test_gradient_is_the_loop_with_ties(device):
    z, _ = batch(9, device=device)
    y = torch.arange(9, device=device)  # neighbours on both sides are equally far
    _, expected = value_and_gradient_by_loop(z.tolist(), y.tolist(), 2.0)
    assert_allclose(gradient(z, y).cpu(), expected, atol=1e-12)


@pytest.mark.parametrize("interpolation", [0.05, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_gradient_of_a_row_is_the_slope_of_the_interpolated_error(n, interpolation):
    """Finite differences of the interpolation, which is built from permutations, not from ranks."""
    rng = np.random.default_rng(n)
    moves = 0
    for _ in range(20):
        a, wanted = rng.normal(size=(n, n)), rank(rng.normal(size=(n, n)))
        scores = torch.tensor(a, requires_grad=True)
        _RankError.apply(scores, torch.tensor(wanted), interpolation)[0].backward()
        for i, j in itertools.product(range(n), repeat=2):
            step = 1e-7 * np.eye(n)[j]
            up, down = (
                interpolated_error(a[i] + sign * step, a[i], wanted[i], interpolation)
                for sign in (1, -1)
            )
            # of one row, in whole-number ranks; ranks over n and the mean over rows make it n^3
            slope = (up - down) / 2e-7 / n**3
            assert scores.grad[i, j].item() == pytest.approx(slope, abs=1e-7)
            moves += slope != 0
    assert moves or interpolation * n < 0.2  # where hardly a swap is in reach


@pytest.mark.parametrize("interpolation", [0.5, 2.0])
def test_gradient_by_features_is_the_slope_of_the_interpolated_loss(interpolation):
    z, y = batch(4, 3, seed=5)
    wanted = rank(-(y[:, None] - y).abs()).numpy()

    def similarity(features):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        return unit @ unit.T

    at = similarity(z.numpy())

    def interpolated(features):
        rows = zip(similarity(features), at, wanted, strict=True)
        return sum(interpolated_error(a, here, w, interpolation) for a, here, w in rows) / 4**3

    found = gradient(z, y, interpolation)
    assert found.abs().max() > 0
    for i, k in itertools.product(range(4), range(3)):
        step = np.zeros((4, 3))
        step[i, k] = 1e-6
        slope = (interpolated(z.numpy() + step) - interpolated(z.numpy() - step)) / 2e-6
        assert found[i, k].item() == pytest.approx(slope, abs=1e-6)


@given(seed=st.integers(0, 10_000), interpolation=st.floats(0.01, 100))
def test_the_interpolation_stays_below_the_error_and_meets_it_far_from_swaps(seed, interpolation):
    rng = np.random.default_rng(seed)
    a, wanted = rng.normal(size=4), rng.permutation(4) + 1
    error = ((np.array(rank_by_loop(a)) - wanted) ** 2).mean()
    assert interpolated_error(a, a, wanted, interpolation) <= error + 1e-9
    far = 1e4 * a
    assume(np.abs(np.diff(np.sort(a))).min() > 0.2)  # 2000 apart: out of reach of 100 * 2 * 3 / 4
    assert interpolated_error(far, far, wanted, interpolation) == pytest.approx(error, abs=1e-6)


def test_a_step_against_the_gradient_brings_order():
    z, y = batch(12, 6)
    before = ranksim_loss(z, y).item()
    for _ in range(200):
        z = z - 20 * gradient(z, y)
    assert ranksim_loss(z, y).item() < before / 2


def test_a_score_that_should_rank_higher_is_pulled_up():
    scores = torch.tensor([[0.1, 0.0, -0.1]], dtype=torch.float64, requires_grad=True)
    wanted = torch.tensor([[3, 2, 1]])  # the last should be the largest
    _RankError.apply(scores, wanted, 2.0)[0].backward()
    assert scores.grad[0, 0] > 0 > scores.grad[0, 2]  # descent lowers the first, raises the last


def test_out_of_reach_there_is_no_gradient():
    z, y = batch(6)
    assert gradient(z, y, 1e-9).abs().max() == 0
    assert gradient(z, y, 2.0).abs().max() > 0


@pytest.mark.parametrize("weight", [1e-3, 100.0, 65536.0])
def test_a_weight_scales_the_gradient_and_leaves_the_reach_alone(weight):
    """A blackbox function inside the graph would take a loss scaler for a larger interpolation."""
    z, y = batch(10)
    assert_close(gradient(z, y, 0.3, weight=weight), weight * gradient(z, y, 0.3))


def test_gradient_scaling_of_mixed_precision_changes_nothing():
    z, y = batch(10, dtype=torch.float32)
    z.requires_grad_()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaler.scale(ranksim_loss(z, y)).backward()
    assert_close(z.grad / 2**12, gradient(z, y))


def test_the_second_derivative_is_that_of_the_affine_pieces():
    z, y = batch(5, 3)
    z.requires_grad_()
    (first,) = torch.autograd.grad(ranksim_loss(z, y), z, create_graph=True)
    probe = torch.randn(5, 3, dtype=torch.float64)
    (second,) = torch.autograd.grad((first * probe).sum(), z)
    step = 1e-6 * torch.randn(5, 3, dtype=torch.float64)
    change = gradient(z + step, y) - gradient(z - step, y)
    assert ((second * step).sum()).item() == pytest.approx((change * probe).sum().item() / 2)


def test_labels_get_no_gradient():
    z, y = batch(5)
    z.requires_grad_()
    y.requires_grad_()
    ranksim_loss(z, y).backward()
    assert y.grad is None


# ---- edges


@pytest.mark.parametrize("labels", [[], [3.0], [3.0, 3.0, 3.0]], ids=len)
@pytest.mark.parametrize("columns", [None, 1, 2])
def test_fewer_than_two_labels_have_no_order(labels, columns, device):
    y = torch.tensor(labels, device=device)
    y = y if columns is None else y[:, None].expand(-1, columns)
    z = torch.randn(len(labels), 4, device=device, requires_grad=True)
    value = ranksim_loss(z, y)
    value.backward()
    assert value == 0
    assert z.grad.shape == z.shape
    assert (z.grad == 0).all()


def test_two_labels_are_in_order_whatever_the_features():
    z, y = batch(2)
    assert ranksim_loss(z, y) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_of_zero_have_a_finite_gradient(dtype, device):
    z, y = batch(8, dtype=dtype, device=device)
    z[[2, 5]] = 0
    slopes = gradient(z, y)
    assert slopes.isfinite().all()
    assert slopes.abs().max() < 10
    assert gradient(torch.zeros_like(z), y).isfinite().all()
    # Their cosine with all others is 0, their own included.
    expected = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    wanted = rank(-(y[:, None] - y).abs())
    by_hand = ((rank(expected.round(decimals=5)) - wanted) / 8).square().mean()
    assert ranksim_loss(z, y).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 1e37])
def test_huge_and_tiny_features(scale, device):
    z, y = batch(8, dtype=torch.float32, device=device)
    value = ranksim_loss(scale * z, y)
    assert_close(value, ranksim_loss(z, y))
    if scale > 1:
        assert gradient(scale * z, y).isfinite().all()


def test_huge_labels_keep_their_order():
    z, y = batch(8)
    assert_close(ranksim_loss(z, y * 1e200), ranksim_loss(z, y))
    assert_close(ranksim_loss(z, y * 1e-200), ranksim_loss(z, y))


def test_collapsed_features_are_ranked_equal_not_at_random():
    y = torch.arange(16.0)
    z = torch.ones(16, 64) * torch.rand(16, 1)  # one direction, cosines 1 up to rounding
    wanted = rank(-(y[:, None] - y).abs())
    assert ranksim_loss(z, y).item() == pytest.approx(((1 - wanted) / 16).square().mean().item())


def test_broken_features_show(device):
    z, y = batch(8, device=device)
    for bad in (torch.nan, torch.inf):
        z[3, 1] = bad
        assert ranksim_loss(z, y).isnan()


@pytest.mark.parametrize("dtype", FLOATS)
def test_half_precision_is_computed_in_single(dtype, device):
    z, y = batch(32, 16, device=device)
    z = z.to(dtype)
    value = ranksim_loss(z, y)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    wide = z.double() if dtype == torch.float64 else z.float()
    assert_close(value, ranksim_loss(wide, y))
    slopes = gradient(z, y, weight=1000.0)
    assert slopes.dtype == dtype
    assert_close(slopes, gradient(wide, y, weight=1000.0).to(dtype))


def test_autocast_does_not_round_the_cosines(device):
    layer = torch.nn.Linear(3, 16).to(device)
    x, y = torch.randn(32, 3, device=device), torch.rand(32, device=device)
    features = layer(x)
    exact = ranksim_loss(features, y)
    with torch.autocast(device.type, torch.bfloat16):
        value = ranksim_loss(features, y)
    assert_close(value, exact)
    with torch.autocast(device.type, torch.bfloat16):
        ranksim_loss(layer(x), y).backward()
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.abs().max() > 0


def test_strides_do_not_matter(device):
    z, y = batch(16, 6, device=device)
    wide = torch.stack([z, z], dim=2).reshape(16, 12)
    assert_close(ranksim_loss(wide[:, ::2], y), ranksim_loss(z, y))
    assert_close(ranksim_loss(z.T.contiguous().T, y), ranksim_loss(z, y))
    assert_close(gradient(z[::2], y[::2]), gradient(z[::2].contiguous(), y[::2].contiguous()))


def test_inputs_are_left_alone():
    z, y = batch(8)
    z_before, y_before = z.clone(), y.clone()
    gradient(z, y)
    ranksim_loss(z, y)
    assert torch.equal(z, z_before)
    assert torch.equal(y, y_before)


def test_without_gradients_it_is_the_same_value():
    z, y = batch(8)
    with torch.no_grad():
        value = ranksim_loss(z.requires_grad_(), y)
    assert not value.requires_grad
    assert_close(value, ranksim_loss(z, y).detach())
    with torch.inference_mode():
        assert ranksim_loss(z, y).item() == value.item()


# torch warns of torch: its compiler imports and calls what torch itself deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated")
@pytest.mark.parametrize("backend", COMPILERS)
def test_compiled_it_is_the_same(backend, device):
    z, y = batch(16, 6, dtype=torch.float32, device=device)
    torch._dynamo.reset()
    compiled = torch.compile(ranksim_loss, backend=backend)
    expected = gradient(z, y, 0.5)
    z.requires_grad_()
    value = compiled(z, y, 0.5)
    value.backward()
    assert_close(value, ranksim_loss(z, y, 0.5))
    assert_close(z.grad, expected)


# ---- refusals


@pytest.mark.parametrize(
    ("features", "targets", "words"),
    [
        ((5, 3), (4,), r"N = 5.*got \(4,\)"),
        ((5, 3), (5, 0), r"got \(5, 0\)"),
        ((5, 3), (1, 5), r"got \(1, 5\)"),
        ((5, 3), (5, 2, 2), r"got \(5, 2, 2\)"),
        ((5, 3), (), r"got \(\)"),
        ((5,), (5,), r"features must have shape \(N, D\), got \(5,\)"),
        ((5, 3, 2), (5,), r"flatten or pool"),
        ((2, 3, 4, 4), (2, 4, 4), r"where pixels are samples, draw a few hundred"),
        ((5, 0), (5,), r"got \(5, 0\)"),
        ((5, 1), (5,), r"got shape \(5, 1\); one feature has no direction"),
        ((0, 1), (0,), r"one feature has no direction"),
    ],
    ids=str,
)
def test_wrong_shapes_are_refused(features, targets, words):
    with pytest.raises(ValueError, match=words):
        ranksim_loss(torch.ones(features), torch.ones(targets))


@pytest.mark.parametrize("interpolation", [0, -1.0, math.nan, math.inf])
def test_interpolation_must_be_positive(interpolation):
    for build in (lambda: ranksim_loss(*batch(), interpolation), lambda: RankSim(1, interpolation)):
        with pytest.raises(ValueError, match="interpolation must be positive"):
            build()


@pytest.mark.parametrize("wrong", ["1", None, [1.0]], ids=str)
def test_weight_and_interpolation_must_be_numbers(wrong):
    with pytest.raises(TypeError, match="weight must be a number, got") as refusal:
        RankSim(wrong)
    assert repr(wrong) in str(refusal.value)
    for build in (lambda: ranksim_loss(*batch(), wrong), lambda: RankSim(1, wrong)):
        with pytest.raises(TypeError, match="interpolation must be a number, got"):
            build()


@pytest.mark.parametrize("number", [2, np.float32(2), np.int64(2), np.float64(2)], ids=repr)
def test_numbers_of_any_kind_will_do(number):
    assert_close(RankSim(number, number)(*batch()), 2 * ranksim_loss(*batch(), 2.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("columns", [1, 2])
def test_labels_without_a_place_are_refused(bad, columns, device):
    y = torch.ones(4, columns, device=device)
    y[2, 0] = bad
    with pytest.raises(ValueError, match=f"hold 1 NaN or infinite of {4 * columns}"):
        ranksim_loss(torch.ones(4, 3, device=device), y)


def test_wrong_types_are_refused():
    z, y = batch()
    with pytest.raises(TypeError, match=r"features must be floating point.*call \.float"):
        ranksim_loss(z.long(), y)
    with pytest.raises(TypeError, match="features must be floating point"):
        ranksim_loss(z + 1j, y)
    for wrong in (y > 5, y + 1j):
        with pytest.raises(TypeError, match="targets must be real numbers"):
            ranksim_loss(z, wrong)
    with pytest.raises(TypeError, match="targets must be a tensor, got ndarray"):
        ranksim_loss(z, y.numpy())
    with pytest.raises(TypeError, match="features must be a tensor, got list"):
        ranksim_loss(z.tolist(), y)


# ---- the module


def test_module_is_the_weighted_loss(device):
    z, y = batch(12, device=device)
    regularizer = RankSim(weight=640.0, interpolation=0.5).to(device)
    assert_close(regularizer(z, y), 640 * ranksim_loss(z, y, 0.5))
    assert list(regularizer.parameters()) == []
    assert repr(regularizer) == "RankSim(weight=640, interpolation=0.5)"


def test_module_draws_from_its_generator():
    z, _ = batch(30)
    y = torch.arange(30) % 6
    a, b = (RankSim(1.0, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert [a(z, y).item() for _ in range(5)] == [b(z, y).item() for _ in range(5)]


def test_module_can_be_copied_and_kept():
    z, y = batch(12)
    regularizer = RankSim(3.0, 0.5)
    expected = regularizer(z, y)
    assert_close(copy.deepcopy(regularizer)(z, y), expected)
    assert_close(pickle.loads(pickle.dumps(regularizer))(z, y), expected)
    drawing = copy.deepcopy(RankSim(3.0, generator=torch.Generator().manual_seed(1)))
    assert_close(drawing(z, y), ranksim_loss(z, y) * 3)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_module_refuses_a_weight(weight):
    with pytest.raises(ValueError, match="weight must be 0 or more"):
        RankSim(weight)


def test_weight_zero_is_no_regulariser():
    z, y = batch(5)
    z.requires_grad_()
    RankSim(0.0)(z, y).backward()
    assert (z.grad == 0).all()


def test_the_module_passes_its_interpolation_on():
    y = torch.arange(16.0)
    z = torch.randn(16, 4, requires_grad=True)
    for interpolation in (0.1, 5.0):
        (of_module,) = torch.autograd.grad(RankSim(3.0, interpolation)(z, y), z)
        (of_function,) = torch.autograd.grad(3 * ranksim_loss(z, y, interpolation), z)
        torch.testing.assert_close(of_module, of_function)
    (other,) = torch.autograd.grad(RankSim(3.0, 0.1)(z, y), z)
    assert not torch.allclose(other, of_module)


def test_ties_do_not_chain_over_more_than_the_rounding():
    """In a narrow cone float32 cosines lie densely; they must not all share a rank."""
    generator = torch.Generator().manual_seed(0)
    z = 300 + torch.randn(64, 16, generator=generator, dtype=torch.float64)
    y = (z[:, 0] + 0.3 * torch.randn(64, generator=generator)).float()
    exact = ranksim_loss(z, y)
    assert ranksim_loss(z.float(), y) == pytest.approx(float(exact), rel=0.1)


def test_a_perfect_order_has_no_gradient_in_a_narrow_cone():
    angle = 1.8e-3 * torch.arange(8.0, dtype=torch.float64)
    z = torch.stack([angle.cos(), angle.sin()], dim=1).float().requires_grad_()
    value = ranksim_loss(z, torch.arange(8.0), interpolation=8.0)
    (gradient,) = torch.autograd.grad(value, z)
    assert value == 0
    assert (gradient == 0).all()

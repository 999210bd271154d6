from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from dirlearn import Relevance, smogn, smoter
from dirlearn.bumps import find_bumps, new_sizes

BOTH = pytest.mark.parametrize("method", [smoter, smogn])
HIGH = Relevance([0, 2], [0, 1])


def table(n=120, seed=0, columns=3):
    """Columns of unlike units; labels from 0 up, few beyond 2."""
    rng = np.random.default_rng(seed)
    y = rng.exponential(size=n)
    X = (
        rng.normal(size=(n, columns)) * [1, 1000, 0.01][:columns]
        + y[:, None] * [1, -300, 0][:columns]
    )
    return X, y


def distance_by_loop(X, i, j, categorical=()):
    total = 0.0
    for c in range(X.shape[1]):
        if c in categorical:
            total += float(X[i, c] != X[j, c])
        elif np.ptp(X[:, c]) > 0:
            total += ((X[i, c] - X[j, c]) / X[:, c].std()) ** 2
    return np.sqrt(total)


def rare_bump_of(row, y, phi, threshold):
    (bump,) = (b for b in find_bumps(y, phi, threshold) if row in b.rows)
    assert bump.rare
    return bump.rows


def split(parents):
    """Which of the new rows are kept, interpolated, copied with noise."""
    kept = parents[:, 0] == parents[:, 1]
    noisy = parents[:, 1] == -1
    return kept, ~kept & ~noisy, noisy


# ---- what a synthetic row is


@pytest.mark.parametrize("categorical", [(), (1,), (0, 2), (0, 1, 2)])
def test_smoter_is_the_explicit_loop(categorical):
    X, y = table()
    X[:, list(categorical)] = np.random.default_rng(1).integers(0, 3, (len(y), len(categorical)))
    X_new, y_new, parents = smoter(
        X, y, HIGH, 0.8, k=4, sampling={"rare": 4}, categorical=categorical, return_parents=True
    )
    kept, between, _ = split(parents)
    assert between.sum() == 105
    numbers = [c for c in range(3) if c not in categorical]
    for x, label, (i, j) in zip(X_new[between], y_new[between], parents[between], strict=True):
        rows = rare_bump_of(i, y, HIGH, 0.8)
        others = sorted(distance_by_loop(X, i, r, categorical) for r in rows if r != i)
        assert j in rows
        assert distance_by_loop(X, i, j, categorical) <= others[3] + 1e-12  # one of the 4 nearest
        # on the segment, at one u for all numbers; a category from either parent
        if numbers:
            (u,) = {round(float((x[c] - X[i, c]) / (X[j, c] - X[i, c])), 6) for c in numbers}
            assert 0 <= u <= 1
        assert all(x[c] in (X[i, c], X[j, c]) for c in categorical)
        # the label, by inverse distance
        both = np.stack([X[i], X[j], x])
        scaled = both / np.where(np.isin(range(3), categorical), 1, X.std(0))
        to_seed, to_other = (
            np.sqrt(
                sum((scaled[2, c] - parent[c]) ** 2 for c in numbers)
                + sum(scaled[2, c] != parent[c] for c in categorical)
            )
            for parent in scaled[:2]
        )
        weights = [to_other, to_seed] if to_seed + to_other > 0 else [1, 1]
        assert_allclose(label, np.average([y[i], y[j]], weights=weights), rtol=1e-9)
        assert min(y[i], y[j]) <= label <= max(y[i], y[j])
    assert_array_equal(X_new[kept], X[parents[kept, 0]])


@given(seed=st.integers(0, 999), k=st.integers(1, 6))
def test_without_categories_the_label_is_on_the_segment_too(seed, k):
    X, y = table(80, seed)
    both = np.column_stack([X, y])
    X_new, y_new, parents = smoter(X, y, HIGH, 0.5, k=k, seed=seed, return_parents=True)
    new = np.column_stack([X_new, y_new])
    _, between, _ = split(parents)
    i, j = parents[between].T
    u = (new[between, 0] - both[i, 0]) / (both[j, 0] - both[i, 0])
    assert_allclose(new[between], both[i] + u[:, None] * (both[j] - both[i]), rtol=1e-6, atol=1e-9)
    assert ((u >= 0) & (u <= 1)).all()


def test_smogn_interpolates_near_and_copies_with_noise_far():
    X, y = table(200)
    X[:, 2] = np.random.default_rng(1).integers(0, 3, len(y))
    phi, noise = Relevance([0, 1.5], [0, 1]), 0.05
    X_new, y_new, parents = smogn(
        X, y, phi, sampling={"rare": 9}, categorical=[2], noise=noise, return_parents=True
    )
    kept, between, noisy = split(parents)
    assert kept.sum() == len(y)
    assert min(between.sum(), noisy.sum()) > 50
    spread = {}
    for row in np.flatnonzero(between | noisy):
        i, j = parents[row]
        rows = rare_bump_of(i, y, phi, 0.8)
        others = [r for r in rows if r != i]
        distances = np.array([distance_by_loop(X, i, r, [2]) for r in others])
        reach = np.median(distances) / 2
        near = distances < reach
        five = np.sort(distances)[4]
        if between[row]:
            assert distance_by_loop(X, i, j, [2]) < min(reach, five + 1e-12)
            assert min(y[i], y[j]) <= y_new[row] <= max(y[i], y[j])
        else:
            assert not near[distances <= five].all()  # one of the nearest five was far
            deviations = np.append(X[rows].std(0), y[rows].std())
            step = np.append(X_new[row] - X[i], y_new[row] - y[i])
            spread.setdefault("z", []).append((step / deviations / min(reach, noise))[[0, 1, 3]])
            assert X_new[row, 2] in X[rows, 2]
    z = np.concatenate(spread["z"])
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)


def test_smogn_interpolates_exactly_the_seeds_whose_neighbour_is_near():
    # Two tight pairs: each one's neighbour is near. Four corners of a simplex: nobody is.
    y = np.array([0.0, 0, 0, 0, 0, 0, 2, 2.1, 3, 3.1])
    pairs = np.array([[0.0], [0.01], [9], [9.01]])
    for place, near in ((pairs, True), (np.eye(4), False)):
        X = np.concatenate([np.zeros((6, place.shape[1])), place])
        _, _, parents = smogn(X, y, HIGH, k=1, sampling={"rare": 4}, return_parents=True)
        _, between, noisy = split(parents)
        assert between.sum() == 12 * near
        assert noisy.sum() == 12 * (not near)


def test_noise_is_bounded_by_half_the_median_distance():
    # Rare rows so close to each other that half the median distance is below the noise asked for.
    rng = np.random.default_rng(0)
    y = np.r_[np.zeros(50), 2 + rng.random(20)]
    X = np.r_[rng.normal(size=50) * 100, rng.normal(size=20)]
    X_new, _, parents = smogn(X, y, HIGH, noise=5, sampling={"rare": 50}, return_parents=True)
    _, _, noisy = split(parents)
    step = (X_new[noisy] - X[parents[noisy, 0]]) / X[50:].std()
    assert noisy.sum() > 100
    assert 0.001 < step.std() < 0.02  # not 5


def test_no_noise_gives_copies():
    X, y = table()
    X_new, y_new, parents = smogn(X, y, HIGH, noise=0, return_parents=True)
    _, _, noisy = split(parents)
    assert noisy.any()
    assert_array_equal(X_new[noisy], X[parents[noisy, 0]])
    assert_array_equal(y_new[noisy], y[parents[noisy, 0]])


# ---- how many, which, in which order


@BOTH
@pytest.mark.parametrize("sampling", ["balance", "extreme", {"rare": 2.3, "normal": 0.4}], ids=str)
def test_every_bump_gets_its_number_of_rows(method, sampling):
    rng = np.random.default_rng(3)
    y = np.r_[rng.normal(size=150), rng.normal(size=12) + 9, rng.normal(size=9) - 9]
    X = np.column_stack([y, rng.normal(size=y.size)])
    phi = Relevance([-5, 0, 5], [1, 0, 1])
    bumps = find_bumps(y, phi, 0.8)
    assert [bump.rows.size for bump in bumps] == [9, 150, 12]
    _, _, parents = method(X, y, phi, sampling=sampling, return_parents=True)
    kept, *_ = split(parents)
    for bump, wanted in zip(bumps, new_sizes(bumps, sampling), strict=True):
        here = np.isin(parents[:, 0], bump.rows)
        assert here.sum() == wanted
        old = np.unique(parents[here & kept, 0])
        assert old.size == (here & kept).sum() == min(wanted, bump.rows.size)  # none twice
        seeds = np.bincount(parents[here & ~kept, 0], minlength=y.size)[bump.rows]
        assert np.ptp(seeds) <= 1  # equally often, but for a remainder


@BOTH
def test_kept_rows_come_first_in_their_order_then_new_ones_by_bump(method):
    rng = np.random.default_rng(3)
    y = rng.permutation(np.r_[rng.normal(size=100), rng.normal(size=8) + 9, rng.normal(size=8) - 9])
    phi = Relevance([-5, 0, 5], [1, 0, 1])
    X_new, y_new, parents = method(y, y, phi, return_parents=True)
    kept, *_ = split(parents)
    first = kept.sum()
    assert kept[:first].all()
    assert (np.diff(parents[:first, 0]) > 0).all()
    assert_array_equal(X_new[:first], y[parents[:first, 0]])
    assert_array_equal(y_new[:first], y[parents[:first, 0]])
    signs = np.sign(y_new[first:])
    assert_array_equal(signs, np.sort(signs))
    assert set(signs) == {-1, 1}


@BOTH
def test_the_default_relevance_is_the_box_plot(method):
    X, y = table(300)
    chosen = method(X, y, Relevance.from_data(y))
    for ours, default in zip(chosen, method(X, y), strict=True):
        assert_array_equal(ours, default)
    with pytest.raises(ValueError, match="relevance would be 0 everywhere"):
        method(np.arange(50.0), np.arange(50.0))


@BOTH
def test_a_seed_repeats_and_a_generator_moves_on(method):
    X, y = table()
    draw = partial(method, X, y, HIGH)
    for a, b in zip(draw(seed=3), draw(seed=np.random.default_rng(3)), strict=True):
        assert_array_equal(a, b)
    assert not np.array_equal(draw(seed=3)[0], draw(seed=4)[0])
    generator = np.random.default_rng(3)
    assert not np.array_equal(draw(seed=generator)[0], draw(seed=generator)[0])


def test_under_sampling_draws_every_row_equally_often():
    y = np.r_[np.linspace(0, 1, 40), 2, 3]
    kept = np.zeros(40)
    for seed in range(300):
        _, _, parents = smoter(
            y, y, HIGH, sampling={"normal": 0.25}, seed=seed, return_parents=True
        )
        kept += np.bincount(parents[:, 0], minlength=42)[:40]
    assert kept.sum() == 3000
    assert stats.chisquare(kept).pvalue > 1e-3


# ---- against the package smogn


def test_numbers_agree_with_two_packages():
    # One table of 120 rows, 18 of them rare, on which smogn 0.1.2 (its smoter(), which is SMOGN)
    # and ImbalancedLearningRegression 0.0.2 (its smote(), which is SMOTER without under-sampling)
    # ran with k=5, rel_thres=0.8 and ten seeds, under pandas 1.5.3 and NumPy 1.26.4:
    #     numpy.random.seed(s); random.seed(s); smogn.smoter(data, "y", rel_thres=0.8)
    # Both made 42 rows each time, with labels of mean 40.10 and 40.08 over all seeds. (Both look
    # for neighbours in raw units with the label among the columns, and weigh the label by memory
    # that was never written; hence 5 % of slack.)
    rng = np.random.default_rng(0)
    x1, x2 = rng.normal(size=120), rng.normal(size=120)
    X, y = np.column_stack([x1, x2]), np.exp(0.8 * x1) * 10 + x2 + 5
    for method, mean in ((smogn, 40.095), (smoter, 40.080)):
        made = []
        for seed in range(50):
            _, y_new, parents = method(X, y, seed=seed, return_parents=True)
            kept, *_ = split(parents)
            assert (~kept).sum() == 42
            made.append(y_new[~kept].mean())
        assert_allclose(np.mean(made), mean, rtol=0.05)


# ---- kinds and shapes


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_dtype_and_device(method, dtype, device):
    X, y = (torch.tensor(a, dtype=dtype, device=device) for a in table())
    X.requires_grad_()
    X_new, y_new, parents = method(X, y, HIGH, return_parents=True)
    assert X_new.dtype == y_new.dtype == dtype
    assert parents.dtype == torch.int64
    for new in (X_new, y_new, parents):
        assert new.device.type == device.type
        assert not new.requires_grad
    as_arrays = method(X.detach().cpu().double().numpy(), y.cpu().double().numpy(), HIGH)
    for tensor, array in zip((X_new, y_new), as_arrays, strict=True):
        assert torch.equal(tensor.cpu(), torch.tensor(array).to(dtype))


@BOTH
def test_arrays_keep_dtype_and_whole_numbers_become_floats(method):
    X, y = table()
    X_new, y_new = method(X.astype(np.float16), y.astype(np.float32), HIGH)
    assert X_new.dtype == np.float16
    assert y_new.dtype == np.float32
    whole = np.repeat([0, 1, 2, 3], [40, 30, 8, 6])
    X_new, y_new = method(whole, whole, Relevance([0, 2], [0, 1]))
    assert X_new.dtype == y_new.dtype == np.float64
    X_new, y_new = method(X.tolist(), torch.tensor(y), HIGH)
    assert isinstance(X_new, np.ndarray)
    assert isinstance(y_new, torch.Tensor)


@BOTH
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 4, 4)])
def test_other_shapes_are_taken_flat(method, shape, device):
    y = table()[1]
    X = np.random.default_rng(0).normal(size=(len(y), *shape))
    X_new, y_new = method(X, y, HIGH)
    assert X_new.shape == (y_new.size, *shape)
    flat, _ = method(X.reshape(len(y), -1), y, HIGH)
    assert_array_equal(X_new.reshape(y_new.size, -1), flat)
    as_tensor, _ = method(torch.tensor(X, device=device), torch.tensor(y, device=device), HIGH)
    assert_array_equal(as_tensor.cpu(), X_new)


@BOTH
def test_memory_order_does_not_matter_and_the_input_is_not_touched(method):
    X, y = table()
    before = X.copy(), y.copy()
    strided = np.asfortranarray(np.repeat(X, 2, axis=0))[::2]
    for a, b in zip(method(X, y, HIGH), method(strided, np.repeat(y, 2)[::2], HIGH), strict=True):
        assert_array_equal(a, b)
    assert_array_equal(X, before[0])
    assert_array_equal(y, before[1])


@BOTH
def test_neighbours_do_not_depend_on_units(method):
    X, y = table()
    X_new, y_new, parents = method(X, y, HIGH, return_parents=True)
    moved = X * [1e150, 1e-150, -3] + [0, 0, 7]
    X_moved, y_moved, parents_moved = method(moved, y, HIGH, return_parents=True)
    assert_array_equal(parents, parents_moved)
    _, between, _ = split(parents)
    assert_allclose(y_new, y_moved, rtol=1e-6)
    assert_allclose(X_moved[between], (X_new * [1e150, 1e-150, -3] + [0, 0, 7])[between], rtol=1e-6)


@BOTH
def test_constant_columns_stay_as_they_are(method):
    X, y = table()
    X = np.column_stack([X, np.full(len(y), 0.1), np.full(len(y), 1e300)])
    X_new, _ = method(X, y, HIGH)
    assert set(X_new[:, 3]) == {0.1}
    assert set(X_new[:, 4]) == {1e300}
    plain, _ = smoter(X[:, :3], y, HIGH)
    assert_array_equal(smoter(X, y, HIGH)[0][:, :3], plain)


@BOTH
def test_equal_rows_do_not_break(method):
    y = np.r_[np.zeros(50), np.full(4, 2.0), np.full(4, 3.0)]
    X = np.ones((58, 2))
    X_new, y_new, parents = method(X, y, HIGH, k=7, return_parents=True)
    assert (X_new == 1).all()
    _, between, noisy = split(parents)
    assert (parents[:, 0] != parents[:, 1])[between | noisy].all()
    if method is smoter:  # parents at no distance count the same
        assert set(y_new[between]) == {2, 2.5, 3}
    else:  # no neighbour is nearer than half of nothing, and no noise is left
        assert noisy.sum() == (58 / 2 - 8)
        assert set(y_new[noisy]) == {2, 3}


@BOTH
def test_many_rows_in_blocks_are_as_few_in_one(method, monkeypatch):
    X, y = table(300)
    whole = method(X, y, HIGH)
    monkeypatch.setattr("dirlearn.synthesis.BLOCK", 100)
    for a, b in zip(whole, method(X, y, HIGH), strict=True):
        assert_array_equal(a, b)


# ---- refusals


@BOTH
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"X": np.zeros((4, 2))}, r"one label per row; got \(4, 2\) and \(120,\)"),
        ({"y": np.zeros((120, 1))}, r"got \(120, 3\) and \(120, 1\)"),
        ({"X": 3.0, "y": 3.0}, r"got \(\) and \(\)"),
        ({"X": np.zeros((0, 2)), "y": []}, r"X is empty, of shape \(0, 2\)"),
        ({"X": np.zeros((120, 0))}, r"X is empty, of shape \(120, 0\)"),
        ({"X": np.full((120, 2), np.nan)}, "X holds 240 values that are NaN"),
        ({"y": np.full(120, np.inf)}, "y holds 120 values that are NaN"),
        ({"k": 0}, "k must be a whole number from 1 on, got 0"),
        ({"k": 2.5}, "k must be a whole number from 1 on, got 2.5"),
        ({"k": 35}, r"have 35 row\(s\), which leaves no 35 neighbours; pass k=34, or lower"),
        ({"categorical": [3]}, "names column 3, but X has columns 0 to 2"),
        ({"categorical": [-1]}, "names column -1"),
        ({"X": np.zeros((120, 2, 2)), "categorical": [0]}, r"X has shape \(120, 2, 2\)"),
        ({"threshold": 0}, "threshold must be above 0"),
        ({"phi": Relevance([0, 99], [0, 1])}, "no label has relevance 0.8 or more"),
        ({"sampling": "both"}, "sampling must be"),
    ],
    ids=str,
)
def test_bad_input_is_refused(method, change, words):
    X, y = table()
    options = {"X": X, "y": y, "phi": HIGH, **change}
    with pytest.raises(ValueError, match=words):
        method(**options)


@BOTH
def test_a_single_rare_row_has_no_neighbour(method):
    y = np.r_[np.linspace(0, 1, 40), 3]
    with pytest.raises(ValueError, match=r"from 3 to 3 have 1 row\(s\), .* neighbours; lower thre"):
        method(y, y, HIGH)
    assert method(y, y, HIGH, sampling={"normal": 0.5})[1].size == 21  # it need not grow


@BOTH
def test_words_are_refused_with_a_remedy(method):
    y = table()[1]
    for words in (np.array(["a"] * 120), np.array([["a", 1.0]] * 120, dtype=object), ["a"] * 120):
        with pytest.raises(TypeError, match=r"pandas.factorize does, and name those columns"):
            method(words, y, HIGH)
    with pytest.raises(TypeError, match="categorical must be a sequence of columns, got 2"):
        method(table()[0], y, HIGH, categorical=2)
    with pytest.raises(TypeError, match="categorical must give columns by number, got 'colour'"):
        method(table()[0], y, HIGH, categorical=["colour"])


def test_bad_noise_is_refused():
    X, y = table()
    for noise in (-0.1, np.nan, np.inf):
        with pytest.raises(ValueError, match="noise must be 0 or more"):
            smogn(X, y, HIGH, noise=noise)


def test_values_beyond_what_can_be_squared_are_refused():
    X, y = table()
    with pytest.raises(ValueError, match=r"X holds values too large .*; divide X by its scale"):
        smogn(X * 1e300, y, HIGH)
    with pytest.raises(ValueError, match=r"y holds values too large .*; divide y by its scale"):
        smogn(X, y * 1e200, lambda y: HIGH(y / 1e200))


@BOTH
def test_a_mask_of_categories_is_refused(method):
    X, y = table()
    with pytest.raises(TypeError, match=r"got True; of a mask, np.flatnonzero\(mask\)"):
        method(X, y, HIGH, categorical=[True, False, False])

import copy
import io
import pickle
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import distributed, nn
from torch.testing import assert_close

from dirlearn import FDS, Bins, kernel_window

DOUBLE = torch.float64
AXIS = Bins.uniform(0, 7, 1)
KINDS = pytest.mark.parametrize("covariance", ["diagonal", "full"])
STATE = ["count", "running_mean", "running_cov", "change", "shift"]


def batch(n=120, features=3, bins=AXIS, seed=0, empty=(), dtype=torch.float32):
    """Features whose mean, spread and correlation depend on the label; ``empty`` bins have none."""
    rng = np.random.default_rng(seed)
    inside = [b for b in range(len(bins)) if b not in empty]
    where = rng.choice(inside, n)
    y = bins.edges[where] + np.diff(bins.edges)[where] * rng.uniform(0.01, 0.99, n)
    angle = 0.5 * where[:, None]
    mixed = rng.normal(size=(n, features))
    mixed = mixed + 0.7 * np.cos(angle) * np.roll(mixed, 1, axis=1)
    z = 4 * np.sin(angle + np.arange(features)) + (1 + where[:, None] % 3) * mixed
    return torch.from_numpy(z).to(dtype), torch.from_numpy(y).float()


def fitted(z, y, bins=AXIS, **options):
    """A layer that has seen one epoch."""
    fds = FDS(z.shape[-1], bins, **options).to(z.device)
    fds.observe(z, y)
    fds.step()
    return fds


def assert_same_state(left, right, **tolerance):
    for name in STATE:
        assert_close(getattr(left, name), getattr(right, name), **tolerance)


# ---- the equations, written out


class Written:
    """The equations of the docstring in float64: loops over bins, neighbours and samples."""

    def __init__(self, bins, window, momentum, clip, full):
        self.edges, self.window = bins.edges.tolist(), list(window)
        self.momentum, self.full = momentum, full
        self.low, self.high = clip
        self.mean, self.cov, self.count = {}, {}, {}

    def bin_of(self, label):
        inside = [b for b in range(len(self.edges) - 1) if label >= self.edges[b]]
        return inside[-1] if inside else 0

    def epoch(self, z, y):
        groups = {}
        for row, label in zip(z, y, strict=True):
            groups.setdefault(self.bin_of(label), []).append(np.array(row, dtype=np.float64))
        for b, rows in groups.items():
            mean = sum(rows) / len(rows)
            self.mix(self.mean, b, mean)
            if len(rows) > 1:
                self.mix(self.cov, b, sum(self.product(r - mean) for r in rows) / (len(rows) - 1))
            self.count[b] = max(self.count.get(b, 0), len(rows))

    def product(self, deviation):
        return np.outer(deviation, deviation) if self.full else deviation * deviation

    def mix(self, running, b, now):
        old = running.get(b)
        running[b] = now if old is None else self.momentum * old + (1 - self.momentum) * now

    def own_cov(self, b):
        cov, n = self.cov[b], self.count[b]
        if not self.full or n > len(cov):
            return cov
        p, trace, square = len(cov), np.trace(cov), (cov**2).sum()
        above = (1 - 2 / p) * square + trace**2
        rho = min(1, above / ((n + 1 - 2 / p) * (square - trace**2 / p)))
        return (1 - rho) * cov + rho * trace / p * np.eye(p)

    def smooth(self, values, b):
        total, weight = 0.0, 0.0
        for j, k in enumerate(self.window):
            neighbour = b + j - len(self.window) // 2
            if neighbour in values:
                total = total + k * values[neighbour]
                weight += k
        return total / weight if weight > 0 else 0.0

    def root(self, cov, smoothed):
        if not self.full:
            ratio = np.where(cov > 0, smoothed / np.where(cov > 0, cov, 1), 1.0)
            return np.diag(np.sqrt(np.clip(ratio, self.low, self.high)))
        left, stretch, right = np.linalg.svd(sqrtm(smoothed) @ np.linalg.inv(sqrtm(cov)))
        return left @ np.diag(np.clip(stretch, self.low**0.5, self.high**0.5)) @ right

    def calibrate(self, z, y):
        own = {b: self.own_cov(b) for b in self.cov}
        out = []
        for row, label in zip(np.array(z), y, strict=True):
            b = self.bin_of(label)
            if b not in self.mean:
                out.append(row)
                continue
            change = self.root(own[b], self.smooth(own, b)) if b in own else np.eye(len(row))
            out.append(change @ (row - self.mean[b]) + self.smooth(self.mean, b))
        return np.stack(out)


OPTIONS = [
    {},
    {"kernel": "triangular", "size": 3},
    {"kernel": "laplace", "size": 9, "sigma": 1.0, "momentum": 0.5},
    {"size": 1},
    {"size": 31, "sigma": 4.0, "clip": (None, None)},
    {"kernel": [1, 2, 4, 2, 1], "momentum": 0.3, "clip": (0.5, 2)},
    {"clip": (0.9, 1.1)},
]


@KINDS
@pytest.mark.parametrize("bins", [AXIS, Bins([0, 7]), Bins([0, 1, 3, 3.5, 7])], ids=len)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_four_epochs_are_the_explicit_loops(options, bins, covariance, device):
    """Bins come and go: some are met late, some once, some never, one in single samples."""
    fds = FDS(3, bins, covariance=covariance, **options).to(device)
    low, high = options.get("clip", (0.1, 10.0))
    window = kernel_window(**{k: options[k] for k in ("kernel", "size", "sigma") if k in options})
    written = Written(
        bins,
        window,
        options.get("momentum", 0.9),
        (0.0 if low is None else low, np.inf if high is None else high),
        full=covariance == "full",
    )
    few = torch.tensor([1.5, 4.2]) if len(bins) > 1 else torch.tensor([3.0, 3.1])
    epochs = [
        batch(60, bins=bins, empty=range(2, len(bins))),
        batch(80, bins=bins, seed=1, empty=range(1, len(bins) - 1)),
        (torch.randn(2, 3), few),
        batch(9, bins=bins, seed=2),
    ]
    every = batch(40, bins=bins, seed=3)
    for z, y in epochs:
        for rows, labels in zip(z.split(23), y.split(23), strict=True):
            fds(rows.to(device), labels.to(device))
        fds.step()
        written.epoch(z.tolist(), y.tolist())
        probe = copy.deepcopy(fds)(every[0].to(device), every[1].to(device))
        expected = written.calibrate(every[0].tolist(), every[1].tolist())
        np.testing.assert_allclose(probe.cpu(), expected, rtol=2e-3, atol=2e-4)
        for b in range(len(bins)):
            mean, cov = fds.running_mean[b].cpu(), fds.running_cov[b].cpu()
            np.testing.assert_allclose(mean, written.mean.get(b, 0 * mean), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(cov, written.cov.get(b, 0 * cov), rtol=1e-4, atol=1e-5)
            smooth = written.smooth(written.mean, b) * np.ones(3)
            np.testing.assert_allclose(fds.smoothed_mean[b].cpu(), smooth, rtol=1e-4, atol=1e-5)
        assert fds.count.tolist() == [written.count.get(b, 0) for b in range(len(bins))]


@KINDS
@given(
    n=st.integers(2, 25),
    half=st.integers(0, 4),
    momentum=st.floats(0.1, 0.99),
    seed=st.integers(0, 50),
)
@settings(max_examples=40)
def test_in_float64_any_small_epoch_is_the_explicit_loops(covariance, n, half, momentum, seed):
    size = 2 * half + 1
    fds = FDS(2, AXIS, size=size, momentum=momentum, covariance=covariance).double()
    full = covariance == "full"
    written = Written(AXIS, kernel_window(size=size), momentum, (0.1, 10.0), full)
    for epoch in range(2):
        z, y = batch(n, 2, seed=100 * seed + epoch, dtype=DOUBLE)
        fds(z, y)
        fds.step()
        written.epoch(z.tolist(), y.tolist())
    for b, mean in written.mean.items():
        np.testing.assert_allclose(fds.running_mean[b], mean, rtol=1e-10, atol=1e-12)
    # The window is kept in float32.
    expected = written.calibrate(z.tolist(), y.tolist())
    np.testing.assert_allclose(fds(z, y), expected, rtol=1e-5, atol=1e-5)


def test_one_bin_is_left_where_it_is():
    z, y = batch(bins=Bins([0, 7]))
    assert_close(fitted(z, y, Bins([0, 7]))(z, y), z, rtol=1e-5, atol=1e-5)


@KINDS
def test_a_window_of_one_bin_changes_nothing(covariance):
    z, y = batch()
    assert_close(fitted(z, y, size=1, covariance=covariance)(z, y), z, rtol=1e-4, atol=1e-4)


@KINDS
def test_a_big_bin_comes_to_have_the_smoothed_mean_and_covariance(covariance):
    z, y = batch(4000)
    fds = fitted(z, y, covariance=covariance, clip=(None, None))
    out = fds(z, y)
    for b in range(7):
        own = out[AXIS.index(y) == b]
        assert_close(own.mean(dim=0), fds.smoothed_mean[b], rtol=1e-4, atol=1e-4)
        spread = own.var(dim=0) if covariance == "diagonal" else own.T.cov()
        assert_close(spread, fds.smoothed_cov[b], rtol=1e-3, atol=1e-3)


# ---- bins with little or nothing


@KINDS
def test_empty_bins_never_leak(covariance):
    z, y = batch(empty=(0, 3, 6))
    fds = fitted(z, y, covariance=covariance)
    expected = copy.deepcopy(fds)
    for name in ("running_mean", "running_cov"):  # what stands there must not matter
        getattr(fds, name)[[0, 3, 6]] = 1e6
        getattr(expected, name)[[0, 3, 6]] = -7.0
    for layer in (fds, expected):
        layer.observe(z, y)
        layer.step()
    assert_close(fds.smoothed_mean, expected.smoothed_mean, rtol=0, atol=0)
    assert_close(fds.smoothed_cov, expected.smoothed_cov, rtol=0, atol=0)
    assert torch.equal(fds(z, y), expected(z, y))
    assert fds(z, y).abs().max() < 50


def test_equal_means_stay_equal_beside_empty_bins_and_at_the_ends():
    y = torch.tensor([0.5, 0.5, 1.5, 1.5, 4.5, 4.5])
    z = 100 + torch.tensor([1.0, -1.0] * 3)[:, None]
    assert_close(fitted(z, y)(z, y), z)


@KINDS
def test_a_label_in_a_bin_never_met_passes_unchanged(covariance):
    z, y = batch(empty=(3, 6))
    fds = fitted(z, y, covariance=covariance)
    z, y = torch.randn(3, 3), torch.tensor([3.5, 6.5, 7.0])
    assert torch.equal(fds(z, y), z)
    other = torch.tensor([3.5, 2.5, 7.0])  # beside one that is calibrated
    out = fds(z, other)
    assert torch.equal(out[[0, 2]], z[[0, 2]])
    assert not torch.allclose(out[1], z[1])


@KINDS
def test_a_single_sample_borrows_the_smoothed_spread_and_is_only_shifted(covariance):
    z, y = batch(empty=(2,))
    lone, label = torch.tensor([[30.0, -20.0, 10.0]]), torch.tensor([2.5])
    fds = fitted(torch.cat([z, lone]), torch.cat([y, label]), covariance=covariance)
    assert fds.count[2] == 1
    step = torch.tensor([[1.0, 2.0, 3.0]])
    assert_close(fds(lone, label)[0], fds.smoothed_mean[2])
    assert_close(fds(lone + step, label)[0], fds.smoothed_mean[2] + step[0])
    without = fitted(z, y, covariance=covariance)  # it has no say in the spread of its neighbours
    assert_close(fds.smoothed_cov, without.smoothed_cov)
    assert fds.smoothed_cov[2].abs().sum() > 0


def test_a_bin_of_single_samples_gets_a_spread_in_the_epoch_that_first_has_two():
    fds = FDS(1, AXIS, size=1, momentum=0.5)
    for values in ([2.0], [4.0], [0.0, 8.0]):
        fds.observe(torch.tensor(values)[:, None], torch.full((len(values),), 2.5))
        fds.step()
    assert fds.running_mean[2].item() == 0.5 * (0.5 * 2 + 0.5 * 4) + 0.5 * 4
    assert fds.running_cov[2].item() == 32  # counts in full, though the bin is an old one
    fds.observe(torch.tensor([[5.0]]), torch.tensor([2.5]))
    fds.step()
    assert fds.running_cov[2].item() == 32  # one sample says nothing of spread
    assert fds.count[2] == 2


def test_features_without_spread_are_only_shifted():
    z, y = batch()
    z[:, 1] = 0.0  # a dead unit
    z[:, 2] = 5 + torch.floor(y)  # constant within each bin
    out = fitted(z, y)(z, y)
    assert not out[:, 1].any()
    shift = out[:, 2] - z[:, 2]
    for b in range(7):
        assert shift[y.floor() == b].unique().numel() == 1
    assert shift.abs().max() > 0.5


@KINDS
def test_clip_bounds_the_ratio_of_variances(covariance):
    y = torch.tensor([0.5, 1.5]).repeat_interleave(500)
    z = torch.randn(1000, 2) * torch.tensor([1e-3, 1.0]).repeat_interleave(500)[:, None]
    fds = fitted(z, y, covariance=covariance, clip=(0.25, 9.0))
    out = fds(z, y)
    ratio = out[:500].std(dim=0) / z[:500].std(dim=0)
    assert_close(ratio, torch.full((2,), 3.0), rtol=1e-3, atol=0)  # the root of 9
    fds = fitted(z, y, covariance=covariance, clip=(0.8, 9.0))  # about 0.5 without a floor
    ratio = fds(z, y)[500:].std(dim=0) / z[500:].std(dim=0)
    assert_close(ratio, torch.full((2,), 0.8**0.5), rtol=1e-3, atol=0)


# ---- training, evaluation, the first epoch


@KINDS
def test_before_the_first_step_features_pass_unchanged(covariance):
    z, y = batch()
    fds = FDS(3, AXIS, covariance=covariance)
    assert torch.equal(fds(z, y), z)
    assert torch.equal(fds(z, y), z)


def test_in_evaluation_mode_features_are_given_back_and_nothing_is_learned():
    z, y = batch()
    fds = fitted(z, y).eval()
    before = copy.deepcopy(fds.state_dict())
    assert fds(z) is z
    assert fds(z, y) is z
    assert fds(z, "not a target") is z
    assert_close(fds.state_dict(), before)


def test_in_training_mode_targets_are_needed():
    with pytest.raises(ValueError, match=r"needs the targets: fds\(z, y\); to predict, call eval"):
        FDS(3, AXIS)(batch()[0])


def test_statistics_freeze_for_an_epoch():
    z, y = batch()
    fds = fitted(z, y)
    first = fds(z, y)
    fds(10 * z, y)
    assert torch.equal(fds(z, y), first)
    fds.step()
    assert not torch.allclose(fds(z, y), first, atol=0.1)


def test_statistics_are_of_the_features_as_they_came():
    z, y = batch()
    fds = FDS(3, AXIS, momentum=0.0)
    expected = fitted(z, y)
    for _ in range(4):  # were they those of what came out, they would drift
        fds(z, y)
        fds.step()
        assert_same_state(fds, expected)


@KINDS
def test_tracking_is_observing(covariance):
    z, y = batch()
    tracked = FDS(3, AXIS, covariance=covariance)
    shown = FDS(3, AXIS, covariance=covariance, track=False)
    also = FDS(3, AXIS, covariance=covariance).eval()
    for epoch in range(3):
        for rows, labels in zip((z + epoch).split(50), y.split(50), strict=True):
            assert torch.equal(tracked(rows, labels), shown(rows, labels))
            shown.observe(rows, labels)
            also.observe(rows, labels)
        for layer in (tracked, shown, also):
            layer.step()
        assert_same_state(tracked, shown, rtol=0, atol=0)
        assert_same_state(tracked, also, rtol=0, atol=0)


def test_without_tracking_a_training_forward_shows_nothing():
    z, y = batch()
    fds = FDS(3, AXIS, track=False)
    fds(z, y)
    with pytest.raises(RuntimeError, match="no features were observed"):
        fds.step()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_inference_mode_serves_for_the_pass_over_the_training_set(dtype, device):
    z, y = (t.to(device) for t in batch())
    fds, expected = (FDS(3, AXIS, track=False).to(device, dtype) for _ in range(2))
    for epoch in range(2):
        with torch.inference_mode():
            fds.observe(z[:50] + epoch, y[:50])
        fds.observe(z[50:] + epoch, y[50:])
        expected.observe(z + epoch, y)
        with torch.inference_mode(epoch == 0):
            fds.step()
        expected.step()
        assert_same_state(fds, expected, rtol=1e-5, atol=1e-5)
    z.requires_grad_()
    fds(z, y).sum().backward()
    assert z.grad.abs().sum() > 0


@given(cuts=st.lists(st.integers(0, 120), max_size=5), seed=st.integers(0, 20))
def test_batches_and_their_order_do_not_matter(cuts, seed):
    z, y = batch(seed=seed)
    whole, parts = fitted(z, y), FDS(3, AXIS)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(120))
    for part in np.split(order.numpy(), sorted(cuts)):
        parts(z[part], y[part])
    parts.step()
    assert_same_state(parts, whole, rtol=1e-4, atol=1e-4)


# ---- gradients


@KINDS
def test_gradient_is_the_change_of_the_bin(covariance):
    z, y = batch(30)
    fds = fitted(z, y, covariance=covariance, track=False).double()
    z = z.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: fds(rows, y), z)
    seed = torch.randn(30, 3, dtype=DOUBLE)
    (slope,) = torch.autograd.grad(fds(z, y), z, seed)
    change = fds.change[AXIS.index(y)]
    back = change * seed if covariance == "diagonal" else (change.mT @ seed[..., None])[..., 0]
    assert_close(slope, back)
    assert not torch.allclose(slope, seed, atol=0.1)


@KINDS
def test_calibration_is_out_of_place_and_tracking_leaves_no_graph(covariance):
    z, y = batch()
    fds = fitted(z, y, covariance=covariance)
    leaf = z.clone().requires_grad_()
    hidden = leaf * 1  # what an encoder gives: neither a leaf nor constant
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        once, twice = fds(hidden, y), fds(hidden, y)
        assert torch.equal(once, twice)
        (hidden.exp() + once.square() + twice).sum().backward()  # exp keeps what it gave out
    assert torch.equal(hidden, z)
    assert torch.equal(leaf, z)
    fds.step()
    tensors = [*(getattr(fds, name) for name in STATE), fds._epoch.mean, fds._epoch.products]
    assert not any(t.requires_grad for t in tensors)


def test_a_step_between_forward_and_backward_does_no_harm():
    z, y = batch()
    fds = fitted(z, y)
    z.requires_grad_()
    out = fds(z, y)
    expected = fds.change[AXIS.index(y)].clone()
    fds.step()
    out.sum().backward()
    assert_close(z.grad, expected)


@KINDS
def test_memory_is_for_the_bins_not_for_the_batches(covariance):
    fds = FDS(3, AXIS, covariance=covariance)
    z, y = batch()
    net = nn.Linear(3, 3)
    sizes, kept = [], []
    for _ in range(20):
        hidden = net(z)
        kept.append(weakref.ref(hidden))
        fds(hidden, y).sum().backward()
        del hidden
        sizes.append(len(pickle.dumps(fds)))
    assert len(set(sizes)) == 1
    assert not any(ref() is not None for ref in kept)


# ---- shapes and memory formats


@KINDS
def test_dense_maps_are_their_pixels(covariance, device):
    z, y = batch(2 * 4 * 5)
    flat = FDS(3, AXIS, covariance=covariance).to(device)
    maps = FDS(3, AXIS, covariance=covariance).to(device)
    z, y = z.to(device), y.to(device)
    dense, targets = z.view(2, 4, 5, 3).permute(0, 3, 1, 2), y.view(2, 4, 5)
    for _ in range(2):
        expected = flat(z, y).view(2, 4, 5, 3).permute(0, 3, 1, 2)
        out = maps(dense, targets)
        assert out.shape == dense.shape
        assert_close(out, expected)
        assert_close(maps(dense.contiguous(), targets), expected)
        assert_close(maps(dense.to(memory_format=torch.channels_last), targets), expected)
        flat(z, y), flat(z, y)
        flat.step(), maps.step()
        assert_same_state(flat, maps)
    assert not torch.allclose(maps(dense, targets), dense, atol=0.1)


def test_gradient_of_dense_maps():
    z, y = batch(2 * 2 * 3)
    fds = fitted(z, y, track=False).double()
    dense = z.double().view(2, 2, 3, 3).permute(0, 3, 1, 2).contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: fds(maps, y.view(2, 2, 3)), dense)


@pytest.mark.parametrize("channel_dim", [-1, 2])
def test_sequences_with_features_last(channel_dim):
    z, y = batch(60)
    fds = FDS(3, AXIS, channel_dim=channel_dim)
    fds(z.view(12, 5, 3), y.view(12, 5))
    fds.step()
    expected = fitted(z, y)
    assert_same_state(fds, expected)
    assert_close(fds(z.view(12, 5, 3), y.view(12, 5)), expected(z, y).view(12, 5, 3))


def test_features_need_not_be_contiguous(device):
    z, y = (t.to(device) for t in batch())
    fds = fitted(z, y)
    turned = z.T.contiguous().T
    assert_close(fds(turned, y), fds(z, y))
    assert_close(fds(z[::2], y[::2]), fds(z, y)[::2])


@KINDS
def test_an_empty_batch_is_an_empty_batch(covariance):
    z, y = batch()
    fds = fitted(z, y, covariance=covariance)
    assert fds(z[:0], y[:0]).shape == (0, 3)
    fds(z, y)
    fds(z[:0], y[:0])
    fds.step()
    assert fds.count.sum() == 120


@pytest.mark.parametrize("kind", [list, np.asarray, torch.as_tensor], ids=lambda k: k.__name__)
def test_targets_of_other_kinds(kind):
    z, y = batch()
    fds = fitted(z, y)
    assert torch.equal(fds(z, kind(y.double().tolist())), fds(z, y))
    assert torch.equal(fds(z, y.long()), fds(z, y.floor()))


# ---- precision, compilers


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, DOUBLE])
def test_features_of_any_precision_meet_float32_statistics(covariance, dtype, device):
    z, y = (t.to(device) for t in batch(dtype=dtype))
    fds = FDS(3, AXIS, covariance=covariance).to(device)
    fds(z, y)
    fds.step()
    expected = fitted(z.float(), y, covariance=covariance)
    assert_same_state(fds, expected, rtol=1e-5, atol=1e-6)
    out = fds(z, y)
    assert out.dtype == dtype
    assert_close(out.float(), expected(z.float(), y).to(dtype).float(), rtol=1e-2, atol=1e-2)


@KINDS
def test_a_float64_module_keeps_all_digits_of_bins_met_or_not(covariance):
    z, y = batch(dtype=DOUBLE)
    fds = FDS(3, AXIS, covariance=covariance).double()
    fds(z[:60], y[:60])
    fds.step()
    kept = fds.running_mean.clone(), fds.running_cov.clone()
    missed = y > 3
    fds.observe(z[~missed], y[~missed])
    fds.step()
    assert torch.equal(fds.running_mean[3:], kept[0][3:])
    assert torch.equal(fds.running_cov[3:], kept[1][3:])
    for b in range(7):
        own = z[:60][AXIS.index(y[:60]) == b]
        assert_close(kept[0][b], own.mean(dim=0), rtol=1e-12, atol=1e-12)
        spread = own.var(dim=0) if covariance == "diagonal" else own.T.cov()
        assert_close(kept[1][b], spread, rtol=1e-12, atol=1e-12)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_module_in_half_precision_sums_in_float32(covariance, dtype):
    z, y = batch(1000, dtype=dtype)
    fds = FDS(3, AXIS, covariance=covariance).to(dtype)
    fds(z, y)
    fds.step()
    expected = fitted(z.float(), y, covariance=covariance)
    eps = torch.finfo(dtype).eps
    assert_close(fds.running_mean, expected.running_mean.to(dtype), rtol=eps, atol=eps)
    assert_close(fds.running_cov, expected.running_cov.to(dtype), rtol=eps, atol=eps)
    assert_close(fds(z, y).float(), expected(z.float(), y), rtol=0, atol=50 * eps)


@KINDS
def test_autocast_trains_encoder_and_head_and_keeps_the_statistics_precise(covariance, device):
    torch.manual_seed(0)
    encoder, head = nn.Linear(3, 3).to(device), nn.Linear(3, 1).to(device)
    x, y = (t.to(device) for t in batch())
    fds, expected = (FDS(3, AXIS, covariance=covariance).to(device) for _ in range(2))
    for _ in range(2):
        with torch.autocast(device.type, torch.bfloat16):
            z = encoder(x)
            assert z.dtype == torch.bfloat16
            out = fds(z, y)
            head(out).float().square().mean().backward()
        fds.step()
        expected.observe(z.float(), y)
        expected.step()
        assert out.dtype == torch.bfloat16
    assert_same_state(fds, expected)
    assert encoder.weight.grad.isfinite().all()
    assert encoder.weight.grad.abs().sum() > 0


@KINDS
def test_autocast_rounds_neither_the_step_nor_the_calibration(covariance, device):
    z, y = (t.to(device) for t in batch())
    fds, expected = (FDS(3, AXIS, covariance=covariance, track=False).to(device) for _ in range(2))
    for layer in (fds, expected):
        layer.observe(z, y)
    expected.step()
    with torch.autocast(device.type, torch.bfloat16):
        fds.step()
        out = fds(z, y)
        assert_close(fds.smoothed_mean, expected.smoothed_mean, rtol=0, atol=0)
    assert_same_state(fds, expected, rtol=0, atol=0)
    assert_close(out, expected(z, y), rtol=0, atol=0)


@KINDS
def test_a_window_wider_than_the_axis_and_a_wide_layer_smooth_alike(covariance):
    """By a matrix over the bins, in place of the sum over the window."""
    z, y = batch(empty=(1, 5))
    fds = fitted(z, y, size=21, sigma=3.0, covariance=covariance)
    distance = torch.arange(7)[:, None] - torch.arange(7)
    weight = torch.exp(-(distance**2) / (2 * 3.0**2)) * (fds.count > 0)
    weight = weight / weight.sum(dim=1, keepdim=True)
    assert_close(fds.smoothed_mean, weight @ fds.running_mean)
    assert_close(fds.smoothed_cov.flatten(1), weight @ fds.running_cov.flatten(1))


@KINDS
def test_compiled_it_is_the_same_over_two_epochs(covariance):
    """The graph as torch traces it, without breaks; machine code from it is inductor's affair."""
    torch.compiler.reset()
    z, y = batch()
    plain = FDS(3, AXIS, covariance=covariance)
    layer = FDS(3, AXIS, covariance=covariance)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        for rows, labels in zip(z.split(40), y.split(40), strict=True):
            left, right = (rows.clone().requires_grad_() for _ in range(2))
            out, expected = compiled(left, labels), plain(right, labels)
            assert_close(out, expected)
            (out**2).sum().backward()
            (expected**2).sum().backward()
            assert_close(left.grad, right.grad)
        layer.step()
        plain.step()
        assert_same_state(layer, plain)
    assert layer.count.sum() == 120
    assert not torch.allclose(compiled(z, y), z, atol=0.1)


# ---- copies and checkpoints


@KINDS
def test_a_copy_in_mid_epoch_goes_its_own_way(covariance):
    z, y = batch()
    fds = fitted(z, y, covariance=covariance)
    fds(z[:50], y[:50])
    twin, thrice = copy.deepcopy(fds), pickle.loads(pickle.dumps(fds))
    for layer in (fds, twin, thrice):
        layer(z[50:] + 1, y[50:])
    fds.step()
    before = twin.running_mean.clone()
    assert not torch.equal(fds.running_mean, before)
    for layer in (twin, thrice):
        layer.step()
        assert_same_state(layer, fds, rtol=0, atol=0)


class Net(nn.Module):
    def __init__(self, covariance="diagonal"):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.fds = FDS(4, AXIS, covariance=covariance, momentum=0.5)
        self.head = nn.Linear(4, 1)

    def forward(self, x, y):
        return self.head(self.fds(self.encoder(x), y)).squeeze(-1)


def train(net, optimizer, x, y, start=0, stop=12):
    """Three epochs of four batches, from one batch to another."""
    for place in range(start, stop):
        rows = slice(30 * (place % 4), 30 * (place % 4 + 1))
        optimizer.zero_grad()
        (net(x[rows], y[rows]) - y[rows]).square().mean().backward()
        optimizer.step()
        if place % 4 == 3:
            net.fds.step()


@KINDS
@pytest.mark.parametrize("place", [2, 4, 6, 8, 11])
def test_training_resumes_bit_for_bit_from_anywhere(place, covariance):
    x, y = batch()
    net = Net(covariance)
    start = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    train(net, optimizer, x, y)

    first = Net(covariance)
    first.load_state_dict(start)
    one = torch.optim.Adam(first.parameters(), lr=0.01)
    train(first, one, x, y, stop=place)
    file = io.BytesIO()
    torch.save({"net": first.state_dict(), "optimizer": one.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    second = Net(covariance)
    two = torch.optim.Adam(second.parameters(), lr=0.01)
    second.load_state_dict(kept["net"])
    two.load_state_dict(kept["optimizer"])
    train(second, two, x, y, start=place)

    assert_close(second.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_a_state_is_not_changed_by_what_comes_after():
    z, y = batch()
    fds = fitted(z, y)
    fds(z[:50], y[:50])
    state = fds.state_dict()
    kept = copy.deepcopy(state["_extra_state"])
    other = FDS(3, AXIS)
    other.load_state_dict(state)
    other(z, y)
    fds(z, y)
    assert_close(state["_extra_state"], kept, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, DOUBLE])
def test_a_state_is_loaded_into_another_precision(dtype):
    z, y = batch()
    fds = fitted(z, y)
    fds(z[:50], y[:50])
    other = FDS(3, AXIS).to(dtype)
    other.load_state_dict(fds.state_dict())
    for layer in (fds, other):
        layer(z[50:].to(layer.shift.dtype), y[50:])
        layer.step()
    assert other.running_mean.dtype == dtype
    assert other.count.tolist() == fds.count.tolist()
    assert_close(other.running_mean.float(), fds.running_mean, rtol=2e-2, atol=2e-2)


# ---- what is refused


def test_what_the_constructor_refuses():
    for momentum in (1.0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\), got"):
            FDS(3, AXIS, momentum=momentum)
    for clip in ((0, 5), (5, 1), 5, (1, 2, 3), (float("nan"), 2)):
        with pytest.raises(ValueError, match=r"clip must be \(low, high\) with 0 < low <= high"):
            FDS(3, AXIS, clip=clip)
    for features in (0, -1):
        with pytest.raises(ValueError, match="num_features must be at least 1"):
            FDS(features, AXIS)
    with pytest.raises(ValueError, match="size must be odd"):
        FDS(3, AXIS, size=4)
    with pytest.raises(ValueError, match="sigma must be positive"):
        FDS(3, AXIS, sigma=0)
    with pytest.raises(ValueError, match="kernel must be positive in its middle"):
        FDS(3, AXIS, kernel=[1, 0, 1])
    with pytest.raises(ValueError, match='covariance must be "diagonal" or "full", got \'both\''):
        FDS(3, AXIS, covariance="both")
    with pytest.raises(TypeError, match=r"bins must be a dirlearn\.Bins, got list"):
        FDS(3, [0, 1, 2])


@pytest.mark.parametrize("call", [FDS.forward, FDS.observe])
@pytest.mark.parametrize(
    ("z", "y"),
    [
        ((8, 3), (8, 1)),
        ((8, 3), (7,)),
        ((8, 3), ()),
        ((8, 4), (8,)),
        ((3,), ()),
        ((3, 8), (8,)),
        ((8, 5, 3), (8, 5)),
        ((8, 3, 2, 2), (8,)),
        ((8, 3, 2, 2), (8, 1, 2, 2)),
        ((3, 0), (3,)),
        ((), ()),
        ((0, 5, 3), (0, 5)),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused_and_nothing_is_learned(call, z, y):
    fds = FDS(3, AXIS)
    with pytest.raises(ValueError, match=r"z needs 3 features on axis 1 \(channel_dim\)") as caught:
        call(fds, torch.zeros(z), torch.ones(y))
    assert f"z has shape {z} and y {y}" in str(caught.value)
    assert not fds._epoch.count.any()


@pytest.mark.parametrize("channel_dim", [2, 5, -3])
def test_an_axis_that_is_not_there_is_refused(channel_dim):
    z, y = batch()
    for features, labels in ((z, y), (z[:0], y[:0]), (torch.zeros(0, 3), torch.zeros(0))):
        with pytest.raises(ValueError, match=f"on axis {channel_dim}"):
            FDS(3, AXIS, channel_dim=channel_dim)(features, labels)


def test_features_that_are_not_floating_point_are_refused():
    z, y = batch()
    for wrong in (z.long(), z > 0, z.numpy(), z.tolist()):
        with pytest.raises(TypeError, match="z must be a floating-point tensor, got"):
            FDS(3, AXIS)(wrong, y)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_labels_that_are_not_finite_are_refused_and_nothing_is_learned(bad, device):
    z, y = (t.to(device) for t in batch())
    fds = FDS(3, AXIS).to(device)
    y[5] = bad
    for call in (fds, fds.observe):
        with pytest.raises(ValueError, match="1 value that is NaN or infinite"):
            call(z, y)
    assert not fds._epoch.count.any()


def test_labels_outside_go_to_the_edge_bins_or_are_refused():
    z, y = batch()
    y[0], y[1] = -50.0, 99.0
    clipped = fitted(z, y)
    assert_same_state(clipped, fitted(z, y.clamp(0, 7)))
    with pytest.raises(ValueError, match="2 of the labels lie outside"):
        FDS(3, Bins.uniform(0, 7, 1, outside="error"))(z, y)


@KINDS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_not_stepped_on(bad, covariance):
    z, y = batch()
    fds = fitted(z, y, covariance=covariance)
    before = copy.deepcopy(fds)
    broken = z.clone()
    broken[7, 1] = bad
    fds(z, y)
    fds(broken, y)
    with pytest.raises(FloatingPointError, match="the step was not taken; lower the learning rate"):
        fds.step()
    assert_same_state(fds, before, rtol=0, atol=0)
    for layer in (fds, before):  # the broken epoch is forgotten
        layer(z + 1, y)
        layer.step()
    assert_same_state(fds, before, rtol=0, atol=0)


def test_a_step_without_features_is_refused():
    fds = FDS(3, AXIS)
    with pytest.raises(RuntimeError, match=r"no features were observed since the last step\(\)"):
        fds.step()
    fds(*batch())
    fds.step()
    with pytest.raises(RuntimeError, match="no features were observed"):
        fds.step()


def test_it_says_what_it_is():
    assert repr(FDS(3, AXIS, covariance="full")) == (
        "FDS(3, Bins(7 bins from 0 to 7, outside=\"clip\"), covariance='full')"
    )


# ---- two processes


def shares(case):
    """Two epochs of features and labels, and which rows the first process sees in each."""
    epochs = [batch(120), batch(100, seed=1)]
    rows = [torch.arange(len(y)) for _, y in epochs]
    first = {
        "halves": [r < len(r) // 2 for r in rows],
        "uneven": [r < 17 for r in rows],
        "a bin in one of them only": [y < 3 for _, y in epochs],
        "single samples of a bin": [
            (y >= 1) | (r % 9 > 0) for (_, y), r in zip(epochs, rows, strict=True)
        ],
        "nothing in the second": [r >= 0 for r in rows],
        "nothing in the first, then in the second": [rows[0] < 0, rows[1] >= 0],
    }[case]
    return epochs, first


CASES = [
    "halves",
    "uneven",
    "a bin in one of them only",
    "single samples of a bin",
    "nothing in the second",
    "nothing in the first, then in the second",
]


def two_epochs(case, covariance, rank=None):
    """The layer after two epochs, of all rows or of one process's share."""
    fds = FDS(3, AXIS, covariance=covariance)
    for (z, y), first in zip(*shares(case), strict=True):
        mine = first >= 0 if rank is None else first == (rank == 0)
        for rows, labels in zip(z[mine].split(13), y[mine].split(13), strict=True):
            fds(rows, labels)
        fds.step()
    return fds


def refused_step(fds):
    try:
        fds.step()
    except (RuntimeError, FloatingPointError) as error:
        return type(error).__name__
    return "taken"


def train_in_parallel(rank=None):
    """Three epochs of full batches, each process with its half; buffers are broadcast as ever."""
    x, y = batch()
    torch.manual_seed(0)
    whole = Net()
    net = whole if rank is None else nn.parallel.DistributedDataParallel(whole)
    mine = slice(None) if rank is None else slice(60 * rank, 60 * (rank + 1))
    for _ in range(3):
        for _ in range(2):
            net.zero_grad()
            (net(x[mine], y[mine]) - y[mine]).square().mean().backward()
            for parameter in net.parameters():
                parameter.data -= 0.05 * parameter.grad
        whole.fds.step()
    return whole.state_dict()


def process(rank, folder):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    results = {
        (case, covariance): two_epochs(case, covariance, rank).state_dict()
        for case in CASES
        for covariance in ("diagonal", "full")
    }
    results["trained"] = train_in_parallel(rank)
    z, y = batch()
    fds = FDS(3, AXIS)
    results["nothing"] = refused_step(fds)
    fds.observe(z * (float("nan") if rank else 1), y)
    results["nan in one"] = refused_step(fds)
    fds.observe(z, y)
    results["after that"] = refused_step(fds)
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("processes"))
    torch.multiprocessing.spawn(process, (folder,), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=True) for rank in (0, 1)]


@KINDS
@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_a_share_each_are_one_with_all(case, covariance, both):
    left, right = (results[case, covariance] for results in both)
    assert_close(left, right, rtol=0, atol=0)
    expected = two_epochs(case, covariance).state_dict()
    assert torch.equal(left["count"], expected["count"])
    assert_close(left, expected, rtol=1e-4, atol=1e-4)


def test_wrapped_for_distributed_training_it_learns_what_one_process_learns(both):
    left, right = (results["trained"] for results in both)
    assert_close(left, right, rtol=0, atol=0)
    expected = train_in_parallel()
    assert_close(left, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected["fds.change"], torch.ones(7, 4), atol=0.01)


def test_processes_refuse_a_step_together(both):
    for results in both:
        assert results["nothing"] == "RuntimeError"
        assert results["nan in one"] == "FloatingPointError"
        assert results["after that"] == "taken"


# ---- what a state belongs to, and what arguments mean


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"bins": Bins.uniform(10, 18, 1)}, "edges"),
        ({"size": 3}, "window"),
        ({"sigma": 1.0}, "window"),
    ],
)
def test_a_state_of_other_bins_or_kernel_is_refused(other, name):
    settings = {"num_features": 2, "bins": Bins.uniform(0, 8, 1)}
    state = FDS(**settings).state_dict()
    FDS(**settings).load_state_dict(state)
    with pytest.raises(ValueError, match=f"another {name}"):
        FDS(**(settings | other)).load_state_dict(state)


@pytest.mark.parametrize("num_features", [8.0, "8", True])
def test_num_features_is_a_whole_number(num_features):
    with pytest.raises(TypeError, match="num_features must be a whole number"):
        FDS(num_features, Bins.uniform(0, 8, 1))


@pytest.mark.parametrize("clip", [(2, 3), (0.1, 0.5), (None, 0.9)])
def test_a_clip_that_forbids_the_identity_is_refused(clip):
    with pytest.raises(ValueError, match="clip must allow a ratio of 1"):
        FDS(2, Bins.uniform(0, 8, 1), clip=clip)


@pytest.mark.parametrize(
    "other", [{"num_features": 3}, {"covariance": "full"}], ids=["features", "covariance"]
)
def test_a_refused_state_leaves_the_layer_whole(other):
    settings = {"num_features": 2, "bins": Bins.uniform(0, 8, 1)}
    state = FDS(**(settings | other)).state_dict()
    fds = FDS(**settings)
    with pytest.raises((ValueError, RuntimeError)):
        fds.load_state_dict(state)
    z, y = torch.randn(6, 2), 8 * torch.rand(6)
    assert torch.equal(fds(z, y), z)
    fds.step()


def test_one_sample_shown_twice_has_no_spread():
    z = torch.randn(41, 2)
    y = torch.cat([torch.full((40,), 0.5), torch.tensor([1.5])])
    twice = torch.cat([z, z[-1:]]), torch.cat([y, y[-1:]])
    layers = [FDS(2, Bins.uniform(0, 3, 1)) for _ in range(2)]
    for layer, (features, labels) in zip(layers, ((z, y), twice), strict=True):
        layer(features, labels)
        layer.step()
    assert_close(*(layer(z, y) for layer in layers))


def test_statistics_that_half_precision_cannot_hold_are_refused():
    fds = FDS(2, Bins.uniform(0, 5, 1)).half()
    fds.observe(300 * torch.randn(50, 2), 5 * torch.rand(50))
    with pytest.raises(FloatingPointError, match="keep this layer in single precision"):
        fds.step()

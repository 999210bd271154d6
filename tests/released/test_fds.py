import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import dirlearn
from dirlearn import Bins
from dirlearn.released import kernel_window


class ReleasedByLoop:
    """The behaviour of paper_vs_code D1, D2, D5 and D5d, written out for whole-number labels."""

    def __init__(self, features, bins, window, momentum, clip):
        self.mean, self.var = np.zeros((bins, features)), np.ones((bins, features))
        self.smooth_mean, self.smooth_var = self.mean.copy(), self.var.copy()
        self.window, self.momentum, self.clip, self.epoch = window, momentum, clip, 0

    def smoothed(self, table):
        half, last = len(self.window) // 2, len(table) - 1

        def reflected(b):
            return table[last - abs(last - abs(b))]  # ... 2 1 | 0 1 2 ... last | last-1 ...

        return np.array(
            [
                sum(w * reflected(b + j - half) for j, w in enumerate(self.window))
                for b in range(len(table))
            ]
        )

    def end_epoch(self, z, labels):
        if self.epoch > 0:  # the first epoch sets no smoothed statistics: the second is an identity
            self.smooth_mean, self.smooth_var = self.smoothed(self.mean), self.smoothed(self.var)
        old = self.momentum if self.epoch > 0 else 0.0
        for b in set(labels):
            rows = z[labels == b]
            var = rows.var(axis=0, ddof=1 if len(rows) > 1 else 0)
            self.mean[b] = (1 - old) * rows.mean(axis=0) + old * self.mean[b]
            self.var[b] = (1 - old) * var + old * self.var[b]
        self.epoch += 1

    def calibrate(self, z, labels):
        if self.epoch < 2:
            return z
        out = z.copy()
        for i, b in enumerate(labels):
            if self.var[b].sum() < 1e-10:
                continue
            for c in range(z.shape[1]):
                if self.var[b, c] > 0:
                    ratio = np.clip(self.smooth_var[b, c] / self.var[b, c], *self.clip)
                    out[i, c] = (z[i, c] - self.mean[b, c]) * ratio**0.5 + self.smooth_mean[b, c]
        return out


@pytest.mark.parametrize(("size", "clip"), [(5, (0.1, 10.0)), (3, (0.5, 2.0)), (1, (0.2, 5.0))])
def test_released_fds_is_the_explicit_loop_over_epochs(size, clip):
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 3, 5, 6, 9], size=120)  # 4, 7 and 8 are empty
    labels[labels == 9] = 3
    labels[0] = 9  # one sample
    labels[1] = 9 if size == 3 else labels[1]
    bins = Bins.uniform(0, 10, 1)
    module = dirlearn.released.FDS(4, bins, size=size, sigma=2.0, clip=clip)
    loop = ReleasedByLoop(4, 10, kernel_window("gaussian", size, 2.0), 0.9, clip)
    y = torch.from_numpy(labels).float()
    for epoch in range(4):
        z = rng.normal(labels[:, None] + epoch, 1 + rng.random((10, 4))[labels])
        z[:, 3] = np.where(labels == 2, 0.0, z[:, 3])  # a feature that is dead in one bin
        calibrated = module(torch.from_numpy(z).float(), y).numpy()
        assert_allclose(calibrated, loop.calibrate(z, labels), rtol=1e-4, atol=1e-4)
        collected = calibrated if epoch % 2 else z  # whatever the caller collects
        module.observe(torch.from_numpy(collected).float(), y)
        module.step()
        loop.end_epoch(collected, labels)


def test_released_fds_moves_features_back_by_the_drift_of_their_mean():
    """D1: drift 5, momentum 0.9; without smoothing, whitening is off by a tenth of it."""
    labels, z = torch.zeros(50), torch.randn(50, 3, dtype=torch.float64)
    module = dirlearn.released.FDS(3, Bins.uniform(0, 4, 1), size=1).double()
    for drift in (0.0, 5.0):
        module.observe(z + drift, labels)
        module.step()
    torch.testing.assert_close(module(z, labels) - z, torch.full_like(z, -0.5))


def test_released_fds_lags_where_the_papers_does_not():
    labels, z = torch.tensor([0.0] * 9 + [1.0] * 9), torch.randn(18, 2)
    released, paper = (
        kind(2, Bins.uniform(0, 4, 1)) for kind in (dirlearn.released.FDS, dirlearn.FDS)
    )
    for module in (released, paper):
        module.observe(z, labels)
        module.step()
    assert torch.equal(released(z, labels), z)
    assert not torch.equal(paper(z, labels), z)


def test_released_fds_lets_empty_bins_leak():
    """D5d: a true mean of 100 beside empty bins becomes less; ours keeps it."""
    labels, z = torch.full((20,), 2.0), torch.linspace(99, 101, 20)[:, None]
    released, paper = (
        kind(1, Bins.uniform(0, 5, 1), kernel="triangular", size=3)
        for kind in (dirlearn.released.FDS, dirlearn.FDS)
    )
    for module in (released, paper):
        for _ in range(3):
            module.observe(z, labels)
            module.step()
    assert released(z, labels).mean() == pytest.approx(50, abs=1)
    assert paper(z, labels).mean() == pytest.approx(100, abs=0.1)


def test_released_fds_refuses_a_window_that_reflection_cannot_fill():
    with pytest.raises(ValueError, match="use a size below 4"):
        dirlearn.released.FDS(1, Bins.uniform(0, 2, 1), size=5)

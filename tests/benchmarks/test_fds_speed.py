"""What FDS costs, against the least that any implementation must do, and in training."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dirlearn import FDS, Bins
from dirlearn.lab.datasets import rotated_digits
from dirlearn.lab.features import second_pass
from dirlearn.lab.models import Regressor, conv_encoder
from dirlearn.lab.training import fit, on_features

C, K, BATCH, N = 2048, 97, 256, 12_208  # features of a ResNet-50, the ages of AgeDB-DIR
AXIS = Bins.uniform(3, 100, 1)


def seconds(function: Callable[[], Any]) -> float:
    """Of the processor, on one thread: what else a machine does takes none of them."""
    start = time.process_time()
    function()
    return time.process_time() - start


def in_turns(rounds: int, *functions: Callable[[], Any], warm: bool = False) -> list[float]:
    """The least time of each, measured in turns, so that a busy machine slows all.

    With ``warm`` each is called right before it is timed, so that it finds the memory that it has
    just given back, and not what another left: fresh pages cost more than short computations.
    """
    times = []
    for _ in range(rounds):
        times.append([])
        for function in functions:
            if warm:
                function()
            times[-1].append(seconds(function))
    return [min(column) for column in zip(*times, strict=True)]


@pytest.fixture
def say(capsys):
    def write(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}\n")

    return write


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features(n: int, c: int = C) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = 3 + 97 * torch.rand(n, generator=generator)
    return torch.randn(n, c, generator=generator) * (1 + y[:, None] / 100) + y[:, None] / 10, y


def label_by_label(fds: FDS) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Calibration as one would write it from the paper's equations."""
    mean, variance = fds.running_mean, fds.running_cov
    smoothed_mean, smoothed_variance = fds.smoothed_mean, fds.smoothed_cov
    low, high = fds.clip

    def calibrate(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        index = AXIS.index(y)
        out = z.clone()
        for b in index.unique():
            rows = index == b
            ratio = (smoothed_variance[b] / variance[b]).clamp(low, high)
            out[rows] = (z[rows] - mean[b]) * ratio.sqrt() + smoothed_mean[b]
        return out

    return calibrate


def test_calibration_of_a_batch(benchmark, say):
    """At most three gather-multiply-adds, and a tenth of the obvious loop over labels."""
    fds = FDS(C, AXIS, track=False)
    fds.observe(*features(20 * K))
    fds.step()
    z, y = features(BATCH)
    index = AXIS.index(y)
    scale, offset = torch.randn(K, C), torch.randn(K, C)
    tracking = FDS(C, AXIS)
    tracking.load_state_dict(fds.state_dict())
    loop = label_by_label(fds)
    torch.testing.assert_close(fds(z, y), loop(z, y), rtol=1e-4, atol=1e-4)

    least, ours, tracked, looped = in_turns(
        40,
        lambda: torch.addcmul(offset[index], scale[index], z),
        lambda: fds(z, y),
        lambda: tracking(z, y),
        lambda: loop(z, y),
        warm=True,
    )
    benchmark.pedantic(fds, args=(z, y), rounds=20)
    benchmark.extra_info["ratio to gather, multiply, add"] = ours / least
    benchmark.extra_info["times faster than a loop over labels"] = looped / ours
    say(
        f"calibration of {BATCH} x {C} in {K} bins: {1e3 * ours:.2f} ms, {ours / least:.2f} times "
        f"gather, multiply, add ({1e3 * least:.2f} ms); a loop over labels takes "
        f"{looped / ours:.1f} times as long; with tracking {tracked / least:.2f} times"
    )
    assert ours <= 3 * least
    assert looped >= 10 * ours


def test_statistics_of_a_training_set(benchmark, say):
    """At most twelve times the sum of the features: two passes, and a step."""
    z, y = features(N)
    fds = FDS(C, AXIS, track=False)

    def statistics() -> None:
        fds.observe(z, y)
        fds.step()

    least, ours = in_turns(9, z.sum, statistics, warm=True)
    benchmark.pedantic(statistics, rounds=3)
    benchmark.extra_info["ratio to a sum"] = ours / least
    say(
        f"statistics of {N:,} x {C} in {K} bins: {ours:.3f} s, {ours / least:.1f} times "
        f"their sum ({least:.4f} s)"
    )
    assert ours <= 12 * least


def epochs(scheme: str, covariance: str, n: int = 1) -> Callable[[], Any]:
    """``n`` epochs of rotated digits, without FDS, with it tracked, or with a pass of its own."""
    data = rotated_digits("agedb")

    def train() -> None:
        torch.manual_seed(0)
        fds, after_epoch = None, None
        if scheme != "none":
            fds = FDS(64, data.bins, covariance=covariance, track=scheme == "tracked")
        model = Regressor(conv_encoder(), 50.0, 25.0, fds)

        def step(_epoch: int) -> None:
            if scheme == "two passes":
                second_pass(model, data.train, "eval", torch.Generator(), batch_size=256)
            fds.step()

        after_epoch = None if fds is None else step
        fit(model, data, seed=0, objective=on_features(), epochs=n, after_epoch=after_epoch)

    return train


def test_an_epoch_of_training(benchmark, say):
    """At most a tenth more than without."""
    plain, tracked, passes, full = in_turns(
        3,
        epochs("none", "diagonal"),
        epochs("tracked", "diagonal"),
        epochs("two passes", "diagonal"),
        epochs("tracked", "full"),
    )
    benchmark.pedantic(epochs("tracked", "diagonal"), rounds=1)
    benchmark.extra_info["tracked, ratio to none"] = tracked / plain
    say(
        f"an epoch of rotated digits: {plain:.2f} s; with FDS {100 * (tracked / plain - 1):+.1f} %;"
        f" with a pass of its own {100 * (passes / plain - 1):+.1f} %; full covariance, tracked, "
        f"{100 * (full / plain - 1):+.1f} %"
    )
    assert tracked <= 1.1 * plain


@pytest.mark.parametrize("c", [64, 256])
def test_full_covariance(c, benchmark, say):
    """Reported, not bounded: it is quadratic in the features, and cubic in a step."""
    z, y = features(N, c)
    rows, labels = z[:BATCH], y[:BATCH]
    layers = [FDS(c, AXIS, covariance=kind, track=False) for kind in ("diagonal", "full")]
    for layer in layers:
        layer.observe(z, y)
        layer.step()

    def stepped(layer: FDS) -> Callable[[], None]:
        def step() -> None:
            layer.observe(rows, labels)
            layer.step()

        return step

    calibrate = in_turns(5, *[lambda layer=layer: layer(rows, labels) for layer in layers])
    observe = in_turns(1, *[lambda layer=layer: layer.observe(z, y) for layer in layers])
    step = in_turns(1, *[stepped(layer) for layer in layers])
    benchmark.pedantic(layers[1], args=(rows, labels), rounds=2)
    say(
        f"full covariance of {c} features: calibration of {BATCH} {1e3 * calibrate[1]:.1f} ms "
        f"(diagonal {1e3 * calibrate[0]:.2f}), statistics of {N:,} {observe[1]:.2f} s "
        f"({observe[0]:.3f}), step with a batch {step[1]:.2f} s ({step[0]:.3f})"
    )

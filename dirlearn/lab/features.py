"""Experiments with methods that act on features, in networks that memorise and that do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn import released
from dirlearn.fds import FDS
from dirlearn.lab.datasets import ANGLES, Counts, Dataset, Split, label_histogram, rotated_digits
from dirlearn.lab.models import Regressor, conv_encoder
from dirlearn.lab.results import known
from dirlearn.lab.study import Run
from dirlearn.lab.training import Fit, fit, on_features, predict, shift
from dirlearn.lds import lds_weights
from dirlearn.moments import Moments
from dirlearn.ranksim import RankSim


class LaggedFDS(FDS):
    """Calibrate with the statistics of one epoch earlier: a single difference, for comparison."""

    def _renew(self, epoch: Moments) -> None:
        self._freeze(self.smoothed_mean, self.smoothed_cov)
        self._update(epoch)


class AliasedFDS(FDS):
    """Whiten with the last epoch's statistics, colour with those of the one before."""

    def _renew(self, epoch: Moments) -> None:
        lagged, first = (self.smoothed_mean, self.smoothed_cov), not self.count.any()
        self._update(epoch)
        if not first:
            self._freeze(*lagged)


class LeakyFDS(FDS):
    """Smooth over empty bins as well, as if they held mean 0 and variance 1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.running_cov.fill_(1.0)

    def _smooth(self, values: Tensor, known: Tensor) -> Tensor:
        return super()._smooth(values, torch.ones_like(known))


class InPlaceFDS(FDS):
    """Track the features as they leave the layer, which is what an in-place calibration does."""

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        self.track = False
        calibrated = super().forward(z, y)
        if self.training and y is not None:
            self.observe(calibrated.detach(), y)
        return calibrated


LAYERS: dict[str, type[FDS]] = {
    "paper": FDS,
    "lag": LaggedFDS,
    "alias": AliasedFDS,
    "leak": LeakyFDS,
    "in place": InPlaceFDS,
    "released": released.FDS,
}


@torch.no_grad()
def second_pass(
    model: Regressor, split: Split, mode: str, generator: torch.Generator, batch_size: int = 64
) -> None:
    """Show the training set, shuffled, to a model's FDS layer once more, after an epoch.

    ``mode`` is ``"eval"``, ``"train"`` (batch statistics in batch normalisation), or ``"released"``
    (the same, and what is collected has been calibrated).
    """
    assert model.fds is not None
    model.train(mode != "eval")
    device = next(model.parameters()).device
    # Sorted by label, as the set is, each batch would be normalised by its own few labels.
    for batch in torch.split(torch.randperm(len(split), generator=generator), batch_size):
        features, labels = model.encoder(split.x[batch].to(device)), split.y[batch].to(device)
        if mode == "released":
            features = model.fds(features, labels)
        model.fds.observe(features, labels)  # type: ignore[operator]  # a method, not a tensor
    model.train()


def scarce_density(scale: float, gaps: Sequence[Sequence[int]] = ()) -> Counts:
    """Training digits per angle: AgeDB-DIR's ages scaled down, none from ``low`` to below ``high``.

    Examples
    --------
    >>> int(scarce_density(0.1).sum()), int(scarce_density(0.1, ((20, 30),))[20:30].sum())
    (1176, 0)
    """
    counts: Counts = np.floor(scale * label_histogram("agedb_dir").counts[: len(ANGLES)])
    for low, high in gaps:
        counts[low:high] = 0
    return counts.astype(np.int64)


def scarce_digits(
    density: float | Sequence[int] | Counts, seed: int, gaps: Sequence[Sequence[int]] = ()
) -> Dataset:
    """Rotated digits at half their resolution, (1, 14, 14): four times as fast to learn.

    ``density`` is the scale of :func:`scarce_density`, or a number of digits for each degree.

    Examples
    --------
    >>> scarce_digits(0.1, seed=0).train.x.shape
    torch.Size([1176, 1, 14, 14])
    """
    counts = scarce_density(density, gaps) if isinstance(density, float) else density
    data = rotated_digits(counts, seed)

    def half(split: Split) -> Split:
        return Split(F.avg_pool2d(split.x, 2), split.y)

    return replace(data, train=half(data.train), val=half(data.val), test=half(data.test))


def last_layer(name: str, num_features: int) -> nn.Module:
    """What makes the features: ``"relu"``, ``"batchnorm"``, ``"layernorm"`` or ``"linear"``."""
    return {
        "relu": nn.ReLU(),
        "batchnorm": nn.BatchNorm1d(num_features),
        "layernorm": nn.LayerNorm(num_features),
        "linear": nn.Identity(),
    }[name]


def train_features(
    method: Mapping[str, Any],
    seed: int,
    *,
    scale: float = 0.1,
    steps: int = 1500,
    augment: bool = False,
    width: int = 64,
    last: str = "relu",
    power: float = 0.0,
    batch_size: int = 64,
    gaps: Sequence[Sequence[int]] = (),
) -> Run:
    """Train on scarce rotated digits with FDS or RankSim on the features; predict the test set.

    ``method`` may hold ``"fds"`` (arguments of :class:`dirlearn.FDS`, besides ``"layer"``, a name
    of :data:`LAYERS`, ``"width"`` of its bins in degrees, and ``"second_pass"``, a mode of
    :func:`second_pass`), ``"ranksim"`` (arguments of :class:`dirlearn.RankSim`), and any keyword of
    this function, which it overrides. The number of ``steps`` is rounded up to whole epochs. No
    epoch is chosen: stopping early would hide what memorising does. The extra figure ``train_mae``
    tells how far the network has memorised its training set.

    Raises
    ------
    ValueError
        If ``method`` has a key that means nothing here.

    Examples
    --------
    >>> run = train_features({"fds": {}}, seed=0, steps=20)
    >>> sorted(run.extra)
    ['best_val_error', 'train_mae', 'val_error']
    """
    defaults: dict[str, Any] = {
        "scale": scale,
        "steps": steps,
        "augment": augment,
        "width": width,
        "last": last,
        "power": power,
        "batch_size": batch_size,
        "gaps": gaps,
    }
    for key in method:
        known(key, ("fds", "ranksim", *defaults), "key of a method")
    chosen = defaults | dict(method)
    data = scarce_digits(chosen["scale"], seed, chosen["gaps"])
    fds, mode = _layer(method.get("fds"), chosen["width"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last_module = last_layer(chosen["last"], chosen["width"])
        encoder = conv_encoder(chosen["width"], last_module)
        model = Regressor(encoder, 50.0, 25.0, fds)
        # A third faster on a CPU.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types lack it

    draws = torch.Generator().manual_seed(seed)

    def after_epoch(_: int) -> None:
        if fds is not None:
            if mode is not None:
                second_pass(model, data.train, mode, draws)
            fds.step()

    regularizer = None
    if "ranksim" in method:
        regularizer = RankSim(**method["ranksim"], generator=draws)
    result = fit(
        model,
        data,
        seed=seed,
        objective=on_features(regularizer=regularizer),
        weights=lds_weights(data.train.y, data.bins, chosen["power"], kernel=None),
        epochs=math.ceil(chosen["steps"] / math.ceil(len(data.train) / chosen["batch_size"])),
        batch_size=chosen["batch_size"],
        augment=shift if chosen["augment"] else None,
        after_epoch=after_epoch,
        keep="last",
    )
    return Run(
        target=np.asarray(data.test.y),
        prediction=np.asarray(predict(result.model, data.test.x)),
        train_counts=data.train_counts,
        extra=_figures(result, data.train),
    )


def _layer(options: Mapping[str, Any] | None, num_features: int) -> tuple[FDS | None, str | None]:
    if options is None:
        return None, None
    layer, bins = LAYERS[options.get("layer", "paper")], ANGLES
    if "width" in options:
        bins = type(ANGLES).uniform(0, 100, options["width"])
    rest = {k: v for k, v in options.items() if k not in ("layer", "width", "second_pass")}
    mode = options.get("second_pass")
    if mode is not None and layer is not released.FDS:
        rest["track"] = False
    return layer(num_features, bins, **rest), mode


def _figures(result: Fit, train: Split) -> dict[str, float]:
    missed = (predict(result.model, train.x) - train.y).abs().mean()
    return {
        "val_error": result.history[-1]["val_error"],
        "best_val_error": result.history[result.best_epoch]["val_error"],
        "train_mae": float(missed),
    }

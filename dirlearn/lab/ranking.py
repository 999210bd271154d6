"""RankSim's weight and interpolation on scarce rotated digits, and what they do to the features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from dirlearn.lab.datasets import Dataset, Split
from dirlearn.lab.features import scarce_digits
from dirlearn.lab.models import Regressor, conv_encoder
from dirlearn.lab.study import Run
from dirlearn.lab.training import fit, on_features, predict
from dirlearn.ranksim import RankSim, ranksim_loss

BATCH = 64  # angles are continuous: a full batch has as many distinct labels


def released(gamma: float, interpolation: float = 2.0) -> dict[str, float]:
    """Arguments of :class:`dirlearn.RankSim` for the gradient of the released code at batch 64.

    Examples
    --------
    >>> released(gamma=100.0)
    {'weight': 6400.0, 'interpolation': 3.125}
    """
    return {"weight": gamma * BATCH, "interpolation": interpolation * gamma / BATCH}


# gamma as the paper counts it: on a sum over rows. The package takes the mean: 64 times as much.
GAMMAS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    **{
        f"gamma {gamma}, lambda {interpolation:g}": {
            "weight": float(gamma * BATCH),
            "interpolation": interpolation,
        }
        for gamma, interpolation in ((1, 2.0), (10, 0.5), (10, 2.0), (10, 8.0), (100, 2.0))
    },
    **{f"gamma {gamma}, as released": released(float(gamma)) for gamma in (1, 10, 100)},
}


def train_ranked(
    method: Mapping[str, Any], seed: int, *, scale: float = 0.1, epochs: int = 80
) -> Run:
    """Train a network that memorises, with RankSim's arguments as ``method``; none is vanilla.

    There is no augmentation, and the last epoch is kept. Extra figures: the error on the training
    set, and :func:`disorder` of the test features.

    Examples
    --------
    >>> run = train_ranked({"weight": 640.0}, seed=0, epochs=1)
    >>> run.prediction.shape, sorted(run.extra)
    ((1500,), ['disorder', 'train_mae', 'val_error'])
    """
    data = scarce_digits(scale, seed)
    model, history = fit_ranked(method, data, seed, epochs)
    return Run(
        target=np.asarray(data.test.y),
        prediction=np.asarray(predict(model, data.test.x)),
        train_counts=data.train_counts,
        extra={
            "train_mae": float((predict(model, data.train.x) - data.train.y).abs().mean()),
            "val_error": history[-1]["val_error"],
            "disorder": disorder(model, data.test),
        },
    )


def fit_ranked(
    method: Mapping[str, Any], data: Dataset, seed: int, epochs: int
) -> tuple[Regressor, list[dict[str, float]]]:
    """Train on any of the book's digits; give the model of the last epoch and the history."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Regressor(conv_encoder(), offset=50.0, scale=25.0)
    draws = torch.Generator().manual_seed(seed)
    regularizer = RankSim(**method, generator=draws) if method else None
    objective = on_features(regularizer=regularizer)
    result = fit(
        model, data, seed=seed, objective=objective, epochs=epochs, batch_size=BATCH, keep="last"
    )
    return model, result.history


@torch.no_grad()
def disorder(model: Regressor, test: Split) -> float:
    """Mean :func:`dirlearn.ranksim_loss` over sets of 100 test digits, one for each degree.

    Examples
    --------
    >>> data = scarce_digits(0.1, seed=0)
    >>> model = Regressor(conv_encoder(), offset=50.0, scale=25.0)
    >>> 0 < disorder(model, data.test) < 1 / 6  # 1 / 6 would be no order at all
    True
    """
    model.eval()
    device = next(model.parameters()).device
    features = model.encoder(test.x.to(device)).cpu()
    repeats = len(test) // 100  # the test set holds as many digits of each degree, in order
    values = [ranksim_loss(features[k::repeats], test.y[k::repeats]) for k in range(repeats)]
    return math.fsum(map(float, values)) / repeats

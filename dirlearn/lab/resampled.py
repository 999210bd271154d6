"""The studies of the chapter *Re-weighting and re-sampling*: each older remedy, taken apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn import released
from dirlearn.arrays import Array
from dirlearn.bins import Bins
from dirlearn.density import dense_weights
from dirlearn.lab.datasets import ANGLES, PRICES, Dataset, Split, diamonds, rotated_digits
from dirlearn.lab.digits import rotate
from dirlearn.lab.features import scarce_density
from dirlearn.lab.models import Regressor, conv_encoder, table_encoder
from dirlearn.lab.results import known
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import Loss, fit, predict, supervised
from dirlearn.lds import effective_density, lds_weights
from dirlearn.losses import focal_r, weighted_l1
from dirlearn.relevance import Relevance
from dirlearn.resampling import smogn, smoter
from dirlearn.retrain import Frozen, reinitialise

BATCH = 64
RESAMPLED = ("under", "copies", "SMOTER", "SMOGN", "over", "turned")


@dataclass(frozen=True)
class Part:
    """A task of the chapter: middle and quarter of its labels' range, and how long to train.

    The number of ``steps`` is the same for a small training set as for a large one.
    """

    bins: Bins
    offset: float
    scale: float
    steps: int

    def data(self, seed: int) -> Dataset:
        """Training set by ``seed``, with inputs as the re-sampling sees them."""
        if self.bins == PRICES:
            return diamonds(seed=seed)
        return rotated_digits(scarce_density(0.1), seed)

    def learned(self, x: Tensor) -> Tensor:
        """Inputs as the network sees them: digits at half their resolution, (1, 14, 14)."""
        return x if self.bins == PRICES else F.avg_pool2d(x, 2)

    def relevance(self, data: Dataset) -> Relevance:
        """Prices by the box plot; angles, whose low tail has no outlier, by scarcity."""
        if self.bins == PRICES:
            return Relevance.from_data(data.train.y)
        density = effective_density(data.train_counts.astype(np.float64))
        return Relevance(data.bins.centers, 1 - density / density.max())

    def model(self) -> Regressor:
        """A network of this task, drawn by torch's global generator."""
        encoder = table_encoder(9) if self.bins == PRICES else conv_encoder()
        model = Regressor(encoder, self.offset, self.scale)
        # A third faster on a CPU.
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch types lack it


TASKS = {
    "diamonds": Part(PRICES, 9500.0, 4750.0, steps=1500),
    "digits": Part(ANGLES, 50.0, 25.0, steps=600),
}


def resampled(data: Dataset, phi: Relevance, kind: str, seed: int) -> Split:
    """Training set of ``data`` after one step more or less of re-sampling, from one draw of SMOTER.

    ``"under"`` keeps what SMOTER keeps of it. ``"copies"`` adds SMOTER's seeds as they are, as
    often as SMOTER takes them. ``"SMOTER"`` and ``"SMOGN"`` are the methods. ``"over"`` adds
    SMOTER's new rows and throws nothing away. ``"turned"``, for digits, gives SMOTER's new labels
    pictures that fit: the seed, turned by the difference.

    Examples
    --------
    >>> data = diamonds(2000, seed=0)
    >>> phi = Relevance.from_data(data.train.y)
    >>> {kind: len(resampled(data, phi, kind, seed=0)) for kind in ("under", "copies", "SMOTER")}
    {'under': 1221, 'copies': 2000, 'SMOTER': 2000}
    """
    x, y = data.train.x, data.train.y
    make = smogn if known(kind, RESAMPLED, "kind of re-sampling") == "SMOGN" else smoter
    x_new, y_new, parents = make(x, y, phi, seed=seed, return_parents=True)
    row, other = parents.T
    made = row != other
    if kind == "under":
        return Split(x[row[~made]], y[row[~made]])
    if kind == "copies":
        return Split(x[row], y[row])
    if kind == "over":
        return Split(torch.cat([x, x_new[made]]), torch.cat([y, y_new[made]]))
    if kind == "turned":
        x_new[made] = rotate(x[row[made]], (y_new - y[row])[made])
    return Split(x_new, y_new)


def train_resampled(method: Mapping[str, Any], seed: int, *, task: str) -> Run:
    """Train a small network on re-weighted or re-sampled data, and predict the test set.

    ``method`` may hold ``"power"`` (of inverse weights, without smoothing), ``"alpha"`` (of
    :func:`dirlearn.dense_weights`), ``"beta"`` (of :func:`dirlearn.focal_r`, over a quarter of the
    range of the labels; with ``"released"``, of the released code's), ``"resample"`` (a kind that
    :func:`resampled` knows) or ``"retrain"`` (power of the weights of a second stage, for a new
    head on the frozen encoder, with ``"rate"`` its learning rate). Every method takes as many
    steps, RRT a third more, and the best epoch on the validation set is kept.

    Raises
    ------
    ValueError
        If the task is unknown, or ``method`` has a key that means nothing here.

    Examples
    --------
    >>> run = train_resampled({"resample": "SMOTER"}, seed=0, task="diamonds")
    >>> sorted(run.extra)
    ['best_epoch', 'train_size', 'val_error']
    """
    for key in method:
        known(
            key,
            ("power", "alpha", "beta", "released", "resample", "retrain", "rate"),
            "key of a method",
        )
    part = TASKS[known(task, TASKS, "task")]
    data = part.data(seed)
    counts, test = data.train_counts, data.test
    train = data.train
    if "resample" in method:
        train = resampled(data, part.relevance(data), method["resample"], seed)
    data = replace(
        data,
        train=Split(part.learned(train.x), train.y),
        val=Split(part.learned(data.val.x), data.val.y),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = part.model()
    loss: Loss = weighted_l1
    if "beta" in method:
        focal = released.focal_r if method.get("released") else focal_r
        loss = partial(focal, beta=method["beta"] / part.scale)
    result = fit(
        model,
        data,
        seed=seed,
        objective=supervised(loss),
        weights=_weights(data, method),
        epochs=_epochs(data, part.steps),
        batch_size=BATCH,
    )
    if "retrain" in method:
        model.encoder = Frozen(model.encoder)
        reinitialise(model.head, seed)
        weights = lds_weights(data.train.y, data.bins, method["retrain"], kernel=None)
        epochs = _epochs(data, part.steps // 3)
        result = fit(
            model,
            data,
            seed=seed,
            weights=weights,
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=method.get("rate", 1e-3),
        )
    return Run(
        target=_rounded(test.y),
        prediction=np.asarray(predict(result.model, part.learned(test.x))),
        train_counts=counts,
        extra={
            "best_epoch": result.best_epoch,
            "train_size": len(data.train),
            "val_error": result.history[result.best_epoch]["val_error"],
        },
    )


def _weights(data: Dataset, method: Mapping[str, Any]) -> Tensor | None:
    if "alpha" in method:
        return dense_weights(data.train.y, method["alpha"])
    if "power" in method:
        return lds_weights(data.train.y, data.bins, method["power"], kernel=None)
    return None


def _epochs(data: Dataset, steps: int) -> int:
    return math.ceil(steps / math.ceil(len(data.train) / BATCH))


def _rounded(labels: Tensor) -> Array:
    return np.asarray(labels).astype(np.float64).round(3)  # float32's noise put aside


WEIGHING: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "SQINV": {"power": 0.5},
    "INV": {"power": 1.0},
    "DenseWeight": {"alpha": 1.0},
    "Focal-R": {"beta": 5.0},  # 0.2 per year, Yang et al.'s beta for ages, times 25 years
    "Focal-R, released": {"beta": 5.0, "released": True},
    "RRT": {"retrain": 0.5},
    "RRT, fast": {"retrain": 0.5, "rate": 1e-2},
}
SAMPLING: dict[str, dict[str, Any]] = {
    "under": {"resample": "under"},
    "copies": {"resample": "copies"},
    "SMOTER": {"resample": "SMOTER"},
    "SMOGN": {"resample": "SMOGN"},
    "over": {"resample": "over"},
}
# The study dir_digits has the other weights on digits; here stand the steps of re-sampling.
TURNING: dict[str, dict[str, Any]] = {
    **{name: WEIGHING[name] for name in ("vanilla", "SQINV")},
    **SAMPLING,
    "turned": {"resample": "turned"},
}


def _study(task: str, plan: Mapping[str, Any], decimals: int) -> Study:
    bins, seeds = TASKS[task].bins, range(110, 120)
    return Study(f"resampling_{task}", train_resampled, plan, seeds, bins, {"task": task}, decimals)


RESAMPLING = (
    _study("diamonds", WEIGHING | SAMPLING, 0),
    _study("digits", TURNING, 2),
)

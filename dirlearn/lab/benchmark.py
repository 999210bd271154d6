"""Every method on every task: the runs and studies of the chapter *Benchmarking DIR*."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dirlearn.arrays import Array
from dirlearn.balanced_mse import BalancedMSE, GAILoss
from dirlearn.bins import Bins
from dirlearn.density import dense_weights, kde_density
from dirlearn.fds import FDS
from dirlearn.lab.datasets import (
    Dataset,
    Split,
)
from dirlearn.lab.models import Regressor
from dirlearn.lab.results import known
from dirlearn.lab.study import Run, Study
from dirlearn.lab.tasks import TASKS, Task, choices, methods
from dirlearn.lab.training import Fit, Loss, fit, on_features, predict
from dirlearn.lds import lds_weights
from dirlearn.losses import focal_r, weighted_l1, weighted_mse
from dirlearn.ranksim import RankSim
from dirlearn.relevance import Relevance
from dirlearn.resampling import smogn, smoter
from dirlearn.retrain import Frozen, reinitialise
from dirlearn.truncated import truncated_mean

KEYS = ("weights", "loss", "resample", "retrain", "fds", "ranksim")


def rarity(y: Array, bins: Bins) -> Relevance:
    """Relevance by scarcity: the share of the labels ``y`` that lie where labels are denser.

    At a threshold of 0.8, the rarest fifth of the training set is rare, wherever it lies. A box
    plot finds no outlier in a tail that ends within its whiskers, nor a rare label in the middle.

    Examples
    --------
    >>> y = np.random.default_rng(0).normal(50, 10, size=1000).clip(0, 100)
    >>> phi = rarity(y, Bins.uniform(0, 100, 1))
    >>> phi(np.array([20.0, 50.0, 80.0])).round(1)
    array([1. , 0.2, 1. ])
    """
    labels = np.asarray(y, dtype=np.float64)
    points = np.asarray(bins.centers, dtype=np.float64)
    density = np.sort(kde_density(labels))
    denser = density.size - np.searchsorted(density, kde_density(labels, at=points), side="right")
    return Relevance(points, denser / density.size)


def train_benchmark(
    method: Mapping[str, Any], seed: int, *, task: str, part: Literal["val", "test"] = "test"
) -> Run:
    """Train a task's network by one method and predict one part of its data.

    ``method`` may hold ``"weights"`` (arguments of :func:`dirlearn.lds_weights`, or ``"dense"``,
    the alpha of :func:`dirlearn.dense_weights`), ``"loss"`` (``"name"`` MSE, focal, BMC or GAI, and
    its arguments), ``"resample"`` (SMOTER or SMOGN, in the space of the inputs), ``"retrain"``
    (weights of a second stage for a new head on the frozen encoder, and its learning ``"rate"``),
    ``"fds"`` and ``"ranksim"``. Data, initialisation and batch order follow from ``seed`` alone.
    ``part`` is ``"val"`` while something is being chosen; each label is then moved to the middle of
    its bin, and its prediction with it, because seeds of the digits have other validation labels,
    as many in each bin. The extra figure ``cpu_seconds`` counts this process only, whatever else
    the machine does.

    Raises
    ------
    ValueError
        If the task is unknown, or ``method`` has a key that means nothing here.

    Examples
    --------
    >>> run = train_benchmark(methods(TASKS["glucose"])["SQINV"], seed=0, task="glucose")
    >>> sorted(run.extra)
    ['best_epoch', 'cpu_seconds', 'val_error']
    """
    for key in method:
        known(key, KEYS, "key of a method")
    chosen = TASKS[known(task, TASKS, "task")]
    data = chosen.data(seed)
    started = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of initialisation, and then of dropout
        model = _network(chosen, method)
        learned = _resampled(data, method["resample"], seed) if "resample" in method else data
        result = _first_stage(model, learned, chosen, method, seed)
        if "retrain" in method:
            result = _second_stage(model, data, chosen, method["retrain"], seed)
    asked = data.val if part == "val" else data.test
    prediction = np.asarray(_in_range(model, predict(model, asked.x), chosen)).astype(np.float64)
    spent = time.process_time() - started
    # In double precision a float32 0.7 would lie below 0.7, in another bin: three digits again.
    target = np.asarray(asked.y).astype(np.float64).round(3)
    if part == "val":
        middle = np.asarray(data.bins.centers)[data.bins.index(target)]
        target, prediction = middle, prediction + (middle - target)
    return Run(
        target=target,
        prediction=prediction,
        train_counts=data.train_counts,
        extra={
            "best_epoch": result.best_epoch,
            "val_error": result.history[result.best_epoch]["val_error"],
            "cpu_seconds": spent,
        },
    )


def _network(task: Task, method: Mapping[str, Any]) -> Regressor:
    encoder = task.encoder()
    fds = FDS(encoder.num_features, task.bins, **method["fds"]) if "fds" in method else None
    middle, quarter = (task.low + task.high) / 2, (task.high - task.low) / 4
    model = Regressor(encoder, offset=middle, scale=quarter, fds=fds)
    # A third faster on a CPU, for the network of convolutions.
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch types lack it


def _resampled(data: Dataset, name: str, seed: int) -> Dataset:
    make = smoter if known(name, ("SMOTER", "SMOGN"), "resampling") == "SMOTER" else smogn
    phi = rarity(np.asarray(data.train.y), data.bins)
    return replace(data, train=Split(*make(data.train.x, data.train.y, phi, seed=seed)))


def _weights(data: Dataset, options: Mapping[str, Any]) -> Tensor:
    if "dense" in options:
        return dense_weights(data.train.y, alpha=options["dense"])
    return lds_weights(data.train.y, data.bins, **options)


def _loss(model: Regressor, data: Dataset, options: Mapping[str, Any]) -> Loss:
    name = known(options["name"], ("MSE", "focal", "BMC", "GAI"), "loss")
    if name == "MSE":
        return weighted_mse
    if name == "focal":
        return partial(_focal, beta=options["beta"])
    sigma, learn = options["sigma"], options.get("learn", False)
    criterion: nn.Module = (
        BalancedMSE(sigma, learn_sigma=learn)
        if name == "BMC"
        else GAILoss.from_counts(data.train_counts, data.bins, sigma, learn_sigma=learn)
    )
    model.criterion = criterion  # so that its sigma is learned, and kept, with the model's weights

    def loss(prediction: Tensor, target: Tensor, _: Tensor) -> Tensor:
        if name == "BMC" and len(target) < 2:  # the last batch of STS-B-DIR, which BMC refuses
            return 0 * prediction.sum()
        value: Tensor = criterion(prediction, target)
        return value

    return loss


def _focal(prediction: Tensor, target: Tensor, weight: Tensor, beta: float) -> Tensor:
    return focal_r(prediction, target, weight, beta=beta)


def _first_stage(
    model: Regressor, data: Dataset, task: Task, method: Mapping[str, Any], seed: int
) -> Fit:
    draws = torch.Generator().manual_seed(seed)
    ranksim = RankSim(method["ranksim"], generator=draws) if "ranksim" in method else None
    loss = _loss(model, data, method["loss"]) if "loss" in method else weighted_l1
    fds = model.fds
    return fit(
        model,
        data,
        seed=seed,
        objective=on_features(loss, ranksim),
        val_error=lambda p, y: nn.functional.l1_loss(_in_range(model, p, task), y),
        weights=_weights(data, method["weights"]) if "weights" in method else None,
        epochs=task.epochs,
        augment=task.augment,
        after_epoch=None if fds is None else lambda _: fds.step(),  # type: ignore[operator]  # a method, not a tensor
    )


def _second_stage(
    model: Regressor, data: Dataset, task: Task, options: Mapping[str, Any], seed: int
) -> Fit:
    """Train a fresh head for a third of the epochs, on features that no longer move."""
    weights = _weights(data, {k: v for k, v in options.items() if k != "rate"})
    model.encoder, model.fds = Frozen(model.encoder), None
    reinitialise(model.head, seed)
    return fit(
        model,
        data,
        seed=seed,
        weights=weights,
        epochs=task.epochs // 3,
        learning_rate=options["rate"],
        augment=task.augment,
    )


def _in_range(model: Regressor, prediction: Tensor, task: Task) -> Tensor:
    """What Balanced MSE calls the location of a density becomes its mean within the range."""
    criterion = getattr(model, "criterion", None)
    if not isinstance(criterion, BalancedMSE | GAILoss):
        return prediction
    return truncated_mean(prediction, criterion.sigma.detach().cpu(), task.low, task.high)


def _study(name: str, plan: Mapping[str, Any], seeds: range, **settings: Any) -> Study:
    task = TASKS[settings["task"]]
    return Study(name, train_benchmark, plan, seeds, task.bins, settings, task.decimals)


BENCHMARK = tuple(
    _study(f"dir_{name}", methods(task), range(10), task=name) for name, task in TASKS.items()
)
DIR_CHOICES = tuple(
    _study(f"dir_{name}_choice", choices(task), range(100, 103), task=name, part="val")
    for name, task in TASKS.items()
)

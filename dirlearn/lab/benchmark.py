"""Every method on every task: the studies of the chapter *Benchmarking DIR*."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dirlearn.arrays import Array
from dirlearn.balanced_mse import BalancedMSE, GAILoss, truncated_mean
from dirlearn.bins import Bins
from dirlearn.density import dense_weights, kde_density
from dirlearn.fds import FDS
from dirlearn.lab.datasets import (
    ANGLES,
    GLUCOSE,
    SCORES,
    Dataset,
    Split,
    glucose,
    rotated_digits,
    sts_b_dir,
)
from dirlearn.lab.models import Encoder, Regressor, conv_encoder, table_encoder
from dirlearn.lab.results import known
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import Augment, Fit, Loss, fit, on_features, predict, shift
from dirlearn.lds import lds_weights
from dirlearn.losses import focal_r, weighted_l1, weighted_mse
from dirlearn.ranksim import RankSim
from dirlearn.relevance import Relevance
from dirlearn.resampling import smogn, smoter
from dirlearn.retrain import Frozen, reinitialise

LDS = {"kernel": "gaussian", "size": 5, "sigma": 2.0}  # the paper's
SQINV, INV = {"power": 0.5, "kernel": None}, {"power": 1.0, "kernel": None}
SQINV_LDS, INV_LDS = {"power": 0.5, **LDS}, {"power": 1.0, **LDS}


@dataclass(frozen=True)
class Task:
    """A data set, the network that learns it, and what was chosen for it on validation data.

    ``clip`` limits FDS's ratio of variances as the released code does for this kind of input.
    ``beta`` of Focal-R, the weight of ``ranksim`` and ``sigma`` of Balanced MSE are the middle of
    what :func:`choices` tries; ``chosen`` names what had the least validation error.
    """

    data: Callable[[int], Dataset]
    encoder: Callable[[], Encoder]
    bins: Bins
    epochs: int
    augment: Augment | None
    decimals: int
    clip: tuple[float, float]
    beta: float
    ranksim: float
    sigma: float
    chosen: tuple[str, str, str, str, str]

    @property
    def low(self) -> float:
        """Low end of the range of the labels."""
        return float(self.bins.edges[0])

    @property
    def high(self) -> float:
        """High end of the range of the labels."""
        return float(self.bins.edges[-1])


TASKS: dict[str, Task] = {
    "digits": Task(
        data=partial(rotated_digits, "agedb"),
        encoder=conv_encoder,
        bins=ANGLES,
        epochs=15,
        augment=shift,
        decimals=2,
        clip=(0.1, 10.0),
        beta=0.2,
        ranksim=64.0,
        sigma=10.0,
        chosen=("Focal-R 0.2", "RankSim 6.4", "BMC 10, learned", "GAI 10, learned", "RRT 0.1"),
    ),
    "sts_b": Task(
        data=lambda _: sts_b_dir(),
        encoder=partial(table_encoder, 768, dropout=0.3),
        bins=SCORES,
        epochs=20,
        augment=None,
        decimals=3,
        clip=(0.5, 2.0),
        beta=4.0,
        ranksim=3.0,
        sigma=0.8,
        chosen=("Focal-R 1", "RankSim 3", "BMC 0.8", "GAI 0.8", "RRT 0.01"),
    ),
    "glucose": Task(
        data=lambda seed: glucose(seed=seed),
        encoder=partial(table_encoder, 26),
        bins=GLUCOSE,
        epochs=20,
        augment=None,
        decimals=1,
        clip=(0.1, 10.0),
        beta=0.05,
        ranksim=64.0,
        sigma=30.0,
        chosen=("Focal-R 0.05", "RankSim 64", "BMC 30, learned", "GAI 30, learned", "RRT 0.1"),
    ),
}

# What one may want: a shot region and a metric.
AIMS = {
    "all labels alike": ("all", "mae"),
    "rare labels": ("few", "mae"),
    "no large errors": ("all", "mse"),
    "common labels": ("many", "mae"),
}
# What asks least of a user first: nothing, or next to it; weights of the samples, and then with a
# window or a density to choose; another loss, and then with a spread to choose; a second stage;
# synthetic samples; layers or terms on the features; combinations.
EFFORT = (
    *("vanilla", "MSE", "SQINV", "INV", "SQINV+LDS", "INV+LDS", "DenseWeight"),
    *("Focal-R", "GAI", "BMC", "RRT", "SMOTER", "SMOGN", "FDS", "RankSim"),
    *("Focal-R+LDS", "RRT+LDS", "SQINV+FDS", "Focal-R+FDS", "SQINV+LDS+FDS", "SQINV+LDS+RankSim"),
    *("Focal-R+LDS+FDS", "RRT+LDS+FDS"),
)

KEYS = ("weights", "loss", "resample", "retrain", "fds", "ranksim")


def methods(task: Task) -> dict[str, dict[str, Any]]:
    """Every method of the benchmark, as :func:`train_benchmark` takes it.

    Re-weighting, then losses, then resampling, then what acts on the features, then combinations of
    the baselines with LDS and FDS as in Yang et al. (2021, section 4.2).

    Examples
    --------
    >>> plan = methods(TASKS["sts_b"])
    >>> len(plan), plan["Focal-R+LDS"]["loss"]
    (23, {'name': 'focal', 'beta': 1.0})
    """
    tried = choices(task)
    focal, ranksim, bmc, gai, rrt = (tried[name] for name in task.chosen)
    rrt_lds = {"retrain": rrt["retrain"] | SQINV_LDS}
    fds = {"fds": {"clip": list(task.clip)}}
    return {
        "vanilla": {},
        "MSE": {"loss": {"name": "MSE"}},  # the base of Balanced MSE; the others' is the MAE
        "SQINV": {"weights": SQINV},
        "INV": {"weights": INV},
        "SQINV+LDS": {"weights": SQINV_LDS},
        "INV+LDS": {"weights": INV_LDS},
        "DenseWeight": {"weights": {"dense": 1.0}},
        "Focal-R": focal,
        "BMC": bmc,
        "GAI": gai,
        "RRT": rrt,
        "SMOTER": {"resample": "SMOTER"},
        "SMOGN": {"resample": "SMOGN"},
        "FDS": fds,
        "RankSim": ranksim,
        "SQINV+FDS": {"weights": SQINV} | fds,
        "SQINV+LDS+FDS": {"weights": SQINV_LDS} | fds,
        "SQINV+LDS+RankSim": {"weights": SQINV_LDS} | ranksim,
        "Focal-R+LDS": focal | {"weights": SQINV_LDS},
        "Focal-R+FDS": focal | fds,
        "Focal-R+LDS+FDS": focal | {"weights": SQINV_LDS} | fds,
        "RRT+LDS": rrt_lds,
        "RRT+LDS+FDS": rrt_lds | fds,
    }


def choices(task: Task) -> dict[str, dict[str, Any]]:
    """Settings tried for a task, judged on its validation set, on seeds that no other study has.

    Examples
    --------
    >>> len(choices(TASKS["digits"]))
    16
    """
    plan: dict[str, dict[str, Any]] = {"vanilla": {}}
    for factor in (0.25, 1.0, 4.0):
        beta = factor * task.beta
        plan[f"Focal-R {beta:g}"] = {"loss": {"name": "focal", "beta": beta}}
    for factor in (0.1, 1.0, 10.0):
        weight = factor * task.ranksim
        plan[f"RankSim {weight:g}"] = {"ranksim": weight}
    for name in ("BMC", "GAI"):
        for factor in (0.5, 1.0):
            sigma = factor * task.sigma
            plan[f"{name} {sigma:g}"] = {"loss": {"name": name, "sigma": sigma}}
        learned = {"name": name, "sigma": task.sigma, "learn": True}
        plan[f"{name} {task.sigma:g}, learned"] = {"loss": learned}
    for rate in (1e-3, 1e-2, 1e-1):
        plan[f"RRT {rate:g}"] = {"retrain": {**SQINV, "rate": rate}}
    return plan


def rarity(y: Array, bins: Bins) -> Relevance:
    """Relevance by scarcity: the share of the labels ``y`` that lie where labels are denser.

    At a threshold of 0.8, the rarest fifth of the training set is rare, wherever it lies. A box
    plot finds no outlier in a tail that ends within its whiskers, nor a rare label in the middle.

    Examples
    --------
    >>> y = np.random.default_rng(0).normal(50, 10, size=1000).clip(0, 100)
    >>> phi = rarity(y, ANGLES)
    >>> phi(np.array([20.0, 50.0, 80.0])).round(1)
    array([1., 0., 1.])
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
    >>> run = train_benchmark({"weights": SQINV}, seed=0, task="glucose")
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

"""Few labels of a skewed continuous target and a pool of inputs: pseudo-labels, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dirlearn.balanced_mse import BalancedMSE
from dirlearn.joint import joint_weights
from dirlearn.lab.datasets import Dataset, Split
from dirlearn.lab.models import Regressor
from dirlearn.lab.results import known
from dirlearn.lab.scarce import POOLS, RHO, TASKS, Pooled, Task
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import fit, predict, supervised
from dirlearn.lds import lds_weights
from dirlearn.losses import weighted_l1
from dirlearn.pseudo import pseudo_target_weights
from dirlearn.truncated import truncated_mean

Answer = Callable[[Tensor], Tensor]  # inputs -> predictions

INV_LDS: dict[str, Any] = {"power": 1.0, "kernel": "gaussian", "size": 5, "sigma": 2.0}
SQINV: dict[str, Any] = {"power": 0.5, "kernel": None}
# What labels the pool: how the teacher is trained on the labelled set.
BASES: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "SQINV": {"weights": SQINV},
    "INV+LDS": {"weights": INV_LDS},
    "Balanced MSE": {"balanced": True},
}


def learn(
    task: Task,
    train: Split,
    seed: int,
    steps: int,
    weights: Tensor | None = None,
    balanced: bool = False,
) -> Answer:
    """Train the task's network from scratch; gives what it answers, within the range of labels.

    Initialisation and batch order follow from ``seed``; ``steps`` are rounded up to whole epochs.
    """
    low, high = (float(end) for end in task.bins.edges[[0, -1]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Regressor(task.encoder(), (low + high) / 2, (high - low) / 4)
        if train.x.dim() == 4:  # a fifth faster on a CPU
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types lack it
    criterion = BalancedMSE(task.sigma) if balanced else None
    if criterion is not None:  # a part of the model, so that its sigma is learned with it
        model.criterion = criterion

    def loss(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if criterion is None:
            return weighted_l1(pred, target, weight)
        value: Tensor = criterion(pred, target)
        return value

    fit(
        model,
        no_validation(task, train),
        seed=seed,
        objective=supervised(loss),
        weights=weights,
        epochs=math.ceil(steps / math.ceil(len(train) / 64)),
        augment=task.augment,
        keep="last",
    )

    def answer(x: Tensor) -> Tensor:
        value = predict(model, x)
        if criterion is not None:
            value = truncated_mean(value, criterion.sigma.detach(), low, high)
        return value.clamp(low, high)

    return answer


def no_validation(task: Task, train: Split) -> Dataset:
    """A training set by itself, for :func:`dirlearn.lab.training.fit`, which then keeps the end."""
    none = Split(train.x[:0], train.y[:0])
    return Dataset("labelled or not", train, none, none, task.bins, "", "")


@lru_cache(maxsize=8)
def _teacher(task: str, base: str, seed: int, steps: int) -> Answer:
    """The base network, which does not depend on the pool: methods of one seed share it."""
    chosen = TASKS[task]
    train, method = chosen.draw(RHO, seed).train, BASES[base]
    weights = None
    if "weights" in method:
        weights = lds_weights(train.y, chosen.bins, **method["weights"])
    return learn(chosen, train, seed, steps, weights, method.get("balanced", False))


def train_pseudo(
    method: Mapping[str, Any], seed: int, *, task: str = "digits", steps: int = 600
) -> Run:
    """Train on scarce labels, or on them and a labelled pool, and predict the balanced test set.

    ``method`` holds ``"base"``, a name of :data:`BASES`, or ``"true labels"``, and for a second
    network ``"pool"``, a name of :data:`dirlearn.lab.scarce.POOLS`, and ``"then"``: ``"plain"``
    (all samples alike), ``"weighted"`` (:func:`dirlearn.pseudo_target_weights`, INV, LDS 5/2) or
    ``"omega 1"`` (labelled set and pool count alike). The base labels the pool; with ``"true
    labels"``, those that nobody has, there is none to train. ``"times"`` multiplies the steps of a
    base.

    Extra figures tell how far the pool's labels are off: their slope on the true ones, and by shot
    region their mean error, the pull towards common labels, and mean absolute error.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> method = {"base": "vanilla", "pool": "alike", "then": "weighted"}
    >>> run = train_pseudo(method, seed=0, task="diamonds", steps=10)
    >>> sorted(run.extra)  # doctest: +NORMALIZE_WHITESPACE
    ['bias_few', 'bias_many', 'bias_medium', 'mae_few', 'mae_many', 'mae_medium', 'slope']
    """
    for key in method:
        known(key, ("base", "pool", "then", "times"), "key of a method")
    chosen = TASKS[known(task, TASKS, "task")]
    base = known(method["base"], (*BASES, "true labels"), "base")
    data = chosen.draw(POOLS[method.get("pool", "alike")], seed)
    extra: dict[str, float] = {}
    if "pool" not in method:
        answer = _teacher(task, base, seed, method.get("times", 1) * steps)
    else:
        given = (
            data.pool.y if base == "true labels" else _teacher(task, base, seed, steps)(data.pool.x)
        )
        extra = _figures(data, given)
        joint = Split(torch.cat([data.train.x, data.pool.x]), torch.cat([data.train.y, given]))
        weights = _weights(chosen, method["then"], data.train.y, given)
        answer = learn(chosen, joint, seed, steps, weights)
    return Run(
        target=np.asarray(data.test.y),
        prediction=np.asarray(answer(data.test.x)),
        train_counts=data.train_counts,
        extra=extra,
    )


def _weights(task: Task, then: str, labels: Tensor, given: Tensor) -> Tensor | None:
    """Weights of the second network's samples, labelled ones first; none where all are alike."""
    if known(then, ("plain", "weighted", "omega 1"), "second training") == "plain":
        return None
    if then == "weighted":
        return torch.cat(pseudo_target_weights(labels, given, task.bins, **INV_LDS))
    sizes = len(labels), len(given)
    return torch.tensor(joint_weights(*sizes, omega=1.0)).repeat_interleave(torch.tensor(sizes))


def _figures(data: Pooled, given: Tensor) -> dict[str, float]:
    true = data.pool.y
    slope = np.polyfit(np.asarray(true, np.float64), np.asarray(given, np.float64), 1)[0]
    shot = data.bins.shots(data.train_counts)[np.asarray(data.bins.index(true))]
    off = np.asarray(given - true)
    figures = {"slope": float(slope)}
    for region in ("many", "medium", "few"):
        figures[f"bias_{region}"] = float(off[shot == region].mean())
        figures[f"mae_{region}"] = float(np.abs(off[shot == region]).mean())
    return figures


def cell_name(base: str, pool: str | None = None, then: str = "plain") -> str:
    """Name a cell of the study.

    Examples
    --------
    >>> cell_name("SQINV"), cell_name("SQINV", "even"), cell_name("SQINV", "even", "weighted")
    ('SQINV', 'SQINV, even pool', 'SQINV, even pool, weighted')
    """
    if pool is None:
        return base
    return f"{base}, {pool} pool" + ("" if then == "plain" else f", {then}")


def _cells() -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {base: {"base": base} for base in BASES}
    for base in ("vanilla", "INV+LDS"):
        cells[f"{base}, twice as long"] = {"base": base, "times": 2}
    plan = [
        ("true labels", "even", "plain"),
        ("true labels", "steeper", "plain"),
        *(
            (base, "alike", then)
            for base in ("true labels", *BASES)
            for then in ("plain", "weighted")
        ),
        ("vanilla", "even", "plain"),
        ("vanilla", "steeper", "plain"),
        ("INV+LDS", "even", "weighted"),
        ("vanilla", "alike", "omega 1"),
    ]
    keys = ("base", "pool", "then")
    return cells | {cell_name(*cell): dict(zip(keys, cell, strict=True)) for cell in plan}


PSEUDO = tuple(
    Study(name, train_pseudo, _cells(), seeds, TASKS[task].regions, {"task": task}, decimals)
    for name, task, seeds, decimals in (
        ("bridge_pseudo", "digits", range(5), 2),
        ("bridge_pseudo_diamonds", "diamonds", range(8), 0),
    )
)

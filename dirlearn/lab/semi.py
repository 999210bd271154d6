"""The studies of the chapter *Unlabelled data*: pseudo-labels on long-tailed classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn import released
from dirlearn.arrays import Array
from dirlearn.bins import Bins
from dirlearn.joint import joint_weights
from dirlearn.lab.classes import error_rate, fit_classes, predicted_classes
from dirlearn.lab.images import CLASSES, LongTailed
from dirlearn.lab.models import Classifier, conv_encoder
from dirlearn.lab.results import known
from dirlearn.lab.semi_data import SEVEN, task_data
from dirlearn.lab.splits import Split
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import fit, predict, shift, supervised
from dirlearn.ldam import CosineLinear
from dirlearn.pools import IRRELEVANT, draw_pool, pool_counts
from dirlearn.pseudo import PseudoLabels, pseudo_label, relabel_epochs

SIZE = 5  # unlabelled samples to a labelled one (released code: unlabel_size_factor)
BATCH = 64
FEW = 20  # classes with fewer labels are few-shot
LOSSES: dict[str, dict[str, Any]] = {
    "CE": {},
    "LDAM-DRW": {"loss": "LDAM", "weighting": "deferred"},
}
KEYS = {
    "loss",
    "times",
    "rho",
    "labels",
    "relevance",
    "omega",
    "threshold",
    "rounds",
    "counts",
    "watched",
}


def network(loss: str, classes: int, seed: int) -> Classifier:
    """A small network with a linear head, or, for LDAM, with one of cosines.

    Examples
    --------
    >>> network("LDAM-DRW", 10, seed=0).head
    CosineLinear(in_features=64, out_features=10)
    """
    head = CosineLinear if LOSSES[known(loss, LOSSES, "loss")] else nn.Linear
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(conv_encoder(), classes, head)


def train(
    data: LongTailed,
    extra: Split | None = None,
    *,
    seed: int,
    loss: str = "CE",
    steps: int = 600,
    omega: float | None = None,
    counts: Array | None = None,
) -> Classifier:
    """Train a network on the labelled data, and on ``extra`` ones with pseudo-labels, if any.

    ``omega`` is that of :class:`dirlearn.SemiSupervisedLoss`; None puts both into one data set as
    the released code does. ``counts`` are for LDAM and its weights, by default those of all labels
    and pseudo-labels, as released.

    Examples
    --------
    >>> model = train(task_data("digits", 0), seed=0, steps=3)
    >>> model(torch.zeros(4, 1, 14, 14)).shape
    torch.Size([4, 10])
    """
    model = network(loss, len(data.bins), seed)
    joint, weights = data.train, None
    if extra is not None:
        joint = Split(torch.cat([joint.x, extra.x]), torch.cat([joint.y, extra.y]))
        if omega is not None:
            sizes = len(data.train), len(extra)
            w, w_extra = joint_weights(*sizes, omega)
            weights = torch.tensor([w, w_extra]).repeat_interleave(torch.tensor(sizes))
    fit_classes(
        model,
        replace(data, train=joint),
        seed=seed,
        steps=steps,
        weights=weights,
        counts=counts,
        augment=partial(shift, pixels=1),
        **LOSSES[loss],
    )
    return model


def train_by_epochs(
    data: LongTailed,
    extra: Split,
    *,
    seed: int,
    rounds: int = 1,
    watched: Split | None = None,
    steps: int = 600,
) -> Classifier:
    """As :func:`train` with cross-entropy, and look up from the training between epochs.

    The network renews the labels of ``extra`` at the epochs of :func:`dirlearn.relabel_epochs`.
    Kept is the last epoch, or, as in the released code, the one that is best on ``watched``.

    Examples
    --------
    >>> data = task_data("digits", 0)
    >>> extra = Split(data.pool.x[:60], torch.zeros(60, dtype=torch.int64))
    >>> model = train_by_epochs(data, extra, seed=0, rounds=2, steps=8)
    >>> bool(extra.y.any())  # the labels given are not written to
    False
    """
    model = network("CE", len(data.bins), seed)
    n = len(data.train)
    joint = Split(torch.cat([data.train.x, extra.x]), torch.cat([data.train.y, extra.y]))
    epochs = max(1, round(steps / -(-len(joint) // BATCH)))
    renewed = set(relabel_epochs(epochs, rounds)) - {0}

    def after_epoch(epoch: int) -> None:
        if epoch + 1 in renewed:
            joint.y[n:] = pseudo_label(model, extra.x).labels  # batches are drawn from this tensor

    fit(
        model,
        replace(data, train=joint, val=watched or Split(data.val.x[:0], data.val.y[:0])),
        seed=seed,
        objective=supervised(_cross_entropy),
        val_error=error_rate,
        epochs=epochs,
        batch_size=BATCH,
        augment=partial(shift, pixels=1),
        after_epoch=after_epoch,
        keep="best" if watched else "last",
    )
    return model


@lru_cache(maxsize=6)
def teacher(task: str, loss: str, seed: int, steps: int) -> tuple[Array, Tensor]:
    """Test predictions and the pool's logits of a network that has only seen labelled data."""
    data = task_data(task, seed)
    model = train(data, seed=seed, loss=loss, steps=steps)
    return predicted_classes(model, data.test.x), predict(model, data.pool.x)


def train_semi(method: Mapping[str, Any], seed: int, *, task: str, steps: int = 600) -> Run:
    """Train with pseudo-labels on a pool of five times the labelled data; predict the test set.

    ``method`` may hold ``"loss"`` ("CE" or "LDAM-DRW"), ``"times"`` (a factor on the steps),
    ``"rho"`` (imbalance of the pool; without it there is none), ``"relevance"``, ``"labels"``
    ("true": the pool's true labels in place of pseudo-labels), ``"omega"`` (None: one data set),
    ``"threshold"``, ``"rounds"`` (of labelling, as the network trains), ``"watched"`` ("test":
    keep the epoch that is best on the test set, as released) and ``"counts"`` ("joint", or
    "labelled": of labelled data alone). The network that labels is trained with the same loss,
    for as many steps, from the same initialisation.

    Raises
    ------
    ValueError
        If the task is unknown, or ``method`` has a key that means nothing here.

    Examples
    --------
    >>> run = train_semi({"rho": 10}, seed=0, task="digits", steps=3)
    >>> sorted(run.extra)
    ['few_precision', 'few_recall', 'kept', 'pool', 'recall']
    """
    for key in method:
        known(key, KEYS, "key of a method")
    data = task_data(task, seed)
    loss, steps = method.get("loss", "CE"), steps * method.get("times", 1)
    target, labelled = np.asarray(data.test.y), data.train_counts
    prediction, logits = teacher(task, loss, seed, steps)
    if "rho" not in method:
        return Run(target, prediction, labelled)
    wanted = pool_counts(SIZE * len(data.train), len(data.bins), method["rho"])
    rows = draw_pool(data.pool.y, wanted, method.get("relevance", 1.0), seed)
    found = PseudoLabels.from_logits(logits[rows], method.get("threshold"))
    truth = data.pool.y[rows]
    labels = truth if method.get("labels") == "true" else found.labels
    pool = Split(data.pool.x[rows][found.kept], labels[found.kept])
    if "rounds" in method or "watched" in method:
        rounds, watched = method.get("rounds", 1), data.test if "watched" in method else None
        model = train_by_epochs(data, pool, seed=seed, rounds=rounds, watched=watched, steps=steps)
    else:
        joint = released.class_counts(data.train.y, pool.y, len(data.bins))
        model = train(
            data,
            pool,
            seed=seed,
            loss=loss,
            steps=steps,
            omega=method.get("omega"),
            counts=labelled if method.get("counts") == "labelled" else np.asarray(joint),
        )
    return Run(
        target, predicted_classes(model, data.test.x), labelled, quality(found, truth, labelled)
    )


def quality(found: PseudoLabels, truth: Tensor, counts: Array) -> dict[str, float]:
    """How right pseudo-labels are: size of the pool, share kept, and shares of correct labels.

    ``recall`` is the share of the relevant samples that are labelled correctly, ``few_recall`` that
    of the samples of few-shot classes, ``few_precision`` the share of those labelled as few-shot
    whose label is correct: theorem 1's p and q are precisions. NaN, where there is none, is 0.

    Examples
    --------
    >>> found = PseudoLabels(torch.tensor([0, 0, 1]), torch.ones(3), torch.tensor([True] * 3))
    >>> quality(found, torch.tensor([0, 1, 1]), np.array([50, 5]))
    {'pool': 3.0, 'kept': 1.0, 'recall': 0.6666..., 'few_recall': 0.5, 'few_precision': 1.0}
    """
    few = torch.as_tensor(counts < FEW)
    relevant, right = truth != IRRELEVANT, found.labels == truth
    of_few = few[truth.clamp(min=0)] & relevant

    def share(value: Tensor, among: Tensor) -> float:
        return float(value[among].float().mean()) if among.any() else 0.0

    return {
        "pool": float(len(truth)),
        "kept": float(found.kept.float().mean()),
        "recall": share(right, relevant),
        "few_recall": share(right, of_few),
        "few_precision": share(right, few[found.labels]),
    }


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return (weight * F.cross_entropy(logits, target, reduction="none")).mean()


def rho_methods(rhos: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """Each loss alone, longer, with pseudo-labels, and with the true labels of the pool.

    Examples
    --------
    >>> [name for name in rho_methods((1, 40)) if name.startswith("CE")]
    ['CE', 'CE, twice the steps', 'CE + pool, rho 1', 'CE + pool, rho 40', 'CE + pool, true labels']
    """
    methods: dict[str, dict[str, Any]] = {}
    for loss in LOSSES:
        methods[loss] = {"loss": loss}
        methods[f"{loss}, twice the steps"] = {"loss": loss, "times": 2}
        for rho in rhos:
            methods[f"{loss} + pool, rho {rho}"] = {"loss": loss, "rho": rho}
        true = {"loss": loss, "rho": rhos[0], "labels": "true"}
        methods[f"{loss} + pool, true labels"] = true
    return methods


RELEVANCE: dict[str, dict[str, Any]] = {
    "CE": {},
    "CE, twice the steps": {"times": 2},
    **{f"{s} % relevant": {"rho": 1, "relevance": s / 100} for s in (20, 40, 60, 80, 100)},
    "CE + pool, true labels": {"rho": 1, "labels": "true"},
}

PARTS: dict[str, dict[str, Any]] = {
    "CE": {},
    "CE + pool": {"rho": 1},
    "omega 1": {"rho": 1, "omega": 1.0},
    "threshold 0.7": {"rho": 1, "threshold": 0.7},
    "threshold 0.95": {"rho": 1, "threshold": 0.95},
    "labelled 10 times": {"rho": 1, "rounds": 10},
    "epoch by test": {"rho": 1, "watched": "test"},
    "LDAM-DRW": {"loss": "LDAM-DRW"},
    "LDAM-DRW + pool": {"loss": "LDAM-DRW", "rho": 1},
    "LDAM-DRW + pool, counts of labels": {"loss": "LDAM-DRW", "rho": 1, "counts": "labelled"},
    "CE + pool, true labels": {"rho": 1, "labels": "true"},
}

# The question on more labels is harm; the ceiling and a middle ratio with LDAM-DRW are left out.
MORE = {
    name: method
    for name, method in rho_methods((1, 10, 50)).items()
    if "labels" not in method and name != "LDAM-DRW + pool, rho 10"
}


def _study(
    name: str, methods: Mapping[str, Mapping[str, Any]], seeds: range, bins: Bins, task: str
) -> Study:
    metrics = ("error",)
    return Study(name, train_semi, methods, seeds, bins, {"task": task}, 0, metrics)


SEMI = (
    _study("pseudo_rho", rho_methods((1, 10, 20, 40)), range(8), CLASSES, "digits"),
    _study("pseudo_fashion", rho_methods((1, 10, 50)), range(10, 15), CLASSES, "fashion"),
    _study("pseudo_relevance", RELEVANCE, range(20, 28), SEVEN, "seven"),
    _study("pseudo_parts", PARTS, range(30, 38), CLASSES, "digits"),
    _study("pseudo_fashion_full", MORE, range(40, 45), CLASSES, "more fashion"),
)

"""CIFAR-10-LT: a study small enough for a processor, and the paper's own setting, for a GPU.

Both need the original files (:func:`dirlearn.lab.image_files.cifar10_lt`); their test set is the
original's, balanced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dirlearn.lab.classes import fit_classes, predicted_classes
from dirlearn.lab.image_files import cifar10_lt
from dirlearn.lab.images import CLASSES, LongTailed
from dirlearn.lab.models import Classifier, conv_encoder
from dirlearn.lab.pretraining import pretrain
from dirlearn.lab.recipe import (
    CIFAR_MEAN,
    CIFAR_STD,
    Standardised,
    crop_and_flip,
    sgd,
    staircase,
)
from dirlearn.lab.resnet import cifar_resnet
from dirlearn.lab.splits import Split
from dirlearn.lab.study import Run, Study
from dirlearn.ldam import CosineLinear

# Share of the training that comes before it, by rotation, and length of the training itself; the
# third is as long as both.
PLANS: dict[str, dict[str, Any]] = {
    "": {"before": 0.0, "length": 1.0},
    "+SSP": {"before": 1.0, "length": 1.0},
    ", longer": {"before": 0.0, "length": 2.0},
}


def plans(*rhos: int) -> dict[str, dict[str, Any]]:
    """Both losses under each plan, at each imbalance.

    Examples
    --------
    >>> list(plans(50))[:3]
    ['CE, rho 50', 'CE+SSP, rho 50', 'CE, longer, rho 50']
    """
    return {
        f"{loss}{plan}, rho {rho}": {"loss": loss, "rho": rho, **settings}
        for rho in rhos
        for loss in ("CE", "LDAM-DRW")
        for plan, settings in PLANS.items()
    }


def train_cifar(
    method: Mapping[str, Any], seed: int, *, n_max: int = 1000, steps: int = 600
) -> Run:
    """Train the small network of the book on a fifth of CIFAR-10-LT and predict the test set.

    ``method["before"]`` times ``steps`` batches of rotation prediction on the same labelled images,
    then ``method["length"]`` times ``steps`` with their labels: Adam, batches of 64. ``seed`` draws
    the images, too.
    """
    data = _thinned(method["rho"], seed, n_max)
    x = data.train.x
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(conv_encoder(channels=3), len(data.bins), head=_head(method["loss"]))
    if method["before"]:
        epochs = max(1, round(method["before"] * steps / (len(x) // 64)))
        pretrain("rotation", model.encoder, x, seed=seed, epochs=epochs, views=crop_and_flip)
    fit_classes(
        model,
        data,
        seed=seed,
        **_loss(method["loss"]),
        steps=round(method["length"] * steps),
        augment=crop_and_flip,
    )
    return _run(model, data)


def train_resnet32(
    method: Mapping[str, Any],
    seed: int,
    *,
    n_max: int = 5000,
    epochs: int = 200,
    batch_size: int = 128,
    checkpoints: str = "_build/checkpoints",
) -> Run:
    """Train ResNet-32 on CIFAR-10-LT as Yang & Xu (2020) did, and predict the test set.

    SGD over 200 epochs with a rate that falls in steps (:func:`dirlearn.lab.recipe.staircase`),
    batches of 128, crops and flips; re-weighting deferred to epoch 160; rotation prediction for as
    many epochs on the same images. The last epoch is kept, where the released code reports the best
    on the test set. Images are drawn once, by their seed 0; ``seed`` draws all else.

    An interrupted training goes on from the state after its last epoch, in ``checkpoints``, when
    the same call is made again; when it has ended, the files are removed. On one GPU a training is
    a matter of minutes, on a processor of days.
    """
    data = _thinned(method["rho"], 0, n_max)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Standardised(cifar_resnet(32), CIFAR_MEAN, CIFAR_STD)
        model = Classifier(encoder, len(data.bins), head=_head(method["loss"]))
        if isinstance(model.head, nn.Linear):
            nn.init.kaiming_normal_(model.head.weight)  # as released
    stem = f"resnet32-{method['loss']}-{method['before']}-{method['length']}-{method['rho']}-{seed}"
    saved = {part: Path(checkpoints) / f"{stem}-{part}.pt" for part in ("before", "labels")}
    recipe: dict[str, Any] = {"batch_size": batch_size, "optimizer": sgd, "schedule": staircase}
    if method["before"]:
        pretrain(
            "rotation",
            encoder,
            data.train.x,
            seed=seed,
            epochs=round(method["before"] * epochs),
            views=crop_and_flip,
            checkpoint=saved["before"],
            progress=True,
            **recipe,
        )
    fit_classes(
        model,
        data,
        seed=seed,
        **_loss(method["loss"]),
        steps=round(method["length"] * epochs) * -(-len(data.train) // batch_size),
        augment=crop_and_flip,
        checkpoint=saved["labels"],
        progress=True,
        **recipe,
    )
    run = _run(model, data)
    for path in saved.values():
        path.unlink(missing_ok=True)
    return run


def _head(loss: str) -> type[nn.Linear | CosineLinear]:
    return CosineLinear if loss == "LDAM-DRW" else nn.Linear


def _loss(name: str) -> dict[str, Any]:
    """What :func:`dirlearn.lab.classes.fit_classes` calls it."""
    return {"loss": "LDAM", "weighting": "deferred"} if name == "LDAM-DRW" else {"loss": name}


@lru_cache(maxsize=1)
def _thinned(rho: float, seed: int, n_max: int) -> LongTailed:
    """Without the images that were not labelled: half a gigabyte that nothing here asks for."""
    data = cifar10_lt(rho, seed=seed, n_max=n_max)
    return replace(data, pool=Split(data.pool.x[:0].clone(), data.pool.y[:0].clone()))


def _run(model: nn.Module, data: LongTailed) -> Run:
    return Run(
        target=np.asarray(data.test.y),
        prediction=predicted_classes(model, data.test.x),
        train_counts=data.train_counts,
    )


CIFAR10_LT = Study(
    "cifar10_lt", train_cifar, plans(10, 50, 100), range(5), CLASSES, decimals=0, metrics=("error",)
)
# No GPU was at hand to record it.
CIFAR10_LT_RESNET32 = Study(
    "cifar10_lt_resnet32",
    train_resnet32,
    plans(10, 50, 100),
    range(5),
    CLASSES,
    decimals=0,
    metrics=("error",),
)

"""Studies of the chapter *Self-supervised pre-training*: long-tailed classes after a pretext task.

All of it at half the images' resolution, (1, 14, 14), which learns four times as fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dirlearn.lab.classes import fit_classes, predicted_classes
from dirlearn.lab.datasets import (
    CLASSES,
    LongTailed,
    Split,
    long_tailed_digits,
    long_tailed_fashion,
)
from dirlearn.lab.models import Classifier, Encoder, conv_encoder
from dirlearn.lab.neighbours import foreign_neighbours
from dirlearn.lab.pretraining import linear_probe, pretrain
from dirlearn.lab.results import CLASS_METRICS, known
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import predict, shift
from dirlearn.ldam import CosineLinear

DATA = {"digits": long_tailed_digits, "fashion": long_tailed_fashion}
WIDTH = 256
TAIL = [7, 8, 9]
# Chosen by the probe on validation sets, on seeds 100 and 101, which no study has.
TASKS: dict[str, dict[str, Any]] = {
    "rotation": {"views": shift},
    "SimCLR": {"temperature": 0.2},
    "MoCo": {"momentum": 0.99},
}
LDAM_DRW = {"loss": "LDAM", "weighting": "deferred"}


def small_images(name: str, n_max: int, rho: float, seed: int) -> LongTailed:
    """Long-tailed ``"digits"`` or ``"fashion"`` at half their resolution.

    Examples
    --------
    >>> small_images("digits", 250, 50, seed=0).train.x.shape
    torch.Size([694, 1, 14, 14])
    """
    data = DATA[known(name, DATA, "data set")](n_max, rho, seed=seed)

    def half(split: Split) -> Split:
        return Split(F.avg_pool2d(split.x, 2), split.y)

    return replace(
        data,
        train=half(data.train),
        val=half(data.val),
        test=half(data.test),
        pool=half(data.pool),
    )


def new_encoder(seed: int) -> Encoder:
    """Draw the encoder of these studies, by ``seed`` alone.

    Examples
    --------
    >>> new_encoder(0)(torch.zeros(2, 1, 14, 14)).shape
    torch.Size([2, 256])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = conv_encoder(WIDTH)
    # A third faster on a CPU.
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch types lack it


def train_probe(
    method: Mapping[str, Any],
    seed: int,
    *,
    data: str = "digits",
    n_max: int = 250,
    rho: float = 50,
    steps: int = 400,
) -> Run:
    """Classify test images by a class-balanced linear head on features that have seen no label.

    ``method`` may hold ``"pretrain"``, a name of :data:`TASKS`, with ``"on": "pool"`` for the
    images without labels besides the labelled ones; or ``"features"``: ``"pixels"``, or
    ``"supervised"`` for an encoder trained with the labels, by cross-entropy, for as many steps.
    Without either the encoder is as it was drawn.

    Raises
    ------
    ValueError
        If ``method`` has a key that means nothing here.

    Examples
    --------
    >>> train_probe({"features": "pixels"}, seed=0).prediction.shape
    (1500,)
    """
    for key in method:
        known(key, ("pretrain", "on", "features"), "key of a method")
    images = small_images(data, n_max, rho, seed)
    x, new = images.train.x, images.test.x
    if method.get("features") != "pixels":
        encoder = pretrained_encoder(method, images, seed, steps)
        if method.get("features") == "supervised":
            fit_classes(_classifier(encoder, "CE", seed), images, seed=seed, steps=steps)
        x, new = predict(encoder, x), predict(encoder, new)
    found = linear_probe(x, images.train.y, new)
    return _run(images, found, {"foreign": _foreign(new, images)})


def train_pretrained(
    method: Mapping[str, Any],
    seed: int,
    *,
    data: str = "digits",
    n_max: int = 250,
    rho: float = 50,
    steps: int = 400,
) -> Run:
    """Train a classifier on long-tailed images, its encoder pre-trained or as it was drawn.

    ``method`` may hold ``"pretrain"`` and ``"on"`` as in :func:`train_probe`, ``"loss"`` and
    ``"weighting"`` of :func:`dirlearn.lab.classes.fit_classes`, ``"times"`` to train for that many
    times ``steps``, and ``"rho"``, which overrides. Pre-training takes ``steps`` as well. No epoch
    is chosen. The extra figure ``foreign`` is :func:`dirlearn.lab.neighbours.foreign_neighbours` of
    the three rarest classes, their mean, on the test set.

    Raises
    ------
    ValueError
        If ``method`` has a key that means nothing here.

    Examples
    --------
    >>> run = train_pretrained({"pretrain": "rotation"}, seed=0, steps=20)
    >>> sorted(run.extra)
    ['foreign', 'train_error']
    """
    for key in method:
        known(key, ("pretrain", "on", "loss", "weighting", "times", "rho"), "key of a method")
    images = small_images(data, n_max, method.get("rho", rho), seed)
    encoder = pretrained_encoder(method, images, seed, steps)
    loss = method.get("loss", "CE")
    model = _classifier(encoder, loss, seed)
    fit_classes(
        model,
        images,
        seed=seed,
        loss=loss,
        weighting=method.get("weighting", "none"),
        steps=steps * method.get("times", 1),
    )
    missed = predicted_classes(model, images.train.x) != images.train.y.numpy()
    figures = {
        "foreign": _foreign(predict(model.encoder, images.test.x), images),
        "train_error": 100 * float(missed.mean()),
    }
    return _run(images, predicted_classes(model, images.test.x), figures)


def pretrained_encoder(
    method: Mapping[str, Any], images: LongTailed, seed: int, steps: int
) -> Encoder:
    """Draw an encoder, and pre-train it if ``method`` says so, for about as many ``steps``.

    The last few are kept, for methods of one seed share them.

    Examples
    --------
    >>> digits = small_images("digits", 70, 10, seed=0)
    >>> untrained = pretrained_encoder({}, digits, seed=0, steps=10)
    >>> trained = pretrained_encoder({"pretrain": "SimCLR"}, digits, seed=0, steps=10)
    >>> torch.equal(untrained[0].weight, trained[0].weight)
    False
    """
    encoder = new_encoder(seed)
    if "pretrain" in method:
        seen = images.train.x
        if method.get("on") == "pool":
            seen = torch.cat([seen, images.pool.x])
        encoder.load_state_dict(_pretrained(method["pretrain"], _Images(seen), seed, steps))
    return encoder


class _Images:
    """Images that a cache can tell apart, by their size and sum."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.identity = tuple(x.shape), float(x.double().sum())

    def __hash__(self) -> int:
        return hash(self.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Images) and self.identity == other.identity


@lru_cache(maxsize=6)
def _pretrained(kind: str, images: _Images, seed: int, steps: int) -> dict[str, Tensor]:
    encoder, x = new_encoder(seed), images.x
    epochs = max(1, round(steps / (len(x) // 64)))
    pretrain(kind, encoder, x, seed=seed, epochs=epochs, **TASKS[known(kind, TASKS, "task")])
    return encoder.state_dict()


def _classifier(encoder: Encoder, loss: str, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Classifier(
            encoder, len(CLASSES), CosineLinear if loss == "LDAM" else torch.nn.Linear
        )


def _foreign(features: Tensor, images: LongTailed) -> float:
    return float(foreign_neighbours(features.flatten(1), images.test.y, TAIL).mean())


def _run(images: LongTailed, prediction: Any, extra: Mapping[str, float]) -> Run:
    return Run(np.asarray(images.test.y), prediction, images.train_counts, extra)


PROBED: dict[str, dict[str, Any]] = {
    "raw pixels": {"features": "pixels"},
    "untrained": {},
    "rotation": {"pretrain": "rotation"},
    "SimCLR": {"pretrain": "SimCLR"},
    "MoCo": {"pretrain": "MoCo"},
    "SimCLR, pool": {"pretrain": "SimCLR", "on": "pool"},
    "supervised": {"features": "supervised"},
}

TUNED: dict[str, dict[str, Any]] = {
    "CE": {},
    "CE, 3 x as long": {"times": 3},
    "rotation, CE": {"pretrain": "rotation"},
    "SimCLR, CE": {"pretrain": "SimCLR"},
    "MoCo, CE": {"pretrain": "MoCo"},
    "SimCLR on the pool, CE": {"pretrain": "SimCLR", "on": "pool"},
    "LDAM-DRW": LDAM_DRW,
    "LDAM-DRW, 3 x as long": LDAM_DRW | {"times": 3},
    "rotation, LDAM-DRW": LDAM_DRW | {"pretrain": "rotation"},
    "SimCLR, LDAM-DRW": LDAM_DRW | {"pretrain": "SimCLR"},
    "MoCo, LDAM-DRW": LDAM_DRW | {"pretrain": "MoCo"},
}

# Whether pre-training gains more where classes are less balanced; a rho of 50 is among the others.
RHOS: dict[str, dict[str, Any]] = {
    f"{name}, rho {rho}": {**TUNED[name], "rho": rho}
    for rho in (10, 100)
    for name in ("CE", "CE, 3 x as long", "SimCLR, CE")
}

PRETRAINED = tuple(
    Study(name, run, methods, range(seeds), CLASSES, {"data": data}, 0, CLASS_METRICS)
    for name, run, methods, data, seeds in (
        ("ssp_probe_digits", train_probe, PROBED, "digits", 5),
        ("ssp_probe_fashion", train_probe, PROBED, "fashion", 5),
        ("ssp_digits", train_pretrained, TUNED, "digits", 5),
        ("ssp_fashion", train_pretrained, TUNED, "fashion", 5),
        ("ssp_rho", train_pretrained, RHOS, "digits", 5),
    )
)

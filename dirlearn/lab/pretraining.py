"""Pre-train an encoder on images without labels, and measure what its features are worth."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.optim.swa_utils import update_bn
from torch.utils.data import RandomSampler

from dirlearn.arrays import Array, ArrayT
from dirlearn.bins import Bins
from dirlearn.lab.augment import GREY
from dirlearn.lab.results import known
from dirlearn.lab.splits import Dataset, Split
from dirlearn.lab.training import Augment, Fit, MakeOptimizer, MakeSchedule, fit
from dirlearn.moco import MoCo
from dirlearn.ssp import RotationPrediction, SimCLR, rotate_batch

TASKS: dict[str, type[nn.Module]] = {"rotation": RotationPrediction, "SimCLR": SimCLR, "MoCo": MoCo}


def pretrain(
    kind: str,
    encoder: nn.Module,
    x: Tensor,
    *,
    seed: int,
    epochs: int,
    views: Augment | None = None,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule = CosineAnnealingLR,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    **settings: Any,
) -> Fit:
    """Train ``encoder`` in place on images alone, by :func:`dirlearn.lab.training.fit`.

    Parameters
    ----------
    kind : {"rotation", "SimCLR", "MoCo"}
        The task; its head is made here and comes back in ``Fit.model``.
    encoder : Module
        Maps images to features (N, D); has ``num_features``.
    x : tensor of shape (N, C, H, W)
        Images in [0, 1].
    seed : int
        Draws the head, the batches and the views.
    epochs, batch_size, learning_rate
        Of Adam under a cosine. An epoch leaves out what fills no batch, other images each time:
        MoCo's queue asks for whole batches, and all tasks get the same.
    views : callable, optional
        What an image looks like to the task: two views for SimCLR and MoCo, by default
        :data:`dirlearn.lab.augment.GREY`; for rotation one, such as
        :func:`dirlearn.lab.training.shift`, by default the image as it is.
    optimizer, schedule, checkpoint, progress
        As in :func:`dirlearn.lab.training.fit`: an interrupted call goes on where it was.
    **settings
        Of the task: ``dim`` and ``temperature``, and MoCo's ``queue_size`` (by default the largest
        multiple of the batch that is no larger than N, so that few of an image's own older keys are
        among its negatives) and ``momentum`` (by default 0.99: its 0.999 lags a thousand steps).

    Raises
    ------
    ValueError
        If the kind is unknown, there are fewer images than ``batch_size``, ``views`` gives no two
        of an image to a task that compares them, or ``checkpoint`` is of another training; and as
        the task.

    Examples
    --------
    >>> from dirlearn.lab.models import conv_encoder
    >>> encoder = conv_encoder()
    >>> pretrained = pretrain("SimCLR", encoder, torch.rand(70, 1, 28, 28), seed=0, epochs=1)
    >>> pretrained.model.encoder is encoder, len(pretrained.history)
    (True, 1)

    Used in the chapter *Self-supervised pre-training*.
    """
    known(kind, TASKS, "kind of pre-training")
    if len(x) < batch_size:
        raise ValueError(
            f"there must be at least batch_size images, got {len(x)} and batch_size {batch_size}"
        )
    seed = operator.index(seed)  # torch takes no NumPy integer
    # Batch normalisation starts with the images' statistics: MoCo's keys, whose own follow slowly,
    # would for long be made with none.
    device = next((value.device for value in encoder.parameters()), None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout
        update_bn([part for part in torch.split(x, batch_size) if len(part) > 1], encoder, device)
    whole = len(x) // batch_size * batch_size
    if kind == "MoCo":
        settings = {"queue_size": whole, "momentum": 0.99} | settings
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TASKS[kind](encoder, **settings)
    task = _Rotations(views) if kind == "rotation" else _Pairs(views or GREY)
    draws = torch.Generator().manual_seed(seed)
    return fit(
        model,
        _unlabelled(x),
        seed=seed,
        objective=task.objective,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer=optimizer,
        schedule=schedule,
        sampler=RandomSampler(x, num_samples=whole, generator=draws),
        augment=task.augment,
        keep="last",
        checkpoint=checkpoint,
        progress=progress,
    )


def linear_probe(
    features: ArrayT, labels: ArrayT, new_features: ArrayT, *, strength: float = 1.0
) -> Array:
    """Classes that a linear head, trained on frozen features, gives to new ones.

    A logistic regression (scikit-learn) on features standardised by the training ones. Classes
    weigh the same whatever their number of samples: what is asked is how good the features are, and
    a head that favours the head would answer something else.

    Parameters
    ----------
    features : (N, D)
        Of the training samples; of any shape (N, ...), it is taken flat.
    labels : (N,)
        Their classes.
    new_features : (M, D)
        Of what to classify.
    strength : float
        Inverse of the ridge penalty: scikit-learn's ``C``, and its default.

    Returns
    -------
    array of shape (M,)
        Predicted classes.

    Examples
    --------
    >>> line = np.linspace(-1, 1, 20)[:, None]
    >>> linear_probe(line, (line[:, 0] > 0).astype(int), np.array([[-0.5], [0.5]]))
    array([0, 1])

    Used in the chapter *Self-supervised pre-training*.
    """
    flat, new = (np.asarray(part).reshape(len(part), -1) for part in (features, new_features))
    model = make_pipeline(
        StandardScaler(),
        LogisticRegression(C=strength, class_weight="balanced", max_iter=2000),
    )
    return np.asarray(model.fit(flat, np.asarray(labels)).predict(new))


class _Pairs:
    """Two views of each image, for a model whose call gives the loss of them."""

    def __init__(self, views: Augment) -> None:
        self.augment = views

    @staticmethod
    def objective(model: nn.Module, views: Tensor, y: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG004  # fit's terms
        if views.ndim != 5 or views.shape[1] != 2:
            raise ValueError(
                "views must give two of each image, shape (N, 2, C, H, W), got "
                f"{tuple(views.shape)}; see dirlearn.lab.augment.Views"
            )
        loss: Tensor = model(views[:, 0], views[:, 1])
        return loss


class _Rotations:
    """Turned images, and by what: told to the objective behind fit's back, as it knows no label."""

    def __init__(self, view: Augment | None) -> None:
        self.view = view
        self.turns: Tensor | None = None

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.view is not None:
            images = self.view(images, generator)
        turned, self.turns = rotate_batch(images, generator)
        return turned

    def objective(self, model: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:  # noqa: ARG002  # fit's terms
        assert self.turns is not None  # of this batch: augment comes first
        return F.cross_entropy(model(x), self.turns)


def _unlabelled(x: Tensor) -> Dataset:
    nothing = torch.zeros(len(x))
    none = Split(x[:0], nothing[:0])
    return Dataset(
        name="images without labels",
        train=Split(x, nothing),
        val=none,
        test=none,
        bins=Bins([0, 1]),
        unit="",
        provenance="the caller's",
    )

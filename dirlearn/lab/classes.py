"""Training of classifiers on long tails: losses, class weights that may be deferred, sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from dirlearn.arrays import Array, to_numpy
from dirlearn.focal import focal_loss
from dirlearn.lab.splits import Dataset, Split
from dirlearn.lab.training import Augment, Fit, MakeOptimizer, MakeSchedule, fit, predict, shift
from dirlearn.ldam import CosineLinear, ldam_loss, ldam_margins
from dirlearn.longtail import (
    balanced_sampler,
    class_balanced_weights,
    class_counts,
    deferred_weights,
)

ClassLoss = Literal["CE", "focal", "LDAM"]
Weighting = Literal["none", "balanced", "deferred"]
DEFER = 0.8  # share of the epochs before the weights come: 160 of 200 (Cao et al. 2019)


def fit_classes(
    model: nn.Module,
    data: Dataset,
    *,
    seed: int,
    loss: ClassLoss = "CE",
    weighting: Weighting = "none",
    resample: bool = False,
    counts: Array | Tensor | None = None,
    weights: Array | Tensor | None = None,
    steps: int = 600,
    batch_size: int = 64,
    beta: float = 0.9999,
    defer: float = DEFER,
    gamma: float = 1.0,
    max_margin: float = 0.5,
    scale: float = 30.0,
    learning_rate: float = 1e-3,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule | None = None,
    augment: Augment | None = shift,
    after_epoch: Callable[[int], None] | None = None,
    checkpoint: str | Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = False,
) -> Fit:
    r"""Train a classifier on few labels, and keep the last epoch: nothing is chosen.

    A batch's loss is, with class weights c, sample weights w and the chosen loss l,

    .. math:: \frac{\sum_i w_i\, c_{y_i}\, l_i}{\sum_i c_{y_i}},

    so that class weights are normalised within the batch, and sample weights are not. Torch's
    weighted cross-entropy does so, and with it the released code of Cao et al. (2019) and of Yang &
    Xu (2020); for the focal loss, which torch lacks, that code divides by the number of samples.

    Parameters
    ----------
    model : Module
        Gives logits (N, C), such as :class:`dirlearn.lab.models.Classifier`; for LDAM with the head
        :class:`dirlearn.CosineLinear`. Trained in place.
    data : Dataset
        Only ``data.train`` is read, and the number of ``data.bins``, which are the classes.
    seed : int
        Order of the batches and draws of the augmentation.
    loss : {"CE", "focal", "LDAM"}
    weighting : {"none", "balanced", "deferred"}
        Class weights: all 1, :func:`dirlearn.class_balanced_weights`, or
        :func:`dirlearn.deferred_weights`, which come after the share ``defer`` of the epochs.
    resample : bool
        Draw batches by :func:`dirlearn.balanced_sampler`, with as many draws as samples an epoch.
    counts : array of shape (C,), optional
        Samples per class, for class weights and margins; those of ``data.train`` by default.
    weights : array of shape (N,), optional
        One weight per training sample, such as omega for pseudo-labels.
    steps : int
        Batches in all; the epochs are as many as come nearest to it.
    beta : float
        Of class weights and re-sampling; 1 for weights inverse to the counts.
    gamma : float
        Of the focal loss.
    max_margin, scale : float
        Of LDAM. Logits of other losses are scaled too if the head gives cosines, whose range from
        -1 to 1 would let no probability near 1.
    batch_size, learning_rate, optimizer, schedule, augment, after_epoch
        As in :func:`dirlearn.lab.training.fit`.
    checkpoint, fabric, progress
        As in :func:`dirlearn.lab.training.fit`; a resumed training goes on with the weights of its
        epoch.

    Raises
    ------
    ValueError
        If a name is unknown, ``steps`` < 1, ``defer`` is not from 0 to 1, or a class without
        samples would be given a weight or a margin; and as :func:`dirlearn.lab.training.fit`.

    Examples
    --------
    >>> from dirlearn.lab.datasets import long_tailed_digits
    >>> from dirlearn.lab.models import Classifier, conv_encoder
    >>> model = Classifier(conv_encoder(), classes=10, head=CosineLinear)
    >>> result = fit_classes(
    ...     model, long_tailed_digits(), seed=0, loss="LDAM", weighting="deferred", steps=6
    ... )
    >>> len(result.history)  # epochs, of three batches each
    2
    """
    if loss not in ("CE", "focal", "LDAM"):
        raise ValueError(f'loss must be "CE", "focal" or "LDAM", got {loss!r}')
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    train, classes = data.train, len(data.bins)
    epochs = max(1, round(steps / -(-len(train) // batch_size))) if len(train) else 1
    of_class = to_numpy(class_counts(train.y, classes) if counts is None else counts, "counts")
    if of_class.shape != (classes,):
        raise ValueError(
            f"counts must hold one number per class, shape ({classes},), got {of_class.shape}"
        )
    margins = ldam_margins(of_class, max_margin) if loss == "LDAM" else np.zeros(classes)
    timed = _Timed(model, _by_epoch(weighting, of_class, epochs, beta, defer), margins)
    cosines = isinstance(getattr(model, "head", None), CosineLinear)

    def each(logits: Tensor, y: Tensor) -> Tensor:
        if loss == "LDAM":
            return ldam_loss(logits, y, timed.margins, scale, reduction="none")
        logits = scale * logits if cosines else logits
        return focal_loss(logits, y, reduction="none", gamma=gamma if loss == "focal" else 0.0)

    def objective(wrapped: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        class_weight = timed.now()[y]
        return (weight * class_weight * each(wrapped(x), y)).sum() / class_weight.sum()

    def after(epoch: int) -> None:
        timed.advance(epoch)
        if after_epoch is not None:
            after_epoch(epoch)

    draws = torch.Generator().manual_seed(int(seed))
    settings: dict[str, Any] = {} if schedule is None else {"schedule": schedule}
    result = fit(
        timed,
        replace(data, val=Split(data.val.x[:0], data.val.y[:0])),
        seed=seed,
        objective=objective,
        weights=None if weights is None else torch.as_tensor(weights),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        sampler=balanced_sampler(train.y, beta, generator=draws) if resample else None,
        optimizer=optimizer,
        augment=augment,
        after_epoch=after,
        keep="last",
        checkpoint=checkpoint,
        fabric=fabric,
        progress=progress,
        **settings,
    )
    return replace(result, model=model)


def error_rate(logits: Tensor, target: Tensor) -> Tensor:
    """Share of the samples whose largest logit is of another class, between 0 and 1.

    Examples
    --------
    >>> error_rate(torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 1, 1]))
    tensor(0.3333)
    """
    return (logits.argmax(dim=1) != target).float().mean()


def predicted_classes(model: nn.Module, x: Tensor) -> npt.NDArray[np.int64]:
    """Class of the largest logit of each sample, in ``eval`` mode.

    Examples
    --------
    >>> predicted_classes(nn.Identity(), torch.tensor([[0.1, 0.9], [0.8, 0.2]]))
    array([1, 0])
    """
    return np.asarray(predict(model, x).argmax(dim=1))


def _by_epoch(weighting: Weighting, counts: Array, epochs: int, beta: float, defer: float) -> Array:
    """Class weights of each epoch, (E, C)."""
    if not 0 <= defer <= 1:
        raise ValueError(f"defer must be from 0 to 1, a share of the epochs, got {defer}")
    if weighting == "none":
        return np.ones((epochs, len(counts)))
    counts = counts.astype(np.float64)
    if weighting == "balanced":
        return np.tile(class_balanced_weights(counts, beta), (epochs, 1))
    if weighting == "deferred":
        start = round(defer * epochs)
        return np.stack([deferred_weights(epoch, counts, start, beta) for epoch in range(epochs)])
    raise ValueError(f'weighting must be "none", "balanced" or "deferred", got {weighting!r}')


class _Timed(nn.Module):
    """A model that knows how many epochs it has behind it, also after it was loaded again."""

    epoch: Tensor
    table: Tensor
    margins: Tensor

    def __init__(self, model: nn.Module, table: Array, margins: Array) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("epoch", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("table", torch.as_tensor(table, dtype=torch.float32))
        self.register_buffer("margins", torch.as_tensor(margins, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits

    def now(self) -> Tensor:
        """Weight of each class in the epoch under way."""
        return self.table.index_select(0, self.epoch)[0]

    def advance(self, epoch: int) -> None:
        """Let the weights be those of the epoch after this one."""
        self.epoch.fill_(min(epoch + 1, len(self.table) - 1))

"""Pseudo-labels (Yang & Xu 2020): what a model says of data without labels."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from dirlearn.arrays import Array, ArrayT, floating_like, to_numpy
from dirlearn.bins import Bins
from dirlearn.kernels import Kernel
from dirlearn.lds import Clip, lds_weights


class PseudoLabels(NamedTuple):
    """Pseudo-labels of N samples, how sure the model was, and which to learn from.

    Attributes
    ----------
    labels : int64 tensor of shape (N,)
        The class of the largest logit: a hard label, as Yang and Xu (2020, section 2) use it.
    confidence : tensor of shape (N,)
        Its softmax probability, ``float32`` or wider.
    kept : bool tensor of shape (N,)
        Whether the confidence reaches the threshold; all true without one.

    Examples
    --------
    >>> PseudoLabels.from_logits(torch.tensor([[0.0, 2.0], [0.1, 0.0]]), threshold=0.8)
    PseudoLabels(labels=tensor([1, 0]), confidence=tensor([0.8808, 0.5250]),
        kept=tensor([ True, False]))

    Derived in the chapter *Unlabelled data*.
    """

    labels: Tensor
    confidence: Tensor
    kept: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, threshold: float | None = None) -> PseudoLabels:
        """Pseudo-labels from logits of shape (N, C), on their device; no gradient passes.

        Raises
        ------
        ValueError
            If ``logits`` is not of shape (N, C) with C >= 2, holds NaN or infinity, or
            ``threshold`` lies outside [0, 1].
        TypeError
            If ``logits`` is not a floating-point tensor.
        """
        _check_floating(logits)
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise ValueError(
                f"logits must have shape (N, C), one column for each of at least two classes, got "
                f"{tuple(logits.shape)}; for a continuous target see pseudo_target_weights"
            )
        _check_threshold(threshold)
        logits = logits.detach()
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        bad = int((~wide.isfinite()).any(dim=1).sum())
        if bad:
            raise ValueError(
                f"logits are NaN or infinite for {bad} of {len(logits)} samples; has the model "
                "diverged, or are its inputs not finite?"
            )
        confidence, labels = wide.softmax(dim=1).max(dim=1)
        kept = torch.ones_like(labels, dtype=torch.bool)
        return cls(labels, confidence, kept if threshold is None else confidence >= threshold)


@torch.no_grad()
def pseudo_label(
    model: nn.Module,
    loader: Tensor | Iterable[Any],
    threshold: float | None = None,
    batch_size: int = 1024,
) -> PseudoLabels:
    """Label what has no label by a model trained on what has (Yang and Xu 2020, section 2).

    The model runs in evaluation mode, without a graph, where its parameters are; afterwards each of
    its modules is in the mode it was in before.

    Parameters
    ----------
    model : Module
        Maps a batch of inputs to logits (N, C).
    loader : tensor of shape (N, ...), or iterable of batches
        The unlabelled inputs. A batch is a tensor of inputs, or a tuple or list that begins with
        one; what follows, such as labels, is not read. Batches come in the order of the samples:
        a loader that shuffles or drops is refused.
    threshold : float, optional
        Smallest confidence, in [0, 1], of a label to be kept. None, the default, keeps all, as the
        released code does.
    batch_size : int
        Samples at a time, where ``loader`` is a tensor.

    Returns
    -------
    PseudoLabels
        In the order of the samples, on the device that their inputs came on.

    Raises
    ------
    ValueError
        If there is no sample, the loader changes their order or number, and as
        :meth:`PseudoLabels.from_logits`.
    TypeError
        If ``model`` is not a module or a batch does not begin with a tensor.

    Examples
    --------
    >>> model = nn.Linear(1, 2)
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[1.0], [-1.0]])), model.bias.zero_()
    >>> found = pseudo_label(model, torch.tensor([[3.0], [-0.1], [0.2]]), threshold=0.9)
    >>> found.labels, found.kept
    (tensor([0, 1, 0]), tensor([ True, False, False]))

    Derived in the chapter *Unlabelled data*.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    _check_threshold(threshold)
    _check_order(loader)
    batches = torch.split(loader, batch_size) if isinstance(loader, Tensor) else loader
    where = next((value.device for value in model.parameters()), None)
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        found = []
        for batch in batches:
            x = batch[0] if isinstance(batch, tuple | list) and batch else batch
            if not isinstance(x, Tensor):
                raise TypeError(f"a batch must begin with a tensor, got {type(x).__name__}")
            if len(x) == 0:
                continue
            part = PseudoLabels.from_logits(model(x.to(where or x.device)), threshold)
            if len(part.labels) != len(x):
                raise ValueError(
                    f"the model gave {len(part.labels)} rows of logits for {len(x)} samples"
                )
            found.append([value.to(x.device) for value in part])
    finally:
        for part_of_model, mode in modes:  # not train(): some may have been in the other mode
            part_of_model.training = mode
    if not found:
        raise ValueError("there is nothing to label: the loader gave no sample")
    return PseudoLabels(*map(torch.cat, zip(*found, strict=True)))


def relabel_epochs(epochs: int, rounds: int = 1) -> tuple[int, ...]:
    """Epochs before which the pseudo-labels are made: ``rounds`` times, evenly, from epoch 0 on.

    Once, before the training, is what Yang and Xu (2020) do: the model that labels is another one,
    trained on the labelled data. In every later round it is the one in training.

    Raises
    ------
    ValueError
        If ``rounds`` is not between 1 and ``epochs``.

    Examples
    --------
    >>> relabel_epochs(200)
    (0,)
    >>> relabel_epochs(200, rounds=3)
    (0, 67, 133)

    Derived in the chapter *Unlabelled data*.
    """
    epochs, rounds = operator.index(epochs), operator.index(rounds)
    if not 1 <= rounds <= epochs:
        raise ValueError(f"rounds must be between 1 and the {epochs} epochs, got {rounds}")
    return tuple((2 * r * epochs + rounds) // (2 * rounds) for r in range(rounds))


def pseudo_target_weights(
    labels: ArrayT,
    predicted: ArrayT,
    bins: Bins,
    power: float = 0.5,
    kernel: Kernel | None = "gaussian",
    size: int = 5,
    sigma: float = 2.0,
    clip: Clip | None = None,
) -> tuple[ArrayT, ArrayT]:
    r"""Weights of labelled and pseudo-labelled samples with continuous targets, mean 1 over both.

    .. math:: w_i \propto \tilde n_{b(y_i)}^{-p}, \qquad
              \tilde n = k * (n^{\text{labels}} + n^{\text{predicted}})

    A pseudo-label of a continuous target is a prediction, and a model trained on imbalanced labels
    predicts the common ones too often. The effective density of true and predicted labels together
    says which targets the joint training set holds many of, and :func:`dirlearn.lds_weights` weighs
    them down.

    Parameters
    ----------
    labels : array of shape (N_L,)
        True labels.
    predicted : array of shape (N_U,)
        The model's predictions for the unlabelled samples, of the same kind of array.
    bins : Bins
        The target axis. Predictions leave it easily: bins that refuse them say so.
    power, kernel, size, sigma, clip
        As for :func:`dirlearn.lds_weights`.

    Returns
    -------
    tuple of arrays
        Weights of the labelled and of the pseudo-labelled samples, each in the floating dtype of
        its own.

    Raises
    ------
    ValueError
        If one of the two is empty, not one-dimensional, NaN or infinite; and as
        :func:`dirlearn.lds_weights`.

    Examples
    --------
    >>> labels, predicted = np.array([30.0, 30.0, 90.0]), np.array([30.0, 31.0, 30.0])
    >>> w, w_pseudo = pseudo_target_weights(labels, predicted, Bins.uniform(0, 101, 1), kernel=None)
    >>> w.round(2), w_pseudo.round(2)
    (array([0.75, 0.75, 1.5 ]), array([0.75, 1.5 , 0.75]))

    Derived in the chapter *Unlabelled data*.
    """
    parts = []
    for name, values in (("labels", labels), ("predicted", predicted)):
        array = to_numpy(values, name)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"{name} must hold one number per sample, got shape {array.shape}")
        parts.append(array)
    joint: Array = np.concatenate([parts[0], parts[1]])
    weights = lds_weights(joint, bins, power, kernel, size, sigma, clip)
    n = len(parts[0])
    return floating_like(weights[:n], labels), floating_like(weights[n:], predicted)


def _check_floating(logits: Any) -> None:
    kind = getattr(logits, "dtype", type(logits).__name__)
    if not (isinstance(logits, Tensor) and logits.is_floating_point()):
        raise TypeError(f"logits must be a floating-point tensor, got {kind}")


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(
            f"threshold must be a probability in [0, 1], or None to keep all, got {threshold}"
        )


def _check_order(loader: Any) -> None:
    """Refuse a DataLoader whose batches do not hold all samples in their order."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return
    inner = getattr(loader.batch_sampler, "sampler", loader.sampler)
    whole = not getattr(loader.batch_sampler, "drop_last", loader.drop_last)
    if not (whole and isinstance(inner, SequentialSampler)):
        raise ValueError(
            "the loader shuffles, samples or drops, so that nobody knows whose labels these are; "
            "use DataLoader(..., shuffle=False, drop_last=False)"
        )

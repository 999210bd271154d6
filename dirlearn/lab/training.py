"""One training loop, readable in a page: any device, mixed precision, several processes."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, Sampler, TensorDataset
from tqdm import trange

from dirlearn.arrays import ArrayT
from dirlearn.lab.checkpoints import Checkpoint
from dirlearn.lab.datasets import Dataset
from dirlearn.losses import weighted_l1

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # prediction, target, weight -> scalar
Objective = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # model, x, y, weight -> scalar
Regularizer = Callable[[Tensor, Tensor], Tensor]  # features, target -> scalar
Augment = Callable[[Tensor, torch.Generator], Tensor]
MakeOptimizer = Callable[[Iterator[nn.Parameter]], Optimizer]
MakeSchedule = Callable[[Optimizer, int], LRScheduler]  # optimizer, steps in all


@dataclass
class Fit:
    """What :func:`fit` gives back: the trained model, its best epoch, and how it went.

    ``best_epoch`` is -1 if no validation error was finite.
    """

    model: nn.Module
    best_epoch: int
    history: list[dict[str, float]] = field(default_factory=list)
    seconds: float = math.nan


def supervised(loss: Loss = weighted_l1) -> Objective:
    """What :func:`fit` minimises by default: the loss of the predictions, and nothing else.

    Examples
    --------
    >>> ones = torch.ones(4)
    >>> supervised()(nn.Flatten(0), 3 * ones, ones, ones)
    tensor(2.)
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return loss(model(x), y, weight)

    return objective


def on_features(loss: Loss = weighted_l1, regularizer: Regularizer | None = None) -> Objective:
    """Loss of the predictions plus ``regularizer(features, target)``, such as RankSim.

    The model is called as ``model(x, y)`` and gives predictions and features, as
    :class:`dirlearn.lab.models.Regressor` does: that is how targets reach its FDS layer.

    Examples
    --------
    >>> from dirlearn.lab.models import Regressor, table_encoder
    >>> model = Regressor(table_encoder(2), offset=0.0, scale=1.0)
    >>> objective = on_features(regularizer=lambda features, target: features.mean())
    >>> objective(model, torch.zeros(4, 2), torch.zeros(4), torch.ones(4)).shape
    torch.Size([])
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        prediction, features = model(x, y)
        value = loss(prediction, y, weight)
        return value if regularizer is None else value + regularizer(features, y)

    return objective


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    seed: int,
    objective: Objective | None = None,
    val_error: Callable[[Tensor, Tensor], Tensor] = nn.functional.l1_loss,
    weights: ArrayT | None = None,
    epochs: int = 15,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    sampler: Sampler[int] | None = None,
    optimizer: MakeOptimizer | None = None,
    schedule: MakeSchedule = CosineAnnealingLR,
    augment: Augment | None = None,
    after_epoch: Callable[[int], None] | None = None,
    keep: Literal["best", "last"] = "best",
    checkpoint: str | Path | None = None,
    fabric: Fabric | None = None,
    progress: bool = False,
) -> Fit:
    """Train, by default with Adam under a cosine schedule, and keep the epoch best on validation.

    Parameters
    ----------
    model : Module
        Trained in place; on return it holds the weights of the epoch that was kept.
    data : Dataset
        ``data.train`` is learned from and ``data.val`` chooses the epoch; the test set is not read.
        With ``keep="last"`` there is nothing to choose, and the validation set may be empty.
    seed : int
        Order of the batches and draws of the augmentation. The model's initialisation is its
        maker's affair.
    objective : callable, optional
        ``objective(model, x, y, weight)``, a scalar: :func:`supervised`, by default with the mean
        absolute error, or :func:`on_features`.
    val_error : callable
        ``val_error(prediction, target)``, a scalar, smaller is better; mean absolute error by
        default.
    weights : array or tensor of shape (N,), optional
        One weight per training sample; all 1 by default.
    epochs, batch_size, learning_rate
        Of Adam; the learning rate falls to 0 along a cosine, step by step.
    sampler : Sampler, optional
        Which samples an epoch draws, such as :func:`dirlearn.balanced_sampler` gives; by default
        each once, in an order that ``seed`` draws.
    optimizer : callable, optional
        ``optimizer(parameters)``, in place of Adam.
    schedule : callable
        ``schedule(optimizer, steps)``, stepped after each batch; by default the cosine.
    augment : callable, optional
        ``augment(batch, generator)``, applied to each training batch on the training device. What
        it returns is what the objective meets: two views, say, of shape (N, 2, ...).
    after_epoch : callable, optional
        ``after_epoch(epoch)``, called after the last batch and before the validation: the place for
        ``model.fds.step()``.
    keep : {"best", "last"}
        Keep the weights of the best epoch on validation, or those at the end.
    checkpoint : path, optional
        File that holds the state of the training after each epoch. Where it exists, training goes
        on from it, as if it had not been interrupted; the same call must have made it. What
        ``after_epoch`` keeps outside the model is not in it.
    fabric : Fabric, optional
        Device, precision and processes, launched; by default one device, the accelerator if there
        is one.
    progress : bool
        Show a bar over the epochs, on stderr.

    Raises
    ------
    ValueError
        If the training or validation set is empty, ``epochs`` < 1, ``weights`` does not hold one
        weight per sample, or ``checkpoint`` is of another training.
    FloatingPointError
        At the first epoch whose loss is NaN or infinite or whose validation error is NaN, saying
        what to try.

    Examples
    --------
    >>> from dirlearn.lab.datasets import diamonds
    >>> from dirlearn.lab.models import Regressor, table_encoder
    >>> result = fit(Regressor(table_encoder(9), 4000.0, 4000.0), diamonds(500), seed=0, epochs=3)
    >>> result.best_epoch, [sorted(epoch) for epoch in result.history[:1]]
    (2, [['epoch', 'train_loss', 'val_error']])
    """
    train = data.train
    if len(train) == 0:
        raise ValueError("the training set is empty")
    if len(data.val) == 0 and keep != "last":
        raise ValueError(
            'the validation set is empty, and it is what chooses the epoch; give keep="last"'
        )
    if keep not in ("best", "last"):
        raise ValueError(f'keep must be "best" or "last", got {keep!r}')
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    per_sample = torch.as_tensor(torch.ones(len(train)) if weights is None else weights)
    per_sample = per_sample.detach().float()
    if per_sample.shape != (len(train),):
        raise ValueError(
            f"weights must hold one weight per training sample, shape ({len(train)},), "
            f"got {tuple(per_sample.shape)}"
        )
    objective = objective or supervised()
    started = time.perf_counter()
    seed = operator.index(seed)  # torch takes no NumPy integer
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    generator = torch.Generator().manual_seed(seed)
    batches = BatchSampler(
        RandomSampler(train.y, generator=generator) if sampler is None else sampler,
        batch_size,
        drop_last=False,
    )
    # A batch is one indexing of the whole tensors: no loop over samples, no collation.
    loader = fabric.setup_dataloaders(
        DataLoader(TensorDataset(train.x, train.y, per_sample), sampler=batches, batch_size=None)
    )
    make = optimizer or partial(torch.optim.Adam, lr=learning_rate, fused=True)
    wrapped, stepper = fabric.setup(model, make(model.parameters()))
    rate = schedule(stepper, epochs * len(loader))
    # Another stream of draws in each process, the seed's own in the first.
    draws = torch.Generator(fabric.device).manual_seed(seed + 1_000_003 * fabric.global_rank)

    result, best, best_state = Fit(model, best_epoch=-1), math.inf, {}
    saved = None
    if checkpoint is not None:
        plan = {"seed": seed, "epochs": epochs, "batch_size": batch_size, "samples": len(train)}
        saved = Checkpoint(
            Path(checkpoint),
            plan,
            stateful={"model": model, "optimizer": stepper, "schedule": rate},
            generators=[generator, draws, getattr(sampler, "generator", None)],
        )
        if (said := saved.load()) is not None:
            result.history, result.best_epoch = said["history"], said["best_epoch"]
            best, best_state, earlier = said["best"], said["best_state"], said["seconds"]
            started -= earlier
    done = len(result.history)
    for epoch in trange(
        done, epochs, desc="epochs", initial=done, total=epochs, disable=not progress, leave=False
    ):
        wrapped.train()
        total = torch.zeros(2, device=fabric.device)  # of the loss, and of the samples met
        for x, y, w in loader:
            batch = x if augment is None else augment(x, draws)
            value = objective(wrapped, batch, y, w)
            stepper.zero_grad(set_to_none=True)
            fabric.backward(value)
            stepper.step()
            rate.step()
            total += torch.stack([value.detach().float(), torch.ones_like(total[0])]) * len(y)
        summed, met = torch.as_tensor(fabric.all_reduce(total, reduce_op="sum")).tolist()
        train_loss = summed / met
        if not math.isfinite(train_loss):
            raise FloatingPointError(
                f"the training loss became {train_loss} in epoch {epoch}; try a lower "
                f"learning_rate (now {learning_rate:g}), cap the weights (largest now "
                f"{float(per_sample.max()):.3g}) with clip=, or look for NaN in the inputs"
            )
        if after_epoch is not None:
            after_epoch(epoch)
        error = math.nan
        if len(data.val) > 0:
            error = float(val_error(predict(wrapped, data.val.x), data.val.y.cpu()))
            if math.isnan(error):
                raise FloatingPointError(
                    f"the validation error became NaN in epoch {epoch}, so no epoch is best; "
                    "is a target in data.val NaN?"
                )
        result.history.append({"epoch": epoch, "train_loss": train_loss, "val_error": error})
        if error < best:
            best, result.best_epoch = error, epoch
            best_state = deepcopy(model.state_dict())
        if saved is not None and fabric.is_global_zero:
            saved.save(
                history=result.history,
                best_epoch=result.best_epoch,
                best=best,
                best_state=best_state,
                seconds=time.perf_counter() - started,
            )
    if (
        best_state and keep == "best"
    ):  # empty if every validation error was infinite: then the last epoch stays
        model.load_state_dict(best_state)
    model.eval()
    result.seconds = time.perf_counter() - started
    return result


@torch.no_grad()
def predict(model: nn.Module, x: Tensor, batch_size: int = 2048) -> Tensor:
    """Predictions on the CPU in ``float32``, a batch at a time; leaves ``model`` in ``eval`` mode.

    Examples
    --------
    >>> predict(nn.Linear(2, 1), torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    """
    model.eval()
    like = next(model.parameters(), x)  # its device, and its precision for inputs that have one
    dtype = like.dtype if x.is_floating_point() else x.dtype
    parts = torch.split(x, batch_size)
    return torch.cat([model(part.to(like.device, dtype)).float().cpu() for part in parts])


def shift(images: Tensor, generator: torch.Generator, pixels: int = 2) -> Tensor:
    """Move each image of shape (N, C, H, W) by up to ``pixels`` each way; what leaves is lost.

    Examples
    --------
    >>> image = torch.zeros(1, 1, 5, 5)
    >>> image[0, 0, 2, 2] = 1
    >>> shift(image, torch.Generator().manual_seed(0), pixels=1).sum()
    tensor(1.)
    """
    n, _, height, width = images.shape
    padded = nn.functional.pad(images, (pixels,) * 4)
    moves = torch.randint(
        2 * pixels + 1, (2, n, 1), generator=generator, device=generator.device
    ).to(images.device)
    rows = moves[0] + torch.arange(height, device=images.device)
    columns = moves[1] + torch.arange(width, device=images.device)
    sample = torch.arange(n, device=images.device)
    # Indexing around the channel axis puts it last; bring it back.
    moved = padded[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)

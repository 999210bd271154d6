"""Training sets with gaps in their labels, and what reaches into the gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dirlearn.balanced_mse import BalancedMSE
from dirlearn.bins import Bins
from dirlearn.fds import FDS
from dirlearn.lab.datasets import ANGLES, PRICES, Counts, Dataset, Split, diamonds
from dirlearn.lab.features import scarce_digits
from dirlearn.lab.models import Encoder, Regressor, conv_encoder, table_encoder
from dirlearn.lab.results import known
from dirlearn.lab.study import Run, Study
from dirlearn.lab.thinning import gap_density, thin
from dirlearn.lab.training import Loss, Objective, fit, on_features, predict
from dirlearn.lds import lds_weights
from dirlearn.losses import weighted_l1, weighted_mse
from dirlearn.ranksim import RankSim
from dirlearn.truncated import truncated_mean

PARTS = ("train", "val", "test")

# Where there are labels, in percent of the axis: a peak in each interval, gaps between them.
# Together the intervals cover about half of the axis, whatever their number; 0 is no gap at all.
SEEN: dict[int, tuple[tuple[float, float], ...]] = {
    0: ((0, 100),),
    1: ((24, 76),),
    2: ((15, 41), (59, 85)),
    3: ((11, 29), (41, 59), (71, 89)),
    4: ((9, 22), (32, 45), (55, 68), (78, 91)),
}


@dataclass(frozen=True)
class Task:
    """A data set to cut gaps into, and the network that learns it."""

    bins: Bins
    total: int
    draw: Callable[[Counts, int], Dataset]
    encoder: Callable[[], Encoder]
    offset: float
    scale: float  # of the head
    steps: int


def _digits(counts: Counts, seed: int) -> Dataset:
    return thin(scarce_digits(counts, seed), counts, seed)


def _diamonds(counts: Counts, seed: int) -> Dataset:
    data = thin(diamonds(52_000), counts, seed)
    mean, spread = data.train.x.mean(dim=0), data.train.x.std(dim=0)  # of what is left

    def standardised(split: Split) -> Split:
        return Split((split.x - mean) / spread, split.y)

    train, val, test = (standardised(getattr(data, part)) for part in PARTS)
    return replace(data, train=train, val=val, test=test)


TASKS: dict[str, Task] = {
    "digits": Task(ANGLES, 2000, _digits, conv_encoder, 50.0, 25.0, 400),
    "diamonds": Task(PRICES, 1000, _diamonds, lambda: table_encoder(9), 9500.0, 4750.0, 800),
}


def training_counts(task: str, peaks: int, flat: bool = False) -> Counts:
    """The density that a run of :func:`train_gaps` learns from.

    Examples
    --------
    >>> counts = training_counts("digits", peaks=2)
    >>> int(counts.sum()), int(counts[41:59].sum())
    (2000, 0)
    """
    chosen = TASKS[known(task, TASKS, "task")]
    low, high = chosen.bins.edges[[0, -1]]
    percent = np.asarray(SEEN[known(peaks, SEEN, "number of peaks")])
    seen = low + percent / 100 * (high - low)
    return gap_density(chosen.bins, seen, chosen.total, math.inf if flat else 0.4)


def mixed(alpha: float, rng: np.random.Generator, loss: Loss = weighted_l1) -> Objective:
    """Mixup (Zhang et al. 2018): learn from blends of two samples, inputs and labels alike.

    Each sample of a batch is blended with another one, at a share drawn from Beta(alpha, alpha). Of
    all methods here it is the only one whose training labels lie in a gap between seen ones.

    Examples
    --------
    >>> objective = mixed(1.0, np.random.default_rng(0))
    >>> y = torch.tensor([0.0, 10.0])
    >>> objective(nn.Flatten(0), y[:, None], y, torch.ones(2))  # a model that is right everywhere
    tensor(0.)
    """

    def objective(model: nn.Module, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        partner = torch.from_numpy(rng.permutation(len(y))).to(y.device)
        share = torch.from_numpy(rng.beta(alpha, alpha, len(y))).to(y)

        def blend(of: Tensor) -> Tensor:
            own = share.reshape(-1, *[1] * (of.dim() - 1))
            return own * of + (1 - own) * of[partner]

        return loss(model(blend(x)), blend(y), blend(weight))

    return objective


def train_gaps(
    method: Mapping[str, Any], seed: int, *, task: str = "digits", steps: int | None = None
) -> Run:
    """Train on labels with gaps and predict a test set that has none.

    ``method`` holds ``"peaks"``, a key of :data:`SEEN`, and may hold ``"flat"``, for peaks that are
    flat; ``"weights"`` (arguments of :func:`dirlearn.lds_weights` besides labels and bins);
    ``"fds"`` (those of :class:`dirlearn.FDS`); ``"ranksim"`` (the weight of
    :class:`dirlearn.RankSim`, in units of the head's scale); ``"mse"``, for the squared error in
    place of the absolute one; ``"balanced"`` (the first sigma of :class:`dirlearn.BalancedMSE`, in
    the target's unit); and ``"mixup"`` (alpha of :func:`mixed`).

    Data, initialisation and batch order follow from ``seed`` alone. The number of ``steps``, by
    default the task's own, is rounded up to whole epochs, and no epoch is chosen. The validation
    figures in ``extra`` are over seen labels, for a user has no others.

    Raises
    ------
    ValueError
        If ``method`` has a key that means nothing here, or a name is unknown.

    Examples
    --------
    >>> run = train_gaps({"peaks": 2}, seed=0, steps=10)
    >>> run.prediction.shape, sorted(run.extra)
    ((1500,), ['train_mae', 'val_error', 'val_rmse'])
    """
    keys = ("peaks", "flat", "weights", "fds", "ranksim", "mse", "balanced", "mixup")
    for key in method:
        known(key, keys, "key of a method")
    learned = TASKS[known(task, TASKS, "task")]
    counts = training_counts(task, method["peaks"], method.get("flat", False))
    data = learned.draw(counts, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = learned.encoder()
        model = Regressor(encoder, learned.offset, learned.scale)
        if task == "digits":  # a fifth faster on a CPU
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types lack it
    fds = FDS(encoder.num_features, data.bins, **method["fds"]) if "fds" in method else None
    model.fds = fds
    criterion = BalancedMSE(method["balanced"]) if "balanced" in method else None
    if criterion is not None:  # a part of the model, so that its sigma is learned with it
        model.criterion = criterion
    weights = method.get("weights", {"power": 0.0, "kernel": None})
    fit(
        model,
        data,
        seed=seed,
        objective=_objective(method, criterion, learned.scale, seed),
        weights=lds_weights(data.train.y, data.bins, **weights),
        epochs=math.ceil((steps or learned.steps) / math.ceil(len(data.train) / 64)),
        after_epoch=None if fds is None else lambda _: fds.step(),
        keep="last",
    )
    prediction = {part: _predict(model, criterion, data, part) for part in PARTS}
    error = {part: prediction[part] - getattr(data, part).y for part in PARTS}
    return Run(
        target=np.asarray(data.test.y),
        prediction=np.asarray(prediction["test"]),
        train_counts=data.train_counts,
        extra={
            "train_mae": float(error["train"].abs().mean()),
            "val_error": float(error["val"].abs().mean()),
            "val_rmse": float(error["val"].square().mean().sqrt()),
        },
    )


def _predict(model: Regressor, criterion: BalancedMSE | None, data: Dataset, part: str) -> Tensor:
    value = predict(model, getattr(data, part).x)
    if criterion is None:
        return value
    low, high = data.bins.edges[[0, -1]]  # of all labels that can be, seen or not
    return truncated_mean(value, criterion.sigma.detach(), low, high)


def _objective(
    method: Mapping[str, Any], criterion: BalancedMSE | None, scale: float, seed: int
) -> Objective:
    if "mixup" in method:
        return mixed(method["mixup"], np.random.default_rng(seed))
    loss: Loss = weighted_mse if method.get("mse") else weighted_l1
    if criterion is not None:

        def loss(pred: Tensor, target: Tensor, _: Tensor) -> Tensor:
            value: Tensor = criterion(pred, target)
            return value

    ranksim = None
    if "ranksim" in method:
        draws = torch.Generator().manual_seed(seed)
        ranksim = RankSim(method["ranksim"] * scale, generator=draws)
    return on_features(loss, ranksim)


LDS = {"kernel": "gaussian", "size": 5, "sigma": 2.0}  # the paper's
# Chosen on other seeds, among CHOICES: the strongest that costs no error on seen labels. Balanced
# MSE starts at the root mean squared error that MSE has on them.
CHOSEN: dict[str, dict[str, Any]] = {
    "digits": {"ranksim": 2.56, "mixup": 0.2, "balanced": 11.6},
    "diamonds": {"ranksim": 25.6, "mixup": 1.0, "balanced": 1400.0},
}


def methods(task: str) -> dict[str, dict[str, Any]]:
    """What is compared on a task, by name.

    Examples
    --------
    >>> methods("digits")["Balanced MSE"]  # degrees
    {'balanced': 11.6}
    """
    chosen = CHOSEN[known(task, CHOSEN, "task")]
    return {
        "vanilla": {},
        "SQINV": {"weights": {"power": 0.5, "kernel": None}},
        "INV": {"weights": {"power": 1.0, "kernel": None}},
        "SQINV+LDS": {"weights": {"power": 0.5, **LDS}},
        "INV+LDS": {"weights": {"power": 1.0, **LDS}},
        "FDS": {"fds": {"size": 5, "sigma": 2.0}},
        "SQINV+LDS+FDS": {"weights": {"power": 0.5, **LDS}, "fds": {"size": 5, "sigma": 2.0}},
        "RankSim": {"ranksim": chosen["ranksim"]},
        "mixup": {"mixup": chosen["mixup"]},
        "MSE": {"mse": True},
        "Balanced MSE": {"balanced": chosen["balanced"]},
    }


# Flat peaks have no rare labels: INV and SQINV are vanilla there, to the last digit.
FLAT = ("vanilla", "INV+LDS", "FDS", "RankSim", "mixup", "MSE", "Balanced MSE")


def cell_name(method: str, peaks: int, flat: bool = False) -> str:
    """Name a method on a density.

    Examples
    --------
    >>> cell_name("INV", 1), cell_name("FDS", 2, flat=True), cell_name("vanilla", 0, flat=True)
    ('INV, 1 peak', 'FDS, 2 flat peaks', 'vanilla, no gaps')
    """
    if peaks == 0:
        return f"{method}, no gaps"
    return f"{method}, {peaks} {'flat ' * flat}peak{'s' * (peaks > 1)}"


def _cells(task: str, numbers: Sequence[int]) -> dict[str, dict[str, Any]]:
    compared = methods(task)
    cells: dict[str, dict[str, Any]] = {cell_name("vanilla", 0): {"peaks": 0, "flat": True}}
    for peaks in numbers:
        cells |= {cell_name(m, peaks): {"peaks": peaks, **compared[m]} for m in compared}
    return cells | {
        cell_name(m, 2, flat=True): {"peaks": 2, "flat": True, **compared[m]} for m in FLAT
    }


_CANDIDATES: dict[str, dict[str, Any]] = {
    "vanilla": {},
    **{f"RankSim {weight:g}": {"ranksim": weight} for weight in (2.56, 25.6, 256.0)},
    **{f"FDS {size}/2": {"fds": {"size": size, "sigma": 2.0}} for size in (5, 9)},
    **{f"mixup {alpha:g}": {"mixup": alpha} for alpha in (0.2, 1.0)},
    "MSE": {"mse": True},
}
CHOICES = {name: {"peaks": 2, **method} for name, method in _CANDIDATES.items()}

DIGITS, DIAMONDS = {"task": "digits"}, {"task": "diamonds"}
STUDIES = (
    Study("gaps_digits_choice", train_gaps, CHOICES, range(100, 104), ANGLES, DIGITS),
    Study("gaps_diamonds_choice", train_gaps, CHOICES, range(100, 104), PRICES, DIAMONDS, 0),
    Study("gaps_digits", train_gaps, _cells("digits", (1, 2, 3, 4)), range(10, 20), ANGLES, DIGITS),
    Study(
        "gaps_diamonds", train_gaps, _cells("diamonds", (2, 4)), range(10, 20), PRICES, DIAMONDS, 0
    ),
)

"""What habits of the released training scripts do to an error: small studies, one habit each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dirlearn import released
from dirlearn.arrays import Array
from dirlearn.bins import Bins
from dirlearn.lab.datasets import ANGLES, SCORES, sts_b_dir
from dirlearn.lab.features import scarce_digits
from dirlearn.lab.models import Regressor, conv_encoder, table_encoder
from dirlearn.lab.results import known
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import Loss, fit, predict, shift, supervised
from dirlearn.lds import effective_density, inverse_weights, lds_weights
from dirlearn.losses import focal_r, weighted_l1
from dirlearn.retrain import Frozen, reinitialise

# Which set chooses the epoch. The training is the same: pairs share all but the choice.
SELECTION: dict[str, dict[str, Any]] = {
    f"{name}, epoch by {chooser}": {"power": power, "chooser": chooser}
    for name, power in (("vanilla", 0.0), ("INV+LDS", 1.0))
    for chooser in ("validation", "test")
}

# The paper's factor and the code's. beta of the released command, for scores divided by 5, is 20.
FOCAL_R_FORMS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "Focal-R": {"loss": "focal"},
    "Focal-R, as released": {"loss": "focal, released"},
}

# Weights with LDS as the paper has them, with one difference of the code, and as released.
LDS_FORMS: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "SQINV+LDS": {"power": 0.5},
    "SQINV+LDS, root first": {"power": 0.5, "form": "root first"},
    "SQINV+LDS, as released": {"power": 0.5, "form": "released"},
    "INV+LDS": {"power": 1.0},
    "INV+LDS, as released": {"power": 1.0, "form": "released"},
}


def root_first(y: Array, bins: Bins, power: float) -> Array:
    """Weights of which the power is taken before the smoothing; all else is the paper's.

    Examples
    --------
    >>> root_first(np.array([0.5, 0.5, 1.5]), Bins.uniform(0, 2, 1), power=1.0).round(2)
    array([1.01, 1.01, 0.98])
    """
    counts = bins.counts(y)
    density = effective_density(counts.astype(np.float64) ** power)
    weights: Array = inverse_weights(density, counts=counts)[bins.index(y)]
    return weights


FORMS: dict[str, Callable[[Array, Bins, float], Array]] = {
    "paper": lds_weights,
    "root first": root_first,
    "released": lambda y, bins, power: released.reweight(y, bins, power, kernel="gaussian"),
}

LOSSES: dict[str, Loss] = {
    "mae": weighted_l1,
    "focal": partial(focal_r, beta=4.0),
    "focal, released": partial(released.focal_r, beta=4.0),
}


def train_sts_habit(method: Mapping[str, Any], seed: int, *, epochs: int = 20) -> Run:
    """Train the head of :func:`dirlearn.lab.sts.train_sts` with one habit; predict the test set.

    ``method`` may hold ``"power"`` of the weights with LDS (0, the default: none), ``"form"``, a
    name of :data:`FORMS`, ``"loss"``, a name of :data:`LOSSES`, and ``"chooser"``, the set that
    chooses the epoch: ``"validation"`` or, as no one should, ``"test"``. Extra figures: the epoch,
    its error on the validation set, and the test error of every epoch.

    Raises
    ------
    ValueError
        If ``method`` has a key, or names something, that means nothing here.

    Examples
    --------
    >>> run = train_sts_habit(SELECTION["vanilla, epoch by test"], seed=0, epochs=2)
    >>> sorted(run.extra)
    ['best_epoch', 'test_error 0', 'test_error 1', 'val_error']
    """
    for key in method:
        known(key, ("power", "form", "loss", "chooser"), "key of a method")
    power = method.get("power", 0.0)
    form = FORMS[known(method.get("form", "paper"), FORMS, "form")]
    loss = LOSSES[known(method.get("loss", "mae"), LOSSES, "loss")]
    chooser = known(method.get("chooser", "validation"), ("validation", "test"), "chooser")
    data = sts_b_dir()
    # Three digits again: in double precision a float32 0.7 would lie below 0.7, in another bin.
    labels = np.asarray(data.train.y).astype(np.float64).round(3)
    test = np.asarray(data.test.y).astype(np.float64).round(3)
    weights = form(labels, data.bins, power) if power else np.ones_like(labels)
    epochs_predictions: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of initialisation, and then of dropout
        encoder = table_encoder(data.train.x.shape[1], dropout=0.3)
        model = Regressor(encoder, offset=2.5, scale=1.25)
        result = fit(
            model,
            data,
            seed=seed,
            objective=supervised(loss),
            weights=weights,
            epochs=epochs,
            after_epoch=lambda _: epochs_predictions.append(predict(model, data.test.x)),
        )
    predictions = np.stack(epochs_predictions)
    test_errors = np.abs(predictions - test).mean(axis=1)
    chosen = int(test_errors.argmin()) if chooser == "test" else result.best_epoch
    return Run(
        target=test,
        prediction=predictions[chosen],
        train_counts=data.train_counts,
        extra={
            "best_epoch": chosen,
            "val_error": result.history[chosen]["val_error"],
            **{f"test_error {epoch}": error for epoch, error in enumerate(test_errors)},
        },
    )


# Regressor re-training: the second stage trains the head alone, with an encoder that is still, or
# whose batch normalisation goes on as in training.
RRT: dict[str, dict[str, Any]] = {
    "vanilla": {},
    "RRT": {"encoder": "frozen"},
    "RRT, as released": {"encoder": "without gradients"},
}


def train_again(
    method: Mapping[str, Any],
    seed: int,
    *,
    scale: float = 0.3,
    epochs: int = 16,
    again: int = 8,
) -> Run:
    """Train on scarce rotated digits, then the head again with SQINV; predict the test set.

    Without ``method["encoder"]`` the first stage is all. ``"frozen"`` is
    :class:`dirlearn.Frozen`; ``"without gradients"`` what the released script does, whose
    ``train()`` still reaches batch normalisation. The extra figure ``moved`` is how far its running
    means went in the second stage, in standard deviations, on average.

    Raises
    ------
    ValueError
        If ``method`` has a key or an encoder that means nothing here.

    Examples
    --------
    >>> run = train_again(RRT["RRT"], seed=0, scale=0.1, epochs=1, again=1)
    >>> run.extra["moved"]
    0.0
    """
    for key in method:
        known(key, ("encoder",), "key of a method")
    data = scarce_digits(scale, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Regressor(conv_encoder(), offset=50.0, scale=25.0)
        # A third faster on a CPU.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types lack it
    result = fit(model, data, seed=seed, epochs=epochs, augment=shift)
    (norm,) = (layer for layer in model.encoder.modules() if isinstance(layer, nn.BatchNorm2d))
    now = dict(norm.named_buffers())
    before, spread = now["running_mean"].clone(), now["running_var"].sqrt()
    if "encoder" in method:
        kind = known(method["encoder"], ("frozen", "without gradients"), "encoder")
        reinitialise(model.head, seed)
        model.encoder.requires_grad_(False)
        if kind == "frozen":
            model.encoder = Frozen(model.encoder)
        weights = lds_weights(data.train.y, data.bins, power=0.5, kernel=None)
        result = fit(model, data, seed=seed, weights=weights, epochs=again, augment=shift)
    return Run(
        target=np.asarray(data.test.y),
        prediction=np.asarray(predict(model, data.test.x)),
        train_counts=data.train_counts,
        extra={
            "val_error": result.history[result.best_epoch]["val_error"],
            "moved": float(((now["running_mean"] - before).abs() / spread).mean()),
        },
    )


HABITS = (
    Study("selection", train_sts_habit, SELECTION, range(110, 120), SCORES, decimals=3),
    Study("rrt_batchnorm", train_again, RRT, range(130, 140), ANGLES),
    Study("focal_r_forms", train_sts_habit, FOCAL_R_FORMS, range(140, 150), SCORES, decimals=3),
    Study("lds_forms", train_sts_habit, LDS_FORMS, range(120, 130), SCORES, decimals=3),
)

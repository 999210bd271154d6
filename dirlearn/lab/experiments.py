"""The studies that the book reports; ``python -m dirlearn.lab`` redoes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dirlearn.lab.balanced import BALANCED_DIGITS, BALANCED_SCORES
from dirlearn.lab.benchmark import BENCHMARK, DIR_CHOICES
from dirlearn.lab.bridge import PSEUDO
from dirlearn.lab.cifar import CIFAR10_LT, CIFAR10_LT_RESNET32
from dirlearn.lab.classes import error_rate
from dirlearn.lab.datasets import ANGLES, Counts, data_folder, digit_pairs, rotated_digits
from dirlearn.lab.designs import CHOICES, FACTORIAL, FDS_VARIANTS, MEMORISING, SWEEP, WEAK
from dirlearn.lab.features import train_features
from dirlearn.lab.gaps import STUDIES as GAPS
from dirlearn.lab.habits import HABITS
from dirlearn.lab.models import Classifier, Regressor, conv_encoder
from dirlearn.lab.pretrained import PRETRAINED
from dirlearn.lab.ranking import GAMMAS, train_ranked
from dirlearn.lab.resampled import RESAMPLING
from dirlearn.lab.results import known
from dirlearn.lab.semi import SEMI
from dirlearn.lab.sts import STS_B_DIR, STS_B_RANKSIM
from dirlearn.lab.study import Results, Run, Study
from dirlearn.lab.tails import TAILS
from dirlearn.lab.training import fit, predict, shift, supervised
from dirlearn.lab.transfer import TRANSFER
from dirlearn.lds import lds_weights

SCHEMES: dict[str, dict[str, Any]] = {
    "vanilla": {"power": 0.0, "kernel": None},
    "SQINV": {"power": 0.5, "kernel": None},
    "INV": {"power": 1.0, "kernel": None},
    "SQINV+LDS": {"power": 0.5, "kernel": "gaussian", "size": 5, "sigma": 2.0},
    "INV+LDS": {"power": 1.0, "kernel": "gaussian", "size": 5, "sigma": 2.0},
}

KERNELS: dict[str, dict[str, Any]] = {
    "none": {"power": 1.0, "kernel": None},
    "gaussian 5/1": {"power": 1.0, "kernel": "gaussian", "size": 5, "sigma": 1.0},
    "gaussian 5/2": {"power": 1.0, "kernel": "gaussian", "size": 5, "sigma": 2.0},
    "gaussian 9/2": {"power": 1.0, "kernel": "gaussian", "size": 9, "sigma": 2.0},
    "gaussian 21/5": {"power": 1.0, "kernel": "gaussian", "size": 21, "sigma": 5.0},
    "triangular 9": {"power": 1.0, "kernel": "triangular", "size": 9},
    "laplace 9/2": {"power": 1.0, "kernel": "laplace", "size": 9, "sigma": 2.0},
    "hann 11": {"power": 1.0, "kernel": "hann", "size": 11},
    "boxcar 9": {"power": 1.0, "kernel": "boxcar", "size": 9},
}

CLIPS: dict[str, dict[str, Any]] = {
    "INV": SCHEMES["INV"],
    "INV, clip": {**SCHEMES["INV"], "clip": [5, 1000]},
    "INV+LDS": SCHEMES["INV+LDS"],
    "INV+LDS, clip": {**SCHEMES["INV+LDS"], "clip": [5, 1000]},
}


def train_digits(
    method: Mapping[str, Any], seed: int, *, density: str = "agedb", epochs: int = 15
) -> Run:
    """Train a small network on rotated digits under a weighting scheme and predict the test set.

    ``method`` holds the arguments of :func:`dirlearn.lds_weights` besides labels and bins. Data,
    initialisation, batch order and augmentation follow from ``seed`` alone.

    Examples
    --------
    >>> run = train_digits(SCHEMES["INV"], seed=0, epochs=1)
    >>> run.prediction.shape, sorted(run.extra)
    ((1500,), ['best_epoch', 'val_error'])
    """
    data = rotated_digits(density, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Regressor(conv_encoder(), offset=50.0, scale=25.0)
    weights = lds_weights(data.train.y, data.bins, **method)
    result = fit(model, data, seed=seed, weights=weights, epochs=epochs, augment=shift)
    return Run(
        target=np.asarray(data.test.y),
        prediction=np.asarray(predict(result.model, data.test.x)),
        train_counts=data.train_counts,
        extra={
            "best_epoch": result.best_epoch,
            "val_error": result.history[result.best_epoch]["val_error"],
        },
    )


def spiky_density(seed: int, peak: float = 90.0) -> Counts:
    """Counts for the hundred labels: a bell around 35 times Beta(0.6, 0.8) noise per label.

    Examples
    --------
    >>> spiky_density(0)[30:36]
    array([ 0, 33, 15,  0,  3, 31])
    """
    label = np.arange(len(ANGLES))
    noise = np.random.default_rng([7, seed]).beta(0.6, 0.8, label.size)
    return np.floor(peak * np.exp(-0.5 * ((label - 35) / 20) ** 2) * noise).astype(np.int64)


def train_task(method: Mapping[str, Any], seed: int, *, epochs: int = 25) -> Run:
    """Learn the same density as ``"angles"`` or ``"classes"``, whichever ``method["task"]`` says.

    Classes are two-digit numbers side by side, and the density is dealt to them at random, so that
    neighbours in the density share nothing. The prediction is the angle, or the class.
    """
    density = spiky_density(seed)
    angles = method["task"] == "angles"
    data = (
        rotated_digits(density, seed, test_per_angle=30)
        if angles
        else digit_pairs(np.random.default_rng([8, seed]).permutation(density), seed, 30)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = (
            Regressor(conv_encoder(), offset=50.0, scale=25.0)
            if angles
            else Classifier(conv_encoder(), classes=len(density))
        )
    if angles:
        result = fit(model, data, seed=seed, epochs=epochs, augment=shift)
        prediction = np.asarray(predict(result.model, data.test.x))
        return Run(np.asarray(data.test.y), prediction, data.train_counts)
    result = fit(
        model,
        data,
        seed=seed,
        epochs=epochs,
        augment=shift,
        objective=supervised(_cross_entropy),
        val_error=error_rate,
    )
    prediction = np.asarray(predict(result.model, data.test.x).argmax(dim=1))
    return Run(np.asarray(data.test.y), prediction, data.train_counts)


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return (weight * F.cross_entropy(logits, target, reduction="none")).mean()


STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        Study("lds_rough", train_digits, SCHEMES, range(20), ANGLES, {"density": "rough"}),
        Study("lds_smooth", train_digits, SCHEMES, range(20), ANGLES, {"density": "agedb"}),
        Study("lds_kernels", train_digits, KERNELS, range(20, 30), ANGLES, {"density": "rough"}),
        Study("lds_clip", train_digits, CLIPS, range(30, 40), ANGLES, {"density": "rough"}),
        Study("density_angles", train_task, {"angles": {"task": "angles"}}, range(10), ANGLES),
        Study("density_classes", train_task, {"classes": {"task": "classes"}}, range(10), ANGLES),
        Study("features_choice", train_features, CHOICES, range(100, 104), ANGLES),
        Study("memorising", train_features, MEMORISING, range(50, 60), ANGLES),
        Study("factorial", train_features, FACTORIAL, range(60, 64), ANGLES),
        Study("factorial_weak", train_features, WEAK, range(60, 64), ANGLES),
        Study("fds_variants", train_features, FDS_VARIANTS, range(70, 80), ANGLES),
        Study("ranksim_gamma", train_ranked, GAMMAS, range(40, 45), ANGLES),
        Study("features_sweep", train_features, SWEEP, range(80, 90), ANGLES, {"steps": 1000}),
        BALANCED_SCORES,
        BALANCED_DIGITS,
        STS_B_DIR,
        STS_B_RANKSIM,
        *DIR_CHOICES,
        *BENCHMARK,
        *HABITS,
        *RESAMPLING,
        *GAPS,
        *TAILS,
        *PRETRAINED,
        *SEMI,
        *PSEUDO,
        TRANSFER,
        CIFAR10_LT,
    )
}

# What asks for more than the machine that recorded the others: no file in ``data/results/`` yet.
UNRECORDED: dict[str, Study] = {study.name: study for study in (CIFAR10_LT_RESNET32,)}


def record(name: str) -> Results:
    """Load the recorded results of a study of :data:`STUDIES` from ``data/results/``.

    Raises
    ------
    ValueError
        If the name is unknown, or the study is not recorded.

    Examples
    --------
    >>> record("lds_rough").methods
    ('vanilla', 'SQINV', 'INV', 'SQINV+LDS', 'INV+LDS')
    """
    if name in UNRECORDED:
        raise ValueError(f"{name} is not recorded; python -m dirlearn.lab {name} trains it")
    return Results.load(data_folder() / "results" / known(name, STUDIES, "study"))

"""The studies of STS-B-DIR: which methods, on which head; see the chapter of that name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from dirlearn.fds import FDS
from dirlearn.lab.datasets import SCORES, sts_b_dir
from dirlearn.lab.models import Regressor, table_encoder
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import fit, on_features, predict
from dirlearn.lds import lds_weights
from dirlearn.ranksim import RankSim

LDS = {"kernel": "gaussian", "size": 5, "sigma": 2.0}  # the paper's, and the released code's
WEIGHTS: dict[str, dict[str, Any]] = {
    "vanilla": {"power": 0.0, "kernel": None},
    "SQINV": {"power": 0.5, "kernel": None},
    "INV": {"power": 1.0, "kernel": None},
    "SQINV+LDS": {"power": 0.5, **LDS},
    "INV+LDS": {"power": 1.0, **LDS},
}
# On the features: the limits on the ratio of variances are the released code's for text.
CALIBRATION = {"size": 5, "sigma": 2.0, "clip": [0.5, 2.0]}
# The weight of dirlearn.RankSim, which averages over rows; the paper's gamma is that of a sum.
# Chosen on the validation set, on other seeds: the study sts_b_ranksim.
GAMMA = 3.0
FEATURES: dict[str, dict[str, Any]] = {
    "": {},
    "FDS": {"fds": CALIBRATION},
    "RankSim": {"ranksim": GAMMA},
    "FDS+RankSim": {"fds": CALIBRATION, "ranksim": GAMMA},
}


def _named(weights: str, features: str) -> str:
    """Name of a combination, as the papers write it: ``INV+LDS+FDS``, but ``FDS`` alone."""
    if weights == "vanilla" and features:
        return features
    return f"{weights}+{features}" if features else weights


METHODS: dict[str, dict[str, Any]] = {
    _named(weights, features): {"weights": WEIGHTS[weights], **FEATURES[features]}
    for features in FEATURES
    for weights in WEIGHTS
}
# Under INV+LDS the same floor would never be reached: no effective density here is below 5.
METHODS["INV, floor"] = {"weights": {**WEIGHTS["INV"], "clip": [5, None]}}

# Recorded under these names; the chapter shows "gamma 3" as "weight 3".
GAMMAS: dict[str, dict[str, Any]] = {
    "no RankSim": {"weights": WEIGHTS["vanilla"]},
    **{
        f"gamma {gamma:g}": {"weights": WEIGHTS["vanilla"], "ranksim": gamma}
        for gamma in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    },
}


def train_sts(
    method: Mapping[str, Any],
    seed: int,
    *,
    part: Literal["val", "test"] = "test",
    epochs: int = 20,
) -> Run:
    """Train a small head on frozen sentence embeddings and predict one part of STS-B-DIR.

    ``method`` holds ``"weights"``, the arguments of :func:`dirlearn.lds_weights` besides labels and
    bins; if it is used, ``"fds"``, those of :class:`dirlearn.FDS`; and ``"ranksim"``, the weight of
    :class:`dirlearn.RankSim`. Initialisation, batch order and dropout follow from ``seed`` alone,
    and so do the labels that RankSim draws; the data are always the same. ``part`` is ``"val"``
    while something is being chosen.

    Examples
    --------
    >>> run = train_sts(METHODS["INV"], seed=0, epochs=1)
    >>> run.prediction.shape, sorted(run.extra)
    ((1000,), ['best_epoch', 'val_error'])
    """
    data = sts_b_dir()
    weights = lds_weights(data.train.y, data.bins, **method["weights"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of initialisation, and then of dropout
        encoder = table_encoder(data.train.x.shape[1], dropout=0.3)
        fds = FDS(encoder.num_features, data.bins, **method["fds"]) if "fds" in method else None
        model = Regressor(encoder, offset=2.5, scale=1.25, fds=fds)
        draws = torch.Generator().manual_seed(seed)
        ranksim = RankSim(method["ranksim"], generator=draws) if "ranksim" in method else None
        result = fit(
            model,
            data,
            seed=seed,
            objective=on_features(regularizer=ranksim),
            weights=weights,
            epochs=epochs,
            after_epoch=None if fds is None else lambda _: fds.step(),
        )
    asked = data.val if part == "val" else data.test
    return Run(
        # In double precision a float32 0.7 would lie below 0.7, in another bin: three digits again.
        target=np.asarray(asked.y).astype(np.float64).round(3),
        prediction=np.asarray(predict(result.model, asked.x)),
        train_counts=data.train_counts,
        extra={
            "best_epoch": result.best_epoch,
            "val_error": result.history[result.best_epoch]["val_error"],
        },
    )


# Three digits, because an error is about half a point.
STS_B_DIR = Study("sts_b_dir", train_sts, METHODS, range(10), SCORES, decimals=3)
STS_B_RANKSIM = Study(
    "sts_b_ranksim", train_sts, GAMMAS, range(100, 106), SCORES, {"part": "val"}, decimals=3
)

"""Few labels of a skewed continuous target and a pool of images: pre-training, measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dirlearn.arrays import Array
from dirlearn.fds import FDS
from dirlearn.lab.augment import GREY
from dirlearn.lab.bridge import INV_LDS, Answer, no_validation
from dirlearn.lab.datasets import Split
from dirlearn.lab.models import Encoder, Regressor, conv_encoder
from dirlearn.lab.pretraining import pretrain
from dirlearn.lab.results import known
from dirlearn.lab.scarce import RHO, TASKS, Pooled, pooled_digits
from dirlearn.lab.study import Run, Study
from dirlearn.lab.training import fit, on_features, predict, shift
from dirlearn.lds import lds_weights
from dirlearn.pseudo import pseudo_target_weights
from dirlearn.ranksim import RankSim

TASK = TASKS["digits"]
# How the network with its pre-trained encoder learns the labels. The weight of RankSim is the one
# that the chapter *Benchmarking DIR* chose for digits.
FINE: dict[str, dict[str, Any]] = {
    "plain": {},
    "INV+LDS": {"weights": INV_LDS},
    "FDS": {"fds": {}},
    "RankSim": {"ranksim": 6.4},
    "INV+LDS+FDS": {"weights": INV_LDS, "fds": {}},
    "INV+LDS+RankSim": {"weights": INV_LDS, "ranksim": 6.4},
}
# Neither turned, for an angle is to be told, nor mirrored, for that would reverse it.
UPRIGHT = replace(GREY, turn=0.0)
ALPHAS = tuple(10.0 ** np.arange(-1, 5))  # of the ridge; the validation set chooses


@lru_cache(maxsize=8)
def _pretrained(
    pretext: str | None, seen: str, turn: float, seed: int, steps: int
) -> dict[str, Tensor]:
    """State of the encoder: methods of one seed share it."""
    encoder = _encoder(seed)
    data = pooled_digits(RHO, seed)
    x = data.train.x if seen == "labelled" else torch.cat([data.train.x, data.pool.x])
    if pretext is not None:
        epochs = math.ceil(steps / (len(x) // 64))
        views = shift if pretext == "rotation" else replace(UPRIGHT, turn=turn)
        pretrain(pretext, encoder, x, seed=seed, epochs=epochs, views=views)
    return encoder.state_dict()


def _encoder(seed: int) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # A fifth faster on a CPU.
        return conv_encoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch types lack it


def train_transfer(method: Mapping[str, Any], seed: int, *, steps: int = 600) -> Run:
    """Pre-train an encoder without labels, learn the scarce ones, and predict the test set.

    ``method`` may hold ``"pretext"`` (``"rotation"`` or ``"SimCLR"``; by default none), ``"seen"``
    (``"labelled"`` images, the default, or ``"both"``, these and the pool), and ``"turn"``, by how
    many degrees SimCLR's views are turned. Then follows either ``"fine"``, a name of :data:`FINE`,
    for ``"times"`` as many steps and, if ``"pseudo"``, once more from the pre-trained encoder with
    the pool as the first network labels it, weighted by the effective density of both; or
    ``"probe"``, a ridge regression on what is frozen: ``"features"`` or ``"pixels"``. Its samples
    are weighted (INV, LDS 5/2), and its penalty is the one that errs least on the validation set.

    Raises
    ------
    ValueError
        If a name is unknown.

    Examples
    --------
    >>> method = {"pretext": "rotation", "seen": "both", "fine": "INV+LDS"}
    >>> train_transfer(method, seed=0, steps=10).prediction.shape
    (1500,)
    """
    for key in method:
        known(
            key, ("pretext", "seen", "turn", "fine", "times", "pseudo", "probe"), "key of a method"
        )
    data = pooled_digits(RHO, seed)
    start = _pretrained(
        method.get("pretext"),
        known(method.get("seen", "labelled"), ("labelled", "both"), "set of images"),
        method.get("turn", 0.0),
        seed,
        steps,
    )
    if "probe" in method:
        prediction = _probe(data, start, seed, known(method["probe"], PROBES, "probe"))
    else:
        fine = FINE[known(method["fine"], FINE, "fine-tuning")]
        weights = None
        if "weights" in fine:
            weights = lds_weights(data.train.y, TASK.bins, **fine["weights"])
        times = method.get("times", 1)
        answer = _tuned(data.train, weights, start, fine, seed, times * steps)
        if method.get("pseudo"):
            given = answer(data.pool.x)
            joint = Split(torch.cat([data.train.x, data.pool.x]), torch.cat([data.train.y, given]))
            weights = torch.cat(pseudo_target_weights(data.train.y, given, TASK.bins, **INV_LDS))
            answer = _tuned(joint, weights, start, fine, seed, steps)
        prediction = np.asarray(answer(data.test.x))
    return Run(
        target=np.asarray(data.test.y), prediction=prediction, train_counts=data.train_counts
    )


PROBES = ("features", "pixels")


def _tuned(
    train: Split,
    weights: Tensor | None,
    start: Mapping[str, Tensor],
    fine: Mapping[str, Any],
    seed: int,
    steps: int,
) -> Answer:
    encoder = _encoder(seed)
    encoder.load_state_dict(start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the head, the same whatever the encoder has been through
        fds = FDS(encoder.num_features, TASK.bins, **fine["fds"]) if "fds" in fine else None
        model = Regressor(encoder, offset=50.0, scale=25.0, fds=fds)
    ranksim = None
    if "ranksim" in fine:
        ranksim = RankSim(fine["ranksim"], generator=torch.Generator().manual_seed(seed))
    fit(
        model,
        no_validation(TASK, train),
        seed=seed,
        objective=on_features(regularizer=ranksim),
        weights=weights,
        epochs=math.ceil(steps / math.ceil(len(train) / 64)),
        augment=shift,
        after_epoch=None if fds is None else lambda _: fds.step(),
        keep="last",
    )
    return lambda x: predict(model, x).clamp(0, 100)


def _probe(data: Pooled, start: Mapping[str, Tensor], seed: int, of: str) -> Array:
    encoder = _encoder(seed)
    encoder.load_state_dict(start)

    def features(split: Split) -> Array:
        x = split.x if of == "pixels" else predict(encoder, split.x)
        return np.asarray(x.flatten(1), dtype=np.float64)

    weights = np.asarray(lds_weights(data.train.y, TASK.bins, **INV_LDS), dtype=np.float64)
    train, val = features(data.train), features(data.val)
    best, chosen = math.inf, None
    for alpha in ALPHAS:
        model = make_pipeline(StandardScaler(), Ridge(alpha))
        model.fit(train, np.asarray(data.train.y, np.float64), ridge__sample_weight=weights)
        error = np.abs(model.predict(val).clip(0, 100) - np.asarray(data.val.y)).mean()
        if error < best:
            best, chosen = error, model
    assert chosen is not None
    return np.asarray(chosen.predict(features(data.test)).clip(0, 100))


STARTS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "rotation": {"pretext": "rotation"},
    "rotation, pool too": {"pretext": "rotation", "seen": "both"},
    "SimCLR, pool too": {"pretext": "SimCLR", "seen": "both"},
}


def _cells() -> dict[str, dict[str, Any]]:
    cells: dict[str, dict[str, Any]] = {"probe: pixels": {"probe": "pixels"}}
    turned = {"SimCLR, pool too, views turned": STARTS["SimCLR, pool too"] | {"turn": 45.0}}
    cells |= {f"probe: {s}": m | {"probe": "features"} for s, m in (STARTS | turned).items()}
    for f in ("plain", "INV+LDS"):
        cells[f"scratch, three times as long: {f}"] = {"fine": f, "times": 3}
    best = "rotation, pool too"
    last = STARTS[best] | {"fine": "INV+LDS", "pseudo": True}
    cells[f"{best}: INV+LDS, then pseudo-labels"] = last
    plan = {s: ["plain", "INV+LDS"] for s in STARTS} | {"rotation": ["INV+LDS"]}
    plan["scratch"] += ["FDS", "RankSim"]
    plan[best] += ["FDS", "RankSim", "INV+LDS+FDS", "INV+LDS+RankSim"]
    return cells | {f"{s}: {f}": STARTS[s] | {"fine": f} for s in plan for f in plan[s]}


TRANSFER = Study("bridge_ssp", train_transfer, _cells(), range(5), TASK.regions)

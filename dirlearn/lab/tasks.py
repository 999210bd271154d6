"""Tasks and methods of the chapter *Benchmarking DIR*: what is compared, and on what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from dirlearn.bins import Bins
from dirlearn.lab.datasets import (
    ANGLES,
    GLUCOSE,
    SCORES,
    Dataset,
    glucose,
    rotated_digits,
    sts_b_dir,
)
from dirlearn.lab.models import Encoder, conv_encoder, table_encoder
from dirlearn.lab.training import Augment, shift

LDS = {"kernel": "gaussian", "size": 5, "sigma": 2.0}  # the paper's
SQINV, INV = {"power": 0.5, "kernel": None}, {"power": 1.0, "kernel": None}
SQINV_LDS, INV_LDS = {"power": 0.5, **LDS}, {"power": 1.0, **LDS}


@dataclass(frozen=True)
class Task:
    """A data set, the network that learns it, and what was chosen for it on validation data.

    ``clip`` limits FDS's ratio of variances as the released code does for this kind of input.
    ``beta`` of Focal-R, the weight of ``ranksim`` and ``sigma`` of Balanced MSE are the middle of
    what :func:`choices` tries; ``chosen`` names what had the least validation error.
    """

    data: Callable[[int], Dataset]
    encoder: Callable[[], Encoder]
    bins: Bins
    epochs: int
    augment: Augment | None
    decimals: int
    clip: tuple[float, float]
    beta: float
    ranksim: float
    sigma: float
    chosen: tuple[str, str, str, str, str]

    @property
    def low(self) -> float:
        """Low end of the range of the labels."""
        return float(self.bins.edges[0])

    @property
    def high(self) -> float:
        """High end of the range of the labels."""
        return float(self.bins.edges[-1])


TASKS: dict[str, Task] = {
    "digits": Task(
        data=partial(rotated_digits, "agedb"),
        encoder=conv_encoder,
        bins=ANGLES,
        epochs=15,
        augment=shift,
        decimals=2,
        clip=(0.1, 10.0),
        beta=0.2,
        ranksim=64.0,
        sigma=10.0,
        chosen=("Focal-R 0.2", "RankSim 6.4", "BMC 10, learned", "GAI 10, learned", "RRT 0.1"),
    ),
    "sts_b": Task(
        data=lambda _: sts_b_dir(),
        encoder=partial(table_encoder, 768, dropout=0.3),
        bins=SCORES,
        epochs=20,
        augment=None,
        decimals=3,
        clip=(0.5, 2.0),
        beta=4.0,
        ranksim=3.0,
        sigma=0.8,
        chosen=("Focal-R 1", "RankSim 3", "BMC 0.8", "GAI 0.8", "RRT 0.01"),
    ),
    "glucose": Task(
        data=lambda seed: glucose(seed=seed),
        encoder=partial(table_encoder, 26),
        bins=GLUCOSE,
        epochs=20,
        augment=None,
        decimals=1,
        clip=(0.1, 10.0),
        beta=0.05,
        ranksim=64.0,
        sigma=30.0,
        chosen=("Focal-R 0.05", "RankSim 64", "BMC 30, learned", "GAI 30, learned", "RRT 0.1"),
    ),
}

# What one may want: a shot region and a metric.
AIMS = {
    "all labels alike": ("all", "mae"),
    "rare labels": ("few", "mae"),
    "no large errors": ("all", "mse"),
    "common labels": ("many", "mae"),
}
# What asks least of a user first: nothing, or next to it; weights of the samples, and then with a
# window or a density to choose; another loss, and then with a spread to choose; a second stage;
# synthetic samples; layers or terms on the features; combinations.
EFFORT = (
    *("vanilla", "MSE", "SQINV", "INV", "SQINV+LDS", "INV+LDS", "DenseWeight"),
    *("Focal-R", "GAI", "BMC", "RRT", "SMOTER", "SMOGN", "FDS", "RankSim"),
    *("Focal-R+LDS", "RRT+LDS", "SQINV+FDS", "Focal-R+FDS", "SQINV+LDS+FDS", "SQINV+LDS+RankSim"),
    *("Focal-R+LDS+FDS", "RRT+LDS+FDS"),
)


def methods(task: Task) -> dict[str, dict[str, Any]]:
    """Every method of the benchmark, as :func:`train_benchmark` takes it.

    Re-weighting, then losses, then resampling, then what acts on the features, then combinations of
    the baselines with LDS and FDS as in Yang et al. (2021, section 4).

    Examples
    --------
    >>> plan = methods(TASKS["sts_b"])
    >>> len(plan), plan["Focal-R+LDS"]["loss"]
    (23, {'name': 'focal', 'beta': 1.0})
    """
    tried = choices(task)
    focal, ranksim, bmc, gai, rrt = (tried[name] for name in task.chosen)
    rrt_lds = {"retrain": rrt["retrain"] | SQINV_LDS}
    fds = {"fds": {"clip": list(task.clip)}}
    return {
        "vanilla": {},
        "MSE": {"loss": {"name": "MSE"}},  # the base of Balanced MSE; the others' is the MAE
        "SQINV": {"weights": SQINV},
        "INV": {"weights": INV},
        "SQINV+LDS": {"weights": SQINV_LDS},
        "INV+LDS": {"weights": INV_LDS},
        "DenseWeight": {"weights": {"dense": 1.0}},
        "Focal-R": focal,
        "BMC": bmc,
        "GAI": gai,
        "RRT": rrt,
        "SMOTER": {"resample": "SMOTER"},
        "SMOGN": {"resample": "SMOGN"},
        "FDS": fds,
        "RankSim": ranksim,
        "SQINV+FDS": {"weights": SQINV} | fds,
        "SQINV+LDS+FDS": {"weights": SQINV_LDS} | fds,
        "SQINV+LDS+RankSim": {"weights": SQINV_LDS} | ranksim,
        "Focal-R+LDS": focal | {"weights": SQINV_LDS},
        "Focal-R+FDS": focal | fds,
        "Focal-R+LDS+FDS": focal | {"weights": SQINV_LDS} | fds,
        "RRT+LDS": rrt_lds,
        "RRT+LDS+FDS": rrt_lds | fds,
    }


def choices(task: Task) -> dict[str, dict[str, Any]]:
    """Settings tried for a task, judged on its validation set, on seeds that no other study has.

    Examples
    --------
    >>> len(choices(TASKS["digits"]))
    16
    """
    plan: dict[str, dict[str, Any]] = {"vanilla": {}}
    for factor in (0.25, 1.0, 4.0):
        beta = factor * task.beta
        plan[f"Focal-R {beta:g}"] = {"loss": {"name": "focal", "beta": beta}}
    for factor in (0.1, 1.0, 10.0):
        weight = factor * task.ranksim
        plan[f"RankSim {weight:g}"] = {"ranksim": weight}
    for name in ("BMC", "GAI"):
        for factor in (0.5, 1.0):
            sigma = factor * task.sigma
            plan[f"{name} {sigma:g}"] = {"loss": {"name": name, "sigma": sigma}}
        learned = {"name": name, "sigma": task.sigma, "learn": True}
        plan[f"{name} {task.sigma:g}, learned"] = {"loss": learned}
    for rate in (1e-3, 1e-2, 1e-1):
        plan[f"RRT {rate:g}"] = {"retrain": {**SQINV, "rate": rate}}
    return plan

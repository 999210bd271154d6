"""Methods for regression on imbalanced continuous targets, in PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dirlearn import released
from dirlearn.balanced_mse import BalancedMSE, GAILoss, balanced_mse
from dirlearn.bins import Bins
from dirlearn.bootstrap import bootstrap_interval
from dirlearn.contrast import info_nce, nt_xent
from dirlearn.curves import error_curve
from dirlearn.density import dense_weights, kde_density
from dirlearn.depth import depth_metrics
from dirlearn.fds import FDS
from dirlearn.focal import focal_loss
from dirlearn.gaps import label_gaps
from dirlearn.joint import SemiSupervisedLoss, joint_weights
from dirlearn.kernels import kernel_window
from dirlearn.ldam import CosineLinear, LDAMLoss, ldam_loss, ldam_margins
from dirlearn.lds import effective_density, inverse_weights, lds_weights
from dirlearn.longtail import (
    balanced_sampler,
    class_balanced_weights,
    class_counts,
    deferred_weights,
    long_tailed_counts,
)
from dirlearn.losses import focal_r, weighted_huber, weighted_l1, weighted_mse
from dirlearn.moco import MoCo
from dirlearn.pools import draw_pool, pool_counts
from dirlearn.pseudo import (
    PseudoLabels,
    pseudo_label,
    pseudo_target_weights,
    relabel_epochs,
)
from dirlearn.ranksim import RankSim, rank, ranksim_loss
from dirlearn.regions import by_region
from dirlearn.relevance import Relevance, relevance
from dirlearn.resampling import smogn, smoter
from dirlearn.retrain import Frozen, reinitialise
from dirlearn.sera import sera
from dirlearn.ssp import RotationPrediction, SimCLR, rotate_batch
from dirlearn.truncated import truncated_mean

if TYPE_CHECKING:
    from dirlearn.metrics import (
        ShotMetrics,
        balanced_mae,
        geometric_mean_error,
        mae_by_bin,
        shot_metrics,
    )

__all__ = [
    "FDS",
    "BalancedMSE",
    "Bins",
    "CosineLinear",
    "Frozen",
    "GAILoss",
    "LDAMLoss",
    "MoCo",
    "PseudoLabels",
    "RankSim",
    "Relevance",
    "RotationPrediction",
    "SemiSupervisedLoss",
    "ShotMetrics",
    "SimCLR",
    "balanced_mae",
    "balanced_mse",
    "balanced_sampler",
    "bootstrap_interval",
    "by_region",
    "class_balanced_weights",
    "class_counts",
    "deferred_weights",
    "dense_weights",
    "depth_metrics",
    "draw_pool",
    "effective_density",
    "error_curve",
    "focal_loss",
    "focal_r",
    "geometric_mean_error",
    "info_nce",
    "inverse_weights",
    "joint_weights",
    "kde_density",
    "kernel_window",
    "label_gaps",
    "ldam_loss",
    "ldam_margins",
    "lds_weights",
    "long_tailed_counts",
    "mae_by_bin",
    "nt_xent",
    "pool_counts",
    "pseudo_label",
    "pseudo_target_weights",
    "rank",
    "ranksim_loss",
    "reinitialise",
    "relabel_epochs",
    "released",
    "relevance",
    "rotate_batch",
    "sera",
    "shot_metrics",
    "smogn",
    "smoter",
    "truncated_mean",
    "weighted_huber",
    "weighted_l1",
    "weighted_mse",
]


def __getattr__(name: str) -> Any:
    # The metrics stand on torchmetrics, which takes longer to import than torch: load it on demand.
    if name in __all__:
        from dirlearn import metrics

        return getattr(metrics, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("dirlearn")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

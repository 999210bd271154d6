"""What the papers' released code computes where it differs from the paper.

Behaviour only, written anew on this package's own modules, so that the difference can be measured.
The repository mirrored here is YyzHarry/imbalanced-regression at commit a6fdc45 (MIT licence); for
:func:`ranksim_loss` it is BorealisAI/ranksim-imbalanced-regression at commit 9e1c862, which is not
freely licensed: that function is written from the paper and a description of the behaviour. For
:class:`SemiSupervisedLoss`, :func:`class_counts` and :func:`pool_counts` it is
YyzHarry/imbalanced-semi-self at commit b91ad29 (MIT licence).
"""

from __future__ import annotations

from dirlearn.released.fds import FDS
from dirlearn.released.lds import KernelName, kernel_window, reweight
from dirlearn.released.losses import focal_r
from dirlearn.released.ranksim import ranksim_loss
from dirlearn.released.semi import SemiSupervisedLoss, class_counts, pool_counts
from dirlearn.released.sts_b import sts_b_shots

__all__ = [
    "FDS",
    "KernelName",
    "SemiSupervisedLoss",
    "class_counts",
    "focal_r",
    "kernel_window",
    "pool_counts",
    "ranksim_loss",
    "reweight",
    "sts_b_shots",
]

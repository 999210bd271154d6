"""Sentence pairs of STS-B-DIR as a frozen encoder sees them; the makers of data draw on them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from dirlearn.lab.facts import data_folder

PARTS = ("train", "val", "test")  # what the file's 0, 1 and 2 mean


def sentence_pairs(part: str) -> tuple[Tensor, Tensor]:
    """Pairs ``[|a - b|, a * b]`` of shape (N, 768) and scores of shape (N,).

    Raises
    ------
    ValueError
        If ``part`` is not one of :data:`PARTS`.

    Examples
    --------
    >>> x, y = sentence_pairs("test")
    >>> x.shape, float(y.min()), float(y.max())
    (torch.Size([1000, 768]), 0.0, 5.0)
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
    embeddings, pairs, scores, split = _file()
    mine = split == PARTS.index(part)
    a, b = embeddings[pairs[mine, 0]], embeddings[pairs[mine, 1]]
    return torch.cat([(a - b).abs(), a * b], dim=1), scores[mine]


@cache
def _file() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings (sentences, 384), pairs (N, 2) of their rows, scores (N,), parts (N,)."""
    with np.load(data_folder() / "text" / "sts_b_dir.npz") as held:
        # Whole numbers from -127 to 127, times a step of each sentence's own.
        embeddings = held["embedding"].astype(np.float32) * held["step"][:, None]
        columns = (embeddings, held["pair"].astype(np.int64), held["score"], held["split"])
    embedding, pair, score, split = map(torch.from_numpy, columns)
    return embedding, pair, score, split

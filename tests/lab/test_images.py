from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from dirlearn.lab.datasets import CLASSES, long_tailed_digits, long_tailed_fashion
from dirlearn.lab.digits import digit_pools
from dirlearn.lab.facts import data_folder
from dirlearn.lab.images import long_tail
from dirlearn.lab.splits import Split

SCRIPT = Path(__file__).parents[2] / "data" / "images" / "make_fashion.py"  # not in a wheel
MAKERS = pytest.mark.parametrize("make", [long_tailed_digits, long_tailed_fashion])
PARTS = ("train", "val", "test", "pool")


def pixels(split):
    return np.unique(split.x.flatten(1).numpy(), axis=0)


@MAKERS
@pytest.mark.parametrize(("n_max", "rho"), [(40, 1), (40, 20), (100, 50), (300, 100)])
def test_class_counts_are_those_of_the_released_code(make, n_max, rho):
    data = make(n_max, rho, seed=4)
    released = [int(n_max * ((1 / rho) ** (c / 9.0))) for c in range(10)]
    assert data.train_counts.tolist() == released
    assert torch.bincount(data.train.y).tolist() == released
    images = 300 if make is long_tailed_digits else 600
    assert torch.bincount(data.pool.y, minlength=10).tolist() == [images - n for n in released]
    for part in (data.val, data.test):
        assert len(set(torch.bincount(part.y).tolist())) == 1  # balanced


@MAKERS
def test_no_image_is_in_two_parts(make):
    data = make(seed=1)
    parts = [pixels(getattr(data, part)) for part in PARTS]
    assert sum(map(len, parts)) == sum(len(getattr(data, part)) for part in PARTS)  # nor twice
    assert len(np.unique(np.concatenate(parts), axis=0)) == sum(map(len, parts))


@MAKERS
def test_seed_draws_who_is_labelled_and_never_the_test_set(make):
    first, again, other = make(seed=1), make(seed=1), make(seed=2)
    for part in PARTS:
        torch.testing.assert_close(getattr(first, part).x, getattr(again, part).x, rtol=0, atol=0)
        torch.testing.assert_close(getattr(first, part).y, getattr(again, part).y, rtol=0, atol=0)
    for part in ("val", "test"):
        torch.testing.assert_close(getattr(first, part).x, getattr(other, part).x, rtol=0, atol=0)
    assert not torch.equal(first.train.x, other.train.x)
    both = len(pixels(first.train)) + len(pixels(other.train))
    assert len(np.unique(np.concatenate([pixels(first.train), pixels(other.train)]), axis=0)) > (
        0.7 * both
    )


@MAKERS
def test_labels_stay_when_more_are_added(make):
    few, more = make(20, 10, seed=3), make(60, 5, seed=3)
    together = np.unique(np.concatenate([pixels(few.train), pixels(more.train)]), axis=0)
    assert len(together) == len(more.train)


@MAKERS
def test_images_lie_in_zero_to_one_and_classes_are_whole(make):
    data = make()
    for part in PARTS:
        split = getattr(data, part)
        assert split.x.dtype == torch.float32
        assert split.x.shape[1:] == (1, 28, 28)
        assert 0 <= float(split.x.min()) < float(split.x.max()) <= 1
        assert split.y.dtype == torch.int64
    assert data.bins == CLASSES
    assert data.unit == "class"


@MAKERS
def test_pools_of_every_imbalance_of_the_chapters_can_be_drawn(make):
    """A pool is five times the labelled set; released: first = total / sum of the profile."""
    data = make()
    there = torch.bincount(data.pool.y).numpy()
    for rho in (1, 10, 20, 40) if make is long_tailed_digits else (1, 10, 25, 50):
        profile = (1 / rho) ** (np.arange(10) / 9)
        assert (np.floor(5 * len(data.train) / profile.sum() * profile) <= there).all()


@MAKERS
def test_images_belong_to_their_classes(make):
    """The nearest class mean of the pool is right far more often than one time in ten."""
    data = make()
    means = torch.stack([data.pool.x[data.pool.y == c].mean(dim=0) for c in range(10)])
    for part in ("train", "val", "test"):
        split = getattr(data, part)
        nearest = torch.cdist(split.x.flatten(1), means.flatten(1)).argmin(dim=1)
        assert float((nearest == split.y).float().mean()) > 0.6


def test_digits_are_those_of_the_rotated_digits():
    data, pools = long_tailed_digits(), digit_pools()
    np.testing.assert_array_equal(pixels(data.test), np.unique(pools["test"].flatten(1), axis=0))


def test_caller_cannot_change_what_the_next_one_gets():
    long_tailed_fashion().test.x.zero_()
    assert long_tailed_fashion().test.x.abs().sum() > 0


@MAKERS
def test_bad_profiles_are_refused(make):
    with pytest.raises(ValueError, match="would have no sample"):
        make(10, 20)
    with pytest.raises(ValueError, match="rho must be 1 or more"):
        make(10, 0.5)
    with pytest.raises(ValueError, match="n_max must be at most"):
        make(601, 2)


def test_every_class_needs_images():
    one = Split(torch.zeros(4, 1), torch.tensor([0, 0, 1, 1]))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at most 0"):
        long_tail("toy", one, one, one, bins=CLASSES, n_max=2, rho=1, rng=rng, source="here")


# ---- the script that made the file


def maker():
    spec = importlib.util.spec_from_file_location("make_fashion", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_file_holds_what_the_script_says():
    make = maker()
    with np.load(data_folder() / "images" / "fashion.npz") as held:
        shapes = {part: held[part].shape for part in held.files}
        assert {held[part].dtype for part in held.files} == {np.dtype(np.uint8)}
    numbers = {"train": make.TRAIN, "val": make.VAL, "test": make.TEST}
    assert shapes == {part: (10, n, 28, 28) for part, n in numbers.items()}


def test_script_draws_as_many_of_each_class_and_refuses_another_file(tmp_path):
    make = maker()
    labels = np.repeat(np.arange(10, dtype=np.uint8), 7)
    rows = make.drawn(labels, 5, np.random.default_rng(0))
    np.testing.assert_array_equal(labels[rows], np.repeat(np.arange(10)[:, None], 5, axis=1))
    assert len(np.unique(rows)) == 50
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(SystemExit, match=r"SHA-256 .* expected"):
        make.unpacked(tmp_path, "t10k-labels-idx1")

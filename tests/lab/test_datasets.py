from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from dirlearn.lab.datasets import (
    ANGLES,
    PRICES,
    data_folder,
    diamonds,
    digit_density,
    digit_pairs,
    label_histogram,
    rotated_digits,
)
from dirlearn.lab.digits import digit_pools, rotate

# ---- published histograms


def in_region(target, region, tested=None):
    mask = target.shots == region
    return int(target.counts[mask if tested is None else mask & tested].sum())


def column(name, title):
    path = data_folder() / "histograms" / f"{name}.csv"
    return np.genfromtxt(path, delimiter=",", names=True)[title]


def test_agedb_counts_and_regions_are_those_published():
    # Yang et al. (2021): 12,208 training images; regions of the ages that have test images.
    target = label_histogram("agedb_dir")
    assert target.counts.sum() == 12_208
    tested = column("agedb_dir", "count_test") > 0
    regions = [in_region(target, region, tested) for region in ("many", "medium", "few")]
    assert regions == [11_154, 851, 191]


@pytest.mark.parametrize(
    ("name", "total", "bins"),
    [
        ("imdb_wiki_dir", 191_509, 121),
        ("sts_b_dir", 5_249, 50),
        ("nyud2_dir", 3_513_286_656, 100),
    ],
)
def test_histograms_are_whole(name, total, bins):
    target = label_histogram(name)
    assert target.counts.sum() == total
    assert len(target.counts) == len(target.bins) == bins
    assert target.source
    assert target.unit


def test_shot_regions_match_the_released_ones_but_for_their_stale_lists():
    path = data_folder() / "histograms" / "shot_regions.csv"
    rows = [line.split(",") for line in path.read_text().splitlines() if '"' not in line]
    released = {(r[0], r[1]): int(r[3]) for r in rows[1:] if r[3].isdigit()}
    depth = label_histogram("nyud2_dir")
    for region in ("many", "medium", "few"):
        assert in_region(depth, region) == released["NYUD2-DIR (pixels)", region]
    # The released lists for STS-B-DIR file five bins of 20 to 27 pairs as few-shot.
    scores = label_histogram("sts_b_dir")
    misfiled = int(scores.counts[[15, 25, 33, 45, 47]].sum())
    title = "STS-B-DIR (dir repo)"
    assert in_region(scores, "many") == released[title, "many"]
    assert in_region(scores, "medium") == released[title, "medium"] + misfiled
    assert in_region(scores, "few") == released[title, "few"] - misfiled


def test_unknown_histogram_lists_the_known():
    with pytest.raises(ValueError, match="agedb_dir, imdb_wiki_dir, sts_b_dir, nyud2_dir"):
        label_histogram("agedb")


# ---- rotated digits


def test_training_angles_follow_the_density():
    digits = rotated_digits("agedb", seed=3)
    np.testing.assert_array_equal(digits.train_counts, digit_density("agedb"))
    assert (ANGLES.counts(digits.val.y) == 5).all()
    assert (ANGLES.counts(digits.test.y) == 15).all()
    assert float(digits.train.x.min()) >= 0
    assert float(digits.train.x.max()) <= 1 + 1e-6


def test_same_seed_same_data_and_another_seed_another_but_the_test_set():
    first, again, other = (rotated_digits("rough", seed=s) for s in (1, 1, 2))
    for part in ("train", "val", "test"):
        torch.testing.assert_close(getattr(first, part).x, getattr(again, part).x, rtol=0, atol=0)
        torch.testing.assert_close(getattr(first, part).y, getattr(again, part).y, rtol=0, atol=0)
    torch.testing.assert_close(first.test.x, other.test.x, rtol=0, atol=0)
    assert not torch.equal(first.val.y, other.val.y)
    assert not np.array_equal(first.train_counts, other.train_counts)


def test_rough_density_is_as_long_tailed_but_jumps():
    smooth = digit_density("agedb").astype(float)
    rough = np.mean([digit_density("rough", seed) for seed in range(20)], axis=0)
    assert np.corrcoef(smooth, rough)[0, 1] > 0.9  # on average the same shape
    jumps = [np.abs(np.diff(d)).sum() for d in (smooth, digit_density("rough", 0))]
    assert jumps[1] > 4 * jumps[0]


def test_test_digits_stand_upright_at_angle_zero():
    # Turned back by its angle, a test image is one of the upright digits again, up to blur.

    digits = rotated_digits("agedb")
    upright = rotate(digits.test.x[:40], -digits.test.y[:40]).flatten(1)
    originals = digit_pools()["test"].flatten(1)
    nearest = torch.cdist(upright, originals).min(dim=1).values / upright.norm(dim=1)
    assert float(nearest.max()) < 0.5


@pytest.mark.parametrize(
    "density", ["flat", np.ones(99, int), np.ones(100), -np.ones(100, int), np.zeros(100, int)]
)
def test_bad_density_is_refused(density):
    with pytest.raises(ValueError, match="density must"):
        rotated_digits(density)


def test_digit_pairs_show_the_number():
    density = np.arange(100) % 3
    pairs = digit_pairs(density, seed=1)
    np.testing.assert_array_equal(np.bincount(pairs.train.y, minlength=100), density)
    # The left half of 11 and the right half of 41 both show a one: the leanest of digits.
    ink = pairs.test.x.mean(dim=(1, 2))
    ones = (pairs.test.y // 10 == 1).numpy()
    assert float(ink[ones][:, :28].mean()) < 0.6 * float(ink[~ones][:, :28].mean())


# ---- diamonds


def test_diamonds_are_balanced_where_they_should_be_and_share_no_row():
    table = diamonds(n_train=3000, seed=0)
    assert len(table.train) == 3000
    assert PRICES.counts(table.test.y).max() == 10
    rows = torch.cat([table.train.x, table.val.x, table.test.x])
    with np.load(data_folder() / "tabular" / "diamonds.npz") as whole:
        duplicates = len(rows) - len(np.unique(rows.numpy(), axis=0))
        everything = np.stack([whole[k] for k in whole.files if k != "price"], axis=1)
    expected = len(everything) - len(np.unique(everything, axis=0))
    assert duplicates <= expected  # stones that measure alike exist; none was drawn twice


def test_diamonds_columns_are_standardised_by_the_training_set():
    x = diamonds(seed=4).train.x
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(9), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=0, correction=0), torch.ones(9), atol=1e-4, rtol=0)


def test_diamonds_seed_changes_training_only():
    a, b = diamonds(seed=0), diamonds(seed=1)
    torch.testing.assert_close(a.test.y, b.test.y, rtol=0, atol=0)
    assert not torch.equal(a.train.y, b.train.y)


@pytest.mark.parametrize("n_train", [0, 1, 60_000])
def test_diamonds_refuse_a_size_they_cannot_give(n_train):
    with pytest.raises(ValueError, match="n_train must lie between 2 and"):
        diamonds(n_train)


# ---- what keeps the sets apart


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_validation_and_test_angles_are_drawn_apart(seed):
    digits = rotated_digits("agedb", seed)
    assert not np.allclose(digits.val.y % 1, digits.test.y[:500] % 1, atol=1e-4)


def test_angles_fill_their_degree():
    fraction = rotated_digits("agedb").test.y % 1
    assert fraction.min() < 0.02
    assert fraction.max() > 0.98


def test_each_set_shows_digits_of_its_own_pool():
    digits, pools = rotated_digits("agedb"), digit_pools()
    for part in pools:
        split = getattr(digits, part)
        upright = rotate(split.x[:30], -split.y[:30]).flatten(1)
        apart = {p: torch.cdist(upright, x.flatten(1)).min(dim=1).values for p, x in pools.items()}
        for other in set(pools) - {part}:
            assert (apart[part] < apart[other]).all(), (part, other)


def test_digit_pairs_show_digits_of_their_own_pool_and_one_test_set():
    first, other = (digit_pairs(np.full(100, 2), seed) for seed in (0, 1))
    assert torch.equal(first.test.x, other.test.x)
    assert not torch.equal(first.train.x, other.train.x)
    assert not torch.equal(first.val.x, other.val.x)
    for part, pool in digit_pools().items():
        known = {image.numpy().tobytes() for image in pool}
        for half in getattr(first, part).x.split(28, dim=-1):
            assert {image.contiguous().numpy().tobytes() for image in half} <= known


def test_diamonds_deal_each_stone_once():
    with pytest.raises(ValueError, match="n_train") as caught:
        diamonds(10**9)
    table = diamonds(int(re.search(r"2 and (\d+)", str(caught.value)).group(1)))
    with np.load(data_folder() / "tabular" / "diamonds.npz") as whole:
        prices = np.sort(whole["price"])
    dealt = torch.cat([table.train.y, table.val.y, table.test.y]).sort().values
    np.testing.assert_array_equal(dealt, prices)

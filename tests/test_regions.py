import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.stats import pearsonr, spearmanr
from torchmetrics.functional import mean_absolute_error, pearson_corrcoef, spearman_corrcoef

from dirlearn import Bins, by_region, depth_metrics, shot_metrics

BINS = Bins.uniform(0, 6, 1)
TRAIN = [150, 100, 20, 19, 0, 0]  # many, medium, medium, few, zero, zero
REGION = np.array(["many", "medium", "medium", "few", "zero", "zero"])


def sample(n=300, seed=0, device="cpu"):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 6, n)
    pair = target + rng.normal(size=n), target
    return tuple(torch.tensor(values, device=device) for values in pair)


def mae(pred, target):
    return abs(pred - target).mean()


def pearson(pred, target):
    return pearsonr(pred, target).statistic


@pytest.mark.parametrize(
    ("metric", "twin"),
    [
        (pearson_corrcoef, pearson),
        (spearman_corrcoef, lambda p, t: spearmanr(p, t).statistic),
        (mean_absolute_error, mae),
    ],
)
def test_a_metric_of_torchmetrics_sees_each_region(metric, twin, device):
    figures = by_region(metric, *sample(device=device), TRAIN, BINS)
    pred, target = (values.numpy() for values in sample())
    region = REGION[np.floor(target).astype(int)]
    assert list(figures) == ["all", "many", "medium", "few", "zero"]
    assert figures["all"] == pytest.approx(twin(pred, target))
    for name in ("many", "medium", "few", "zero"):
        expected = twin(pred[region == name], target[region == name])
        assert type(figures[name]) is float
        assert figures[name] == pytest.approx(expected)


def test_mean_errors_are_those_of_shot_metrics():
    pred, target = sample()
    expected = shot_metrics(pred, target, TRAIN, BINS)
    for region, value in by_region(mae, pred, target, TRAIN, BINS).items():
        assert value == pytest.approx(expected[region]["mae"])


def test_too_few_items_are_nan_and_the_metric_is_not_called():
    target = np.array([0.2, 0.5, 0.7, 1.5, 1.7, 3.5])
    sizes = []

    def counted(pred, target):
        sizes.append(len(pred))
        return pearson(pred, target)

    figures = by_region(counted, target[::-1].copy(), target, TRAIN, BINS, at_least=3)
    assert sizes == [6, 3]
    assert [name for name, value in figures.items() if math.isnan(value)] == [
        "medium",
        "few",
        "zero",
    ]
    assert by_region(mae, target + 1, target, TRAIN, BINS)["few"] == pytest.approx(1)


def test_thresholds_are_handed_on():
    figures = by_region(lambda p, t: len(p), [1.0] * 3, [0.5, 1.5, 1.5], TRAIN, BINS, 120, 110)
    assert (figures["many"], figures["few"]) == (1, 2)
    assert all(math.isnan(figures[name]) for name in ("medium", "zero"))


def test_a_metric_may_give_several_figures():
    pred, target = sample(50)
    keep = target < 3
    figures = by_region(depth_metrics, pred.abs()[keep], target[keep], TRAIN, BINS)
    assert figures["many"].keys() == figures["zero"].keys()
    assert all(math.isnan(value) for value in figures["zero"].values())
    many = keep & (target < 1)
    assert figures["many"] == pytest.approx(depth_metrics(pred.abs()[many], target[many]))


@pytest.mark.parametrize("shape", [(60, 1), (3, 20), (3, 1, 4, 5)])
def test_any_shape_reaches_the_metric_flat(shape):
    pred, target = sample(60)
    dense = pred.reshape(shape), target.reshape(shape)
    expected = by_region(pearson_corrcoef, pred, target, TRAIN, BINS)
    assert_allclose(
        list(by_region(pearson_corrcoef, *dense, TRAIN, BINS).values()), list(expected.values())
    )


def test_kinds_are_kept():
    def kinds(pred, target):
        assert isinstance(pred, torch.Tensor)
        assert isinstance(target, np.ndarray)
        return 0.0

    pred, target = sample()
    by_region(kinds, pred, target.numpy(), TRAIN, BINS)


def test_results_that_are_no_number_are_refused():
    with pytest.raises(TypeError, match=r"metric must give a number .* give \.statistic"):
        by_region(pearsonr, *sample(), TRAIN, BINS)
    with pytest.raises(TypeError, match="got Tensor"):
        by_region(lambda p, t: p - t, *sample(), TRAIN, BINS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pred": np.ones((2, 1))}, r"pred has shape \(2, 1\), target has \(2,\)"),
        ({"pred": [], "target": []}, "are empty"),
        ({"pred": [np.nan, 1]}, "pred holds 1 value that is NaN"),
        ({"target": [np.inf, 1]}, "target holds 1 value that is NaN or infinite"),
        ({"train_counts": [1, 2]}, "counts must hold one number per bin"),
        ({"few": 0}, "thresholds"),
        ({"at_least": 3}, "2 items, fewer than at_least=3"),
    ],
    ids=str,
)
def test_bad_input_is_refused(change, words):
    given = {"pred": [1.0, 2.0], "target": [1.0, 2.0], "train_counts": TRAIN, "bins": BINS}
    with pytest.raises(ValueError, match=words):
        by_region(mae, **(given | change))


def test_bare_edges_are_refused():
    with pytest.raises(TypeError, match=r"bins must be a dirlearn\.Bins"):
        by_region(mae, [1.0], [1.0], TRAIN, range(7))

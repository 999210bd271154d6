import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dirlearn import Bins, by_region, depth_metrics


def maps(shape=(2, 6, 8), seed=0, device="cpu"):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0.7, 10, shape)
    pair = depth * rng.lognormal(0, 0.3, shape), depth
    return tuple(torch.tensor(values, device=device) for values in pair)


def by_loop(pred, target):
    pairs = list(zip(pred.flatten().tolist(), target.flatten().tolist(), strict=True))
    n = len(pairs)
    ratios = [max(p / t, t / p) for p, t in pairs]
    return {
        "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / n,
        "log10": sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n,
        "delta1": sum(r <= 1.25 for r in ratios) / n,
        "delta2": sum(r <= 1.25**2 for r in ratios) / n,
        "delta3": sum(r <= 1.25**3 for r in ratios) / n,
    }


def test_figures_are_a_loop_over_pixels(device):
    figures = depth_metrics(*maps(device=device))
    assert figures == pytest.approx(by_loop(*maps()))
    assert list(figures) == ["rmse", "abs_rel", "log10", "delta1", "delta2", "delta3"]
    assert all(type(value) is float for value in figures.values())
    assert figures["delta1"] < figures["delta2"] < figures["delta3"]


def test_the_root_is_taken_of_the_pooled_mean():
    target = np.ones((2, 5))
    pred = target + np.array([[1.0], [3.0]])
    assert depth_metrics(pred, target)["rmse"] == pytest.approx(math.sqrt(5))  # not (1 + 3) / 2


def test_a_ratio_at_the_threshold_counts():
    figures = depth_metrics([1.25, 1.0, 2.0], [1.0, 1.25, 1.0])
    assert figures["delta1"] == pytest.approx(2 / 3)


@given(scale=st.floats(1e-3, 1e3))
def test_only_the_rmse_knows_the_unit(scale):
    pred, target = maps()
    figures, scaled = depth_metrics(pred, target), depth_metrics(scale * pred, scale * target)
    assert scaled.pop("rmse") == pytest.approx(scale * figures.pop("rmse"))
    assert {k: scaled[k] for k in ("abs_rel", "log10")} == pytest.approx(
        {k: figures[k] for k in ("abs_rel", "log10")}
    )
    for k in ("delta1", "delta2", "delta3"):
        assert scaled[k] == pytest.approx(figures[k], abs=0.02)  # a ratio may sit on the threshold


def test_an_exact_map_and_a_single_pixel():
    _, depth = maps()
    perfect = {"rmse": 0, "abs_rel": 0, "log10": 0, "delta1": 1, "delta2": 1, "delta3": 1}
    assert depth_metrics(depth, depth) == perfect
    assert depth_metrics(depth[0, 0, 0], depth[0, 0, 0]) == perfect


def test_unseen_pixels_are_refused_until_left_out():
    pred, depth = maps()
    holes = depth.clone()
    holes[0, :2] = 0
    with pytest.raises(ValueError, match=r"16 of 96 target depths .* seen = target > 0"):
        depth_metrics(pred, holes)
    holes[1, 0] = math.nan
    with pytest.raises(ValueError, match="target holds 8 values that are NaN"):
        depth_metrics(pred, holes)
    seen = holes > 0  # False for NaN
    assert depth_metrics(pred[seen], holes[seen]) == pytest.approx(by_loop(pred[seen], depth[seen]))


def test_predictions_that_are_no_depth_are_refused():
    with pytest.raises(ValueError, match="1 of 2 predicted depths are not positive; clip them"):
        depth_metrics([1.0, -0.1], [1.0, 1.0])


def test_regions():
    pred, depth = maps()
    bins = Bins.uniform(0, 10, 5)
    figures = by_region(depth_metrics, pred, depth, [150, 30], bins)
    assert figures["many"] == pytest.approx(by_loop(pred[depth < 5], depth[depth < 5]))
    assert figures["medium"] == pytest.approx(by_loop(pred[depth >= 5], depth[depth >= 5]))
    assert math.isnan(figures["zero"]["rmse"])


def test_half_precision_and_integers():
    pred, depth = (v.half() for v in maps())
    assert depth_metrics(pred, depth) == pytest.approx(by_loop(pred.double(), depth.double()))
    assert depth_metrics([2, 4], [1, 4])["abs_rel"] == 0.5


@pytest.mark.parametrize(
    ("pred", "target", "words"),
    [
        (np.ones((2, 1)), np.ones(2), r"pred has shape \(2, 1\), target has \(2,\)"),
        ([], [], "are empty"),
        ([np.inf], [1.0], "pred holds 1 value that is NaN or infinite"),
        ([1.0], [-1.0], "1 of 1 target depths are not positive"),
    ],
    ids=str,
)
def test_bad_input_is_refused(pred, target, words):
    with pytest.raises(ValueError, match=words):
        depth_metrics(pred, target)

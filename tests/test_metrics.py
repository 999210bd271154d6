import copy
import math
import pickle
from datetime import timedelta

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import gmean
from sklearn.metrics import mean_absolute_error as sklearn_mae
from torch import distributed
from torchmetrics.functional import mean_absolute_error, mean_squared_error

from dirlearn import (
    Bins,
    ShotMetrics,
    balanced_mae,
    geometric_mean_error,
    mae_by_bin,
    shot_metrics,
)

BINS = Bins.uniform(0, 6, 1)
TRAIN = [150, 100, 20, 19, 0, 0]  # many, medium, medium, few, zero, zero
REGION = ["many", "medium", "medium", "few", "zero", "zero"]


def sample(n=300, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 6, n)
    return target + rng.normal(size=n), target


def figures_by_loop(pred, target, regions=("many", "medium", "few", "zero")):
    """Figures over the targets that fall into the given regions, one sample after the other."""
    errors = {}
    for p, t in zip(pred, target, strict=True):
        k = min(max(math.floor(t), 0), 5)
        if REGION[k] in regions:
            errors.setdefault(k, []).append(abs(p - t))
    flat = [e for in_bin in errors.values() for e in in_bin]
    if not flat:
        return {**dict.fromkeys(["mae", "mse", "gm", "balanced_mae"], math.nan), "count": 0}
    return {
        "mae": sum(flat) / len(flat),
        "mse": sum(e**2 for e in flat) / len(flat),
        "gm": math.exp(sum(math.log(e) for e in flat) / len(flat)) if min(flat) > 0 else 0.0,
        "balanced_mae": sum(sum(es) / len(es) for es in errors.values()) / len(errors),
        "count": len(flat),
    }


def assert_same_figures(figures, expected, rtol=1e-9):
    assert figures.keys() == expected.keys() == {"all", "many", "medium", "few", "zero"}
    for region in expected:
        assert figures[region].keys() == expected[region].keys()
        for name, value in expected[region].items():
            assert_allclose(figures[region][name], value, rtol=rtol, err_msg=f"{region} {name}")


# ---- geometric_mean_error


def test_geometric_mean_is_scipy_gmean(device):
    pred, target = sample()
    expected = gmean(np.abs(pred - target))
    assert geometric_mean_error(pred, target) == pytest.approx(expected)
    assert geometric_mean_error(pred.reshape(3, 100), target.reshape(3, 100)) == pytest.approx(
        expected
    )
    on_device = [torch.tensor(values, device=device) for values in (pred, target)]
    assert geometric_mean_error(*on_device) == pytest.approx(expected)


def test_geometric_mean_by_hand():
    assert geometric_mean_error([1, 4, 16], [0, 0, 0]) == pytest.approx(4)
    assert geometric_mean_error([3], [5]) == pytest.approx(2)


def test_an_exact_prediction_makes_the_geometric_mean_zero_without_a_warning():
    assert geometric_mean_error([1.0, 5.0], [1.0, 0.0]) == 0
    assert geometric_mean_error([1.0], [1.0]) == 0


def test_epsilon_is_added_to_every_error():
    assert geometric_mean_error([0.0, 3.0], [0.0, 0.0], epsilon=1.0) == pytest.approx(2)
    assert geometric_mean_error([0.0], [0.0], epsilon=1e-10) == pytest.approx(1e-10)


def test_geometric_mean_neither_overflows_nor_underflows():
    n = 5000
    assert geometric_mean_error(np.full(n, 1e300), np.zeros(n)) == pytest.approx(1e300)
    assert geometric_mean_error(np.full(n, 1e-300), np.zeros(n)) == pytest.approx(1e-300)


# ---- mae_by_bin and balanced_mae


def test_mae_by_bin_is_a_loop():
    pred, target = sample()
    for k, mae in enumerate(mae_by_bin(pred, target, BINS)):
        errors = [abs(p - t) for p, t in zip(pred, target, strict=True) if k <= t < k + 1]
        assert mae == pytest.approx(sum(errors) / len(errors))


def test_the_bin_is_that_of_the_target_not_of_the_prediction():
    assert_allclose(mae_by_bin([5.5], [0.5], BINS), [5] + [np.nan] * 5)
    assert_allclose(mae_by_bin([5.5, 2.0], [9.0, -1.0], BINS), [3] + [np.nan] * 4 + [3.5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_mae_by_bin_keeps_kind_dtype_and_device(dtype, device):
    pred = torch.tensor([[1.0, 3.0]], dtype=dtype, device=device, requires_grad=True)
    target = torch.tensor([[0.5, 2.5]], dtype=dtype, device=device)
    mae = mae_by_bin(pred, target, BINS)
    assert mae.dtype == dtype
    assert mae.device.type == device.type
    assert_allclose(mae.float().cpu(), [0.5, np.nan, 0.5, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_targets_fall_into_the_bin_that_bins_gives_them(dtype, device):
    target = torch.tensor([0.3, 0.7], dtype=dtype, device=device)
    tenths = Bins.uniform(0, 1, 0.1)
    held = ~mae_by_bin(torch.zeros_like(target), target, tenths).isnan()
    assert held.nonzero().flatten().tolist() == tenths.index(target).tolist() == [3, 7]


def test_errors_are_taken_in_double_precision():
    pred, target = np.array([60000, 0.5], np.float16), np.array([-60000, 0.5], np.float16)
    assert balanced_mae(pred, target, BINS) == 60000
    whole = np.array([0, 1], np.uint8)
    assert shot_metrics(whole, whole[::-1], TRAIN, BINS)["all"]["mae"] == 1


def test_balanced_mae_is_the_mean_over_held_bins_of_their_mae():
    pred, target = np.array([1.0, 3.0, 9.0]), np.array([0.5, 0.5, 2.5])
    assert balanced_mae(pred, target, BINS) == pytest.approx((1.5 + 6.5) / 2)
    pred, target = sample()
    assert balanced_mae(pred, target, BINS) == pytest.approx(
        figures_by_loop(pred, target)["balanced_mae"]
    )


def test_balanced_mae_of_whole_numbers_is_that_of_imbalanced_learn():
    # macro_averaged_mean_absolute_error(target, pred) of imbalanced-learn 0.14.2 gives 2.686868687.
    target = np.arange(60) ** 2 % 11
    pred = np.roll(target, 1)
    bins = Bins.uniform(0, 11, 1)
    assert balanced_mae(pred, target, bins) == pytest.approx(2.686868687)
    of_each = [sklearn_mae(target[target == y], pred[target == y]) for y in np.unique(target)]
    assert balanced_mae(pred, target, bins) == pytest.approx(np.mean(of_each))


def test_balanced_mae_does_not_depend_on_how_often_a_bin_occurs():
    pred, target = np.array([1.0, 2.0]), np.array([0.5, 4.5])
    often = np.repeat([0, 1], [99, 1])
    assert balanced_mae(pred[often], target[often], BINS) == pytest.approx(
        balanced_mae(pred, target, BINS)
    )


# ---- shot_metrics


@pytest.mark.parametrize("n", [1, 2, 7, 300])
def test_shot_metrics_are_a_loop(n):
    pred, target = sample(n)
    expected = {r: figures_by_loop(pred, target, (r,)) for r in ("many", "medium", "few", "zero")}
    expected["all"] = figures_by_loop(pred, target)
    assert_same_figures(shot_metrics(pred, target, TRAIN, BINS), expected)


def test_overall_figures_are_those_of_torchmetrics_and_scipy():
    pred, target = sample()
    figures = shot_metrics(pred, target, TRAIN, BINS)["all"]
    tensors = torch.tensor(pred), torch.tensor(target)
    assert figures["mae"] == pytest.approx(mean_absolute_error(*tensors).item())
    assert figures["mse"] == pytest.approx(mean_squared_error(*tensors).item())
    assert figures["gm"] == pytest.approx(gmean(np.abs(pred - target)))


def test_labels_that_training_never_saw_are_not_few():
    figures = shot_metrics([1.0, 9.0], [3.5, 4.5], TRAIN, BINS)
    assert (figures["few"]["mae"], figures["few"]["count"]) == (2.5, 1)
    assert (figures["zero"]["mae"], figures["zero"]["count"]) == (4.5, 1)


def test_a_region_without_targets_is_nan_with_count_zero():
    figures = shot_metrics([1.0], [0.5], TRAIN, BINS)
    for region in ("medium", "few", "zero"):
        assert figures[region].pop("count") == 0
        assert all(math.isnan(value) for value in figures[region].values())
    assert figures["many"] == figures["all"]


def test_an_exact_prediction_makes_gm_zero_in_its_region_alone():
    figures = shot_metrics([0.5, 2.0, 3.0], [0.5, 0.5, 3.5], TRAIN, BINS)
    assert figures["many"]["gm"] == figures["all"]["gm"] == 0
    assert figures["few"]["gm"] == pytest.approx(0.5)


def test_thresholds_are_handed_on():
    figures = shot_metrics([1.0, 1.0], [0.5, 1.5], TRAIN, BINS, many=120, few=110)
    assert (figures["many"]["count"], figures["few"]["count"]) == (1, 1)


def test_huge_errors_overflow_into_infinity_quietly():
    figures = shot_metrics([1e300], [0.5], TRAIN, BINS)["all"]
    assert figures["mae"] == figures["balanced_mae"] == pytest.approx(1e300)
    assert figures["mse"] == math.inf


def test_any_shape_and_kind(device):
    pred, target = sample(60)
    expected = shot_metrics(pred, target, TRAIN, BINS)
    for shape in [(60, 1), (3, 20), (3, 1, 4, 5)]:
        dense = [torch.tensor(v, device=device).reshape(shape) for v in (pred, target)]
        assert_same_figures(shot_metrics(*dense, torch.tensor(TRAIN), BINS), expected)
    assert_same_figures(shot_metrics(pred.tolist(), target.tolist(), TRAIN, BINS), expected)
    strided = [np.repeat(v, 2)[::2] for v in (pred, target)]
    assert_same_figures(shot_metrics(*strided, TRAIN, BINS), expected)
    graded = torch.tensor(pred, device=device, requires_grad=True)
    assert_same_figures(shot_metrics(graded, target, TRAIN, BINS), expected)


MEASURES = {
    "geometric_mean_error": geometric_mean_error,
    "mae_by_bin": lambda p, t: mae_by_bin(p, t, BINS),
    "balanced_mae": lambda p, t: balanced_mae(p, t, BINS),
    "shot_metrics": lambda p, t: shot_metrics(p, t, TRAIN, BINS),
    "ShotMetrics": lambda p, t: ShotMetrics(TRAIN, BINS).update(p, t),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize(
    ("pred", "target", "words"),
    [
        (np.ones((5, 1)), np.ones(5), r"pred has shape \(5, 1\), target has \(5,\)"),
        (np.ones(5), np.ones((5, 1)), r"pred has shape \(5,\), target has \(5, 1\)"),
        (np.ones(1), np.ones(5), "squeeze"),
        (1.0, np.ones(5), "squeeze"),
        ([], [], "pred and target are empty"),
        ([np.nan, 1], [1, 1], "pred holds 1 value that is NaN"),
        ([1, 1], [1, np.nan], "target holds 1 value that is NaN"),
        ([np.inf, -np.inf], [1, 1], "pred holds 2 values that are NaN or infinite"),
    ],
    ids=str,
)
def test_bad_input_is_refused(measure, pred, target, words, device):
    with pytest.raises(ValueError, match=words):
        measure(pred, target)
    with pytest.raises(ValueError, match=words):
        measure(torch.tensor(pred, device=device), torch.tensor(target, device=device))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_what_is_not_a_number_is_refused(measure):
    with pytest.raises(TypeError, match="pred must hold real numbers"):
        measure([True], [1.0])
    with pytest.raises(TypeError, match="target must hold real numbers"):
        measure([1.0], ["1"])


@pytest.mark.parametrize("make", [ShotMetrics, lambda c, b: shot_metrics([1.0], [1.0], c, b)])
@pytest.mark.parametrize("counts", [[1, 2], [[1] * 6], [-1] * 6, [np.nan] * 6], ids=str)
def test_bad_train_counts_are_refused(make, counts):
    with pytest.raises(ValueError, match="counts"):
        make(counts, BINS)


def test_targets_outside_bins_that_refuse_them():
    bins = Bins(BINS.edges, outside="error")
    with pytest.raises(ValueError, match="1 of the labels lie outside"):
        shot_metrics([1.0], [7.0], TRAIN, bins)


# ---- ShotMetrics


@given(cuts=st.lists(st.integers(1, 299), max_size=8, unique=True).map(sorted))
def test_batches_add_up_to_the_whole(cuts):
    pred, target = sample()
    metric = ShotMetrics(TRAIN, BINS)
    for start, stop in zip([0, *cuts], [*cuts, 300], strict=True):
        metric.update(torch.tensor(pred[start:stop]), torch.tensor(target[start:stop]))
    assert_same_figures(metric.compute(), shot_metrics(pred, target, TRAIN, BINS))


def accumulated(device, start=0, stop=300):
    metric = ShotMetrics(TRAIN, BINS).to(device)
    pred, target = sample()
    metric.update(*(torch.tensor(v[start:stop], device=device) for v in (pred, target)))
    return metric


def test_forward_gives_the_batch_and_keeps_the_whole(device):
    pred, target = (torch.tensor(v, device=device) for v in sample())
    metric = ShotMetrics(TRAIN, BINS).to(device)
    for part in (slice(0, 100), slice(100, 300)):
        batch = metric(pred[part], target[part])
        assert_same_figures(batch, shot_metrics(pred[part], target[part], TRAIN, BINS))
    assert_same_figures(metric.compute(), shot_metrics(pred, target, TRAIN, BINS))


def test_reset_forgets(device):
    metric = accumulated(device)
    metric.reset()
    assert metric.sums.device.type == device.type
    metric.update(torch.tensor([1.0], device=device), torch.tensor([0.5], device=device))
    assert_same_figures(metric.compute(), shot_metrics([1.0], [0.5], TRAIN, BINS))


def test_compute_before_update_warns_and_is_nan():
    with pytest.warns(UserWarning, match="before the ``update``"):
        figures = ShotMetrics(TRAIN, BINS).compute()
    assert figures["all"]["count"] == 0
    assert math.isnan(figures["all"]["mae"])


@pytest.mark.parametrize("twin", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy])
def test_pickle_and_deepcopy(twin, device):
    metric = accumulated(device, 0, 100)
    other = twin(metric)
    assert_same_figures(other.compute(), metric.compute())
    pred, target = sample()
    other.update(pred[100:], target[100:])
    assert_same_figures(other.compute(), shot_metrics(pred, target, TRAIN, BINS))
    assert metric.compute()["all"]["count"] == 100


def test_state_dict(device):
    metric, other = accumulated(device), ShotMetrics(TRAIN, BINS).to(device)
    for each in (metric, other):
        each.persistent(True)
    other.load_state_dict(metric.state_dict())
    other.update([1.0], [0.5])
    pred, target = (np.append(v, extra) for v, extra in zip(sample(), (1.0, 0.5), strict=True))
    assert_same_figures(other.compute(), shot_metrics(pred, target, TRAIN, BINS))


def test_two_metrics_merge_into_one(device):
    metric = accumulated(device, 0, 120)
    metric.merge_state(accumulated(device, 120, 300))
    assert_same_figures(metric.compute(), shot_metrics(*sample(), TRAIN, BINS))


def test_memory_does_not_grow_with_the_targets(device):
    metric = accumulated(device)
    shape = metric.sums.shape
    metric.update(*sample(1000))
    assert metric.sums.shape == shape
    assert shape.numel() <= 8 * len(BINS)


def test_half_precision_leaves_the_sums_in_double(device):
    metric = accumulated(device).half()
    assert_same_figures(metric.compute(), shot_metrics(*sample(), TRAIN, BINS))


def test_float32_batches_are_summed_in_double(device):
    metric = ShotMetrics(TRAIN, BINS).to(device)
    target = torch.full((1000,), 0.5, device=device)
    metric.update(torch.tensor([1e8], device=device), target[:1])
    metric.update(target + 1, target)
    error = float(np.float32(1e8)) - 0.5
    assert metric.compute()["all"]["mae"] == pytest.approx((error + 1000) / 1001, rel=1e-12)


def figures_of_half(rank, address):
    """What each of two processes does: take in its half, and compute with the other."""
    limit = timedelta(seconds=60)
    distributed.init_process_group("gloo", address, limit, world_size=2, rank=rank)
    try:
        pred, target = sample()
        metric = ShotMetrics(TRAIN, BINS)
        metric.update(pred[rank::2], target[rank::2])
        return metric.compute()
    finally:
        distributed.destroy_process_group()


def _second_process(_, address, path):
    path.write_bytes(pickle.dumps(figures_of_half(1, address)))


def test_two_processes_compute_what_one_does(tmp_path):
    address, answer = (tmp_path / "meet").as_uri(), tmp_path / "answer"
    other = torch.multiprocessing.spawn(_second_process, (address, answer), join=False)
    figures = figures_of_half(0, address)
    while not other.join():
        pass
    expected = shot_metrics(*sample(), TRAIN, BINS)
    assert_same_figures(figures, expected)
    assert_same_figures(pickle.loads(answer.read_bytes()), expected)


def test_swapped_arguments_and_negative_epsilon_are_refused():
    with pytest.raises(TypeError, match=r"bins must be a dirlearn\.Bins"):
        balanced_mae([0.5], [0.5], np.array([1, 2]))
    with pytest.raises(ValueError, match="epsilon must be 0 or more"):
        geometric_mean_error([0.5], [0.5], epsilon=-1.0)


def test_shot_metrics_module_takes_thresholds():
    bins, counts = Bins([0, 1, 2]), [150, 50]
    metric = ShotMetrics(counts, bins, many=40, few=10)
    metric.update([1.0, 1.0], [0.5, 1.5])
    expected = shot_metrics([1.0, 1.0], [0.5, 1.5], counts, bins, 40, 10)
    assert metric.compute()["many"] == expected["many"]
    assert metric.compute()["many"]["count"] == 2

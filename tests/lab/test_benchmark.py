from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde

from dirlearn.lab import benchmark
from dirlearn.lab.benchmark import BENCHMARK, DIR_CHOICES, rarity, train_benchmark
from dirlearn.lab.datasets import GLUCOSE, glucose
from dirlearn.lab.experiments import record
from dirlearn.lab.guide import guide
from dirlearn.lab.intervals import crossed_interval
from dirlearn.lab.tasks import AIMS, EFFORT, SQINV, TASKS, choices, methods
from dirlearn.lab.training import fit
from dirlearn.lds import lds_weights
from dirlearn.retrain import Frozen

GLUCOSE_METHODS = methods(TASKS["glucose"])
FAMILIES = ("Focal-R", "RankSim", "BMC", "GAI", "RRT")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Three epochs: a second stage of one."""
    monkeypatch.setitem(TASKS, "glucose", replace(TASKS["glucose"], epochs=3))


@pytest.fixture
def fits(monkeypatch):
    """Arguments of each fit, and the model as it was when the fit began."""
    calls = []

    def spy(model, data, **options):
        held = model.state_dict()  # FDS has extra state, which is no tensor
        state = {k: v.clone() for k, v in held.items() if isinstance(v, torch.Tensor)}
        calls.append({"model": model, "data": data, "state": state, **options})
        return fit(model, data, **options)

    monkeypatch.setattr(benchmark, "fit", spy)
    return calls


def test_every_method_runs_and_no_two_predict_alike():
    seen = {}
    for name, method in GLUCOSE_METHODS.items():
        run = train_benchmark(method, 0, task="glucose")
        assert np.isfinite(run.prediction).all()
        seen.setdefault(run.prediction.tobytes(), []).append(name)
    assert [names for names in seen.values() if len(names) > 1] == []


def test_methods_of_one_seed_share_data_and_initialisation(fits):
    for name in ("vanilla", "INV", "Focal-R+LDS+FDS", "BMC", "SMOTER"):
        train_benchmark(GLUCOSE_METHODS[name], 4, task="glucose")
    first = fits[0]["state"]
    for call in fits[1:]:
        assert all(torch.equal(call["state"][k], v) for k, v in first.items())
        assert call["seed"] == 4
        assert torch.equal(call["data"].val.x, fits[0]["data"].val.x)
    *others, resampled = fits
    assert all(torch.equal(call["data"].train.x, fits[0]["data"].train.x) for call in others)
    assert len(resampled["data"].train) != len(fits[0]["data"].train) or not torch.equal(
        resampled["data"].train.y, fits[0]["data"].train.y
    )


def test_shot_regions_are_those_before_resampling():
    run = train_benchmark(GLUCOSE_METHODS["SMOGN"], 1, task="glucose")
    np.testing.assert_array_equal(run.train_counts, glucose(seed=1).train_counts)


def test_retraining_moves_the_head_alone(fits):
    train_benchmark(GLUCOSE_METHODS["RRT"], 2, task="glucose")
    first, second = fits
    assert first["weights"] is None
    data = glucose(seed=2)
    expected = lds_weights(data.train.y, GLUCOSE, **SQINV)
    assert torch.equal(torch.as_tensor(second["weights"]), torch.as_tensor(expected))
    model = second["model"]
    assert isinstance(model.encoder, Frozen)
    after = model.state_dict()
    moved = {k for k, v in second["state"].items() if not torch.equal(v, after[k])}
    assert moved == {"head.weight", "head.bias"}
    before = {k: v for k, v in second["state"].items() if k.startswith("head")}
    assert not torch.equal(before["head.weight"], fits[0]["state"]["head.weight"])


def test_balanced_mse_predicts_within_the_range():
    method = {"loss": {"name": "BMC", "sigma": 300.0}}  # wide enough to send locations far out
    run = train_benchmark(method, 0, task="glucose")
    assert run.prediction.min() >= 40
    assert run.prediction.max() <= 405


def test_sigma_is_learned_where_that_is_asked():
    plan = choices(TASKS["glucose"])
    learned = next(name for name in plan if name.startswith("BMC") and name.endswith("learned"))
    fixed = learned.removesuffix(", learned")
    one, two = (train_benchmark(plan[name], 0, task="glucose") for name in (learned, fixed))
    assert (one.prediction != two.prediction).any()


def test_the_part_that_is_asked_for_is_predicted():
    data = glucose(seed=0)
    test, val = (train_benchmark({}, 0, task="glucose", part=part) for part in ("test", "val"))
    np.testing.assert_array_equal(test.target, data.test.y)
    assert np.abs(val.target - val.prediction).mean() == pytest.approx(val.extra["val_error"])
    np.testing.assert_array_equal(GLUCOSE.index(val.target), GLUCOSE.index(data.val.y))


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="unknown task 'ages'; known are digits, sts_b, glucose"):
        train_benchmark({}, 0, task="ages")
    with pytest.raises(ValueError, match="unknown key of a method 'weight'"):
        train_benchmark({"weight": SQINV}, 0, task="glucose")
    with pytest.raises(ValueError, match="unknown loss 'huber'"):
        train_benchmark({"loss": {"name": "huber"}}, 0, task="glucose")
    with pytest.raises(ValueError, match="unknown resampling 'ROS'"):
        train_benchmark({"resample": "ROS"}, 0, task="glucose")


def test_choices_are_made_on_other_seeds_and_on_validation_data():
    for choice, study in zip(DIR_CHOICES, BENCHMARK, strict=True):
        assert not set(choice.seeds) & set(study.seeds)
        assert choice.settings["part"] == "val"
        assert "part" not in study.settings
        assert list(study.methods) == list(methods(TASKS["digits"]))


@pytest.mark.parametrize("name", TASKS)
def test_what_was_chosen_has_the_least_validation_error_of_what_was_tried(name):
    tried, chosen = record(f"dir_{name}_choice"), methods(TASKS[name])
    error = {method: tried.mean(method).value for method in tried.methods}
    for family, best in zip(FAMILIES, TASKS[name].chosen, strict=True):
        rivals = [method for method in error if method.startswith(family)]
        assert len(rivals) == 3
        assert best == min(rivals, key=error.__getitem__)
        assert chosen[family] == choices(TASKS[name])[best]


def test_rarity_is_the_share_of_labels_that_lie_denser():
    y = np.asarray(glucose(seed=0).train.y, dtype=np.float64)
    phi = rarity(y, GLUCOSE)
    at = GLUCOSE.centers[[2, 12, 30, 60]]
    density, here = gaussian_kde(y, "silverman")(y), gaussian_kde(y, "silverman")(at)
    np.testing.assert_allclose(phi(at), (density[:, None] > here).mean(axis=0), atol=2e-3)


# ---- the guide


ADVICE = {
    "digits": ("GAI", "GAI", "GAI", "vanilla"),
    "sts_b": ("INV+LDS", "SQINV", "Focal-R+LDS", "INV+LDS"),
    "glucose": ("GAI", "GAI", "GAI", "vanilla"),
}


@pytest.mark.parametrize("task", ADVICE)
def test_the_guide_follows_from_the_record(task):
    results = record(f"dir_{task}")
    table = guide({task: results}, AIMS, EFFORT)
    assert tuple(table["use"]) == ADVICE[task]


@pytest.mark.parametrize("task", ADVICE)
def test_the_guide_is_what_the_predictions_say_by_themselves(task):
    """The same advice from predictions and counts alone, without the tables of Results."""
    results = record(f"dir_{task}")
    rows = dict(zip(results.methods, results.predictions.astype(float), strict=True))
    region = [
        results.bins.shots(c)[results.bins.index(results.target)] for c in results.train_counts[0]
    ]
    for expected, (where, metric) in zip(ADVICE[task], AIMS.values(), strict=True):
        mask = np.stack([(r == where) | (where == "all") for r in region])
        power = 1 if metric == "mae" else 2
        error = {m: np.abs(row - results.target) ** power for m, row in rows.items()}

        def change(method, baseline, error=error, mask=mask):
            return [float(x) for x in crossed_interval(error[method] - error[baseline], mask)]

        mean = {m: np.mean([e[s][mask[s]].mean() for s in range(10)]) for m, e in error.items()}
        best = min(mean, key=mean.__getitem__)
        worth = [m for m in EFFORT[1:] if m == best or change(m, best)[1] <= 0]
        worth = [m for m in worth if change(m, "vanilla")[2] < 0]
        assert (worth or ["vanilla"])[0] == expected

from __future__ import annotations

import numpy as np
import pytest
import torch

from dirlearn import released
from dirlearn.bins import Bins
from dirlearn.lab.datasets import SCORES, sts_b_dir
from dirlearn.lab.experiments import record
from dirlearn.lab.habits import (
    FORMS,
    HABITS,
    LOSSES,
    RRT,
    SELECTION,
    root_first,
    train_again,
    train_sts_habit,
)
from dirlearn.lab.sts import train_sts
from dirlearn.lds import effective_density, lds_weights


def test_seeds_are_shared_by_no_two_studies():
    seeds = [seed for study in HABITS for seed in study.seeds]
    assert len(set(seeds)) == len(seeds)


# ---- sentence pairs


def test_the_choice_of_the_epoch_is_all_that_differs():
    honest, peeking = (
        train_sts_habit(SELECTION[f"vanilla, epoch by {chooser}"], seed=4, epochs=4)
        for chooser in ("validation", "test")
    )
    curve = [honest.extra[f"test_error {epoch}"] for epoch in range(4)]
    assert curve == [peeking.extra[f"test_error {epoch}"] for epoch in range(4)]
    for run in (honest, peeking):
        error = np.abs(run.prediction - run.target).mean()
        assert error == pytest.approx(curve[int(run.extra["best_epoch"])], abs=1e-6)
    assert peeking.extra["best_epoch"] == np.argmin(curve)
    assert honest.extra["val_error"] <= peeking.extra["val_error"]


@pytest.mark.parametrize(
    ("habit", "weights"),
    [
        ({}, {"power": 0.0, "kernel": None}),
        ({"power": 1.0}, {"power": 1.0, "kernel": "gaussian", "size": 5, "sigma": 2.0}),
    ],
)
def test_without_a_habit_it_is_the_benchmarks_training(habit, weights):
    ours = train_sts_habit(habit, seed=3, epochs=2)
    theirs = train_sts({"weights": weights}, seed=3, epochs=2)
    np.testing.assert_array_equal(ours.target, theirs.target)
    np.testing.assert_allclose(ours.prediction, theirs.prediction, atol=1e-5)
    assert ours.extra["best_epoch"] == theirs.extra["best_epoch"]


def test_root_first_against_an_explicit_loop():
    y, bins = np.array([0.5, 0.5, 0.5, 0.5, 1.5, 3.5]), Bins.uniform(0, 5, 1)
    roots = effective_density(np.array([2.0, 1.0, 0.0, 1.0, 0.0]))  # of the counts 4, 1, 0, 1, 0
    expected = np.array([1 / roots[int(label)] for label in y])
    np.testing.assert_allclose(root_first(y, bins, 0.5), expected / expected.mean())
    assert not np.allclose(root_first(y, bins, 0.5), lds_weights(y, bins, 0.5))


def test_forms_of_weights_are_those_they_name():
    y = np.asarray(sts_b_dir().train.y).astype(np.float64).round(3)
    np.testing.assert_array_equal(FORMS["paper"](y, SCORES, 1.0), lds_weights(y, SCORES, 1.0))
    expected = released.reweight(y, SCORES, 1.0, kernel="gaussian")
    np.testing.assert_array_equal(FORMS["released"](y, SCORES, 1.0), expected)
    np.testing.assert_allclose(root_first(y, SCORES, 1.0), lds_weights(y, SCORES, 1.0))


def test_focal_losses_have_the_released_beta_on_scores_divided_by_five():
    pred, target, weight = torch.tensor([1.0, 4.5]), torch.tensor([1.5, 2.0]), torch.ones(2)
    error = (pred - target).abs()
    scaled = 20 * error / 5
    paper = (torch.sigmoid(scaled) * error).mean()
    code = ((2 * torch.sigmoid(scaled) - 1) * error).mean()
    torch.testing.assert_close(LOSSES["focal"](pred, target, weight), paper)
    torch.testing.assert_close(LOSSES["focal, released"](pred, target, weight), code)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"powr": 1.0}, "key of a method 'powr'"),
        ({"form": "their"}, "form 'their'"),
        ({"loss": "huber"}, "loss 'huber'"),
        ({"chooser": "luck"}, "chooser 'luck'"),
    ],
)
def test_what_means_nothing_is_refused(method, message):
    with pytest.raises(ValueError, match=message):
        train_sts_habit(method, seed=0, epochs=1)


def test_in_the_record_the_test_set_chooses_the_lowest_test_error():
    study = record("selection")
    errors = np.abs(study.predictions - study.target).mean(axis=-1)
    for name in ("vanilla", "INV+LDS"):
        honest, peeking = (
            errors[study.methods.index(f"{name}, epoch by {chooser}")]
            for chooser in ("validation", "test")
        )
        assert (peeking <= honest + 1e-3).all()  # predictions are kept to three digits


# ---- regressor re-training


def test_only_the_released_encoder_moves_in_the_second_stage():
    settings = {"scale": 0.1, "epochs": 1, "again": 1}
    runs = {name: train_again(method, seed=0, **settings) for name, method in RRT.items()}
    assert runs["vanilla"].extra["moved"] == runs["RRT"].extra["moved"] == 0
    assert runs["RRT, as released"].extra["moved"] > 0
    predictions = [run.prediction for run in runs.values()]
    assert not np.allclose(predictions[0], predictions[1])
    assert not np.allclose(predictions[1], predictions[2])


def test_an_encoder_that_means_nothing_is_refused():
    settings = {"scale": 0.1, "epochs": 1, "again": 1}
    with pytest.raises(ValueError, match="encoder 'thawed'"):
        train_again({"encoder": "thawed"}, seed=0, **settings)
    with pytest.raises(ValueError, match="key of a method 'head'"):
        train_again({"head": "new"}, seed=0, **settings)

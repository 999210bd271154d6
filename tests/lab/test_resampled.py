from __future__ import annotations

import numpy as np
import pytest
import torch

from dirlearn import smogn, smoter
from dirlearn.lab.digits import rotate
from dirlearn.lab.resampled import RESAMPLED, TASKS, resampled, train_resampled


@pytest.fixture(scope="module", params=["diamonds", "digits"])
def drawn(request):
    part = TASKS[request.param]
    data = part.data(3)
    phi = part.relevance(data)
    kinds = RESAMPLED if request.param == "digits" else RESAMPLED[:-1]
    return data, phi, {kind: resampled(data, phi, kind, seed=3) for kind in kinds}


def test_each_step_of_resampling_adds_one_thing(drawn):
    data, phi, of = drawn
    first = len(of["under"])
    for kind in [kind for kind in of if kind not in ("under", "over")]:
        assert len(of[kind]) == len(of["SMOTER"]) > first
        if kind != "SMOGN":  # all keep the same rows; SMOGN draws its own
            assert torch.equal(of[kind].x[:first], of["under"].x)
            assert torch.equal(of[kind].y[:first], of["under"].y)
    assert len(of["over"]) == len(data.train) + len(of["SMOTER"]) - first  # nothing thrown away
    assert torch.equal(of["over"].y[: len(data.train)], data.train.y)
    assert torch.equal(of["over"].x[len(data.train) :], of["SMOTER"].x[first:])
    # copies are rows of the training set, SMOTER's seeds
    pool = {(float(y), float(x.sum())) for x, y in zip(data.train.x, data.train.y, strict=True)}
    made = zip(of["copies"].x[first:], of["copies"].y[first:], strict=True)
    assert {(float(y), float(x.sum())) for x, y in made} <= pool
    assert not torch.equal(of["copies"].y[first:], of["SMOTER"].y[first:])
    for kind, method in (("SMOTER", smoter), ("SMOGN", smogn)):
        x, y = method(data.train.x, data.train.y, phi, seed=3)
        assert torch.equal(of[kind].x, x)
        assert torch.equal(of[kind].y, y)


def test_turned_pictures_fit_smoters_labels():
    part = TASKS["digits"]
    data = part.data(3)
    of = {
        kind: resampled(data, part.relevance(data), kind, seed=3)
        for kind in ("copies", "SMOTER", "turned")
    }
    assert torch.equal(of["turned"].y, of["SMOTER"].y)
    turn = of["turned"].y - of["copies"].y
    assert turn.abs().max() > 1
    made = turn != 0
    assert torch.equal(of["turned"].x[made], rotate(of["copies"].x[made], turn[made]))


def test_relevance_makes_both_tails_of_the_angles_rare():
    part = TASKS["digits"]
    phi = part.relevance(part.data(0))
    assert (phi(np.array([0.5, 10, 90, 99])) > 0.8).all()
    assert phi(np.array([35.0])) < 0.2


@pytest.mark.parametrize("method", [{"retrain": 0.5}, {"beta": 5.0}, {"alpha": 1.0}], ids=str)
def test_every_remedy_learns_and_differs_from_vanilla(method):
    plain, run = (train_resampled(m, 0, task="diamonds") for m in ({}, method))
    error, remedied = (np.abs(r.prediction - r.target).mean() for r in (plain, run))
    assert not np.array_equal(plain.prediction, run.prediction)
    assert remedied < 1.3 * error < 1.3 * np.abs(run.target - np.median(run.target)).mean() / 3


def test_unknown_keys_are_refused():
    with pytest.raises(ValueError, match="key of a method"):
        train_resampled({"weights": 1}, 0, task="diamonds")
    with pytest.raises(ValueError, match="task"):
        train_resampled({}, 0, task="pears")
    part = TASKS["diamonds"]
    data = part.data(0)
    with pytest.raises(ValueError, match="kind of re-sampling"):
        resampled(data, part.relevance(data), "SMOTE", 0)

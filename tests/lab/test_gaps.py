from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dirlearn.balanced_mse import BalancedMSE
from dirlearn.fds import FDS
from dirlearn.lab import gaps
from dirlearn.lab.gaps import SEEN, STUDIES, TASKS, mixed, train_gaps, training_counts
from dirlearn.losses import weighted_l1, weighted_mse
from dirlearn.ranksim import RankSim
from dirlearn.truncated import truncated_mean

# ---- the densities


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("peaks", [1, 2, 3, 4])
def test_densities_cover_half_of_the_axis_with_as_many_peaks(task, peaks):
    counts = training_counts(task, peaks)
    held = np.flatnonzero(np.diff(np.concatenate([[0], counts > 0, [0]])))
    assert len(held) == 2 * peaks
    assert 0.5 <= (counts > 0).mean() <= 0.56
    assert counts.sum() == TASKS[task].total
    assert counts[0] == counts[-1] == 0


def test_intervals_lie_in_the_middle_of_the_axis_apart():
    for number, seen in SEEN.items():
        ends = np.ravel(seen)
        assert (np.diff(ends) > 0).all()
        assert ends[0] + ends[-1] == 100
        assert len(seen) == max(number, 1)


def test_no_gaps_means_none_and_flat_means_even():
    for task in TASKS:
        counts = training_counts(task, 0, flat=True)
        assert counts.min() > 0
        assert np.ptp(counts) <= 1
    assert np.ptp(training_counts("digits", 2, flat=True)[15:41]) <= 1


@pytest.mark.parametrize("task", TASKS)
def test_data_have_the_density_and_validate_on_seen_labels(task):
    counts = training_counts(task, 4)
    data = TASKS[task].draw(counts, 3)
    np.testing.assert_array_equal(data.train_counts, counts)
    held = np.asarray(data.bins.counts(data.val.y)) > 0
    assert not held[counts == 0].any()
    assert held[counts > 0].mean() > 0.9
    assert (np.asarray(data.bins.counts(data.test.y)) > 0).mean() > 0.95


def test_diamonds_are_standardised_by_what_is_left_of_them():
    data = TASKS["diamonds"].draw(training_counts("diamonds", 2), 0)
    torch.testing.assert_close(data.train.x.mean(dim=0), torch.zeros(9), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.train.x.std(dim=0), torch.ones(9), atol=1e-4, rtol=0)


# ---- mixup


def test_mixup_blends_inputs_labels_and_weights_alike():
    met = []

    class Spy(nn.Module):
        def forward(self, x):
            met.append(x)
            return x[:, 0, 0]

    y = torch.rand(4000)
    x = y[:, None, None].expand(-1, 2, 3)
    objective = mixed(1.0, np.random.default_rng(0), loss=weighted_mse)
    assert float(objective(Spy(), x, y, 1 + y)) < 1e-12  # blended the same way
    (blends,) = met
    assert blends.var() == pytest.approx(float(y.var()) * 2 / 3, rel=0.05)  # E[u^2 + (1 - u)^2]
    assert blends.mean() == pytest.approx(float(y.mean()), abs=0.02)
    assert (blends == blends[:, :1, :1]).all()  # one share for a sample


def test_mixup_with_small_alpha_leaves_samples_nearly_as_they_are():
    y = torch.arange(1000.0)
    shares = []
    for alpha in (0.01, 1.0):
        objective = mixed(alpha, np.random.default_rng(0), loss=lambda p, t, _: shares.append(t))
        objective(nn.Flatten(0), y[:, None], y, torch.ones(1000))
    near = [np.isclose(s, y, atol=1).mean() for s in shares]
    assert near[0] > 0.45
    assert near[1] < 0.05


def test_mixup_puts_labels_between_but_never_beyond():
    y = torch.tensor([10.0, 30.0]).repeat(500)
    met = []
    objective = mixed(1.0, np.random.default_rng(0), loss=lambda p, t, _: met.append(t))
    objective(nn.Flatten(0), y[:, None], y, torch.ones(1000))
    assert met[0].min() >= 10 - 1e-4
    assert met[0].max() <= 30 + 1e-4
    assert ((met[0] > 15) & (met[0] < 25)).float().mean() == pytest.approx(0.25, abs=0.05)


# ---- the runs


def spied(monkeypatch, method, seed=3, **settings):
    """The arguments with which a run would train."""

    class StoppedError(Exception):
        pass

    calls = {}

    def spy(model, data, **options):
        calls.update(options, model=model, data=data)
        raise StoppedError

    monkeypatch.setattr(gaps, "fit", spy)
    with pytest.raises(StoppedError):
        train_gaps(method, seed, **settings)
    return calls


@pytest.mark.parametrize("task", TASKS)
def test_methods_of_one_seed_share_data_and_initialisation(monkeypatch, task):
    first, *others = (
        spied(monkeypatch, {"peaks": 2, **method}, task=task)
        for method in gaps.methods(task).values()
    )
    for other in others:
        assert torch.equal(first["data"].train.x, other["data"].train.x)
        assert first["epochs"] == other["epochs"]
        assert other["keep"] == "last"
        mine, theirs = first["model"].state_dict(), other["model"].state_dict()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_another_seed_draws_other_data_and_another_network(monkeypatch):
    one, two = (spied(monkeypatch, {"peaks": 2}, seed, task="diamonds") for seed in (0, 1))
    assert not torch.equal(one["data"].train.x, two["data"].train.x)
    assert not torch.equal(one["model"].head.weight, two["model"].head.weight)
    assert (one["seed"], two["seed"]) == (0, 1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({}, weighted_l1),
        ({"mse": True}, weighted_mse),
        ({"balanced": 7.0}, lambda p, y, _: BalancedMSE(7.0)(p, y)),
        ({"weights": {"power": 1.0, "kernel": None}}, weighted_l1),
    ],
)
def test_the_loss_is_the_methods_own(monkeypatch, method, expected):
    calls = spied(monkeypatch, {"peaks": 2, **method}, task="diamonds")
    model, train = calls["model"].eval(), calls["data"].train
    x, y, w = train.x[:40], train.y[:40], torch.rand(40)
    value = calls["objective"](model, x, y, w)
    torch.testing.assert_close(value, expected(model(x), y, w))
    assert (np.ptp(np.asarray(calls["weights"])) > 0) == ("weights" in method)


def test_ranksim_and_fds_act_on_the_features(monkeypatch):
    method = {"peaks": 2, "ranksim": 2.0, "fds": {"size": 3}}
    calls = spied(monkeypatch, method, task="diamonds")
    model, train = calls["model"].eval(), calls["data"].train
    x, y = train.x[:40], train.y[:40]
    prediction, features = model(x, y)
    draws = torch.Generator().manual_seed(3)
    expected = (prediction - y).abs().mean() + RankSim(2.0 * 4750, generator=draws)(features, y)
    torch.testing.assert_close(calls["objective"](model, x, y, torch.ones(40)), expected)
    assert isinstance(model.fds, FDS)
    assert len(model.fds.bins) == 76
    model.train()(train.x, train.y)
    calls["after_epoch"](0)
    assert model.fds.count.sum() == len(train)


def test_a_balanced_prediction_is_the_mean_of_its_density_within_all_labels(monkeypatch):
    located, runs = {}, {}
    monkeypatch.setattr(gaps, "fit", lambda model, data, **_: located.update(m=model, d=data))
    for method in ({}, {"balanced": 3000.0}):
        run = train_gaps({"peaks": 2, **method}, 0, task="diamonds")
        runs[len(method)] = torch.from_numpy(run.prediction)
    test = located["d"].test
    with torch.no_grad():
        there = located["m"].eval()(test.x)
    torch.testing.assert_close(runs[0].float(), there)
    torch.testing.assert_close(runs[1].float(), truncated_mean(there, 3000.0, 0.0, 19_000.0))


def test_a_key_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="unknown key of a method 'fsd'"):
        train_gaps({"peaks": 2, "fsd": {}}, 0)
    with pytest.raises(ValueError, match="unknown number of peaks 7; known are 0, 1, 2, 3, 4"):
        train_gaps({"peaks": 7}, 0)
    with pytest.raises(ValueError, match="unknown task 'faces'; known are digits, diamonds"):
        train_gaps({"peaks": 2}, 0, task="faces")


# ---- the studies


def test_choices_were_made_on_other_seeds():
    seeds = {study.name: set(study.seeds) for study in STUDIES}
    for task in TASKS:
        assert not seeds[f"gaps_{task}"] & seeds[f"gaps_{task}_choice"]

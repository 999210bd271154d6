from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dirlearn.fds import FDS
from dirlearn.lab import sts
from dirlearn.lab.datasets import SCORES, sts_b_dir
from dirlearn.lab.experiments import record
from dirlearn.lab.facts import data_folder
from dirlearn.lab.sts import GAMMA, GAMMAS, METHODS, WEIGHTS, train_sts
from dirlearn.lds import lds_weights

PLAIN = {"weights": WEIGHTS["vanilla"]}


def predictions(method, seed=3, **settings):
    return train_sts(method, seed, **{"epochs": 1, **settings}).prediction


def caught(monkeypatch, method, seed):
    """What a method hands to the training loop, without the training."""
    calls = []

    def spy(model, data, **given):
        calls.append((model, data, given, torch.rand(3)))
        raise InterruptedError

    monkeypatch.setattr(sts, "fit", spy)
    with pytest.raises(InterruptedError):
        train_sts(method, seed)
    model, data, given, dropout = calls[0]
    return SimpleNamespace(model=model, data=data, dropout=dropout, **given)


def test_methods_are_five_weightings_by_four_regularisers_and_a_floor():
    assert len(METHODS) == 21
    names = ["vanilla", "FDS", "RankSim", "FDS+RankSim", "INV+LDS+FDS+RankSim", "SQINV+RankSim"]
    assert set(names) < set(METHODS)
    assert all("weights" in method for method in METHODS.values())
    assert sum("fds" in method for method in METHODS.values()) == 10
    assert sum("ranksim" in method for method in METHODS.values()) == 10


def test_a_floor_of_five_acts_on_inverse_weights_but_not_on_smoothed_ones():
    y = sts_b_dir().train.y
    floor = METHODS["INV, floor"]["weights"]
    bare = lds_weights(y, SCORES, **WEIGHTS["INV"])
    assert lds_weights(y, SCORES, **floor).max() < 0.5 * bare.max()
    smoothed = lds_weights(y, SCORES, **WEIGHTS["INV+LDS"])
    assert torch.equal(lds_weights(y, SCORES, **WEIGHTS["INV+LDS"], clip=(5, None)), smoothed)


def test_test_labels_lie_in_the_bins_of_the_released_split():
    """A float32 0.7 taken for a double would lie in the bin from 0.6."""
    run = train_sts(PLAIN, 0, epochs=1)
    table = np.loadtxt(data_folder() / "histograms" / "sts_b_dir.csv", delimiter=",", skiprows=1)
    np.testing.assert_array_equal(SCORES.counts(run.target), table[:, 4])
    np.testing.assert_array_equal(run.train_counts, table[:, 2])
    few = SCORES.shots(run.train_counts)[SCORES.index(run.target)] == "few"
    assert few.sum() == 37


def test_a_choice_is_made_on_the_validation_set():
    run = train_sts(PLAIN, 0, part="val", epochs=1)
    np.testing.assert_allclose(run.target, sts_b_dir().val.y, atol=1e-3)
    assert run.extra["val_error"] == pytest.approx(
        np.abs(run.prediction - run.target).mean(), abs=1e-3
    )


def test_a_run_follows_from_its_seed_alone():
    torch.manual_seed(1)
    first = predictions(METHODS["FDS+RankSim"], epochs=2)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, predictions(METHODS["FDS+RankSim"], epochs=2))
    assert not np.array_equal(first, predictions(METHODS["FDS+RankSim"], seed=4, epochs=2))


def test_methods_of_one_seed_share_initialisation_order_and_dropout(monkeypatch):
    plain = caught(monkeypatch, METHODS["vanilla"], 5)
    full = caught(monkeypatch, METHODS["INV+LDS+FDS+RankSim"], 5)
    other = caught(monkeypatch, METHODS["vanilla"], 6)
    assert torch.equal(plain.model.head.weight, full.model.head.weight)
    assert not torch.equal(plain.model.head.weight, other.model.head.weight)
    assert torch.equal(plain.dropout, full.dropout)
    assert not torch.equal(plain.dropout, other.dropout)
    assert (plain.seed, full.seed, other.seed) == (5, 5, 6)
    drops = [layer.p for layer in plain.model.encoder if isinstance(layer, torch.nn.Dropout)]
    assert drops == [0.3]


def test_weights_and_layers_are_those_asked_for(monkeypatch):
    plain = caught(monkeypatch, METHODS["vanilla"], 0)
    full = caught(monkeypatch, METHODS["INV+LDS+FDS"], 0)
    assert (plain.weights == 1).all()
    expected = lds_weights(full.data.train.y, SCORES, power=1.0, size=5, sigma=2.0)
    torch.testing.assert_close(full.weights, expected)
    assert plain.model.fds is None
    assert plain.after_epoch is None
    assert isinstance(full.model.fds, FDS)
    assert full.model.fds.clip == (0.5, 2.0)
    assert full.model.fds.bins == SCORES


def test_ranksim_of_weight_zero_changes_nothing():
    """So its draws are its own, and dropout stays paired."""
    np.testing.assert_array_equal(predictions(PLAIN), predictions({**PLAIN, "ranksim": 0.0}))
    assert not np.array_equal(predictions(PLAIN), predictions({**PLAIN, "ranksim": 1.0}))


def test_fds_starts_after_the_first_epoch():
    fds = METHODS["FDS"]
    np.testing.assert_array_equal(predictions(PLAIN), predictions(fds))
    assert not np.array_equal(predictions(PLAIN, epochs=2), predictions(fds, epochs=2))


def test_weight_of_ranksim_is_the_best_on_the_validation_set():
    results = record("sts_b_ranksim")
    assert results.provenance["settings"] == {"part": "val"}
    assert not set(results.seeds) & set(record("sts_b_dir").seeds)
    errors = {method: results.mean(method).value for method in results.methods}
    best = min(errors, key=errors.get)
    assert GAMMAS[best].get("ranksim") == GAMMA
    assert all(m["ranksim"] == GAMMA for m in METHODS.values() if "ranksim" in m)

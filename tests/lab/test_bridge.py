from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dirlearn.lab import bridge
from dirlearn.lab.bridge import BASES, INV_LDS, PSEUDO, SQINV, _figures, _weights, learn
from dirlearn.lab.bridge import train_pseudo as train
from dirlearn.lab.datasets import Split
from dirlearn.lab.scarce import LABELLED, POOL, POOLS, TASKS
from dirlearn.lds import lds_weights

TASK = TASKS["diamonds"]  # the cheaper of the two
DATA = TASK.draw(50, 0)


@pytest.fixture
def lessons(monkeypatch):
    """What networks are taught, in place of teaching them."""
    taught = []

    def spy(task, train, seed, steps, weights=None, balanced=False):
        taught.append({"train": train, "steps": steps, "weights": weights, "balanced": balanced})
        return lambda x: torch.full((len(x),), 1234.0)

    monkeypatch.setattr(bridge, "learn", spy)
    bridge._teacher.cache_clear()
    yield taught
    bridge._teacher.cache_clear()


# ---- the second network


def test_it_learns_the_labelled_set_and_what_the_first_says_of_the_pool(lessons):
    run = train({"base": "SQINV", "pool": "alike", "then": "plain"}, 0, task="diamonds")
    first, second = lessons
    assert len(first["train"]) == LABELLED.sum()
    expected = lds_weights(DATA.train.y, TASK.bins, **SQINV)
    assert torch.equal(first["weights"], expected)
    assert torch.equal(second["train"].x, torch.cat([DATA.train.x, DATA.pool.x]))
    assert torch.equal(second["train"].y[: LABELLED.sum()], DATA.train.y)
    assert (second["train"].y[LABELLED.sum() :] == 1234).all()
    assert second["weights"] is None
    assert first["steps"] == second["steps"] == 600
    assert (run.prediction == 1234).all()


def test_true_labels_of_the_pool_reach_no_network_but_that_of_the_upper_bound(lessons, monkeypatch):
    hidden = replace(DATA, pool=Split(DATA.pool.x, DATA.pool.y.flip(0)))
    seen = {}
    for name, data in (("as they are", DATA), ("in disorder", hidden)):
        monkeypatch.setitem(bridge.TASKS, "diamonds", replace(TASK, draw=lambda *_, d=data: d))
        for base in ("vanilla", "true labels"):
            train({"base": base, "pool": "alike", "then": "weighted"}, 0, task="diamonds")
            seen[base, name] = lessons[-1]
    for what in ("x", "y"):
        one, two = (
            getattr(seen["vanilla", n]["train"], what) for n in ("as they are", "in disorder")
        )
        assert torch.equal(one, two)
    assert torch.equal(
        seen["vanilla", "as they are"]["weights"], seen["vanilla", "in disorder"]["weights"]
    )
    upper = seen["true labels", "as they are"]["train"].y
    assert torch.equal(upper[LABELLED.sum() :], DATA.pool.y)


def test_the_upper_bound_trains_no_base(lessons):
    train({"base": "true labels", "pool": "even", "then": "plain"}, 0, task="diamonds")
    assert len(lessons) == 1


def test_longer_is_longer_and_sees_no_pool(lessons):
    train({"base": "vanilla", "times": 2}, 0, task="diamonds", steps=50)
    (lesson,) = lessons
    assert lesson["steps"] == 100
    assert len(lesson["train"]) == LABELLED.sum()


def test_methods_of_one_seed_share_their_base(lessons):
    for pool in POOLS:
        train({"base": "vanilla", "pool": pool, "then": "plain"}, 0, task="diamonds")
    assert [len(lesson["train"]) for lesson in lessons] == [
        LABELLED.sum(),
        *[LABELLED.sum() + POOL] * 3,
    ]


# ---- its weights


def test_weights_are_those_of_true_and_predicted_labels_together():
    labels, given = DATA.train.y, DATA.pool.y.flip(0) / 2
    weights = _weights(TASK, "weighted", labels, given)
    torch.testing.assert_close(
        weights, lds_weights(torch.cat([labels, given]), TASK.bins, **INV_LDS)
    )
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    assert _weights(TASK, "plain", labels, given) is None


def test_omega_one_gives_both_parts_half_of_the_loss():
    weights = _weights(TASK, "omega 1", DATA.train.y, DATA.pool.y)
    n = len(DATA.train)
    assert float(weights[:n].sum()) == pytest.approx(float(weights[n:].sum()), rel=1e-5)


# ---- what is recorded of the pool's labels


def test_figures_of_labels_shrunk_by_half():
    given = 5000 + 0.5 * (DATA.pool.y - 5000)
    figures = _figures(DATA, given)
    assert figures["slope"] == pytest.approx(0.5, abs=1e-4)
    rare = DATA.pool.y >= 9500
    expected = float((given - DATA.pool.y)[rare].mean())
    assert figures["bias_few"] == pytest.approx(expected, rel=1e-4)
    assert figures["mae_few"] == pytest.approx(-expected, rel=1e-4)
    assert figures["bias_many"] > 0


# ---- the networks


@pytest.mark.parametrize("balanced", [False, True])
def test_answers_stay_within_the_labels_and_follow_from_the_seed(balanced):
    x = torch.cat([DATA.test.x, 100 * torch.eye(9), -100 * torch.eye(9)])
    answers = [learn(TASK, DATA.train, seed, 20, balanced=balanced)(x) for seed in (1, 1, 2)]
    assert answers[0].min() >= 0
    assert answers[0].max() <= 19_000
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_weights_reach_the_loss():
    rare = (DATA.train.y > 9500).float()
    few, common = (
        learn(TASK, DATA.train, 0, 100, weights=w / w.mean())(DATA.test.x).mean()
        for w in (rare, 1 - rare)
    )
    assert few > common + 3000


def test_a_whole_cell_runs_on_digits():
    run = train({"base": "INV+LDS", "pool": "even", "then": "weighted"}, 0, steps=5)
    assert run.prediction.shape == (1500,)
    np.testing.assert_array_equal(run.train_counts, LABELLED)
    assert np.isfinite(list(run.extra.values())).all()


@pytest.mark.parametrize(
    "method",
    [
        {"base": "best"},
        {"base": "vanilla", "pool": "alike", "then": "somehow"},
        {"base": "vanilla", "colour": "red"},
    ],
)
def test_unknown_names_are_refused(method):
    with pytest.raises(ValueError, match="unknown"):
        train(method, 0, task="diamonds", steps=5)


def test_every_base_labels_a_pool_in_the_study():
    for study in PSEUDO:
        assert set(BASES) <= set(study.methods)
        assert {m["base"] for m in study.methods.values() if "pool" in m} == {*BASES, "true labels"}

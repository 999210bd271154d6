from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dirlearn import CosineLinear, PseudoLabels, pool_counts, released
from dirlearn.lab import semi, semi_data
from dirlearn.lab.semi import SEMI, network, quality, teacher, train, train_by_epochs, train_semi
from dirlearn.lab.semi_data import more_fashion, seven_digits, task_data
from dirlearn.lab.splits import Split


@pytest.fixture(autouse=True)
def _fresh():
    teacher.cache_clear()


# ---- the data


def test_seven_digits_hold_out_three_classes_as_irrelevant():
    data = seven_digits(seed=4)
    assert set(data.train.y.tolist()) == set(data.test.y.tolist()) == set(range(7))
    assert (data.pool.y == -1).sum() == 900
    assert len(data.pool) == 7 * 300 + 900 - len(data.train)


def test_a_task_is_its_data_at_half_the_resolution():
    data, whole = task_data("seven", 4), seven_digits(seed=4)
    assert data.pool.x.shape[1:] == (1, 14, 14)
    assert torch.equal(data.pool.y, whole.pool.y)
    corner = whole.test.x[0, 0, 10:12, 10:12].mean()
    assert torch.isclose(data.test.x[0, 0, 5, 5], corner)
    with pytest.raises(
        ValueError, match="unknown task 'letters'; known are digits, fashion, more fashion, seven"
    ):
        task_data("letters", 0)


@pytest.fixture
def filed(monkeypatch):
    """Stand-in for the original files: an image is its row; test images count on from training."""
    y = torch.arange(10).repeat(1600)
    x = torch.arange(20_000.0)[:, None]
    train, test = Split(x[:16_000], y), Split(x[16_000:], y[:4000])
    whole = SimpleNamespace(train=train, test=test)
    monkeypatch.setattr(semi_data, "fashion_mnist", lambda: whole)
    return whole


def test_more_fashion_parts_share_no_image_and_keep_their_labels(filed):
    data = more_fashion(seed=4)
    assert data.train_counts.tolist() == [250, 161, 104, 67, 43, 28, 18, 11, 7, 5]
    assert [len(s) for s in (data.train, data.pool, data.val, data.test)] == [694, 14306, 500, 2000]
    parts = [s.x.flatten().tolist() for s in (data.train, data.pool, data.val, data.test)]
    assert len(set().union(*parts)) == sum(map(len, parts))
    assert min(parts[3]) >= len(filed.train)  # of the test file, and of it alone
    for split in (data.train, data.pool, data.val, data.test):
        assert torch.equal(split.x.flatten() % 10, split.y.float())
    for split in (data.val, data.test):
        assert torch.bincount(split.y).unique().numel() == 1


def test_more_fashion_suffices_for_the_pools_and_its_seed_draws_the_labels_alone(filed):
    data, other = more_fashion(seed=4), more_fashion(seed=5)
    counts = torch.bincount(data.pool.y).numpy()
    for rho in (1, 10, 50):
        assert (pool_counts(5 * len(data.train), 10, rho) <= counts).all()
    assert not torch.equal(data.train.x, other.train.x)
    assert torch.equal(data.test.x, other.test.x)
    assert torch.equal(data.val.x, other.val.x)


# ---- the network


def test_ldam_gets_cosines_and_all_start_alike():
    assert isinstance(network("LDAM-DRW", 10, 0).head, CosineLinear)
    plain, again = network("CE", 10, 0), network("CE", 10, 0)
    assert isinstance(plain.head, nn.Linear)
    assert torch.equal(plain.head.weight, again.head.weight)
    assert not torch.equal(plain.head.weight, network("CE", 10, 1).head.weight)


# ---- what reaches the training


def captured(monkeypatch, method, task="digits", seed=0):
    """Arguments of the training that ``method`` asks for; the network that labels is a stand-in."""
    calls = []

    def spy(model, data, *, weights=None, counts=None, steps, **others):
        calls.append({"data": data, "weights": weights, "counts": counts, "steps": steps, **others})

    data = task_data(task, seed)
    # It takes every image for class 0, and is sure of the first hundred of the pool.
    logits = torch.zeros(len(data.pool), len(data.bins))
    logits[:, 0] = 1.0
    logits[:100, 0] = 20.0
    monkeypatch.setattr(semi, "fit_classes", spy)
    monkeypatch.setattr(semi, "teacher", lambda *_: (np.zeros(len(data.test)), logits))
    run = train_semi(method, seed, task=task)
    return data, calls[-1], run


def test_pool_and_labels_are_put_into_one_data_set(monkeypatch):
    data, call, run = captured(monkeypatch, {"rho": 1})
    joint, n = call["data"].train, len(data.train)
    assert len(joint) == 6 * n
    assert torch.equal(joint.y[:n], data.train.y)
    assert (joint.y[n:] == 0).all()  # what was predicted, not what is true
    assert call["weights"] is None
    expected = released.class_counts(data.train.y, joint.y[n:], 10)
    np.testing.assert_array_equal(call["counts"], expected)
    np.testing.assert_array_equal(run.train_counts, data.train_counts)
    assert run.extra["recall"] == pytest.approx(0.1, abs=0.01)  # one class of ten
    assert run.extra["few_recall"] == 0


def test_true_labels_are_an_upper_bound(monkeypatch):
    data, call, _ = captured(monkeypatch, {"rho": 1, "labels": "true"})
    counts = np.bincount(call["data"].train.y[len(data.train) :], minlength=10)
    assert counts.max() - counts.min() <= 1  # a balanced pool


@pytest.mark.parametrize(("rho", "ratio"), [(10, 10), (40, 40)])
def test_rho_shapes_the_pool(monkeypatch, rho, ratio):
    data, call, _ = captured(monkeypatch, {"rho": rho, "labels": "true"})
    counts = np.bincount(call["data"].train.y[len(data.train) :], minlength=10)
    assert counts[0] / counts[-1] == pytest.approx(ratio, rel=0.2)
    assert counts.sum() == 5 * len(data.train)


def test_omega_weighs_the_two_parts(monkeypatch):
    data, call, _ = captured(monkeypatch, {"rho": 1, "omega": 1.0})
    weights, n = call["weights"], len(data.train)
    assert weights[:n].sum() == pytest.approx(float(weights[n:].sum()))
    assert float(weights.mean()) == pytest.approx(1)


def test_threshold_keeps_what_is_sure(monkeypatch):
    data, call, run = captured(monkeypatch, {"rho": 40, "threshold": 0.9})
    assert len(data.train) < len(call["data"].train) <= len(data.train) + 100
    assert run.extra["kept"] == pytest.approx(
        (len(call["data"].train) - len(data.train)) / run.extra["pool"]
    )


def test_counts_may_be_those_of_labels_alone(monkeypatch):
    data, call, _ = captured(monkeypatch, {"rho": 1, "loss": "LDAM-DRW", "counts": "labelled"})
    np.testing.assert_array_equal(call["counts"], data.train_counts)
    assert (call["loss"], call["weighting"]) == ("LDAM", "deferred")


def test_irrelevant_images_take_the_place_of_relevant_ones(monkeypatch):
    _, _, run = captured(monkeypatch, {"rho": 1, "relevance": 0.2}, task="seven")
    assert run.extra["pool"] == 480
    assert run.extra["recall"] == pytest.approx(1 / 7, abs=0.02)


def test_twice_the_steps_for_both_networks(monkeypatch):
    _, call, _ = captured(monkeypatch, {"rho": 1, "times": 2})
    assert call["steps"] == 1200


def test_what_means_nothing_is_refused():
    with pytest.raises(ValueError, match="unknown key of a method 'roh'"):
        train_semi({"roh": 1}, 0, task="digits")
    with pytest.raises(ValueError, match="unknown loss 'MSE'"):
        train_semi({"loss": "MSE"}, 0, task="digits", steps=3)


# ---- training that is looked after between its epochs


def test_labels_are_renewed_as_often_as_asked(monkeypatch):
    asked = []

    def labelled(model, x):
        asked.append(len(x))
        return PseudoLabels.from_logits(torch.eye(10)[torch.full((len(x),), 7)])

    monkeypatch.setattr(semi, "pseudo_label", labelled)
    data = task_data("digits", 0)
    extra = Split(data.pool.x[:60], torch.zeros(60, dtype=torch.int64))
    model = train_by_epochs(data, extra, seed=0, rounds=5, steps=60)
    assert asked == [60] * 4  # the first labels were given
    with torch.no_grad():
        assert (model.eval()(extra.x).argmax(1) == 7).float().mean() > 0.5


def test_one_round_is_the_training_without_looking_up():
    data = task_data("digits", 0)
    extra = Split(data.pool.x[:60], data.pool.y[:60])
    one, other = (
        make(data, extra, seed=0, steps=9).state_dict() for make in (train, train_by_epochs)
    )
    for name, value in one.items():
        torch.testing.assert_close(value, other[name])


def test_an_epoch_may_be_chosen_on_the_test_set():
    data = task_data("digits", 0)
    extra = Split(data.pool.x[:60], data.pool.y[:60])
    last, chosen = (
        train_by_epochs(data, extra, seed=0, watched=watched, steps=60)
        for watched in (None, data.test)
    )
    errors = [
        float((model.eval()(data.test.x).argmax(1) != data.test.y).float().mean())
        for model in (last, chosen)
    ]
    assert errors[1] <= errors[0]


# ---- the quality of pseudo-labels


def test_quality_by_hand():
    found = PseudoLabels(
        torch.tensor([0, 0, 1, 1, 2, 1]),
        torch.ones(6),
        torch.tensor([True, True, True, False, True, False]),
    )
    truth = torch.tensor([0, 1, 1, 0, 2, -1])
    got = quality(found, truth, np.array([50, 5, 3]))
    assert got == pytest.approx(
        {"pool": 6, "kept": 4 / 6, "recall": 3 / 5, "few_recall": 2 / 3, "few_precision": 2 / 4}
    )


def test_no_few_shot_class_no_share():
    found = PseudoLabels(torch.tensor([0, 1]), torch.ones(2), torch.ones(2, dtype=torch.bool))
    got = quality(found, torch.tensor([0, 1]), np.array([50, 50]))
    assert (got["few_recall"], got["few_precision"]) == (0.0, 0.0)


# ---- the runs


def test_a_run_follows_from_its_seed_and_a_kept_teacher_changes_nothing():
    first = train_semi({"rho": 10}, 3, task="digits", steps=6)
    kept = train_semi({"rho": 10}, 3, task="digits", steps=6)
    teacher.cache_clear()
    again = train_semi({"rho": 10}, 3, task="digits", steps=6)
    for other in (kept, again):
        np.testing.assert_array_equal(first.prediction, other.prediction)
    assert (train_semi({"rho": 10}, 4, task="digits", steps=6).prediction != first.prediction).any()


@pytest.mark.parametrize("study", SEMI, ids=lambda study: study.name)
def test_studies_measure_errors_of_classes_on_distinct_seeds(study):
    assert study.metrics == ("error",)
    assert study.decimals == 0
    assert len(study.seeds) >= 5
    assert all(set(study.seeds).isdisjoint(other.seeds) for other in SEMI if other is not study)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dirlearn import CosineLinear, long_tailed_counts
from dirlearn.lab import tails
from dirlearn.lab.classes import fit_classes
from dirlearn.lab.tails import (
    DESIGN,
    LOSSES,
    RHO,
    RHOS,
    SELECTED,
    SMALL_BETA,
    TAILS,
    mean_margins,
    tail_data,
    train_selected,
    train_tail,
)


def calls_of(methods, monkeypatch, run=train_tail, seed=3, **settings):
    """Models, data and settings that a run hands to the training, which does not take place."""
    calls = []

    def spy(model, data, **given):
        calls.append((model, data, given))
        raise InterruptedError

    monkeypatch.setattr(tails, "fit_classes", spy)
    for method in methods:
        with pytest.raises(InterruptedError):
            run(method, seed, **settings)
    return calls


def test_methods_of_one_seed_share_labels_start_and_seed(monkeypatch):
    first, *others = calls_of(LOSSES.values(), monkeypatch)
    for model, data, given in others:
        assert torch.equal(data.train.x, first[1].train.x)
        assert given["seed"] == 3
        mine, theirs = model.encoder.state_dict(), first[0].encoder.state_dict()
        assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


def test_a_seed_reaches_labels_and_start(monkeypatch):
    (a, data, _), (b, other, _) = (
        calls_of([{}], monkeypatch, seed=seed, data=name)[0]
        for seed, name in ((3, "fashion"), (4, "fashion"))
    )
    assert not torch.equal(a.head.weight, b.head.weight)
    assert not torch.equal(data.train.x, other.train.x)
    assert data.name == "long-tailed fashion"


def test_every_margin_goes_with_cosines_but_where_the_knob_says(monkeypatch):
    everything = {**LOSSES, **RHO, **DESIGN}
    for (name, method), (model, _, given) in zip(
        everything.items(), calls_of(everything.values(), monkeypatch), strict=True
    ):
        cosine = isinstance(model.head, CosineLinear)
        assert cosine == (method.get("head") == "cosine")
        assert isinstance(model.head, CosineLinear | nn.Linear)
        if given.get("loss") == "LDAM":
            assert cosine != name.startswith("linear")


def test_imbalances_share_the_number_of_labels(monkeypatch):
    for rho, n_max in RHOS.items():
        counts = long_tailed_counts(n_max, 10, rho)
        assert abs(counts.sum() - 131) <= 2
        np.testing.assert_array_equal(tail_data("digits", 0, n_max, rho).train_counts, counts)
    _, data, given = calls_of([RHO["CE, rho 40"]], monkeypatch)[0]
    assert data.train_counts[0] == 46
    assert "rho" not in given


def test_even_batches_leave_no_remainder_and_see_as_many_epochs(monkeypatch):
    studies = {study.name: study.settings for study in TAILS}
    even, plain = studies["lt_even"], studies["lt_digits"]
    of_three, of_two = -(-131 // 64), -(-131 // even["batch_size"])
    assert 131 % even["batch_size"] > 60
    assert even["steps"] // of_two == plain["steps"] // of_three
    for rho, n_max in RHOS.items():
        left = long_tailed_counts(n_max, 10, rho).sum() % studies["lt_rho"]["batch_size"]
        assert left > 60
    _, _, given = calls_of([{}], monkeypatch, batch_size=66)[0]
    assert given["batch_size"] == 66


def test_the_small_beta_is_that_of_cifar_in_proportion():
    assert pytest.approx(5000 * (1 - 0.9999)) == 40 * (1 - SMALL_BETA)


def test_studies_measure_classes():
    assert len({study.name for study in TAILS}) == len(TAILS)
    for study in TAILS:
        assert study.metrics == ("error",)
        assert len(study.seeds) >= 5


def test_margins_by_hand():
    cosines = torch.tensor([[0.5, 0.2, -0.1], [0.1, 0.2, 0.4], [0.0, 0.9, 0.3]])
    margins = mean_margins(cosines, torch.tensor([0, 1, 1]))
    np.testing.assert_allclose(margins[:2], [0.3, (-0.2 + 0.6) / 2], rtol=1e-5)
    assert np.isnan(margins[2])


def test_a_run_tells_how_it_went():
    run = train_tail(LOSSES["LDAM"], 0, steps=30)
    again = train_tail(LOSSES["LDAM"], 0, steps=30)
    np.testing.assert_array_equal(run.prediction, again.prediction)
    assert set(run.prediction) <= set(range(10))
    assert set(run.extra) == {"train_error", "val_error", "head_margin", "tail_margin"}
    assert 0 <= run.extra["train_error"] <= 1
    assert set(train_tail({}, 0, steps=3).extra) == {"train_error", "val_error"}


def test_looking_at_the_test_set_changes_nothing_and_keeps_the_least(monkeypatch):
    plain = train_tail(SELECTED["CE"], 1, steps=36)
    errors = []

    def training(model, data, *, after_epoch, **given):
        def spy(epoch):
            after_epoch(epoch)
            if (epoch + 1) % 4 == 0:
                with torch.no_grad():
                    predicted = model(data.test.x).argmax(dim=1)
                errors.append((float((predicted != data.test.y).double().mean()), epoch))

        return fit_classes(model, data, after_epoch=spy, **given)

    monkeypatch.setattr(tails, "fit_classes", training)
    looked = train_selected(SELECTED["CE"], 1, steps=36)
    np.testing.assert_array_equal(looked.prediction, plain.prediction)
    best = looked.extra["best_on_test"], looked.extra["best_epoch"]
    assert best == pytest.approx(min(errors))
    assert len(errors) == 3

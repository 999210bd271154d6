from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from dirlearn import BalancedMSE, Bins, GAILoss, balanced_mse, truncated_mean
from dirlearn.lab import balanced
from dirlearn.lab.balanced import ANGLE_METHODS, READINGS, SCORE_METHODS, inside, train_balanced
from dirlearn.lab.study import Results


def caught(monkeypatch, method, task="scores", seed=3):
    """What a method hands to the training loop, without the training."""
    calls = []

    def spy(model, data, **given):
        calls.append((model, data, given))
        raise InterruptedError

    monkeypatch.setattr(balanced, "fit", spy)
    with pytest.raises(InterruptedError):
        train_balanced(method, seed, task=task, epochs=1)
    model, data, given = calls[0]
    return SimpleNamespace(model=model, data=data, **given)


def test_sigma_is_learned_and_kept_with_the_model(monkeypatch):
    for name, kind in (("BMC 0.8", BalancedMSE), ("GAI learned", GAILoss)):
        call = caught(monkeypatch, SCORE_METHODS[name])
        assert isinstance(call.model.criterion, kind)
        assert "criterion.log_sigma" in call.model.state_dict()
        learned = "criterion.log_sigma" in dict(call.model.named_parameters())
        assert learned == SCORE_METHODS[name]["learn_sigma"]
        assert call.model.criterion.sigma.item() == pytest.approx(0.8)


@pytest.mark.parametrize("task", ["digits", "scores"])
def test_all_methods_start_from_the_same_network(task, monkeypatch):
    methods = ANGLE_METHODS if task == "digits" else SCORE_METHODS
    starts = [caught(monkeypatch, method, task).model.head.weight for method in methods.values()]
    assert all(torch.equal(start, starts[0]) for start in starts)
    other = caught(monkeypatch, methods["MSE"], task, seed=4).model.head.weight
    assert not torch.equal(other, starts[0])


def test_each_loss_is_what_it_is_called(monkeypatch):
    x, y, weight = torch.randn(6, 768), torch.linspace(0, 5, 6), torch.ones(6)
    for name, expected in {
        "L1": lambda p: (p - y).abs().mean(),
        "MSE": lambda p: (p - y).square().mean(),
        "BMC 0.8": lambda p: balanced_mse(p, y, 0.8),
    }.items():
        call = caught(monkeypatch, SCORE_METHODS[name])
        call.model.eval()
        torch.testing.assert_close(
            call.objective(call.model, x, y, weight), expected(call.model(x))
        )


def test_a_last_batch_of_one_has_no_pull_where_bmc_would_refuse_it(monkeypatch):
    call = caught(monkeypatch, SCORE_METHODS["BMC learned"])
    value = call.objective(call.model, torch.randn(1, 768), torch.ones(1), torch.ones(1))
    value.backward()
    assert value == 0
    assert call.model.head.weight.grad.abs().sum() == 0
    gai = caught(monkeypatch, SCORE_METHODS["GAI learned"])
    assert gai.objective(gai.model, torch.randn(1, 768), torch.ones(1), torch.ones(1)) != 0


def test_the_epoch_is_chosen_by_what_will_be_predicted(monkeypatch):
    at, y = torch.tensor([-3.0, 8.0]), torch.tensor([0.2, 4.9])
    error = caught(monkeypatch, SCORE_METHODS["BMC 1.6"]).val_error(at, y)
    expected = (truncated_mean(at, 1.6, 0, 5) - y).abs().mean()
    assert error.item() == pytest.approx(expected.item())
    assert caught(monkeypatch, SCORE_METHODS["MSE"]).val_error(at, y) == pytest.approx(3.15)


def test_digits_are_averaged_over_two_by_two_pixels(monkeypatch):
    data = caught(monkeypatch, ANGLE_METHODS["MSE"], "digits").data
    whole = balanced.rotated_digits("agedb", 3)
    for part in ("train", "val", "test"):
        x, small = getattr(whole, part).x, getattr(data, part).x
        assert small.shape[2:] == (14, 14)
        assert_allclose(small[0, 0, 5, 6], x[0, 0, 10:12, 12:14].mean(), rtol=1e-6)


def test_a_run_records_the_bare_output_and_its_sigma():
    run = train_balanced(SCORE_METHODS["BMC 1.6"], 0, task="scores", epochs=1)
    assert run.prediction.shape == (1000,)
    assert run.prediction.min() < 0
    assert run.extra["sigma"] == pytest.approx(1.6)
    assert "sigma" not in train_balanced(SCORE_METHODS["MSE"], 0, task="scores", epochs=1).extra


def results():
    extra = [("BMC", 0, "sigma", 1.0), ("BMC", 1, "sigma", 2.0), ("BMC", 0, "best_epoch", 3.0)]
    return Results(
        name="two",
        methods=("MSE", "BMC"),
        seeds=(0, 1),
        bins=Bins([0.0, 1.0, 5.0]),
        target=np.array([0.5, 4.0]),
        predictions=np.array([[[-1.0, 4.0], [1.0, 6.0]], [[-2.0, 4.0], [1.0, 7.0]]]),
        train_counts=np.ones((2, 2, 2), int),
        extra=pd.DataFrame(extra, columns=["method", "seed", "name", "value"]),
        provenance={},
        decimals=3,
    )


def test_locations_are_read_in_three_ways():
    bare, clipped, mean = (inside(results(), reading).predictions for reading in READINGS)
    assert_allclose(bare, results().predictions)
    assert_allclose(clipped, results().predictions.clip(0, 5))
    assert_allclose(mean[0], clipped[0])  # a plain loss has no density to take the mean of
    for seed, sigma in enumerate((1.0, 2.0)):
        expected = truncated_mean(results().predictions[1, seed].astype(float), sigma, 0, 5)
        assert_allclose(mean[1, seed], expected, atol=5e-4)
    with pytest.raises(ValueError, match="unknown reading 'median'; known are location, clipped"):
        inside(results(), "median")

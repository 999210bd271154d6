from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dirlearn.lab import cifar, image_files
from dirlearn.lab.cifar import PLANS, plans, train_cifar, train_resnet32
from dirlearn.lab.recipe import Standardised, crop_and_flip, sgd, staircase
from dirlearn.lab.resnet import cifar_resnet
from dirlearn.lab.splits import Split
from dirlearn.ldam import CosineLinear

EACH = 100
RHOS = (10, 50, 100)
METHODS = plans(*RHOS)


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """A CIFAR-10 of noise, 100 images a class, each class a little brighter than the last."""
    draws = torch.Generator().manual_seed(0)

    def part(each):
        labels = torch.arange(10).repeat(each)
        noise = torch.randint(0, 120, (10 * each, 3, 32, 32), generator=draws)
        return Split((noise + 13 * labels[:, None, None, None]).to(torch.uint8), labels)

    whole = part(EACH), part(3)
    monkeypatch.setattr(image_files, "_cifar10", lambda where: whole)
    cifar._thinned.cache_clear()
    yield
    cifar._thinned.cache_clear()  # nobody else is to meet the fake


def spied(monkeypatch):
    """What pretrain and fit_classes are called with; neither trains, and nothing is predicted."""
    calls = {"pretrain": [], "fit_classes": []}

    def pretrain(kind, encoder, x, **settings):
        calls["pretrain"].append({"kind": kind, "encoder": encoder, "x": x, **settings})

    def fit_classes(model, data, **settings):
        calls["fit_classes"].append({"model": model, "data": data, **settings})

    monkeypatch.setattr(cifar, "pretrain", pretrain)
    monkeypatch.setattr(cifar, "fit_classes", fit_classes)
    monkeypatch.setattr(cifar, "predicted_classes", lambda model, x: np.zeros(len(x), np.int64))
    return calls


# ---- the plans


def test_every_plan_is_there_for_every_rho_and_longer_is_as_long_as_both():
    assert len(METHODS) == len(RHOS) * 2 * len(PLANS)
    assert PLANS[", longer"]["length"] == PLANS["+SSP"]["before"] + PLANS["+SSP"]["length"]
    assert PLANS[""] == {"before": 0.0, "length": PLANS["+SSP"]["length"]}
    for name, method in METHODS.items():
        assert name.startswith(method["loss"])
        assert name.endswith(f"rho {method['rho']}")


@pytest.mark.parametrize("name", ["CE, rho 10", "CE+SSP, rho 10", "LDAM-DRW, longer, rho 10"])
def test_small_network_is_trained_as_long_as_it_says(monkeypatch, name):
    calls = spied(monkeypatch)
    run = train_cifar(METHODS[name], 0, n_max=EACH, steps=120)
    (fitted,) = calls["fit_classes"]
    data, method = fitted["data"], METHODS[name]
    assert fitted["steps"] == (240 if "longer" in name else 120)
    assert fitted["augment"] is crop_and_flip
    assert data.train_counts.tolist() == [int(EACH * 0.1 ** (c / 9.0)) for c in range(10)]
    np.testing.assert_array_equal(run.train_counts, data.train_counts)
    assert len(data.pool) == 0
    expected = ("LDAM", "deferred") if method["loss"] == "LDAM-DRW" else ("CE", None)
    assert (fitted["loss"], fitted.get("weighting")) == expected
    assert isinstance(fitted["model"].head, CosineLinear) == (method["loss"] == "LDAM-DRW")
    if "SSP" not in name:
        assert calls["pretrain"] == []
        return
    (before,) = calls["pretrain"]
    assert before["kind"] == "rotation"
    assert before["encoder"] is fitted["model"].encoder  # what was learned is gone on with
    assert before["x"] is data.train.x  # no image that has no label
    assert before["views"] is crop_and_flip
    assert before["epochs"] == round(120 / (len(data.train) // 64))


@pytest.mark.parametrize("name", ["CE, rho 50", "LDAM-DRW+SSP, rho 50", "CE, longer, rho 50"])
def test_resnet_is_trained_by_the_papers_recipe(monkeypatch, name):
    calls = spied(monkeypatch)
    train_resnet32(METHODS[name], 0, n_max=EACH)
    (fitted,) = calls["fit_classes"]
    batches = -(-len(fitted["data"].train) // 128)
    assert fitted["steps"] == (400 if "longer" in name else 200) * batches
    model = fitted["model"]
    assert isinstance(model.encoder, Standardised)
    assert sum(isinstance(m, nn.Conv2d) for m in model.modules()) == 31  # and the head
    for call in [fitted, *calls["pretrain"]]:
        recipe = call["batch_size"], call["optimizer"], call["schedule"]
        assert recipe == (128, sgd, staircase)
    if "SSP" in name:
        assert calls["pretrain"][0]["epochs"] == 200
        assert calls["pretrain"][0]["checkpoint"] != fitted["checkpoint"]


def test_every_training_has_checkpoints_of_its_own(monkeypatch):
    calls = spied(monkeypatch)
    monkeypatch.setattr(cifar, "cifar_resnet", lambda depth: cifar_resnet(8))
    for method in METHODS.values():
        for seed in (0, 1):
            train_resnet32(method, seed, n_max=EACH)
    paths = [call["checkpoint"] for made in calls.values() for call in made]
    assert len(set(paths)) == len(paths) == 2 * (len(METHODS) + len(METHODS) // 3)


# ---- what a seed decides


@pytest.mark.parametrize(("train", "redrawn"), [(train_cifar, True), (train_resnet32, False)])
def test_seed_draws_weights_and_in_the_small_study_images_too(monkeypatch, train, redrawn):
    calls = spied(monkeypatch)
    for seed in (0, 1, 0):
        train(METHODS["CE, rho 50"], seed, n_max=EACH)
    first, other, again = calls["fit_classes"]
    start = [call["model"].head.weight for call in (first, other, again)]
    assert torch.equal(start[0], start[2])
    assert not torch.equal(start[0], start[1])
    images = [call["data"].train.x for call in (first, other, again)]
    assert torch.equal(images[0], images[2])
    assert torch.equal(images[0], images[1]) != redrawn
    assert first["seed"] == again["seed"] != other["seed"]


# ---- whole, in small


def test_small_network_learns():
    run = train_cifar(METHODS["CE+SSP, rho 10"], 0, n_max=EACH, steps=40)
    assert run.prediction.shape == run.target.shape == (30,)
    assert (run.prediction != run.target).mean() < 0.6  # nine in ten by chance


def test_one_epoch_of_the_papers_network_runs_on_a_processor(tmp_path):
    method = METHODS["LDAM-DRW+SSP, rho 10"]
    run = train_resnet32(
        method, 0, n_max=20, epochs=1, batch_size=16, checkpoints=str(tmp_path / "kept")
    )
    assert set(run.prediction) <= set(range(10))
    assert run.train_counts.sum() == sum(int(20 * 0.1 ** (c / 9.0)) for c in range(10))
    assert list((tmp_path / "kept").iterdir()) == []  # nothing to go on from: it has ended


@pytest.mark.parametrize("batches", [4, 14])  # within the pre-training, and after it
def test_an_interrupted_training_goes_on_as_if_nothing_had_been(monkeypatch, tmp_path, batches):
    monkeypatch.setattr(cifar, "cifar_resnet", lambda depth: cifar_resnet(8))
    method = METHODS["CE+SSP, rho 10"]
    settings = {"n_max": 20, "epochs": 3, "batch_size": 16}
    met, limit = [], batches

    def view(images, generator):
        met.append(len(images))
        if len(met) > limit:
            raise KeyboardInterrupt
        return crop_and_flip(images, generator)

    monkeypatch.setattr(cifar, "crop_and_flip", view)
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train_resnet32(method, 0, **settings, checkpoints=str(folder))
    assert any(folder.iterdir())
    met, limit = [], np.inf
    again = train_resnet32(method, 0, **settings, checkpoints=str(folder))
    resumed, met = len(met), []
    whole = train_resnet32(method, 0, **settings, checkpoints=str(tmp_path / "whole"))
    np.testing.assert_array_equal(again.prediction, whole.prediction)
    assert resumed < len(met)  # it did not begin anew

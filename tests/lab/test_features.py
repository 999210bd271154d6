from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dirlearn import Bins, released
from dirlearn.fds import FDS
from dirlearn.lab.datasets import Split
from dirlearn.lab.designs import FACTORIAL, FACTORS, cell_name, half_fraction
from dirlearn.lab.features import (
    LAYERS,
    last_layer,
    scarce_density,
    second_pass,
    train_features,
)
from dirlearn.lab.models import Regressor, conv_encoder
from dirlearn.ranksim import RankSim

BINS = Bins.uniform(0, 6, 1)


def features(n=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(6, (n,), generator=generator).float()
    return y[:, None] + torch.randn(n, 3, generator=generator), y


def after(layer, drifts, **options):
    """A layer that has seen one epoch for each drift of the features."""
    module = layer(3, BINS, **options)
    z, y = features()
    for drift in drifts:
        module(z + drift, y)
        module.step()
    return module


# ---- one difference each


def test_the_lagging_layer_is_the_papers_one_epoch_earlier():
    z, y = features()
    torch.testing.assert_close(after(LAYERS["lag"], [0, 5, 7])(z, y), after(FDS, [0, 5])(z, y))
    assert torch.equal(after(LAYERS["lag"], [0])(z, y), z)


def test_the_aliased_layer_is_the_released_one_but_for_ends_and_window():
    z, y = features()
    drifts = [0.0, 5.0, 7.0]
    aliased = after(LAYERS["alias"], drifts, size=1)
    as_released = released.FDS(3, BINS, size=1)
    for drift in drifts:
        as_released.observe(z + drift, y)
        as_released.step()
    torch.testing.assert_close(aliased(z, y), as_released(z, y))
    assert torch.equal(after(LAYERS["alias"], [0.0])(z, y), z)


def test_the_leaky_layer_is_drawn_to_empty_bins():
    z, y = 100 + torch.randn(20, 3), torch.full((20,), 2.0)
    leaky, sound = (layer(3, BINS, kernel="triangular", size=3) for layer in (LAYERS["leak"], FDS))
    for module in (leaky, sound):
        module(z, y)
        module.step()
    assert sound(z, y).mean() == pytest.approx(100, abs=0.5)
    assert leaky(z, y).mean() == pytest.approx(50, abs=0.5)
    torch.testing.assert_close(leaky.running_cov[2], sound.running_cov[2])


def test_the_in_place_layer_tracks_what_it_gives_out():
    z, y = features()
    module = after(LAYERS["in place"], [0.0])
    assert torch.equal(module.eval()(z), z)
    module.train()
    given = module(z, y)
    module.step()
    by_hand = torch.stack([given[y == b].mean(0) for b in range(6)])
    first = torch.stack([z[y == b].mean(0) for b in range(6)])
    torch.testing.assert_close(module.running_mean, 0.9 * first + 0.1 * by_hand)


# ---- the second pass


@pytest.mark.parametrize("mode", ["eval", "train", "released"])
def test_second_pass_shows_every_sample_once_in_the_mode_it_says(mode):
    encoder = conv_encoder(3)
    model = Regressor(encoder, 0.0, 1.0, FDS(3, BINS, track=False))
    split = Split(torch.rand(100, 1, 28, 28), torch.arange(100) % 6 + 0.5)
    modes = []
    encoder.register_forward_hook(lambda module, *_: modes.append(module.training))
    second_pass(model, split, mode, torch.Generator())
    counts = model.fds._epoch.count
    assert counts.tolist() == BINS.counts(split.y).tolist()
    assert modes == [mode != "eval"] * 2
    assert model.training
    if mode == "eval":
        model.eval()
        z = model.encoder(split.x)
        model.fds.step()
        torch.testing.assert_close(model.fds.running_mean[0], z[BINS.index(split.y) == 0].mean(0))


def test_second_pass_as_released_collects_calibrated_features():
    encoder = nn.Sequential(nn.Flatten())
    encoder.num_features = 3
    model = Regressor(encoder, 0.0, 1.0, FDS(3, BINS, track=False, momentum=0.0))
    z, y = features()
    split = Split(z, y)
    for mode in ("train", "released"):
        model.fds.observe(z, y)
        model.fds.step()
        expected = z if mode == "train" else model.fds(z, y)
        second_pass(model, split, mode, torch.Generator())
        model.fds.step()
        by_hand = torch.stack([expected[y == b].mean(0) for b in range(6)])
        torch.testing.assert_close(model.fds.running_mean, by_hand)


def test_second_pass_shuffles():
    encoder = nn.Sequential(nn.Flatten())
    encoder.num_features = 3
    model = Regressor(encoder, 0.0, 1.0, FDS(3, BINS, track=False))
    z, y = features()
    seen = []
    encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    second_pass(model, Split(z, y), "eval", torch.Generator().manual_seed(0), batch_size=20)
    assert not torch.equal(torch.cat(seen), z)
    torch.testing.assert_close(torch.cat(seen).sort(dim=0).values, z.sort(dim=0).values)


# ---- data and networks


def test_scarce_density_scales_and_cuts():
    counts = scarce_density(0.1, [[20, 30], [45, 50]])
    assert counts[20:30].sum() == counts[45:50].sum() == 0
    np.testing.assert_array_equal(counts[30:45], scarce_density(0.1)[30:45])


@pytest.mark.parametrize(
    ("name", "negative"), [("relu", False), ("batchnorm", True), ("layernorm", True)]
)
def test_last_layers_allow_negative_features_or_not(name, negative):
    z = conv_encoder(8, last_layer(name, 8))(torch.rand(32, 1, 28, 28))
    assert bool((z < 0).any()) == negative


# ---- the runs


def spied(monkeypatch, method, seed=3, **settings):
    """The arguments with which a run would train."""

    class StoppedError(Exception):
        pass

    calls = {}

    def spy(model, data, **options):
        calls.update(options, model=model, data=data)
        raise StoppedError

    monkeypatch.setattr("dirlearn.lab.features.fit", spy)
    with pytest.raises(StoppedError):
        train_features(method, seed, **settings)
    return calls


def test_methods_of_one_seed_share_data_and_initialisation(monkeypatch):
    plain, smoothed = (spied(monkeypatch, m) for m in ({}, {"fds": {}}))
    state, other = plain["model"].state_dict(), smoothed["model"].state_dict()
    assert all(torch.equal(state[k], other[k]) for k in state)
    assert torch.equal(plain["data"].train.x, smoothed["data"].train.x)
    assert plain["model"].fds is None
    assert isinstance(smoothed["model"].fds, FDS)


def test_a_method_overrides_the_settings(monkeypatch):
    method = {"scale": 0.3, "batch_size": 16, "augment": True, "width": 32, "power": 0.5}
    calls = spied(monkeypatch, method, scale=0.1, steps=1000)
    assert len(calls["data"].train) == scarce_density(0.3).sum()
    assert calls["batch_size"] == 16
    assert calls["keep"] == "last"
    assert calls["augment"] is not None
    assert calls["model"].encoder.num_features == 32
    assert np.ptp(np.asarray(calls["weights"])) > 0
    batches = -(-len(calls["data"].train) // 16)
    assert (calls["epochs"] - 1) * batches < 1000 <= calls["epochs"] * batches


def test_a_key_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="unknown key of a method 'fsd'"):
        train_features({"fsd": {}}, 0)


def test_the_regularizer_reaches_the_objective(monkeypatch):
    method = {"ranksim": {"weight": 64.0, "interpolation": 0.5}}
    objective = spied(monkeypatch, method)["objective"]
    model = Regressor(conv_encoder(4), 0.0, 1.0)
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8.0)
    model.eval()
    prediction, z = model(x, y)
    expected = (prediction - y).abs().mean() + RankSim(64.0, 0.5)(z, y)
    torch.testing.assert_close(objective(model, x, y, torch.ones(8)), expected)


@pytest.mark.parametrize("options", [{}, {"second_pass": "eval"}, {"width": 5}])
def test_fds_steps_after_every_epoch(monkeypatch, options):
    calls = spied(monkeypatch, {"fds": options})
    model, data = calls["model"], calls["data"]
    if "second_pass" not in options:
        model(data.train.x[:64], data.train.y[:64])
    calls["after_epoch"](0)
    assert model.fds.track == ("second_pass" not in options)
    width = options.get("width", 1)
    assert len(model.fds.bins) == 100 / width
    assert model.fds.count.sum() == (len(data.train) if "second_pass" in options else 64)


# ---- the factorial design


def test_half_fraction_is_balanced_and_of_resolution_six():
    cells = half_fraction()
    signs = np.array([[2 * FACTORS[f].index(c[f]) - 1 for f in FACTORS] for c in cells])
    assert len(cells) == 32
    assert (signs.sum(axis=0) == 0).all()
    effects = [signs[:, i] for i in range(6)]
    effects += [signs[:, i] * signs[:, j] for i in range(6) for j in range(i)]
    table = np.stack(effects)
    np.testing.assert_array_equal(table @ table.T, 32 * np.eye(len(effects)))


def test_every_cell_has_its_name_and_all_methods():
    cells = half_fraction()
    names = {cell_name("vanilla", cell) for cell in cells}
    assert len(names) == 32
    assert len(FACTORIAL) == 96
    assert all(name in FACTORIAL for name in names)

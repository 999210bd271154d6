from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from dirlearn.bins import Bins
from dirlearn.lab.datasets import Dataset, Split
from dirlearn.lab.models import Regressor, table_encoder
from dirlearn.lab.training import fit, on_features, predict, shift, supervised
from dirlearn.losses import weighted_l1, weighted_mse


def line(n=256, noise=0.0):
    """Targets on a plane, y = 3 a - 2 b + 1."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n + 128, 2, generator=generator)
    y = x @ torch.tensor([3.0, -2.0]) + 1 + noise * torch.randn(n + 128, generator=generator)
    parts = [Split(x[s], y[s]) for s in (slice(n), slice(n, n + 64), slice(n + 64, None))]
    return Dataset("line", *parts, bins=Bins.uniform(-20, 20, 1), unit="", provenance="made here")


def model(seed=0):
    torch.manual_seed(seed)
    return Regressor(table_encoder(2, 8), offset=0.0, scale=1.0)


def weights_of(network):
    return torch.cat([p.detach().flatten().cpu() for p in network.parameters()])


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x):
        return self.layer(x).squeeze(-1)


def test_it_learns():
    data = line()
    result = fit(
        Linear(), data, seed=0, epochs=60, learning_rate=0.1, objective=supervised(weighted_mse)
    )
    assert nn.functional.l1_loss(predict(result.model, data.test.x), data.test.y) < 0.05


def test_it_equals_a_plain_loop():
    """Same batches, Adam and cosine, written out; full batches make the order irrelevant."""
    data, epochs = line(), 5
    network = Linear()
    reference = copy.deepcopy(network)
    weight = torch.linspace(0.5, 1.5, len(data.train))
    fit(network, data, seed=0, weights=weight, epochs=epochs, batch_size=1000, learning_rate=0.1)

    optimizer = torch.optim.Adam(reference.parameters(), lr=0.1)
    best, best_state = np.inf, None
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + np.cos(np.pi * epoch / epochs))
        loss = (weight * (reference(data.train.x) - data.train.y).abs()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        error = (reference(data.val.x) - data.val.y).abs().mean().item()
        if error < best:
            best, best_state = error, copy.deepcopy(reference.state_dict())
    reference.load_state_dict(best_state)
    torch.testing.assert_close(weights_of(network), weights_of(reference), rtol=1e-4, atol=1e-5)


def test_same_seed_same_weights_and_another_seed_others():
    runs = [fit(model(), line(), seed=s, epochs=2).model for s in (0, 0, 1)]
    torch.testing.assert_close(weights_of(runs[0]), weights_of(runs[1]), rtol=0, atol=0)
    assert not torch.equal(weights_of(runs[0]), weights_of(runs[2]))


def test_batches_are_paired_across_methods():
    """The order of batches depends on the seed alone, not on the weights or the loss."""
    seen = []

    def spying(pred, target, weight):
        seen[-1].append(target.detach().clone())
        return weighted_l1(pred, target, weight)

    for weights in (None, torch.linspace(0.1, 2.0, 256)):
        seen.append([])
        fit(model(), line(), seed=5, weights=weights, objective=supervised(spying), epochs=2)
    assert len(seen[0]) == len(seen[1]) == 8
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))
    assert not torch.equal(torch.cat(seen[0][:4]), torch.cat(seen[0][4:]))  # reshuffled


def test_each_sample_meets_its_own_weight():
    data = line()

    def checking(pred, target, weight):
        torch.testing.assert_close(weight, 2 * target)
        return weighted_l1(pred, target, weight)

    fit(model(), data, seed=0, weights=2 * data.train.y, objective=supervised(checking), epochs=1)


def test_the_best_epoch_on_validation_is_kept_and_the_test_set_unread():
    data = line()
    object.__setattr__(data, "test", None)
    errors = iter([3.0, 1.0, 2.0, 4.0])
    snapshots = []
    network = model()

    def scripted(_pred, _target):
        snapshots.append(weights_of(network))
        return torch.tensor(next(errors))

    result = fit(network, data, seed=0, epochs=4, val_error=scripted)
    assert result.best_epoch == 1
    assert [h["val_error"] for h in result.history] == [3.0, 1.0, 2.0, 4.0]
    torch.testing.assert_close(weights_of(result.model), snapshots[1], rtol=0, atol=0)
    assert not result.model.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_at_once_and_says_what_to_try(bad):
    epochs = []

    def diverging(pred, target, weight):
        epochs.append(1)
        return weighted_l1(pred, target, weight) * bad

    with pytest.raises(FloatingPointError, match=r"in epoch 0; try a lower learning_rate"):
        fit(model(), line(), seed=0, objective=supervised(diverging), epochs=50)
    assert len(epochs) == 4  # one epoch of four batches


@pytest.mark.parametrize("shape", [(255,), (256, 1)])
def test_weights_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"one weight per training sample, shape \(256,\)"):
        fit(model(), line(), seed=0, weights=torch.ones(shape))


def test_an_empty_training_set_is_refused():
    data = line()
    object.__setattr__(data, "train", Split(torch.empty(0, 2), torch.empty(0)))
    with pytest.raises(ValueError, match="training set is empty"):
        fit(model(), data, seed=0)


def test_no_epochs_are_refused():
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        fit(model(), line(), seed=0, epochs=0)


def test_mixed_precision_trains_and_keeps_float32_weights(device):
    fabric = Fabric(accelerator=device.type, devices=1, precision="bf16-mixed")
    result = fit(model(), line(), seed=0, epochs=8, fabric=fabric, learning_rate=1e-2)
    assert result.history[-1]["val_error"] < 0.6 * result.history[0]["val_error"]
    assert all(p.dtype == torch.float32 for p in result.model.parameters())


def test_augmentation_follows_the_seed_and_leaves_the_data_alone():
    data = line()
    before = data.train.x.clone()

    def jitter(x, generator):
        return x + torch.randn(x.shape, generator=generator, device=x.device)

    runs = [fit(model(), data, seed=s, epochs=1, augment=jitter).model for s in (3, 3)]
    plain = fit(model(), data, seed=3, epochs=1).model
    torch.testing.assert_close(weights_of(runs[0]), weights_of(runs[1]), rtol=0, atol=0)
    assert not torch.equal(weights_of(runs[0]), weights_of(plain))
    torch.testing.assert_close(data.train.x, before, rtol=0, atol=0)


def test_prediction_does_not_depend_on_the_batch_and_learns_nothing():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    x = torch.randn(50, 2)
    before = copy.deepcopy(network.state_dict())
    torch.testing.assert_close(predict(network, x, batch_size=7), predict(network, x, 50))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def _two_processes(fabric_rank_folder):
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn")
    fabric.launch(_train_and_save, str(fabric_rank_folder))


def _train_and_save(fabric, folder):
    data = line()
    result = fit(Linear(), data, seed=0, epochs=60, learning_rate=0.1, fabric=fabric)
    torch.save(weights_of(result.model), f"{folder}/{fabric.global_rank}.pt")
    # Batches of 100 split 256 samples unevenly: the mean must still be over the samples met.
    (only,) = fit(
        Linear(), data, seed=0, epochs=1, batch_size=100, fabric=fabric, objective=supervised(one)
    ).history
    assert only["train_loss"] == pytest.approx(1.0)


def one(pred, _target, _weight):
    return pred.sum() * 0 + 1


def test_two_processes_agree_and_learn(tmp_path):
    _two_processes(tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, torch.tensor([3.0, -2.0, 1.0]), atol=0.1, rtol=0)


def test_shift_moves_by_whole_pixels_each_image_its_own_way():
    images = torch.zeros(200, 2, 9, 9)
    images[:, 0, 4, 4], images[:, 1, 4, 4] = 1.0, 2.0
    moved = shift(images, torch.Generator().manual_seed(0), pixels=2)
    assert moved.shape == images.shape
    where = moved[:, 0].flatten(1).argmax(dim=1)
    assert (moved[:, 1].flatten(1).argmax(dim=1) == where).all()  # channels move together
    rows, columns = where // 9 - 4, where % 9 - 4
    assert set(rows.tolist()) == set(columns.tolist()) == {-2, -1, 0, 1, 2}
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == 25
    assert float(moved.sum()) == 3 * 200


# ---- what only a spy can tell


def test_the_epoch_is_chosen_on_the_validation_set_as_it_is():
    data, network, seen = line(), model(), []
    expected = predict(network, data.val.x)

    def spy(pred, target):
        seen.append((pred, target))
        return (pred - target).abs().mean()

    def far_off(x, _):
        return x + 9

    fit(network, data, seed=0, epochs=1, learning_rate=0.0, augment=far_off, val_error=spy)
    assert torch.equal(seen[0][1], data.val.y)
    torch.testing.assert_close(seen[0][0], expected)


def test_a_tie_keeps_the_earlier_epoch():
    errors = iter([2.0, 1.0, 1.0])
    result = fit(
        Linear(), line(), seed=0, epochs=3, val_error=lambda *_: torch.tensor(next(errors))
    )
    assert result.best_epoch == 1


def test_another_seed_draws_another_augmentation():
    draws = []

    def spy(x, generator):
        draws.append(float(torch.rand(1, generator=generator, device=generator.device)))
        return x

    for seed in (3, 4):
        fit(Linear(), line(), seed=seed, epochs=1, batch_size=1000, augment=spy)
    assert draws[0] != draws[1]


def test_the_learning_rate_falls_step_by_step():
    network, bias = Linear(), []

    def slope(pred, _target, _weight):  # a constant gradient: Adam's step is the learning rate
        bias.append(float(network.layer.bias.detach()))
        return pred.mean()

    fit(network, line(), seed=0, objective=supervised(slope), epochs=3, learning_rate=0.1)
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(11) / 12))
    np.testing.assert_allclose(-np.diff(bias), expected, rtol=1e-3)


class Modes(Linear):
    def __init__(self):
        super().__init__()
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return super().forward(x)


def test_every_epoch_trains_in_training_mode_and_validates_in_the_other():
    network = Modes()
    fit(network, line(), seed=0, epochs=2, batch_size=128)
    assert network.modes == [True, True, False] * 2


def test_train_loss_is_the_mean_over_samples_of_uneven_batches():
    data = line()
    (only,) = fit(Linear(), data, seed=0, epochs=1, learning_rate=0.0, batch_size=100).history
    assert only["train_loss"] == pytest.approx(float(data.train.y.abs().mean()), rel=1e-5)


def test_a_validation_error_of_nan_stops_at_once():
    with pytest.raises(FloatingPointError, match="validation error became NaN in epoch 0"):
        fit(Linear(), line(), seed=0, val_error=lambda *_: torch.tensor(torch.nan))


def test_an_empty_validation_set_is_refused():
    data = line()
    object.__setattr__(data, "val", Split(torch.empty(0, 2), torch.empty(0)))
    with pytest.raises(ValueError, match="validation set is empty"):
        fit(Linear(), data, seed=0)


def test_numpy_seeds_and_weights_will_do():
    weights = np.linspace(0.5, 1.5, 256)
    runs = [
        fit(model(), line(), seed=np.int64(3), weights=weights, epochs=1),
        fit(model(), line(), seed=3, weights=torch.from_numpy(weights), epochs=1),
    ]
    first, second = (weights_of(run.model) for run in runs)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_prediction_takes_the_models_precision():
    network, x = Linear(), torch.randn(5, 2)
    expected = predict(network, x)
    got = predict(network.double(), x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)


def test_features_and_targets_reach_the_regularizer_and_the_model():
    data, seen = line(), []

    def regularizer(features, target):
        seen.append((features.shape, target))
        return features.square().mean()

    network = model()
    reference = copy.deepcopy(network)
    objective = on_features(weighted_mse, regularizer)
    (only,) = fit(
        network, data, seed=0, objective=objective, epochs=1, batch_size=1000, learning_rate=0.0
    ).history
    x, y = data.train.x, data.train.y
    with torch.no_grad():
        expected = (reference(x) - y).square().mean() + reference.encoder(x).square().mean()
    assert only["train_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert [shape for shape, _ in seen] == [(256, 8)]
    torch.testing.assert_close(seen[0][1].sort().values, y.sort().values)


def test_after_epoch_comes_between_the_batches_and_the_validation():
    order = []

    def objective(network, x, y, w):
        order.append("batch")
        return weighted_l1(network(x), y, w)

    def val_error(prediction, target):
        order.append("validation")
        return (prediction - target).abs().mean()

    fit(
        Linear(),
        line(),
        seed=0,
        epochs=2,
        batch_size=256,
        objective=objective,
        after_epoch=order.append,
        val_error=val_error,
    )
    assert order == ["batch", 0, "validation", "batch", 1, "validation"]


def test_the_last_epoch_is_kept_on_request():
    best, last = model(), model()
    for network, keep in ((best, "best"), (last, "last")):
        scripted = iter([1.0, 3.0, 2.0])
        fit(
            network,
            line(),
            seed=0,
            epochs=3,
            keep=keep,
            val_error=lambda *_, errors=scripted: torch.tensor(next(errors)),
        )
    assert not torch.equal(weights_of(best), weights_of(last))
    full = model()
    fit(full, line(), seed=0, epochs=3, val_error=lambda *_: torch.tensor(math.inf))
    assert torch.equal(weights_of(last), weights_of(full))


def test_only_two_epochs_can_be_kept():
    with pytest.raises(ValueError, match='"best" or "last"'):
        fit(model(), line(), seed=0, keep="first")


def test_without_validation_the_last_epoch_is_kept():
    data = line()
    object.__setattr__(data, "val", Split(torch.empty(0, 2), torch.empty(0)))
    whole, without = Linear(), Linear()
    fit(whole, line(), seed=0, epochs=3, keep="last")
    result = fit(without, data, seed=0, epochs=3, keep="last")
    torch.testing.assert_close(weights_of(without), weights_of(whole))
    assert result.best_epoch == -1
    assert all(math.isnan(epoch["val_error"]) for epoch in result.history)


def test_a_sampler_decides_what_an_epoch_draws():
    met = []

    def objective(network, x, y, weight):
        met.append(x)
        return network(x).sum()

    data = line()
    rows = [5, 5, 9, 200]
    fit(Linear(), data, seed=0, epochs=1, sampler=rows, batch_size=3, objective=objective)
    assert torch.equal(torch.cat(met).cpu(), data.train.x[rows])
    assert [len(x) for x in met] == [3, 1]


def test_an_optimizer_and_a_schedule_of_ones_own():
    """Plain gradient descent at a rate that halves at each step, written out."""
    data = line()
    network, reference = Linear(), Linear()
    fit(
        network,
        data,
        seed=0,
        epochs=3,
        batch_size=len(data.train),
        objective=supervised(weighted_mse),
        keep="last",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
    )
    for step in range(3):
        reference.zero_grad()
        nn.functional.mse_loss(reference(data.train.x), data.train.y).backward()
        with torch.no_grad():
            for parameter in reference.parameters():
                parameter.sub_(0.1 * 0.5**step * parameter.grad)
    torch.testing.assert_close(weights_of(network), weights_of(reference))


def test_the_schedule_is_told_how_many_steps_there_are():
    told = []

    def schedule(optimizer, steps):
        told.append(steps)
        return torch.optim.lr_scheduler.ConstantLR(optimizer)

    fit(Linear(), line(), seed=0, epochs=3, batch_size=100, schedule=schedule)
    assert told == [3 * 3]


def test_augmentation_may_change_the_shape():
    seen = []

    def objective(network, x, y, weight):
        seen.append(x.shape)
        return network(x[:, 0]).sum() + network(x[:, 1]).sum()

    def views(x, generator):
        return torch.stack([x, -x], dim=1)

    fit(Linear(), line(), seed=0, epochs=1, batch_size=256, augment=views, objective=objective)
    assert seen == [(256, 2, 2)]

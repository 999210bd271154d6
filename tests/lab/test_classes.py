from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dirlearn import (
    CosineLinear,
    class_balanced_weights,
    deferred_weights,
    focal_loss,
    ldam_loss,
    ldam_margins,
)
from dirlearn.bins import Bins
from dirlearn.lab import classes
from dirlearn.lab.classes import error_rate, fit_classes, predicted_classes
from dirlearn.lab.datasets import Dataset, Split
from dirlearn.lab.models import Classifier, table_encoder
from dirlearn.lab.training import shift

COUNTS = np.array([40, 12, 4])


def blobs(counts=COUNTS, val=30):
    generator = torch.Generator().manual_seed(1)
    y = torch.repeat_interleave(torch.arange(3), torch.as_tensor(counts))
    x = torch.randn(len(y), 2, generator=generator) + 2 * F.one_hot(y, 3)[:, :2]
    test = torch.arange(3).repeat_interleave(20)
    far = torch.randn(60, 2, generator=generator) + 2 * F.one_hot(test, 3)[:, :2]
    parts = [Split(x, y), Split(far[:val], test[:val]), Split(far, test)]
    return Dataset("blobs", *parts, bins=Bins.uniform(0, 3, 1), unit="class", provenance="made")


def model(head=nn.Linear):
    torch.manual_seed(0)
    return Classifier(table_encoder(2, 8), 3, head)


def trained(data=None, head=nn.Linear, **settings):
    network = model(head)
    given = {"seed": 0, "augment": None, "steps": 8, "batch_size": 64} | settings
    result = fit_classes(network, blobs() if data is None else data, **given)
    assert result.model is network
    return network, result


def state(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


# ---- what is minimised

LOSSES = {
    "CE": lambda u, y: F.cross_entropy(u, y, reduction="none"),
    "focal": lambda u, y: focal_loss(u, y, reduction="none", gamma=2.0),
    "LDAM": lambda u, y: ldam_loss(u, y, ldam_margins(COUNTS, 0.4), 10.0, reduction="none"),
}


def plain_loop(each, by_epoch, head, epochs=8, sample=1.0, data=None):
    """Full batches, Adam and cosine, written out."""
    data = blobs() if data is None else data
    network = model(head)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    x, y = data.train.x, data.train.y
    for epoch in range(epochs):
        c = torch.as_tensor(by_epoch(epoch)).float()[y]
        loss = (sample * c * each(network(x), y)).sum() / c.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


@pytest.mark.parametrize("weighting", ["none", "balanced", "deferred"])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_equals_a_plain_loop(loss, weighting):
    head = CosineLinear if loss == "LDAM" else nn.Linear
    by_epoch = {
        "none": lambda _: np.ones(3),
        "balanced": lambda _: class_balanced_weights(COUNTS, 0.99),
        "deferred": lambda epoch: deferred_weights(epoch, COUNTS, start=4, beta=0.99),
    }[weighting]
    got, _ = trained(
        loss=loss, weighting=weighting, head=head, gamma=2.0, max_margin=0.4, scale=10.0,
        beta=0.99, defer=0.5,
    )  # fmt: skip
    assert_close(state(got), state(plain_loop(LOSSES[loss], by_epoch, head)), rtol=1e-4, atol=1e-5)


def test_cosines_are_scaled_for_any_loss():
    def each(u, y):
        return F.cross_entropy(10 * u, y, reduction="none")

    got, _ = trained(head=CosineLinear, scale=10.0)
    expected = plain_loop(each, lambda _: np.ones(3), CosineLinear)
    assert_close(state(got), state(expected), rtol=1e-4, atol=1e-5)


def test_weights_per_sample_are_not_normalised_and_counts_may_be_given():
    sample = torch.linspace(0.5, 2, 56)
    given = np.array([80, 20, 20])
    got, _ = trained(weights=sample.numpy(), counts=given, weighting="balanced", beta=1.0)
    expected = plain_loop(
        LOSSES["CE"], lambda _: class_balanced_weights(given, 1.0), nn.Linear, sample=sample
    )
    assert_close(state(got), state(expected), rtol=1e-4, atol=1e-5)


def test_the_loss_without_weights_is_torchs():
    _, result = trained(steps=1)
    expected = F.cross_entropy(model()(blobs().train.x), blobs().train.y)
    assert result.history[0]["train_loss"] == pytest.approx(expected.item(), rel=1e-5)


# ---- how long, on what


def test_epochs_come_nearest_to_the_steps():
    assert len(trained(steps=20, batch_size=20)[1].history) == 7  # of three batches each
    assert len(trained(steps=1, batch_size=20)[1].history) == 1


def test_the_validation_set_is_not_read_and_the_last_epoch_is_kept(monkeypatch):
    data = blobs()
    broken = Split(torch.full_like(data.val.x, torch.nan), data.val.y)
    with_val = Dataset("b", data.train, broken, broken, data.bins, "", "")
    first, result = trained(with_val)
    assert torch.equal(state(first), state(trained(data)[0]))
    assert all(np.isnan(epoch["val_error"]) for epoch in result.history)


def test_what_is_called_after_an_epoch_sees_all_of_them():
    epochs = []
    trained(steps=3, after_epoch=epochs.append)
    assert epochs == [0, 1, 2]


@pytest.mark.parametrize(("beta", "share"), [(1.0, [1 / 3] * 3), (0.0, COUNTS / COUNTS.sum())])
def test_resampling_meets_classes_equally_often_or_as_beta_says(beta, share):
    seen = []

    def spy(x, _):
        seen.append(x)
        return x

    data = blobs()
    numbered = Split(torch.cat([data.train.x, data.train.y[:, None].float()], 1), data.train.y)
    network = nn.Linear(3, 3)
    numbered = Dataset("b", numbered, data.val, data.test, data.bins, "", "")
    fit_classes(network, numbered, seed=0, steps=60, resample=True, beta=beta, augment=spy)
    labels = torch.cat(seen)[:, 2].long()
    assert len(labels) == 60 * 56
    np.testing.assert_allclose(np.bincount(labels) / len(labels), share, atol=0.03)


def test_defaults_are_the_published_ones():
    parameters = inspect.signature(fit_classes).parameters
    published = {"beta": 0.9999, "defer": 160 / 200, "gamma": 1.0, "max_margin": 0.5, "scale": 30.0}
    assert {name: parameters[name].default for name in published} == published
    assert parameters["augment"].default is shift


def test_a_seed_reaches_the_batches_sampled_or_not():
    for resample in (False, True):
        first, again, other = (
            state(trained(seed=seed, batch_size=8, resample=resample)[0]) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_a_resumed_training_goes_on_with_the_weights_of_its_epoch(tmp_path, monkeypatch):
    settings = {"weighting": "deferred", "defer": 0.25, "beta": 1.0, "steps": 8}
    whole, _ = trained(**settings)
    calls = []
    after = classes._Timed.advance

    def stop(self, epoch):
        after(self, epoch)
        calls.append(epoch)
        if epoch == 5:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(classes._Timed, "advance", stop)
        with pytest.raises(InterruptedError):
            trained(checkpoint=tmp_path / "c.pt", **settings)
    resumed, result = trained(checkpoint=tmp_path / "c.pt", **settings)
    assert calls[-1] == 5
    assert len(result.history) == 8
    assert torch.equal(state(resumed), state(whole))


def test_it_learns_and_predicts():
    network, _ = trained(steps=300)
    data = blobs()
    predicted = predicted_classes(network, data.test.x)
    wrong = float((predicted != data.test.y.numpy()).mean())
    assert wrong < 0.4
    with torch.no_grad():
        assert float(error_rate(network(data.test.x), data.test.y)) == pytest.approx(wrong)


def test_error_rate_by_hand():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    assert float(error_rate(logits, torch.tensor([0, 1, 1]))) == pytest.approx(1 / 3)


def test_dropout_of_the_model_is_off_in_predictions():
    network = nn.Sequential(nn.Dropout(0.9), nn.Linear(2, 3))
    x = torch.randn(50, 2)
    first = predicted_classes(network.train(), x)
    np.testing.assert_array_equal(first, predicted_classes(network.train(), x))


# ---- what is refused


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "hinge"}, "loss must be"),
        ({"weighting": "sqrt"}, "weighting must be"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"weighting": "deferred", "defer": 1.5}, "defer must be from 0 to 1"),
        ({"weights": np.ones(3)}, "one weight per training sample"),
        ({"loss": "LDAM", "max_margin": 3.0}, "max_margin"),
        ({"loss": "LDAM", "scale": 0.0}, "scale must be positive"),
        ({"weighting": "balanced", "counts": np.array([3, 0, 1])}, "class 1 has no sample"),
        ({"counts": np.array([3, 1])}, "counts must hold one number per class"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        trained(**settings)


def test_a_class_without_samples_is_refused_where_it_would_be_weighed():
    data = blobs(np.array([40, 0, 4]))
    trained(data)
    for settings in ({"loss": "LDAM"}, {"weighting": "deferred"}, {"resample": True}):
        with pytest.raises(ValueError, match="class 1 has no sample"):
            trained(data, **settings)


def test_an_empty_training_set_is_refused():
    data = blobs()
    empty = Dataset(
        "b", Split(data.train.x[:0], data.train.y[:0]), data.val, data.test, data.bins, "", ""
    )
    with pytest.raises(ValueError, match="the training set is empty"):
        trained(empty)

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from dirlearn import MoCo, RotationPrediction, SimCLR
from dirlearn.lab import pretraining
from dirlearn.lab.models import Encoder, conv_encoder
from dirlearn.lab.pretraining import TASKS, linear_probe, pretrain
from dirlearn.lab.training import predict, shift

each_kind = pytest.mark.parametrize("kind", TASKS)


def images(n=70):
    return torch.rand(n, 1, 12, 12, generator=torch.Generator().manual_seed(2))


def encoder(seed=0):
    torch.manual_seed(seed)
    return conv_encoder(8)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@each_kind
def test_interrupted_and_resumed_is_uninterrupted_to_the_last_bit(kind, tmp_path, monkeypatch):
    x, path = images(), tmp_path / "state.pt"
    whole = pretrain(kind, encoder(), x, seed=3, epochs=4, batch_size=32)
    real, calls = TASKS[kind].forward, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 6:  # two batches an epoch: in the third one
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(TASKS[kind], "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(kind, encoder(), x, seed=3, epochs=4, batch_size=32, checkpoint=path)
    monkeypatch.setattr(TASKS[kind], "forward", real)
    torch.manual_seed(1234)  # another process has drawn other numbers
    resumed = pretrain(kind, encoder(), x, seed=3, epochs=4, batch_size=32, checkpoint=path)
    assert same(weights(whole.model), weights(resumed.model))
    assert [e["train_loss"] for e in whole.history] == [e["train_loss"] for e in resumed.history]
    assert len(calls) == 6


@each_kind
def test_a_seed_decides_everything_and_the_global_state_nothing(kind):
    x = images()
    torch.manual_seed(7)
    start = encoder()
    first = pretrain(kind, start, x, seed=3, epochs=1, batch_size=32).model
    again = pretrain(kind, encoder(), x, seed=3, epochs=1, batch_size=32).model
    other = pretrain(kind, encoder(), x, seed=4, epochs=1, batch_size=32).model
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))
    assert first.encoder is start


@each_kind
def test_the_task_is_learned(kind):
    """Images of large patches, which can be told apart, under a bright edge, which is up."""
    patches = torch.rand(32, 1, 3, 3, generator=torch.Generator().manual_seed(0)).round()
    x = 0.6 * patches.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    x[:, 0, 0] = 1
    fitted = pretrain(kind, encoder(), x, seed=0, epochs=60, batch_size=32)
    losses = [epoch["train_loss"] for epoch in fitted.history]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[2:7])  # MoCo's queue is random at first


def test_an_epoch_has_whole_batches_and_leaves_out_others_each_time(monkeypatch):
    met = []

    class Spy(SimCLR):
        def forward(self, first, second):
            met.append(first[:, 0, 0, 0])
            return super().forward(first, second)

    monkeypatch.setitem(pretraining.TASKS, "SimCLR", Spy)
    x = images()
    x[:, 0, 0, 0] = torch.arange(70) / 70
    pretrain(
        "SimCLR", encoder(), x, seed=0, epochs=3, batch_size=32,
        views=lambda images, _: torch.stack([images, images], 1),
    )  # fmt: skip
    assert [len(batch) for batch in met] == [32] * 6
    epochs = [set(torch.cat(met[i : i + 2]).tolist()) for i in (0, 2, 4)]
    assert all(len(epoch) == 64 for epoch in epochs)  # none twice
    assert len(set.intersection(*epochs)) < 64


def test_rotation_gets_the_turns_of_its_own_images(monkeypatch):
    seen = []

    class Spy(RotationPrediction):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    turns, real = [], torch.nn.functional.cross_entropy

    def spying(logits, labels):
        turns.append(labels)
        return real(logits, labels)

    monkeypatch.setitem(pretraining.TASKS, "rotation", Spy)
    monkeypatch.setattr(pretraining.F, "cross_entropy", spying)
    x = torch.zeros(64, 1, 12, 12)
    x[:, 0, 0, 4:8] = 1  # an edge on top; a quarter turn brings it to the left
    pretrain("rotation", encoder(), x, seed=0, epochs=2, batch_size=32)
    for batch, labels in zip(seen, turns, strict=True):
        edges = torch.stack(
            [batch[:, 0, 0, 5], batch[:, 0, 5, 0], batch[:, 0, -1, 5], batch[:, 0, 5, -1]], 1
        )
        assert torch.equal(edges.argmax(dim=1), labels)
    assert len(seen) == 4


def test_rotation_may_have_a_view_besides():
    fitted = pretrain("rotation", encoder(), images(), seed=0, epochs=1, views=shift)
    assert fitted.history[0]["train_loss"] > 0


def test_the_queue_is_of_whole_batches_and_no_larger_than_the_images():
    model = pretrain("MoCo", encoder(), images(), seed=0, epochs=1, batch_size=32).model
    assert isinstance(model, MoCo)
    assert len(model.queue) == 64
    settings = {"queue_size": 32, "momentum": 0.5, "dim": 6, "temperature": 0.7}
    model = pretrain("MoCo", encoder(), images(), seed=0, epochs=1, batch_size=32, **settings).model
    assert model.queue.shape == (32, 6)
    assert (model.momentum, model.temperature) == (0.5, 0.7)


def test_batch_normalisation_starts_with_the_images_statistics(monkeypatch):
    class Stopped(MoCo):
        def forward(self, query, key):
            raise InterruptedError

    monkeypatch.setitem(pretraining.TASKS, "MoCo", Stopped)
    start, x = encoder(), images()
    with pytest.raises(InterruptedError):
        pretrain("MoCo", start, x, seed=0, epochs=1)
    before = x
    for layer in list(start)[:7]:
        before = layer(before)
    mean = before.mean(dim=(0, 2, 3))
    torch.testing.assert_close(start[7].running_mean, mean, rtol=0.1, atol=0.01)
    assert start[7].momentum == 0.1


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown kind of pre-training 'jigsaw'"):
        pretrain("jigsaw", encoder(), images(), seed=0, epochs=1)
    with pytest.raises(ValueError, match="at least batch_size images, got 70 and batch_size 128"):
        pretrain("SimCLR", encoder(), images(), seed=0, epochs=1, batch_size=128)
    with pytest.raises(ValueError, match=r"two of each image.*got \(64, 1, 12, 12\)"):
        pretrain("SimCLR", encoder(), images(), seed=0, epochs=1, views=shift)


def test_first_statistics_follow_from_the_seed_and_leave_the_global_state(monkeypatch):
    """Dropout before batch normalisation draws too."""
    monkeypatch.setattr(pretraining, "fit", lambda model, *_, **__: model)
    found = []
    for state in (7, 8):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Dropout(), nn.BatchNorm1d(144), nn.Linear(144, 8)]
        made = Encoder(*layers, num_features=8)
        torch.manual_seed(state)
        before = torch.get_rng_state()
        found.append(weights(pretrain("SimCLR", made, images(), seed=3, epochs=1)))
        assert torch.equal(torch.get_rng_state(), before)
    assert same(*found)


def test_a_seed_may_be_numpys():
    made = [
        pretrain("rotation", encoder(), images(), seed=seed, epochs=1).model
        for seed in (3, np.arange(4)[3])
    ]
    assert same(*map(weights, made))


# ---- the probe


def test_the_probe_is_balanced_scaled_and_reads_flat():
    x, y = load_digits(return_X_y=True)
    kept = np.concatenate([np.flatnonzero(y == c)[: 60 if c < 5 else 6] for c in range(10)])
    rest = np.setdiff1d(np.arange(len(y)), kept)
    found = linear_probe(x[kept], y[kept], x[rest])
    assert (found == y[rest]).mean() > 0.75
    units = linear_probe(1000 * x[kept] + 7, y[kept], 1000 * x[rest] + 7)
    assert (units == found).mean() > 0.99
    square = linear_probe(x[kept].reshape(-1, 8, 8), y[kept], x[rest].reshape(-1, 8, 8))
    assert (square == found).all()
    # Twice the samples of one class weigh no more.
    again = np.concatenate([kept, kept[y[kept] == 0]])
    assert (linear_probe(x[again], y[again], x[rest]) == found).mean() > 0.98


def test_the_probe_takes_tensors():
    x, y = load_digits(return_X_y=True)
    features = predict(torch.nn.Linear(64, 16), torch.as_tensor(x[:200]).float())
    found = linear_probe(features, torch.as_tensor(y[:200]), features)
    assert isinstance(found, np.ndarray)
    assert (found == y[:200]).mean() > 0.9


def test_one_image_left_over_stops_no_batch_normalisation():
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8)]
    encoder = nn.Sequential(*layers)
    encoder.num_features = 8
    result = pretrain("SimCLR", encoder, torch.rand(9, 1, 4, 4), seed=0, epochs=1, batch_size=4)
    assert len(result.history) == 1

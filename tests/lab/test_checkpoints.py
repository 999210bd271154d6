from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import WeightedRandomSampler

from dirlearn.bins import Bins
from dirlearn.lab.checkpoints import Checkpoint
from dirlearn.lab.datasets import Dataset, Split
from dirlearn.lab.training import fit, shift


class StoppedError(Exception):
    pass


def images(n=48):
    generator = torch.Generator().manual_seed(3)
    x, y = torch.rand(n, 1, 6, 6, generator=generator), torch.rand(n, generator=generator)
    parts = [Split(x[s], y[s]) for s in (slice(32), slice(32, 40), slice(40, None))]
    return Dataset("noise", *parts, bins=Bins([0, 1]), unit="", provenance="made here")


def network():
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)]
    return nn.Sequential(*layers, nn.Flatten(0))


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("drawn", [False, True], ids=["shuffled", "sampler"])
@pytest.mark.parametrize("when", [0, 2])
def test_what_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path, keep, drawn, when):
    """Dropout, augmentation, order, momenta and rate: to the last bit."""

    def train(path, stop=None):
        def after_epoch(epoch):
            if epoch == stop:
                raise StoppedError

        sampler = WeightedRandomSampler(
            torch.arange(1.0, 33.0), 32, generator=torch.Generator().manual_seed(5)
        )
        torch.manual_seed(7)  # of dropout
        return fit(
            network(), images(), seed=1, epochs=5, batch_size=8, augment=shift, keep=keep,
            sampler=sampler if drawn else None, checkpoint=path, after_epoch=after_epoch,
        )  # fmt: skip

    whole = train(None)
    with pytest.raises(StoppedError):
        train(tmp_path / "deep" / "state.pt", stop=when)
    resumed = train(tmp_path / "deep" / "state.pt")
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["state.pt"]


def test_a_finished_training_is_read_back_and_not_repeated(tmp_path):
    settings = {"seed": 0, "epochs": 2, "checkpoint": tmp_path / "a.pt"}
    first = fit(network(), images(), **settings)

    def unused(*_):
        raise AssertionError

    again = fit(network(), images(), objective=unused, **settings)
    assert again.history == first.history
    assert torch.equal(again.model[1].weight, first.model[1].weight)
    assert again.seconds >= first.seconds


def test_a_file_of_another_training_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    fit(network(), images(), seed=0, epochs=2, checkpoint=path)
    with pytest.raises(ValueError, match=r"of another training.*'epochs': 2.*'epochs': 3"):
        fit(network(), images(), seed=0, epochs=3, checkpoint=path)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    fit(network(), images(), seed=0, epochs=1, checkpoint=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"damaged.*delete it to start again"):
        fit(network(), images(), seed=0, epochs=1, checkpoint=path)


@pytest.mark.parametrize("content", [b"", b"hello", b"epoch: 3\n"])
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt is damaged"):
        fit(network(), images(), seed=0, epochs=1, checkpoint=path)


@pytest.mark.parametrize("held", [{"weight": torch.ones(1)}, [1, 2]])
def test_what_torch_saved_elsewhere_is_refused(tmp_path, held):
    path = tmp_path / "a.pt"
    torch.save(held, path)
    with pytest.raises(ValueError, match="no checkpoint of a training"):
        fit(network(), images(), seed=0, epochs=1, checkpoint=path)


def test_another_model_or_sampler_is_refused(tmp_path):
    plain = {"seed": 0, "epochs": 1, "checkpoint": tmp_path / "a.pt"}
    fit(network(), images(), **plain)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(36, 9), nn.Linear(9, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match="of another model or optimizer"):
        fit(wider, images(), **plain)
    drawn = WeightedRandomSampler(torch.ones(32), 32, generator=torch.Generator())
    with pytest.raises(ValueError, match="another sampler"):
        fit(network(), images(), sampler=drawn, **plain)


def test_an_interrupted_save_leaves_the_former_file(tmp_path, monkeypatch):
    layer = nn.Linear(2, 1)
    saved = Checkpoint(tmp_path / "a.pt", {}, {"layer": layer}, [])
    saved.save(epoch=0)
    before = copy.deepcopy(layer.state_dict())

    def cut(_, path):
        path.write_bytes(b"half")
        raise StoppedError

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(StoppedError):
        saved.save(epoch=1)
    nn.init.zeros_(layer.weight)
    assert saved.load() == {"epoch": 0}
    assert torch.equal(layer.weight, before["weight"])

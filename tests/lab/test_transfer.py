from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from dirlearn.fds import FDS
from dirlearn.lab import transfer
from dirlearn.lab.bridge import INV_LDS
from dirlearn.lab.datasets import ANGLES
from dirlearn.lab.scarce import LABELLED, POOL, pooled_digits
from dirlearn.lab.training import predict
from dirlearn.lab.transfer import ALPHAS, FINE, TRANSFER, UPRIGHT, _encoder, _probe
from dirlearn.lab.transfer import train_transfer as train
from dirlearn.lds import lds_weights

DATA = pooled_digits(50, 0)


@pytest.fixture
def calls(monkeypatch):
    """Arguments of pre-training and of training, in place of both."""
    met = {"pretrain": [], "fit": []}

    def pretrain(kind, encoder, x, **options):
        met["pretrain"].append({"kind": kind, "x": x, **options})
        with torch.no_grad():
            for p in encoder.parameters():
                p.add_(1)

    def fit(model, data, **options):
        state = deepcopy(model.state_dict())
        met["fit"].append({"model": model, "state": state, "data": data, **options})

    monkeypatch.setattr(transfer, "pretrain", pretrain)
    monkeypatch.setattr(transfer, "fit", fit)
    transfer._pretrained.cache_clear()
    yield met
    transfer._pretrained.cache_clear()


def test_the_pool_is_seen_only_where_it_is_said(calls):
    for seen in ("labelled", "both"):
        train({"pretext": "rotation", "seen": seen, "fine": "plain"}, 0)
    labelled, both = calls["pretrain"]
    assert torch.equal(labelled["x"], DATA.train.x)
    assert torch.equal(both["x"], torch.cat([DATA.train.x, DATA.pool.x]))
    for call in calls["fit"]:
        assert len(call["data"].train) == LABELLED.sum()
    steps = [c["epochs"] * (len(c["x"]) // 64) for c in (labelled, both)]
    assert steps == [600, 624]  # whole epochs


def test_what_was_learned_before_is_where_fine_tuning_starts(calls):
    train({"fine": "plain"}, 0)
    train({"pretext": "SimCLR", "fine": "plain"}, 0)
    scratch, after = (call["state"] for call in calls["fit"])
    for name, value in scratch.items():
        moved = name.startswith("encoder") and name in dict(_named())
        torch.testing.assert_close(after[name], value + 1 if moved else value)


def _named():
    return [(f"encoder.{name}", p) for name, p in _encoder(0).named_parameters()]


def test_one_pre_training_serves_all_that_follow(calls):
    for fine in FINE:
        train({"pretext": "rotation", "fine": fine}, 0)
    assert len(calls["pretrain"]) == 1
    heads = [call["state"]["head.weight"] for call in calls["fit"]]
    assert all(torch.equal(heads[0], head) for head in heads)


def test_views_do_not_turn_or_mirror_unless_asked(calls):
    assert UPRIGHT.turn == 0
    assert not UPRIGHT.flip
    for turn in (0.0, 45.0):
        train({"pretext": "SimCLR", "turn": turn, "fine": "plain"}, 0)
    assert [call["views"].turn for call in calls["pretrain"]] == [0.0, 45.0]


@pytest.mark.parametrize("fine", FINE)
def test_fine_tuning_is_what_its_name_says(calls, fine):
    train({"fine": fine, "times": 3}, 0)
    (call,) = calls["fit"]
    if "INV" in fine:
        expected = lds_weights(DATA.train.y, ANGLES, **INV_LDS)
        assert torch.equal(call["weights"], expected)
    else:
        assert call["weights"] is None
    assert (
        isinstance(call["model"].fds, FDS) == ("FDS" in fine) == (call["after_epoch"] is not None)
    )
    assert call["epochs"] == 258  # of 7 batches: 3 * 600 steps, rounded up
    model, x, y = call["model"].eval(), DATA.train.x[:40], DATA.train.y[:40]
    value = call["objective"](model, x, y, torch.ones(40))
    plain = (model(x, y)[0] - y).abs().mean()
    assert bool(value > plain + 1e-3) == ("RankSim" in fine)


def test_pseudo_labels_are_learned_from_the_pre_trained_encoder_once_more(calls):
    method = {"pretext": "rotation", "seen": "both", "fine": "INV+LDS", "pseudo": True}
    train(method, 0)
    first, second = calls["fit"]
    assert len(second["data"].train) == LABELLED.sum() + POOL
    given = second["data"].train.y[LABELLED.sum() :]
    torch.testing.assert_close(given, predict(first["model"], DATA.pool.x).clamp(0, 100))
    assert all(torch.equal(first["state"][k], v) for k, v in second["state"].items())
    torch.testing.assert_close(
        second["weights"], lds_weights(second["data"].train.y, ANGLES, **INV_LDS)
    )


def test_a_probe_is_a_weighted_ridge_whose_penalty_the_validation_set_chooses():
    got = _probe(DATA, _encoder(0).state_dict(), 0, "pixels")
    flat = {
        part: getattr(DATA, part).x.flatten(1).double().numpy() for part in ("train", "val", "test")
    }
    mean, spread = flat["train"].mean(0), flat["train"].std(0)
    rows = {part: (x - mean) / np.where(spread > 0, spread, 1) for part, x in flat.items()}
    w = np.asarray(lds_weights(DATA.train.y, ANGLES, **INV_LDS), np.float64)
    y, found = np.asarray(DATA.train.y, np.float64), []
    for alpha in ALPHAS:
        model = Ridge(alpha).fit(rows["train"], y, sample_weight=w)
        missed = np.abs(model.predict(rows["val"]).clip(0, 100) - DATA.val.y.numpy()).mean()
        found.append((missed, model))
    best = min(found, key=lambda pair: pair[0])[1]
    np.testing.assert_allclose(got, best.predict(rows["test"]).clip(0, 100), atol=1e-6)


def test_probes_leave_the_encoder_as_it_was(calls):
    train({"pretext": "rotation", "probe": "features"}, 0)
    assert calls["fit"] == []


def test_a_seed_reaches_encoder_and_head(calls):
    for seed in (0, 1):
        train({"fine": "plain"}, seed)
    one, two = (call["state"] for call in calls["fit"])
    for name in ("encoder.0.weight", "head.weight"):
        assert not torch.equal(one[name], two[name])


@pytest.mark.parametrize(
    "method",
    [{"fine": "best"}, {"probe": "sound"}, {"fine": "plain", "seen": "all"}, {"colour": "red"}],
)
def test_unknown_names_are_refused(method):
    with pytest.raises(ValueError, match="unknown"):
        train(method, 0, steps=5)


def test_every_start_is_tuned_with_weights_and_probed():
    for start in transfer.STARTS:
        assert f"{start}: INV+LDS" in TRANSFER.methods
        assert f"probe: {start}" in TRANSFER.methods

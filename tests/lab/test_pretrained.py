import numpy as np
import pytest
import torch

from dirlearn.lab import pretrained
from dirlearn.lab.pretrained import (
    PRETRAINED,
    PROBED,
    RHOS,
    TUNED,
    new_encoder,
    pretrained_encoder,
    small_images,
    train_pretrained,
    train_probe,
)


def test_images_are_halved_and_the_rest_is_as_it_was():
    small = small_images("fashion", 70, 10, seed=3)
    whole = pretrained.DATA["fashion"](70, 10, seed=3)
    assert small.train.x.shape[1:] == (1, 14, 14)
    mean = whole.test.x[5, 0, 2:4, 4:6].mean()
    torch.testing.assert_close(small.test.x[5, 0, 1, 2], mean)
    assert torch.equal(small.train.y, whole.train.y)
    assert len(small.pool) == len(whole.pool)


def test_methods_of_one_seed_start_alike_and_share_their_pretraining(monkeypatch):
    calls = []

    def spy(kind, encoder, x, *, seed, epochs, **settings):
        calls.append((kind, len(x), seed, epochs, settings))
        encoder[0].weight.data.fill_(seed)

    monkeypatch.setattr(pretrained, "pretrain", spy)
    pretrained._pretrained.cache_clear()
    digits = small_images("digits", 70, 10, seed=0)
    n = len(digits.train)
    plain = pretrained_encoder({}, digits, 5, steps=12)
    assert torch.equal(plain[0].weight, new_encoder(5)[0].weight)
    for _ in range(2):  # the second time from the cache
        encoder = pretrained_encoder({"pretrain": "SimCLR"}, digits, 5, steps=12)
        assert (encoder[0].weight == 5).all()
    pretrained_encoder({"pretrain": "rotation", "on": "pool"}, digits, 6, steps=92)
    pretrained._pretrained.cache_clear()
    assert [call[:4] for call in calls] == [
        ("SimCLR", n, 5, round(12 / (n // 64))),
        ("rotation", n + len(digits.pool), 6, 2),
    ]
    assert calls[0][4] == pretrained.TASKS["SimCLR"]


def test_what_was_pretrained_is_not_changed_by_its_use():
    run = [
        train_pretrained({"pretrain": "rotation"}, 0, n_max=40, rho=4, steps=4) for _ in range(2)
    ]
    np.testing.assert_array_equal(run[0].prediction, run[1].prediction)
    assert run[0].extra == run[1].extra


def test_the_validation_and_test_sets_are_not_learned_from(monkeypatch):
    real = pretrained.small_images

    def blinded(*args, **settings):
        data = real(*args, **settings)
        data.val.x.fill_(torch.nan)
        return data

    monkeypatch.setattr(pretrained, "small_images", blinded)
    run = train_pretrained({"pretrain": "SimCLR", "loss": "LDAM"}, 0, n_max=40, rho=4, steps=4)
    assert run.prediction.shape == (1500,)


def test_each_setting_reaches_the_training(monkeypatch):
    seen = []

    def spy(model, data, **settings):
        seen.append((type(model.head).__name__, len(data.train), settings))

    monkeypatch.setattr(pretrained, "fit_classes", spy)
    for name in ("CE", "LDAM-DRW, 3 x as long"):
        train_pretrained(TUNED[name], 1, n_max=40, rho=4, steps=10)
    train_pretrained(RHOS["CE, rho 10"], 1, n_max=40)
    first, second, third = seen
    assert first[0] == "Linear"
    assert first[2] == {"seed": 1, "loss": "CE", "weighting": "none", "steps": 10}
    assert second[0] == "CosineLinear"
    assert third[1] == len(small_images("digits", 40, 10, 1).train)
    assert second[2] == {"seed": 1, "loss": "LDAM", "weighting": "deferred", "steps": 30}


def test_pixels_need_no_encoder_and_labels_make_the_supervised_one(monkeypatch):
    calls = []
    monkeypatch.setattr(pretrained, "new_encoder", calls.append)
    run = train_probe(PROBED["raw pixels"], 0)
    assert not calls
    assert (run.prediction != run.target).mean() < 0.4
    monkeypatch.undo()
    trained = train_probe(PROBED["supervised"], 0, n_max=40, rho=4, steps=30)
    drawn = train_probe(PROBED["untrained"], 0, n_max=40, rho=4, steps=30)
    assert (trained.prediction != drawn.prediction).mean() > 0.1


@pytest.mark.parametrize("run", [train_probe, train_pretrained])
def test_settings_that_mean_nothing_are_refused(run):
    with pytest.raises(ValueError, match="unknown key of a method 'pretext'"):
        run({"pretext": "rotation"}, 0)
    with pytest.raises(ValueError, match="unknown task 'jigsaw'"):
        run({"pretrain": "jigsaw"}, 0, n_max=40, rho=4)
    with pytest.raises(ValueError, match="unknown data set 'cats'"):
        run({}, 0, data="cats")


def test_the_studies_are_of_classes_and_paired_with_their_longer_selves():
    assert [study.name for study in PRETRAINED] == [
        "ssp_probe_digits", "ssp_probe_fashion", "ssp_digits", "ssp_fashion", "ssp_rho",
    ]  # fmt: skip
    assert all(study.metrics == ("error",) and len(study.seeds) >= 5 for study in PRETRAINED)
    for name, method in TUNED.items():
        if "pretrain" in method:
            assert f"{name.rsplit(', ', 1)[1]}, 3 x as long" in TUNED

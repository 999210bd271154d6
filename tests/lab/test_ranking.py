from __future__ import annotations

import numpy as np
import pytest
import torch

from dirlearn import ranksim_loss
from dirlearn.lab.datasets import Split
from dirlearn.lab.features import scarce_digits, train_features
from dirlearn.lab.models import Regressor, conv_encoder
from dirlearn.lab.ranking import BATCH, GAMMAS, disorder, fit_ranked, released, train_ranked


class Angles(torch.nn.Module):
    """An encoder whose inputs are its features."""

    num_features = 2

    def forward(self, x):
        return x


def model():
    return Regressor(Angles(), offset=0.0, scale=1.0)


def on_an_arc(y):
    return torch.stack([y.deg2rad().cos(), y.deg2rad().sin()], dim=1)


def test_weights_are_counted_per_row_and_pulls_as_the_released_code_has_them():
    assert GAMMAS["vanilla"] == {}
    assert GAMMAS["gamma 10, lambda 8"] == {"weight": 640.0, "interpolation": 8.0}
    assert (
        GAMMAS["gamma 1, as released"]
        == released(1.0)
        == {
            "weight": 64.0,
            "interpolation": 0.03125,
        }
    )
    assert released(BATCH, 3.0) == {"weight": BATCH**2, "interpolation": 3.0}


def test_disorder_is_the_mean_over_sets_of_one_digit_per_degree():
    y = torch.arange(100.0).repeat_interleave(3)
    features = torch.randn(300, 2)
    expected = [ranksim_loss(features[k::3], y[k::3]).item() for k in range(3)]
    assert disorder(model(), Split(features, y)) == pytest.approx(np.mean(expected))


def test_order_has_no_disorder():
    y = torch.arange(100.0).repeat_interleave(2)
    assert disorder(model(), Split(on_an_arc(y), y)) == 0
    turned = on_an_arc(torch.cat([y[100:], y[:100]]))
    assert disorder(model(), Split(turned, y)) > 0.05


def test_methods_start_alike_and_differ_by_the_regulariser_alone():
    data = scarce_digits(0.1, seed=1)
    plain, ranked = (fit_ranked(GAMMAS[m], data, 1, 1) for m in ("vanilla", "gamma 100, lambda 2"))
    again, _ = fit_ranked(GAMMAS["gamma 100, lambda 2"], data, 1, 1)
    weights = [network[0].head.weight for network in (plain, ranked)]
    assert not torch.equal(*weights)
    torch.testing.assert_close(again.head.weight, weights[1])
    nothing, _ = fit_ranked({"weight": 0.0}, data, 1, 1)
    torch.testing.assert_close(nothing.head.weight, weights[0])


def test_a_run_is_the_one_of_the_studies_of_features():
    method = GAMMAS["gamma 10, lambda 2"]
    ours = train_ranked(method, 2, epochs=1)
    theirs = train_features({"ranksim": method}, 2, steps=1)
    np.testing.assert_allclose(ours.prediction, theirs.prediction, atol=0.5)
    assert ours.extra["train_mae"] == pytest.approx(theirs.extra["train_mae"], abs=0.2)


def test_the_features_measured_are_those_of_the_network_kept():
    data = scarce_digits(0.1, seed=0)
    network = Regressor(conv_encoder(), 50.0, 25.0)
    first = disorder(network, data.test)
    assert first == disorder(network, data.test)  # no dropout, no batch statistics
    assert 0.01 < first < 1 / 6

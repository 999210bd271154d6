from __future__ import annotations

import pytest
import torch

from dirlearn import FDS, Bins
from dirlearn.lab.models import Classifier, Regressor, conv_encoder, table_encoder


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 28, 56), (1, 17, 19)])
def test_prediction_is_the_scaled_head_of_the_features(shape):
    model = Regressor(conv_encoder(16), offset=50.0, scale=25.0).eval()
    x = torch.rand(5, *shape)
    features = model.encoder(x)
    assert features.shape == (5, 16)
    expected = 50 + 25 * (features @ model.head.weight.T + model.head.bias)[:, 0]
    torch.testing.assert_close(model(x), expected)


def test_classifier_gives_a_logit_per_class():
    model = Classifier(table_encoder(3, 8), classes=4).eval()
    x = torch.rand(5, 3)
    torch.testing.assert_close(model(x), model.head(model.encoder(x)))
    assert model(x).shape == (5, 4)


def test_a_single_sample_keeps_its_dimension():
    assert Regressor(table_encoder(3), 0.0, 1.0)(torch.rand(1, 3)).shape == (1,)


def test_dropout_acts_between_the_hidden_layers_in_training_alone():
    encoder, x = table_encoder(3, 8, dropout=0.5), torch.rand(64, 3)
    assert not torch.equal(encoder(x), encoder(x))
    assert torch.equal(encoder.eval()(x), encoder(x))
    without = table_encoder(3, 8)
    without.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(without(x), encoder(x))  # in training mode, with nothing dropped


def test_gradient_reaches_every_parameter():
    model = Regressor(conv_encoder(), 0.0, 1.0)
    model(torch.rand(8, 1, 28, 28)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


class Doubling(torch.nn.Module):
    """Stands for FDS: in training mode it changes features, and wants the targets."""

    def forward(self, z, y):
        return 2 * z + y[:, None] if self.training else z


def test_fds_stands_between_encoder_and_head_in_training():
    model = Regressor(table_encoder(3, 8), offset=50.0, scale=25.0, fds=Doubling())
    x, y = torch.rand(5, 3), torch.rand(5)
    prediction, features = model(x, y)
    torch.testing.assert_close(features, model.encoder(x))
    torch.testing.assert_close(prediction, 50 + 25 * model.head(2 * features + y[:, None])[:, 0])
    torch.testing.assert_close(model.eval()(x), 50 + 25 * model.head(features)[:, 0])


def test_the_last_layer_of_the_encoder_can_be_chosen():
    assert isinstance(conv_encoder(4, torch.nn.Identity())[-1], torch.nn.Identity)
    assert isinstance(conv_encoder(4)[-1], torch.nn.ReLU)


def test_training_with_fds_wants_the_targets():
    model = Regressor(table_encoder(3, 8), 0.0, 1.0, FDS(8, Bins.uniform(0, 1, 0.5)))
    with pytest.raises(ValueError, match="FDS needs the targets"):
        model(torch.rand(5, 3))
    assert model.eval()(torch.rand(5, 3)).shape == (5,)

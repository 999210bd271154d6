from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dirlearn.lab.models import Classifier
from dirlearn.lab.resnet import cifar_resnet


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameters_are_those_of_the_papers_table_6(depth, millions):
    whole = Classifier(cifar_resnet(depth), classes=10)
    assert parameters(whole) / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.005)


@pytest.mark.parametrize("depth", [8, 20, 32])
def test_depth_counts_weighted_layers(depth):
    whole = Classifier(cifar_resnet(depth), classes=10)
    layers = [m for m in whole.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_stages_have_the_papers_sizes():
    sizes = []
    encoder = cifar_resnet(14)
    for layer in encoder:
        layer.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    out = encoder(torch.rand(2, 3, 32, 32))
    assert out.shape == (2, 64)
    assert encoder.num_features == 64
    assert sizes[2:9] == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_shortcut_has_no_weights_and_pads_with_zeros():
    """With the body silenced a block is its shortcut: subsampled, old channels in the middle."""
    block = cifar_resnet(8)[4]  # first of the second stage
    nn.init.zeros_(block.body[-1].weight)
    x = torch.rand(2, 16, 6, 6)
    out = block(x)
    assert out.shape == (2, 32, 3, 3)
    torch.testing.assert_close(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()
    assert parameters(block) == 16 * 32 * 9 + 32 * 32 * 9 + 4 * 32


def test_weights_are_drawn_as_by_he():
    torch.manual_seed(0)
    for convolution in (m for m in cifar_resnet(32).modules() if isinstance(m, nn.Conv2d)):
        expected = np.sqrt(2 / (convolution.in_channels * 9))
        assert float(convolution.weight.detach().std()) == pytest.approx(expected, rel=0.15)
        assert convolution.bias is None


def test_every_weight_learns(device):
    model = Classifier(cifar_resnet(8), classes=10).to(device)
    loss = nn.functional.cross_entropy(
        model(torch.rand(4, 3, 32, 32, device=device)), torch.arange(4, device=device)
    )
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_grey_images_have_one_channel():
    assert cifar_resnet(8, channels=1)(torch.rand(3, 1, 28, 28)).shape == (3, 64)


@pytest.mark.parametrize("depth", [2, 18, 31, 51])
def test_depth_is_refused_unless_the_stages_are_equal(depth):
    with pytest.raises(ValueError, match=r"6n \+ 2"):
        cifar_resnet(depth)
